"""Special ids: those of the tokenizer, never constants of the project."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Special:
    """Ids with a meaning of their own. pad fills a row up; start and end stand around a text; unknown is any other.

    mask: in place of a token that is to be guessed; None where there is none.
    """

    pad: int
    start: int
    end: int
    unknown: int
    mask: int | None = None

    @property
    def all(self):
        return [number for number in dataclasses.astuple(self) if number is not None]

    def are_words(self, ids):
        """int [...] -> bool [...]: whether an id is one of a text's own, and neither an end of it nor padding."""
        return (ids != self.pad) & (ids != self.start) & (ids != self.end)

    def around_and_pad(self, ids, length, batch_size):
        """`end_and_pad` of texts that also begin with `start`."""
        ids = tf.concat([tf.fill([ids.nrows(), 1], tf.cast(self.start, tf.int64)), ids], axis=1)
        return self.end_and_pad(ids, length, batch_size)

    def end_and_pad(self, ids, length, batch_size):
        """Ragged int64 [B, (tokens)] -> int32 [B, length]: the tokens, truncated if need be, and `end`, then `pad`.

        batch_size: static B, or None.
        """
        ids = ids[:, :length - 1]
        ids = tf.concat([ids, tf.fill([ids.nrows(), 1], tf.cast(self.end, tf.int64))], axis=1)
        ids = tf.ensure_shape(ids.to_tensor(self.pad, shape=[None, length]), [batch_size, length])
        return tf.cast(ids, tf.int32)

    def before_end(self, ids):
        """int [B, T] -> ragged int [B, (tokens)]: the tokens before the first `end`, without `pad` and `start`."""
        ended = tf.cumsum(tf.cast(ids == self.end, tf.int32), axis=1) > 0
        return tf.ragged.boolean_mask(ids, ~ended & (ids != self.pad) & (ids != self.start))

    def shifted(self, ids):
        """What a decoder reads while it is taught to write ids [B, T]: `start`, then the tokens without `end`."""
        tokens = tf.where(ids == self.end, self.pad, ids)[:, :-1]
        return tf.pad(tokens, [[0, 0], [1, 0]], constant_values=self.start)


PLAIN = Special(pad=0, start=1, end=2, unknown=3)      # of the tokenizers that are made here


def valid_utf8(strings):
    """Replaces bytes that are not UTF-8 by U+FFFD: a served request must not be able to raise."""
    return tf.strings.unicode_transcode(strings, 'UTF-8', 'UTF-8', errors='replace')
