"""What a Transformer looks at while it translates: arXiv:1706.03762, the figures of its appendix."""

import numpy as np
import tensorflow as tf

from interpretability.taps import attention_weights


def cross_attention(model, task, text):
    """How much each token of a sentence's translation looks at each token of the sentence.

    Args:
        model: a Transformer. task: a tasks.translation.Translation. text: str.

    Returns:
        float32 [layers, t, s], the mean over heads, rows sum to 1; the t and the s tokens as strings, the end included.
    """
    source = task.source(tf.constant([text.encode('utf-8', 'surrogateescape')]))            # [1, S]
    ids, _ = task.translate(model, source)                                                  # [1, T]
    s, t = (_real(tokens[0], side.special) for tokens, side in ((source, task.source), (ids, task.target)))
    target = tf.concat([[task.target.special.start], ids[0, :-1]], axis=0)[None]
    with attention_weights(model) as weights:
        model({'source': source, 'source_mask': source != task.source.special.pad, 'target': target})
    layers = [np.mean(value[0, :, :t, :s], axis=0, dtype='float32') for name, value in weights.items()
              if name.endswith('/cross_attention')]                                         # each [t, s]
    return (np.stack(layers), task.target.tokenizer.pieces(ids[0, :t]), task.source.tokenizer.pieces(source[0, :s]))


def _real(tokens, special):
    """The number of tokens up to the first end, or of all that are not padding."""
    tokens = np.asarray(tokens)
    ends = np.flatnonzero(tokens == special.end)
    return int(ends[0]) + 1 if len(ends) else max(1, np.count_nonzero(tokens != special.pad))
