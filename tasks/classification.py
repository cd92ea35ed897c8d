"""Classification of images or texts: one of K classes per example. Cross-entropy, as in the documents."""

import tensorflow as tf

from data.dataset import Image, Label, Text
from data.inputs.images import ImageInput, decode_images
from data.inputs.text import text_inputs
from data.rows import Paired
from draws import Draws
from tasks.images import read_image, signature_inputs, signatures
from tasks.task import SHOWN, Task, ask_texts, cross_entropy, mixed_cross_entropy, weighted

SOUGHT, PER_CALL = 1024, 64      # examples among which mistakes are looked for: in all, per call of the model


def classification(settings, dataset, data, tokenizer=None):
    """The classification that reads what the data set has: its images, else its texts."""
    kind = ImageClassification if dataset.of_kind(Image) or not dataset.of_kind(Text) else TextClassification
    return kind(settings, dataset, data, tokenizer)


class Classification(Task):
    """What the two have in common; they differ in what they read."""

    name = 'classification'
    training_metrics = ('accuracy',)
    best = ('accuracy', 1)

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        self.class_names = list(dataset.fields[self.roles['label']].names)

    def loss(self, y, outputs, weights, training=False):
        return weighted(cross_entropy(y, outputs, self.settings.label_smoothing if training else 0.), weights)

    def metrics(self, y, outputs, weights):
        correct = tf.argmax(outputs, axis=-1, output_type=y.dtype) == y                  # [B]
        return {'accuracy': weighted(correct, weights)}

    def decode(self, outputs):
        """logits [B, K] -> probabilities [B, K], the class number [B] and its label [B] string."""
        numbers = self.numbers(outputs)
        return {**numbers, 'label': tf.gather(tf.constant(self.class_names), numbers['class'])}

    def numbers(self, outputs):
        """logits [B, K] -> probabilities [B, K] and the class number [B]."""
        probabilities = tf.nn.softmax(tf.cast(outputs, tf.float32))
        return {'probabilities': probabilities, 'class': tf.argmax(probabilities, axis=-1, output_type=tf.int32)}

    def score_served(self, outputs, source):
        name = self.roles['label']
        labels = source.gather(tf.range(source.num_examples, dtype=tf.int64), [name])[name].numpy()
        return {'accuracy': float((outputs['class'] == labels).mean())}

    def mistakes(self, model, source):
        """[(index, label, predicted label)] of the first examples that a model classifies wrongly, at most SHOWN.

        They are looked for among the first SOUGHT.
        """
        classify = tf.function(lambda x: tf.argmax(model(x, training=False), axis=-1), reduce_retracing=True)
        count, wrong = min(SOUGHT, source.num_examples), []
        for first in range(0, count, PER_CALL):
            indices = tf.range(first, min(first + PER_CALL, count), dtype=tf.int64)
            rows = self.prepare(source.gather(indices, list(self.roles.values())))
            x, y, _ = self.batch(rows, Draws(0, 0, first))
            wrong += [(index, self.class_names[label], self.class_names[predicted]) for index, label, predicted
                      in zip(indices.numpy(), y.numpy(), classify(x).numpy()) if label != predicted]
            if len(wrong) >= SHOWN:
                break
        return wrong[:SHOWN]

    def describe(self, asked, answer):
        ranked = sorted(zip(answer['probabilities'], self.class_names), reverse=True)[:3]
        return f'{asked}: ' + ', '.join(f'{name} {p:.1%}' for p, name in ranked)


