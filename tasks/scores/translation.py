"""How near translations of a whole corpus are to their references, by sacrebleu (arXiv:1804.08771).

Both scores are of the corpus, not means over sentences. Without its signature a score says little: a tokenizer alone
moves BLEU by points.
"""

import sacrebleu

# Languages that write no spaces between words; every other one is split as by WMT's mteval-v13a.
TOKENIZERS = {'zh': 'zh', 'ja': 'char', 'ko': 'char', 'th': 'char', 'lo': 'char', 'km': 'char', 'my': 'char'}


def corpus_scores(hypotheses, references, language=''):
    """Strings [N], twice, and the code of their language -> {metric: value}.

    Returns:
        bleu: of n-grams up to 4, 0 to 100 (Papineni et al., 2002). chrf: F2 of characters' n-grams up to 6, 0 to 100
        (Popović, 2015). exact_match: share of equal strings, 0 to 1. bleu_signature, chrf_signature: sacrebleu's.
    """
    bleu = sacrebleu.BLEU(tokenize=TOKENIZERS.get(language.replace('-', '_').split('_')[0], '13a'),
                          force=True)      # it warns of references that look tokenised; messages do
    chrf = sacrebleu.CHRF()
    return {'bleu': bleu.corpus_score(hypotheses, [references]).score,
            'chrf': chrf.corpus_score(hypotheses, [references]).score,
            'exact_match': sum(h == r for h, r in zip(hypotheses, references, strict=True)) / len(references),
            'bleu_signature': str(bleu.get_signature()), 'chrf_signature': str(chrf.get_signature())}
