"""Vectors of numbers, standardised."""

import numpy as np
import tensorflow as tf


class VectorInput:
    """float vectors -> float32 [B, F], standardised with the training split's mean and deviation."""

    def __init__(self, dataset, name):
        everything = tf.range(dataset.train.num_examples, dtype=tf.int64)
        vectors = dataset.train.gather(everything, [name])[name].numpy()
        self._mean = np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32)
        self._deviation = np.maximum(np.std(vectors, axis=0, dtype=np.float64), 1e-6).astype(np.float32)
        self.sizes = {'input_shape': self._mean.shape}

    def __call__(self, vectors):
        return (tf.cast(vectors, tf.float32) - self._mean) / self._deviation
