"""Scores of translations."""

import pytest

from tasks.scores.translation import corpus_scores

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
