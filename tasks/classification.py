"""Classification: one of K classes an example. Cross-entropy, as in the documents, on integer labels."""

import pathlib

import tensorflow as tf

from data.images import decode_images
from errors import UserError
from tasks.task import Task, cross_entropy, weighted


class Classification(Task):
    name = 'classification'
    feature_kinds = ('image',)
    training_metrics = ('accuracy',)
    best = ('accuracy', 1)

    def loss(self, y, outputs, weights, label_smoothing=0.):
        return weighted(cross_entropy(y, outputs, label_smoothing), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B]
        return {'accuracy': weighted(correct, weights)}

    def decode(self, outputs):
        """logits [B, K] -> probabilities [B, K], the label [B] string and its class number [B]."""
        probabilities = tf.nn.softmax(tf.cast(outputs, tf.float32))
        best = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return {'probabilities': probabilities, 'class': best,
                'label': tf.gather(tf.constant(self.features.class_names), best)}

    def predict(self, model, paths):
        """Image files -> {name: list}, from the served function for encoded images."""
        function, _ = self.serving(model)['encoded']
        outputs = [function(tf.constant([read_image(path)])) for path in paths]
        return {'label': [o['label'].numpy()[0].decode() for o in outputs],
                'probabilities': [o['probabilities'].numpy()[0].tolist() for o in outputs]}

    def describe(self, path, answer):
        ranked = sorted(zip(answer['probabilities'], self.features.class_names), reverse=True)[:3]
        return f'{path}: ' + ', '.join(f'{name} {p:.1%}' for p, name in ranked)

    def serving(self, model):
        """{signature name: (function, its TensorSpecs)}: uint8 images of any size, or encoded image files."""
        def images(images):
            return self.decode(model(self.features.inputs(images), training=False))

        def encoded(image_bytes):
            return images(decode_images(image_bytes, self.features.image_shape))

        return {'serving_default': (images, [tf.TensorSpec([None, None, None, None], tf.uint8, name='images')]),
                'encoded': (encoded, [tf.TensorSpec([None], tf.string, name='image_bytes')])}


def read_image(path):
    """The bytes of an image file that TensorFlow can decode.

    Raises:
        UserError: it is missing, or no such image.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        tf.io.decode_image(data, expand_animations=False)
    except OSError as error:
        raise UserError(f'`image` must be a file that can be read: {error.strerror}. '
                        f'Received: image={path!r}') from None
    except tf.errors.InvalidArgumentError:
        raise UserError(f'`image` must be a JPEG, PNG, BMP or GIF file. Received: image={path!r}') from None
    return data
