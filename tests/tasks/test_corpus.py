"""Scores of translations, and the picture of what a model looked at."""

import numpy as np
import pytest
import tensorflow as tf

from data.number_words import open_number_words
from data.text import END, PADDING
from errors import UserError
from models.transformer import Transformer
from tasks.attention_picture import cross_attention, draw
from tasks.corpus import corpus_scores

REFERENCES = ['Die Datei konnte nicht geöffnet werden .', 'Speichern unter', 'Es ist ein Fehler aufgetreten: {1}']


def test_the_same_texts_score_all_and_others_nothing():
    same = corpus_scores(REFERENCES, REFERENCES, 'de')
    assert (same['bleu'], same['chrf'], same['exact_match']) == pytest.approx((100, 100, 1))
    other = corpus_scores(['zzz', 'qq', ''], REFERENCES, 'de')
    assert (other['bleu'], other['exact_match']) == (0, 0) and other['chrf'] < 1


def test_a_corpus_is_no_mean_over_sentences_and_order_matters():
    half = corpus_scores([REFERENCES[0], '', ''], REFERENCES)
    assert half['exact_match'] == pytest.approx(1 / 3) and 0 < half['bleu'] < 100
    assert corpus_scores(REFERENCES[::-1], REFERENCES)['bleu'] < half['bleu']
    with pytest.raises(ValueError):
        corpus_scores(REFERENCES[:2], REFERENCES)


@pytest.mark.parametrize('language, tokenizer', [('de', '13a'), ('', '13a'), ('zh_CN', 'zh'), ('ja', 'char')])
def test_the_signature_says_how_words_are_told_apart(language, tokenizer):
    scores = corpus_scores(['二千零一十', '三百'], ['二千零二十', '三百'], language)
    assert f'tok:{tokenizer}|' in scores['bleu_signature'] and 'nc:6' in scores['chrf_signature']
    assert (scores['bleu'] > 20) == (tokenizer != '13a')      # to 13a each is one word


@pytest.fixture(scope='module')
def looked_at():
    *_, features = open_number_words()
    model = Transformer(*features.sizes.values(), num_layers=2, d_model=16, d_ff=32, heads=4)
    model.build({'source': (None, None), 'target': (None, None)})
    source = features.inputs(tf.constant(['two thousand and six']))[0]
    ids = tf.constant([5, 7, 4, END, PADDING, PADDING])
    return model, features, source, ids


def test_attention_is_of_real_tokens_and_a_distribution(looked_at):
    layers, targets, sources = cross_attention(*looked_at)
    assert sources == ['two', 'thousand', 'and', 'six', '</s>'] and len(targets) == 4 and targets[-1] == '</s>'
    assert layers.shape == (2, 4, 5)
    np.testing.assert_allclose(layers.sum(axis=-1), 1, atol=1e-5)


def test_a_translation_that_was_cut_has_no_end(looked_at):
    model, features, source, ids = looked_at
    layers, targets, _ = cross_attention(model, features, source, tf.fill(ids.shape, 5))
    assert layers.shape[1] == len(targets) == 6


@pytest.mark.parametrize('format, beginning', [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')])
def test_a_picture_has_the_format_that_its_name_asks_for(looked_at, format, beginning):
    assert draw(*cross_attention(*looked_at), format).startswith(beginning)


def test_an_unknown_format_is_one_line(looked_at):
    with pytest.raises(UserError, match='`attention` must be a file that ends in one of .*png.*Received: no ending'):
        draw(*cross_attention(*looked_at), '')
