"""Every task in every form it has: 12 examples that are made here, and a small model."""

import numpy as np
import pytest
import tensorflow as tf

import models
from data.dataset import Answers, Boxes, Image, Label, Mask, Number, Offsets, Text, Vector
from data.source import Tensors
from data.tokenizers.wordpiece import SPECIAL, WordPieceTokenizer
from data.tokenizers.words import CharacterTokenizer, WordTokenizer
from tasks import TASKS
from tests.opened import one_source, task_of

RANDOM = np.random.RandomState(0)
LABELS = RANDOM.randint(0, 3, 12).astype(np.int32)
NAMES = Label(('a', 'b', 'c'))
TEXTS = np.array([' '.join(RANDOM.choice(list('pqrstuv'), RANDOM.randint(1, 9))) for _ in range(12)], object)


def images():
    pixels = RANDOM.randint(0, 256, (12, 6, 6, 1)).astype(np.uint8)
    return one_source(Tensors(image=pixels, label=LABELS), image=Image((6, 6, 1)), label=NAMES)


def image_files():
    files = np.array([tf.io.encode_png(RANDOM.randint(0, 256, (5 + i, 9, 3)).astype(np.uint8)).numpy()
                      for i in range(12)], object)
    return one_source(Tensors(image=files, label=LABELS), image=Image((0, 0, 3)), label=NAMES)


def boxes(count=12, most=3, side=32):
    """Boxes of three classes; the second image has none, and one of the third image's is ignored."""
    corners = np.sort(RANDOM.uniform(0, side, (count, most, 2, 2)), axis=2)
    corners[:, :, 1] = np.minimum(corners[:, :, 1] + 2, side)       # an area
    rows = np.concatenate([corners.reshape(count, most, 4), RANDOM.randint(0, 3, (count, most, 1)),
                           np.zeros((count, most, 1))], axis=2)
    rows[1], rows[2, 0, 5], rows[3, 1:] = Boxes.PADDING, 1., Boxes.PADDING
    return rows.astype(np.float32)


