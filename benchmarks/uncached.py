"""A Transformer that decodes without its key/value cache, for benchmarks/decoding.py."""

import tensorflow as tf

from models.attention import causal_mask, padding_mask


class Uncached:
    """What tasks/decoding.py asks of a model; its "cache" is the tokens that are written so far.

    Args:
        growing: whether each step reads only those. Else it reads a target of full length, as static shapes ask for.
    """

    def __init__(self, model, growing):
        self.vocabulary_size = model.vocabulary_size
        self._model, self._growing = model, growing

    def start_cache(self, x, length, beams=1):
        memory, mask = (tf.repeat(tensor, beams, axis=0) for tensor in (self._model.encode(x), x['source_mask']))
        return {'memory': memory, 'mask': mask, 'target': tf.zeros([tf.shape(mask)[0], length], tf.int32)}

    def decode_step(self, token, t, cache):
        """token [B] or [B, K] -> logits [B, V] or [B, K, V], and the cache with the token in it."""
        target = cache['target']                                                        # [B * K, T]
        target = tf.where(tf.range(target.shape[1]) == t, tf.reshape(token, [-1, 1]), target)
        logits = self._logits(target[:, :t + 1] if self._growing else target, t, cache)
        return tf.reshape(logits, [-1, *token.shape[1:], self.vocabulary_size]), {**cache, 'target': target}

    def _logits(self, target, t, cache):
        """`model.decode`, but the logits [B * K, 1, V] of position t only."""
        model = self._model
        masks = {'self_mask': causal_mask(tf.shape(target)[1]), 'cross_mask': padding_mask(cache['mask'])}
        x = model._embed(model.target_embedding, target)                                # [B * K, T, D]
        for layer in model.decoder:
            x = layer(x, cache['memory'], **masks)
        return model._logits(tf.gather(x, [t], axis=1))

    def reorder_cache(self, cache, parent):
        batch, beams = parent.shape[0], parent.shape[1]
        rows = tf.reshape(parent + beams * tf.range(batch)[:, None], [-1])
        return {**cache, 'target': tf.gather(cache['target'], rows)}