class ImageClassification(Classification):
    """y is int32 [B]; in training with mixed images {'label', 'partner': int32 [B], 'share': float32 [B]}.

    share: that of the label's image; the rest is the partner's.
    """

    reads = 'images'
    needs = {'image': Image, 'label': Label}

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        self.image = ImageInput(dataset, self.roles['image'], data)
        self.sizes = {**self.image.sizes, 'outputs': len(self.class_names)}

    def prepare(self, examples):
        labels = tf.cast(examples[self.roles['label']], tf.int32)                        # [B]
        return {'x': self.image(examples[self.roles['image']]), 'y': labels}

    def rows(self, source, training=False):
        rows = super().rows(source, training)
        return Paired(rows) if training and self.image.mixing else rows

    def batch(self, rows, draws, training=False):
        x, y = rows['x'], rows['y']
        weights = tf.ones_like(y, tf.float32)
        if training:
            x, _, _ = self.image.augment(x, draws)
        if training and self.image.mixing:
            partner, _, _ = self.image.augment(rows['partner_x'], draws.of_partners())
            x, share = self.image.mix(x, partner, draws)
            y = {'label': y, 'partner': rows['partner_y'], 'share': share}
        return x, y, weights

    def loss(self, y, outputs, weights, training=False):
        if not isinstance(y, dict):
            return super().loss(y, outputs, weights, training)
        smoothing = self.settings.label_smoothing
        return weighted(mixed_cross_entropy(**y, logits=outputs, label_smoothing=smoothing), weights)

    def metrics(self, y, outputs, weights):
        """Mixed images count as the class that has most of them."""
        if isinstance(y, dict):
            y = tf.where(y['share'] >= 0.5, y['label'], y['partner'])
        return super().metrics(y, outputs, weights)

    def show_inputs(self, x):
        return {'inputs': x}

    def show_answers(self, model, source):
        """Images that are classified wrongly, in one picture for each label and what it was taken for."""
        name, pictures = self.roles['image'], {}
        for index, label, predicted in self.mistakes(model, source):
            image, = self.image(source.gather(tf.constant([index]), [name])[name])
            pictures.setdefault(f'mistakes/{label} predicted as {predicted}', []).append(image)
        return {title: tf.stack(images) for title, images in pictures.items()}

    def serving(self, model):
        """uint8 images of any size, encoded image files, or the pixels that the model reads: float32, 0 to 1."""
        def images(images):
            return self.decode(model(self.image(images), training=False))

        def encoded(image_bytes):
            return images(decode_images(image_bytes, self.image.shape))

        def pixels(pixels):
            return self.numbers(model(pixels, training=False))

        return signatures(self.image.shape, images=images, encoded=encoded, pixels=pixels)

    def served_inputs(self, examples):
        images = self.image.raw(examples[self.roles['image']])
        return signature_inputs(images, self.image(images))

    def predict(self, model, image):
        """Image files, from the served function for encoded images."""
        function, _ = self.serving(model)['encoded']
        outputs = [function(tf.constant([read_image(path)])) for path in image]
        return {'label': [o['label'].numpy()[0].decode() for o in outputs],
                'probabilities': [o['probabilities'].numpy()[0].tolist() for o in outputs]}


class TextClassification(Classification):
    """x is {'ids': int32 [B, T], 'mask': bool [B, T], True where a token is}."""

    reads = 'texts'
    needs = {'text': Text, 'label': Label}

    def __init__(self, settings, dataset, data, tokenizer=None):
        super().__init__(settings, dataset, data, tokenizer)
        name = self.roles['text']
        self.text = text_inputs(dataset, [name], data, tokenizer)[name]
        self.tables, self.tokenizer_files = [self.text.tokenizer], self.text.tokenizer.files
        self._word_dropout = data.word_dropout
        self.sizes = {**self.text.sizes, 'outputs': len(self.class_names)}

    def prepare(self, examples):
        return {'ids': self.text(examples[self.roles['text']]),
                'label': tf.cast(examples[self.roles['label']], tf.int32)}

    def batch(self, rows, draws, training=False):
        x = self._inputs(rows['ids'])
        if training and self._word_dropout:
            x['ids'] = self._drop_words(x['ids'], draws)
        return x, rows['label'], tf.ones_like(rows['label'], tf.float32)

    def _inputs(self, ids):
        return {'ids': ids, 'mask': ids != self.text.special.pad}

    def _drop_words(self, ids, draws):
        """Word dropout, doi:10.3115/v1/P15-1162, section 3.1, but that the place of a dropped word stays."""
        special = self.text.special
        dropped = draws.uniform('word_dropout', tuple(ids.shape)) < self._word_dropout
        return tf.where(dropped & special.are_words(ids), special.unknown, ids)

    def show_answers(self, model, source):
        name, rows = self.roles['text'], [['text', 'label', 'predicted']]
        for index, *labels in self.mistakes(model, source):
            text, = source.gather(tf.constant([index]), [name])[name].numpy()
            rows.append([text.decode('utf-8', 'replace'), *labels])
        return {'mistakes': rows}

    def serving(self, model):
        """Strings [B], or token ids int32 [B, T]. A string's answer has `cut`, bool [B]: whether it was too long."""
        def texts(texts):
            outputs = model(self._inputs(self.text(texts)), training=False)
            return {**self.decode(outputs), 'cut': self.text.is_cut(texts)}

        def tokens(ids):
            return self.numbers(model(self._inputs(ids), training=False))

        return {'serving_default': (texts, [tf.TensorSpec([None], tf.string, name='texts')]),
                'tokens': (tokens, [tf.TensorSpec([None, self.text.length], tf.int32, name='ids')])}

    def served_inputs(self, examples):
        texts = examples[self.roles['text']]
        return {'serving_default': [texts], 'tokens': [self.text(texts)]}

    def predict(self, model, text):
        answers = ask_texts(self.serving(model)['serving_default'][0], text)
        return {name: answers[name] for name in ('label', 'probabilities', 'cut')}

    def describe(self, asked, answer):
        cut = f' (only its first {self.text.length - 1} tokens)' if answer['cut'] else ''
        return super().describe(asked + cut, answer)