def boxed():
    pixels = RANDOM.randint(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    return one_source(Tensors(image=pixels, boxes=boxes()), image=Image((32, 32, 3)), boxes=Boxes(NAMES.names, 3))


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


def boxed_files():
    files = [png(RANDOM.randint(0, 256, (32 + i, 40, 3)).astype(np.uint8)) for i in range(12)]
    return one_source(Tensors(image=np.array(files, object), boxes=boxes()), image=Image((0, 0, 3)),
                      boxes=Boxes(NAMES.names, 3))


def masks(*shape):
    mask = RANDOM.randint(0, 4, shape).astype(np.uint8)
    return np.where(mask == 3, Mask.void, mask)


def masked():
    """Of 64x64 pixels: of 32x32, the last norms see one number per image, and multiply what rounding leaves."""
    pixels = RANDOM.randint(0, 256, (12, 64, 64, 1)).astype(np.uint8)
    return one_source(Tensors(image=pixels, mask=masks(12, 64, 64)), image=Image((64, 64, 1)),
                      mask=Mask(NAMES.names, (64, 64)))


def masked_files():
    sizes = [(20 + i, 30, 3) for i in range(12)]
    files = np.array([png(RANDOM.randint(0, 256, size).astype(np.uint8)) for size in sizes], object)
    pngs = np.array([png(masks(*size[:2], 1)) for size in sizes], object)
    return one_source(Tensors(image=files, mask=pngs), image=Image((0, 0, 3)),
                      mask=Mask(NAMES.names, (0, 0), (31, 30)))


def vectors():
    return one_source(Tensors(vector=RANDOM.randn(12, 4).astype(np.float32), target=np.arange(12, dtype=np.float32)),
                      vector=Vector(4), target=Number())


def texts():
    return one_source(Tensors(text=TEXTS, label=LABELS), text=Text('', WordTokenizer('pqrstuv'), 7), label=NAMES)


def pieces():
    tokenizer = WordPieceTokenizer([*SPECIAL, *'pqrstuv', *(f'##{letter}' for letter in 'pqrstuv')])
    return one_source(Tensors(text=TEXTS, label=LABELS), text=Text('', tokenizer, 12), label=NAMES)


def questions():
    contexts = np.array([f'{text} {text[::-1]}' for text in TEXTS], object)
    answers = np.array([[text[2:3]] for text in contexts], object)         # the second of their letters
    text = pieces().fields['text']
    return one_source(Tensors(question=TEXTS, context=contexts, answers=answers, starts=np.full((12, 1), 2)),
                      question=text, context=text, answers=Answers(1), starts=Offsets(1))


def pairs():
    targets = np.array([text.replace(' ', '')[::-1] for text in TEXTS], object)
    return one_source(Tensors(source=TEXTS, target=targets), source=Text('', WordTokenizer('pqrstuv'), 9),
                      target=Text('', CharacterTokenizer('pqrstuv'), 9))


BERT = {'num_layers': 1, 'd_model': 16, 'd_ff': 32, 'heads': 2}
# name -> (task's name, data set, fields of the section of data, of the task's section, model, its options)
LISTED = {
    'images': ('classification', images, {'augment': 'flip_shift'}, {'label_smoothing': 0.1}, 'mlp', {}),
    'image files': ('classification', image_files, {'image_size': 8, 'augment': 'shift'}, {}, 'cnn', {}),
    'mixed images': ('classification', images, {'augment': 'alternating_flip,mixup,cutmix'}, {'label_smoothing': 0.1},
                     'mlp', {}),
    'texts, lstm': ('classification', texts, {'word_dropout': 0.3}, {}, 'lstm', {'units': 8, 'bidirectional': True}),
    'texts, transformer': ('classification', texts, {}, {'label_smoothing': 0.1}, 'transformer', {}),
    'texts, bert': ('classification', pieces, {'word_dropout': 0.3}, {}, 'bert', BERT),
    'hidden words': ('masked_lm', pieces, {}, {'label_smoothing': 0.1}, 'bert', BERT),
    'questions': ('question_answering', questions, {'max_length': 48, 'question_length': 12, 'stride': 20}, {}, 'bert',
                  BERT),
    'boxes': ('detection', boxed, {'augment': 'flip,color_jitter'}, {'min_score': 0.2}, 'centernet', {'width': 8}),
    'boxes of files': ('detection', boxed_files, {'image_size': 32, 'augment': 'crop'}, {'min_score': 0.2},
                       'centernet', {'width': 8}),
    'masks': ('segmentation', masked, {'augment': 'resized_crop,vertical_flip'}, {'label_smoothing': 0.1}, 'unet',
              {'width': 8}),
    'masks of files': ('segmentation', masked_files, {'image_size': 32}, {}, 'deeplab',
                       {'size': '18', 'width': 8}),
    'vectors': ('regression', vectors, {}, {}, 'mlp', {}),
    'pairs': ('translation', pairs, {}, {'label_smoothing': 0.1, 'beam_size': 2}, 'transformer', {}),
    'packed pairs': ('translation', pairs, {'packing': True}, {}, 'transformer', {'share_embeddings': True}),
}
# A task with another form than these, or one that reads something else, is listed above.
SIMPLEST = {'images': (images, 'mlp'), 'texts': (texts, 'lstm'), 'vectors': (vectors, 'mlp'),
            'text_pairs': (pairs, 'transformer')}


def simplest(name):
    """The case of a task that is not listed: data of the kind that it reads, and its section's defaults."""
    make, model = SIMPLEST[TASKS[name].reads]
    return name, make, {}, {}, model, {}


# Of these the task and the model are those of another case: what a test has of them is in the tier `results` alone.
TWICE = ('mixed images', 'boxes of files')
CASES = LISTED | {name: simplest(name) for name in TASKS if name not in {task for task, *_ in LISTED.values()}}


def case(name):
    """(data set, task, model) of a case."""
    task_name, make, data, options, model, model_options = CASES[name]
    dataset = make()
    task = task_of(task_name, dataset, options=options, **data)
    model = models.build(model, task.sizes, **model_options)
    if task_name == 'detection':       # whose scores are all but equal at first: in which order would be rounding
        kernel = model.get_layer('head_centres_out').kernel
        kernel.assign(100. * kernel)
    return dataset, task, model


def marked(name, fast, *more):
    """The parameters of a test of a case, of the tier that it belongs to."""
    marks = () if fast else pytest.mark.results if name in TWICE else pytest.mark.slow
    return pytest.param(name, *more, marks=marks)
