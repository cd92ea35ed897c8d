"""Features: how raw examples become the model's inputs. Training, evaluation and the served model share them.

A features object has
    sizes                what the model's builder needs to know: shapes, classes or vocabularies
    raw(examples)        a source's examples -> the raw inputs that a served model would get
    inputs(raw)          the model's x from raw inputs [B, ...], in the graph; the SavedModel calls it too
    batch(examples)      a source's gathered examples -> (x, y, weights), Keras's own order
"""

import numpy as np
import tensorflow as tf

from data.images import fit


class ImageFeatures:
    """uint8 images of any size -> float32 [B, H, W, C] in [0, 1]; the documents divide by 255 too."""

    kind = 'image'

    def __init__(self, image_shape, class_names):
        self.image_shape, self.class_names = tuple(image_shape), list(class_names)

    @property
    def sizes(self):
        return {'input_shape': self.image_shape, 'outputs': len(self.class_names)}

    def raw(self, examples):
        return examples['image']

    def inputs(self, images):
        """uint8 [B, h, w, c] (c is 1, 3 or 4) -> float32 [B, H, W, C]."""
        # Scaled before it is resized: most images are enlarged.
        return fit(tf.cast(images, tf.float32) / 255., self.image_shape)

    def batch(self, examples):
        labels = tf.cast(examples['label'], tf.int32)                       # [B]
        return self.inputs(examples['image']), labels, tf.ones_like(labels, tf.float32)


class VectorFeatures:
    """float vectors -> float32 [B, F], standardised with the training split's mean and deviation."""

    kind = 'vector'
    class_names = None

    def __init__(self, train_vectors):
        self._mean = np.mean(train_vectors, axis=0, dtype=np.float64).astype(np.float32)
        self._deviation = np.maximum(np.std(train_vectors, axis=0, dtype=np.float64), 1e-6).astype(np.float32)

    @property
    def sizes(self):
        return {'input_shape': self._mean.shape, 'outputs': 1}

    def raw(self, examples):
        return examples['vector']

    def inputs(self, vectors):
        return (tf.cast(vectors, tf.float32) - self._mean) / self._deviation

    def batch(self, examples):
        target = tf.cast(examples['target'], tf.float32)                    # [B]
        return self.inputs(examples['vector']), target, tf.ones_like(target)
