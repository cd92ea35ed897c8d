"""Masked language modelling: which tokens are hidden, what is seen in their place, and what is guessed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from data.dataset import Text
from data.source import Tensors
from data.tokenizers.wordpiece import SPECIAL, WordPieceTokenizer
from data.tokenizers.words import WordTokenizer
from draws import Draws
from errors import UserError
from tests.opened import one_source, task_of

WORDS = [f'w{i}' for i in range(40)]
TOKENIZER = WordPieceTokenizer([*SPECIAL, *WORDS])
LENGTH = 22                     # 20 words at most, of which 3 are guessed
PAD, _, START, END, MASK = range(5)


def task_on(texts, tokenizer=TOKENIZER):
    return task_of('masked_lm', one_source(Tensors(text=np.array(texts, object)), text=Text('', tokenizer, LENGTH)))


def ids_of(counts, seed=0):
    """int32 [B, LENGTH]: texts of so many random words."""
    words = np.random.RandomState(seed).randint(5, 45, (len(counts), LENGTH))
    place, count = np.arange(LENGTH), np.array(counts)[:, None]
    return np.where(place == 0, START, np.where(place <= count, words, np.where(place == count + 1, END, PAD)))


TASK = task_on(['w1 w2'] * 4)


def batch(ids, step=0, first=0):
    (x, y, weights) = TASK.batch({'ids': tf.constant(ids, tf.int32)}, Draws(0, step, first), training=True)
    return x['ids'].numpy(), x['positions'].numpy(), y.numpy(), weights.numpy()


def test_a_seventh_of_the_words_is_guessed_and_at_least_one():
    counts = [20, 13, 7, 6, 1, 0]
    ids = ids_of(counts)
    seen, positions, y, weights = batch(ids)
    assert weights.sum(axis=1).tolist() == [3, 2, 1, 1, 1, 0]
    for row in range(len(counts)):
        guessed = positions[row][weights[row] > 0]
        assert len(set(guessed)) == len(guessed) and all(1 <= place <= counts[row] for place in guessed)
        np.testing.assert_array_equal(y[row], ids[row][positions[row]])
        others = np.delete(np.arange(LENGTH), guessed)
        np.testing.assert_array_equal(seen[row][others], ids[row][others])


def test_four_fifths_are_hidden_a_tenth_is_another_word_and_a_tenth_is_seen():
    ids = ids_of([20] * 500)
    hidden = other = kept = 0
    for step in range(4):
        seen, positions, y, weights = batch(ids, step)
        there = np.take_along_axis(seen, positions, axis=1)
        hidden += (there == MASK).mean() / 4
        kept += (there == y).mean() / 4
        other += ((there != MASK) & (there != y)).mean() / 4
    # A random one of 45 is the word itself, or [MASK], now and then. 6,000 draws: a deviation of 0.005.
    assert abs(hidden - 0.8) < 0.02 and abs(kept - 0.1) < 0.02 and abs(other - 0.1) < 0.02


def test_all_words_are_guessed_in_turn_and_a_step_is_the_same_again():
    ids = ids_of([20] * 200)
    first, again, other = batch(ids), batch(ids), batch(ids, step=1)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert (np.sort(first[1]) != np.sort(other[1])).any(axis=1).mean() > 0.9
    often = np.bincount(first[1].ravel(), minlength=LENGTH)[1:21]
    assert often.min() > 10 and often.max() < 60                # 30 on average
    rows = batch(ids[50:], first=50)
    for a, b in zip(first, rows):
        np.testing.assert_array_equal(a[50:], b)


def test_guesses_stand_where_masks_do():
    keras.utils.set_random_seed(0)
    model = models.build('bert', TASK.sizes, size='tiny')
    texts = ['w1 [MASK] w2 [MASK]', '[MASK]', 'w3', '', '[mask] w1', '[MASK]' * 9]
    answers = TASK.predict(model, texts)
    assert [len(words) for words in answers['words']] == [2, 1, 0, 0, 0, 3]      # at most as many as are learned
    assert all(len(best) == 5 and set(best) <= set(TOKENIZER.vocabulary) for row in answers['words'] for best in row)
    assert answers['cut'] == [False] * 6
    ids = TOKENIZER.encode_masked(tf.constant(texts[:2]), LENGTH, '[MASK]').numpy()
    assert ids[0, :6].tolist() == [START, 6, MASK, 7, MASK, END] and ids[1, :3].tolist() == [START, MASK, END]
    # In training the same function is learned: the logits of what stands at these positions.
    x = {'ids': ids[:1], 'mask': ids[:1] != PAD, 'positions': np.array([[2, 4, 0]], 'int32')}
    expected = tf.nn.softmax(model(x)[0, :2]).numpy().max(axis=-1)
    np.testing.assert_allclose([row[0] for row in answers['probabilities'][0]], expected, rtol=1e-4)
    assert TASK.describe('w3', {name: values[2] for name, values in answers.items()}).startswith('w3: no [MASK]')


def test_a_text_that_is_too_long_is_cut():
    model = models.build('bert', TASK.sizes, size='tiny')
    assert TASK.predict(model, [' '.join(WORDS[:20]), ' '.join(WORDS[:21])])['cut'] == [False, True]


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(UserError, match='`tokenizer` of task masked_lm must be wordpiece'):
        task_on(['a'] * 4, WordTokenizer('ab'))
