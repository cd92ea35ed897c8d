"""Questions: windows that leave nothing out, labels that are the answers, the best span, and SQuAD's own scores."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from data.dataset import Answers, Offsets, Text
from data.inputs.windows import Windows, covering
from data.source import Tensors
from data.tokenizers.wordpiece import SPECIAL, WordPieceTokenizer
from data.tokenizers.words import WordTokenizer
from errors import UserError
from tasks import question_answering
from tasks.scores.question_answering import f1, normalised, scores
from tests.opened import one_source, task_of

WORDS = [f'w{i}' for i in range(90)]
TOKENIZER = WordPieceTokenizer([*SPECIAL, 'é', 'who', *WORDS])
PAD, _, START, END, _ = range(5)
LENGTH, STRIDE, MOST = 20, 7, 6


def words(first, last):
    return ' '.join(WORDS[first:last])


def task_on(questions, contexts, answers, tokenizer=TOKENIZER, **data):
    starts = [[context.encode().index(answer.encode())] for context, answer in zip(contexts, answers)]
    source = Tensors(**{name: np.array([text.encode() for text in texts], object) for name, texts in (
        ('question', questions), ('context', contexts))}, answers=np.array([[a.encode()] for a in answers], object),
        starts=np.array(starts))
    dataset = one_source(source, question=Text('', tokenizer, 9), context=Text('', tokenizer, 9), answers=Answers(1),
                         starts=Offsets(1))
    return task_of('question_answering', dataset, **{'max_length': LENGTH, 'stride': STRIDE, 'question_length': MOST,
                                                     **data}), source


@pytest.mark.parametrize('size', [0, 1, 12, 13, 14, 19, 20, 21, 60, 90])
@pytest.mark.parametrize('question', ['', 'who', 'who who who who', 'who ' * 9])
def test_windows_leave_no_token_out(question, size):
    found = {name: t.numpy() for name, t in Windows(TOKENIZER, LENGTH, STRIDE, MOST)(
        tf.constant(['who', question]), tf.constant(['w1', words(0, size)])).items()}
    asked = min(len(question.split()), MOST)
    mine = found['example'] == 1
    ids, segments, begins, ends = (found[name][mine] for name in ('ids', 'segments', 'begins', 'ends'))
    text, seen = words(0, size).encode(), set()
    for row in range(len(ids)):
        assert ids[row, 0] == START and (ids[row, 1:asked + 1] == TOKENIZER.vocabulary.index('who')).all()
        assert ids[row, asked + 1] == END and not segments[row, :asked + 2].any()
        place = np.flatnonzero(begins[row] >= 0)
        assert (ids[row, place] == [TOKENIZER.vocabulary.index(text[a:b].decode()) for a, b in zip(
            begins[row, place], ends[row, place])]).all()
        last = asked + 1 + len(place) + 1
        assert place.tolist() == list(range(asked + 2, last)) and ids[row, last] == END
        assert segments[row].tolist() == [asked + 2 <= t <= last for t in range(LENGTH)]
        assert not ids[row, last + 1:].any()
        assert row == 0 or begins[row, place[0]] == text.index(WORDS[row * STRIDE].encode() + b' ' * (
            row * STRIDE < size - 1))
        seen |= set(begins[row, place])
    assert len(seen) == size and len(ids) == 1 + max(0, -(-(size - (LENGTH - 3 - asked)) // STRIDE))


def test_the_answer_is_what_its_tokens_stand_for():
    context = 'é ' * 3 + words(0, 60)
    answers = [words(k, k + n) for k in range(0, 56, 3) for n in (1, 2, 4)]
    task, source = task_on(['who'] * len(answers), [context] * len(answers), answers)
    rows = task.rows(source)
    found = {name: t.numpy() for name, t in rows.gather(tf.range(rows.num_examples, dtype=tf.int64)).items()}
    has = np.zeros(len(answers), int)
    for row in range(rows.num_examples):
        if found['last'][row]:
            begin, end = rows.bytes_of(row, found['first'][row], found['last'][row])
            assert context.encode()[begin:end].decode() == answers[rows._example[row]]
            has[rows._example[row]] += 1
        else:
            assert found['first'][row] == 0
    assert has.min() >= 1 and has.max() > 1


def test_an_answer_that_is_cut_off_by_a_window_is_not_in_it():
    windows = Windows(TOKENIZER, LENGTH, STRIDE, MOST)(tf.constant(['']), tf.constant([words(0, 30)]))
    text = words(0, 30).encode()
    start, answer = text.index(b'w16'), b'w16 w17'              # the first window ends with w16
    first, last = (t.numpy().tolist() for t in covering(windows, tf.constant([start], tf.int64),
                                                        tf.constant([start + len(answer)], tf.int64)))
    assert (first[0], last[0]) == (0, 0) and last[1] == first[1] + 1 > 1


def test_the_best_span_is_that_of_all_pairs():
    task, _ = task_on(['who'] * 4, ['w1 w2'] * 4, ['w2'] * 4)
    random = np.random.default_rng(0)
    ids = random.integers(5, 90, (30, LENGTH))
    segments = (np.arange(LENGTH) > random.integers(2, 9, (30, 1))).astype(np.int32)
    last = random.integers(12, LENGTH, (30, 1))
    ids = np.where(np.arange(LENGTH) == last, END, np.where(np.arange(LENGTH) > last, PAD, ids)).astype(np.int32)
    x = task._inputs(tf.constant(ids), tf.constant(segments * (np.arange(LENGTH) <= last)))
    outputs = random.standard_normal((30, LENGTH, 2)).astype(np.float32)
    for longest in (30, 3):
        question_answering.LONGEST, before = longest, question_answering.LONGEST
        try:
            found = {name: t.numpy() for name, t in task.find(tf.constant(outputs), x).items()}
        finally:
            question_answering.LONGEST = before
        for row in range(30):
            places = [t for t in range(LENGTH) if segments[row, t] and t < last[row, 0]]
            pairs = [(i, j) for i in places for j in places if i <= j < i + longest]
            best = max(pairs, key=lambda pair: outputs[row, pair[0], 0] + outputs[row, pair[1], 1])
            assert (found['first'][row], found['last'][row]) == best
            start, end = (np.exp(outputs[row, places, k]) for k in range(2))
            p = np.exp(outputs[row, best[0], 0]) / start.sum() * np.exp(outputs[row, best[1], 1]) / end.sum()
            np.testing.assert_allclose(found['score'][row], p, rtol=1e-5)


def test_served_answers_are_those_that_are_evaluated_over_all_windows():
    contexts = [words(0, 70), 'é é w1', words(30, 90), words(5, 7), words(0, 40)]
    questions = ['who w1', 'w2', 'who who who who who who who who', '', 'w9']
    task, source = task_on(questions, contexts, ['w1', 'w1', 'w40', 'w5', 'w2'])
    keras.utils.set_random_seed(1)
    model = models.build('bert', task.sizes, size='tiny')
    model.get_layer('logits').kernel.assign(40. * model.get_layer('logits').kernel)      # or all logits are alike
    rows = task.rows(source)
    assert rows.num_examples > len(contexts)
    batch = rows.gather(tf.range(rows.num_examples, dtype=tf.int64))
    x, *_ = task.batch(batch, None)
    answers = {name: t.numpy() for name, t in task.answers(model, x).items()}
    best = rows.best(answers['total'])
    expected = [context.encode()[begin:end] for context, begin, end in zip(contexts, *rows.bytes_of(
        best, answers['first'][best], answers['last'][best]))]
    served = task.serving(model)['serving_default'][0](tf.constant(questions), tf.constant(contexts))
    assert served['text'].numpy().tolist() == expected and len(set(expected)) > 2
    for context, start, end, text in zip(contexts, served['start'].numpy(), served['end'].numpy(), expected):
        assert context.encode()[start:end] == text
    right = [['w1'], ['w1'], ['w40'], ['w5'], ['w2']]
    assert task.compare(answers, source) == {**scores([text.decode() for text in expected], right), 'count': 5}


def test_odd_questions_and_texts_are_answered():
    task, _ = task_on(['who'] * 4, ['w1 w2'] * 4, ['w2'] * 4)
    model = models.build('bert', task.sizes, size='tiny')
    questions = ['', 'who ' * 40, '\udcff?', '👩‍👩‍👧', 'w1']      # the third is a byte that is not UTF-8
    for context, empty in (('', True), ('w1', False), (b'\xff w1 \xc3', False), ('ü ' * 50_000, False), ('\x00', True)):
        found = task.predict(model, questions, context)
        assert all((text == '') == empty for text in found['text'])
        assert all(np.isfinite(score) and (score == 0.) == empty for score in found['score'])
        line = task.describe('q', {name: values[0] for name, values in found.items()})
        assert ('no answer' in line) == empty and '\n' not in line


def test_the_scores_are_squads():
    assert normalised('The  Cat, a dog; (an) U.S. theory') == 'cat dog us theory'
    assert scores(['the cat'], [['Cat!', 'dog']]) == {'exact_match': 100., 'f1': 100.}
    assert f1('a b b c', 'b b d') == pytest.approx(2 * 2 / (3 + 3)) and f1('x', 'y') == 0. == f1('the', 'x')
    assert scores(['', 'x y'], [['z'], ['x']]) == {'exact_match': 0., 'f1': pytest.approx(100 / 3)}


@pytest.mark.parametrize('make, message', [
    (lambda: Windows(TOKENIZER, 20, 12, 6), r'`stride` must be at most 11, .* Received: stride=12'),
    (lambda: task_on(['a'] * 4, ['a'] * 4, ['a'] * 4, WordTokenizer('ab')), '`tokenizer` of task question_answering'),
])
def test_what_cannot_work_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert '\n' not in str(error.value)
