"""Boxes, masks and questions of TensorFlow Datasets, from small sets that its own code writes to disk."""

import numpy as np
import pytest
import tensorflow as tf

from data import open_dataset
from data.dataset import Answers, Boxes, Image, Label, Mask, Offsets, Text
from data.sources import records, tfds_objects
from errors import UserError

tfds = pytest.importorskip('tensorflow_datasets', reason='needs pip install -e ".[tfds]"')
SIZES = [(30, 40), (20, 10), (7, 9)]                   # heights and widths
# (ymin, xmin, ymax, xmax) in pixels, class, ignored; of which an image has the first ones, its number modulo 4.
OBJECTS = [((2, 3, 20, 10), 1, False), ((0, 0, 7, 9), 0, True), ((5, 2, 6, 8), 2, False)]


def size_of(number):
    return SIZES[number % 3]


def objects_of(number):
    height, width = size_of(number)
    return [((y0, x0, min(y1, height), min(x1, width)), label, ignored)
            for (y0, x0, y1, x1), label, ignored in OBJECTS[:number % 4]]


class SmallSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the sets here share: 40 images in train, 8 in test."""

    VERSION = tfds.core.Version('1.0.0')

    def _split_generators(self, _):
        return {'train': self._generate_examples(0, 40), 'test': self._generate_examples(40, 48)}

    def _generate_examples(self, first, last):
        yield from ((number, self.example(number)) for number in range(first, last))

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features()))


class TinyBoxes(SmallSet, skip_registration=True):
    """As coco and voc: images of several sizes, a second label, a flag."""

    def features(self):
        labels = tfds.features.ClassLabel(names=['cat', 'dog', 'emu'])
        return {'image': tfds.features.Image(encoding_format=self.FORMAT), 'number': np.int64,
                'objects': tfds.features.Sequence({
                    'bbox': tfds.features.BBoxFeature(), 'label': labels, 'area': np.int64, 'is_crowd': np.bool_,
                    'pose': tfds.features.ClassLabel(num_classes=5)})}

    FORMAT = 'jpeg'

    def example(self, number):
        height, width = size_of(number)
        return {'image': np.full((height, width, 3), 5 * number, np.uint8), 'number': number,
                'objects': [{'bbox': tfds.features.BBox(y0 / height, x0 / width, y1 / height, x1 / width),
                             'label': label, 'area': 1, 'is_crowd': ignored, 'pose': 3}
                            for (y0, x0, y1, x1), label, ignored in objects_of(number)]}


class TinyPngBoxes(TinyBoxes, skip_registration=True):
    FORMAT = 'png'


class TinyContest(TinyBoxes, skip_registration=True):
    """Its test split keeps its boxes secret."""

    def example(self, number):
        return {**super().example(number), **({'objects': []} if number >= 40 else {})}


class TinySquares(SmallSet, skip_registration=True):
    """Images of one size, one kind of object, without a flag; one box has no area."""

    def features(self):
        return {'image': tfds.features.Image(shape=(16, 16, 3)), 'label': tfds.features.ClassLabel(num_classes=2),
                'squares': tfds.features.Sequence({'box': tfds.features.BBoxFeature(),
                                                   'kind': tfds.features.ClassLabel(names=['square'])})}

    def example(self, number):
        boxes = [(.25, 0., .25, 1.), (.5, .25, 1., .75)]
        return {'image': np.zeros((16, 16, 3), np.uint8), 'label': number % 2,
                'squares': [{'box': tfds.features.BBox(*box), 'kind': 'square'} for box in boxes]}


class TinyMasks(SmallSet, skip_registration=True):
    """Labelled images."""

    def features(self):
        return {'image': tfds.features.Image(shape=(6, 4, 3)),
                'segments': tfds.features.LabeledImage(labels=['sky', 'road'], shape=(6, 4, 1))}

    def example(self, number):
        return {'image': np.zeros((6, 4, 3), np.uint8), 'segments': np.full((6, 4, 1), number % 3, np.uint8)}


class OxfordIiitPet(SmallSet, skip_registration=True):
    """What the set of this name has on disk; its own builder reads it. Masks count from 1 and have several sizes."""

    VERSION = tfds.builder_cls('oxford_iiit_pet').VERSION

    def features(self):
        return {'image': tfds.features.Image(encoding_format='jpeg'),
                'label': tfds.features.ClassLabel(num_classes=37),
                'species': tfds.features.ClassLabel(num_classes=2),
                'file_name': tfds.features.Text(), 'head_bbox': tfds.features.BBoxFeature(),
                'segmentation_mask': tfds.features.Image(shape=(None, None, 1), use_colormap=True)}

    def example(self, number):
        height, width = size_of(number)
        return {'image': np.zeros((height, width, 3), np.uint8), 'label': number % 37,
                'species': 0, 'file_name': str(number), 'head_bbox': tfds.features.BBox(0., 0., .5, .5),
                'segmentation_mask': np.resize(np.uint8([number % 4, 3]), (height, width, 1))}


class TinySquad(SmallSet, skip_registration=True):
    """As squad: offsets count characters; some questions have two answers."""

    MISPLACED = 0

    def _split_generators(self, _):
        return {'train': self._generate_examples(0, 200), 'validation': self._generate_examples(200, 208)}

    def features(self):
        text = tfds.features.Text()
        return {'id': np.str_, 'title': text, 'context': text, 'question': text,
                'answers': tfds.features.Sequence({'text': text, 'answer_start': np.int32})}

    def example(self, number):
        words = ['caf\u00e9', '\u4ef7' + ''.join(chr(97 + int(digit)) for digit in str(number)), 'end']
        context = ' '.join(words)
        answers = [{'text': word, 'answer_start': context.index(word) + self.MISPLACED}
                   for word in words[1:2 + number % 2]]
        return {'id': f'q{number}', 'title': 'a', 'context': context, 'question': f' which, {number}? ',
                'answers': answers}


class SquadToTest(TinySquad, skip_registration=True):
    """As xquad, which has no split to train on."""

    def _split_generators(self, _):
        return {'test': self._generate_examples(0, 8)}


class MisplacedSquad(TinySquad, skip_registration=True):
    MISPLACED = 1


def prepared(builder, folder):
    """The data set of a builder that TFDS has prepared in a folder."""
    one = builder(data_dir=str(folder))
    one.download_and_prepare()
    return open_dataset(one.name, data_dir=str(folder))


def everything(dataset):
    parts = [tf.function(source.gather)(tf.range(source.num_examples, dtype=tf.int64))
             for source in (dataset.train, dataset.validation, dataset.test)]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in dataset.fields}


@pytest.mark.parametrize('builder', [TinyBoxes, TinyPngBoxes])
@pytest.mark.parametrize('memory', [True, False], ids=['in memory', 'on disk'])
def test_boxes(tmp_path, monkeypatch, builder, memory):
    if not memory:
        monkeypatch.setattr(records, 'IN_MEMORY', 0)
    dataset = prepared(builder, tmp_path)
    most = 3 if memory else tfds_objects.MOST
    assert dataset.fields['image'] == Image((0, 0, 3)) and dataset.of_kind(Boxes) == ['objects']
    assert dataset.fields['objects'] == Boxes(('cat', 'dog', 'emu'), most)
    assert [dataset.split(split).num_examples for split in ('train', 'validation', 'test')] == [36, 4, 8]
    found = everything(dataset)
    for number, boxes in zip(found['number'].astype(int), found['objects']):
        expected = [(x0, y0, x1, y1, label, ignored) for (y0, x0, y1, x1), label, ignored in objects_of(number)]
        rows = np.array(expected + [Boxes.PADDING] * (most - len(expected)))
        np.testing.assert_allclose(boxes, rows, atol=1e-4)
    only = dataset.test.gather(tf.constant([3, 1], tf.int64), ['objects'])
    assert set(only) == {'objects'} and only['objects'].shape == (2, most, 6)


def test_a_test_split_without_boxes_is_not_used(tmp_path):
    """coco has images for its contest there."""
    dataset = prepared(TinyContest, tmp_path)
    assert [dataset.split(split).num_examples for split in ('train', 'validation', 'test')] == [32, 4, 4]


def test_shapes_are_static(tmp_path):
    for builder in (TinyBoxes, TinySquares, TinyMasks):
        dataset = prepared(builder, tmp_path)
        gather = tf.function(dataset.train.gather).get_concrete_function(tf.TensorSpec([4], tf.int64))
        for name, value in gather.structured_outputs.items():
            field = dataset.fields[name]
            one = (field.most, 6) if isinstance(field, Boxes) else getattr(field, 'shape', ())
            assert value.shape == ((4,) if getattr(field, 'encoded', False) else (4, *one)), name


def test_boxes_of_images_of_one_size(tmp_path):
    dataset = prepared(TinySquares, tmp_path)
    assert dataset.fields == {'image': Image((16, 16, 3)), 'label': Label(('0', '1')), 'squares': Boxes(('square',), 2)}
    boxes = everything(dataset)['squares']
    assert boxes.tolist() == [[[4, 8, 12, 16, 0, 0], [*Boxes.PADDING]]] * 48


def test_labelled_images_are_masks(tmp_path):
    """Values beyond the names are void."""
    dataset = prepared(TinyMasks, tmp_path)
    assert dataset.fields == {'image': Image((6, 4, 3)), 'segments': Mask(('sky', 'road'), (6, 4))}
    masks = everything(dataset)['segments']
    assert masks.dtype == np.uint8 and (masks == masks[:, :1, :1]).all()
    assert np.bincount(masks[:, 0, 0], minlength=256)[[0, 1, 255]].tolist() == [16, 16, 16]


def test_masks_that_count_from_1(tmp_path):
    dataset = prepared(OxfordIiitPet, tmp_path)
    assert set(dataset.fields) == {'image', 'label', 'species', 'file_name', 'segmentation_mask'}
    assert dataset.fields['segmentation_mask'] == Mask(('pet', 'background', 'border'), (0, 0))
    values = [tf.io.decode_png(file)[..., 0].numpy() for file in everything(dataset)['segmentation_mask']]
    assert sorted({mask.shape for mask in values}) == sorted(SIZES)
    assert sorted({int(mask[0, 0]) for mask in values}) == [0, 1, 2, 255] and {int(m[0, 1]) for m in values} == {2}


def test_questions(tmp_path):
    """Offsets become bytes; there is no test split, so it is a tenth of train."""
    dataset = prepared(TinySquad, tmp_path)
    assert dataset.fields == {
        'question': Text('en'), 'context': Text('en'), 'answers': Answers(2), 'starts': Offsets(2)}
    assert dataset.validation.num_examples == 8 and dataset.test.num_examples > 0
    found = everything(dataset)
    assert sorted(int(question.decode().split()[1][:-1]) for question in found['question']) == list(range(208))
    for context, answers, starts in zip(found['context'], found['answers'], found['starts']):
        for answer, start in zip(answers, starts):
            assert start == -1 if answer == b'' else context[start:start + len(answer)] == answer
        assert answers[0].decode().startswith('\u4ef7') and starts[0] == 6
    assert {len(set(answers)) for answers in found['answers'].tolist()} == {2} and b'' in found['answers']


def test_an_answer_that_is_not_in_its_context_is_named_by_id(tmp_path):
    with pytest.raises(UserError, match='question q[0-9]+ must have answers that stand in its context'):
        prepared(MisplacedSquad, tmp_path)


def test_questions_without_a_split_to_train_on_are_one_line(tmp_path):
    with pytest.raises(UserError, match='`dataset` must have a split train. Received: test$'):
        prepared(SquadToTest, tmp_path)
