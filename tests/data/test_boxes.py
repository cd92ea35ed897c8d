"""Images with boxes as Pascal VOC, COCO and Hugging Face lay them out; one line for each thing that is wrong."""

import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Picture

from data import open_dataset
from data.dataset import Boxes, Image
from errors import UserError
from tests.conftest import REAL_DATA

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)       # 40 wide, 30 high
# name -> [(x0, y0, x1, y1, class)] of the images of each split.
OBJECTS = {'train': {'a': [(0, 0, 10, 20, 'dog'), (5, 5, 40, 30, 'cat')], 'b': [], 'c': [(1, 2, 3, 4, 'cat')]},
           'validation': {'d': [(10, 10, 20, 20, 'dog')]}, 'test': {'e': [(0, 10, 39, 12, 'cat')], 'f': []}}
ROWS = {'train': [[[0, 0, 10, 20, 1, 0], [5, 5, 40, 30, 0, 0]], [], [[1, 2, 3, 4, 0, 0]]],
        'validation': [[[10, 10, 20, 20, 1, 0]]], 'test': [[[0, 10, 39, 12, 0, 0]], []]}


def write_image(path, mode='RGB', size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(PIXELS, 'RGBA').resize(size).convert(mode).save(path, **options)
    return path


def write_xml(folder, name, objects, size=(40, 30)):
    items = ''.join(f'<object><name>{label}</name><difficult>{int(bool(more))}</difficult><bndbox><xmin>{x0 + 1}</xmin>'
                    f'<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>'
                    for x0, y0, x1, y1, label, *more in objects)
    path = folder / 'Annotations' / f'{name}.xml'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n'
                    f'{items}</annotation>')
    return path


def make_voc(folder, names=None):
    """names: {split: other name of its list}."""
    (folder / 'ImageSets' / 'Main').mkdir(parents=True)
    for split, images in OBJECTS.items():
        for name, objects in images.items():
            write_image(folder / 'JPEGImages' / f'{name}.jpg')
            write_xml(folder, name, objects)
        listed = folder / 'ImageSets' / 'Main' / f'{(names or {}).get(split, split)}.txt'
        listed.write_text('\n'.join(images) + '\n')


def coco(images, ids=None):
    """The content of a JSON file, with ids as COCO has them: with gaps, and in no order."""
    ids = ids or {'dog': 90, 'cat': 7}
    content = {'images': [], 'annotations': [], 'categories': [{'id': i, 'name': name} for name, i in ids.items()]}
    for number, (name, objects) in enumerate(images.items()):
        content['images'].append({'id': 100 - number, 'file_name': f'{name}.jpg', 'width': 40, 'height': 30})
        content['annotations'] += [
            {'id': number, 'image_id': 100 - number, 'category_id': ids[label], 'iscrowd': int(bool(more)),
             'bbox': [x0, y0, x1 - x0, y1 - y0], 'area': 1} for x0, y0, x1, y1, label, *more in objects]
    return content


def make_coco(folder):
    (folder / 'annotations').mkdir()
    for split, images in OBJECTS.items():
        own = {'train': 'train2017', 'validation': 'val2017'}.get(split, split)
        for name in images:
            write_image(folder / own / f'{name}.jpg')
        (folder / 'annotations' / f'instances_{own}.json').write_text(json.dumps(coco(images)))


def make_roboflow(folder):
    for split, images in OBJECTS.items():
        own = folder / {'validation': 'valid'}.get(split, split)
        for name in images:
            write_image(own / f'{name}.jpg')
        (own / '_annotations.coco.json').write_text(json.dumps(coco(images)))


def line(name, objects, key='categories', number=None):
    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1, *_ in objects]
    labels = [number[label] if number else label for *_, label in objects]
    return json.dumps({'file_name': f'{name}.jpg', 'objects': {'bbox': boxes, key: labels}})


def make_lines(folder, **options):
    for split, images in OBJECTS.items():
        for name in images:
            write_image(folder / split / f'{name}.jpg')
        lines = [line(name, objects, **options) for name, objects in images.items()]
        (folder / split / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')


def make_numbered(folder):
    make_lines(folder, key='category', number={'cat': 0, 'dog': 1})
    (folder / 'classes.txt').write_text('cat\ndog\n')


def everything(source, fields=None):
    return {name: value.numpy() for name, value in
            source.gather(tf.range(source.num_examples, dtype=tf.int64), fields).items()}


def boxes_of(dataset, split):
    """[[x0, y0, x1, y1, class, ignored]] of each image."""
    boxes = everything(dataset.split(split), ['boxes'])['boxes']
    assert (boxes[boxes[..., 4] < 0] == Boxes.PADDING).all()
    return [one[one[:, 4] >= 0].tolist() for one in boxes]


MAKE = [make_voc, make_coco, make_roboflow, make_lines, make_numbered]


@pytest.mark.parametrize('make', MAKE)
def test_layouts(tmp_path, make):
    make(tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob('*'))
    dataset = open_dataset(f'files/{tmp_path}')
    assert str(dataset) == f'files/{tmp_path}: 3 train, 1 validation, 2 test, from {tmp_path}'
    assert dataset.fields == {'image': Image((30, 40, 3)), 'boxes': Boxes(('cat', 'dog'), 2)}
    for split in ('train', 'validation', 'test'):
        assert boxes_of(dataset, split) == ROWS[split]
        images = everything(dataset.split(split))['image']
        assert images.shape == (len(ROWS[split]), 30, 40, 3) and images.dtype == np.uint8
        assert np.abs(images.astype(int) - PIXELS[..., :3]).mean() < 60                  # a JPEG's are others
        assert dataset.split(split).find_unreadable() is None
    boxes = tf.function(dataset.train.gather)(tf.constant([2, 0], tf.int64))['boxes']
    assert boxes.shape == (2, 2, 6) and boxes[0].numpy().tolist() == [[1, 2, 3, 4, 0, 0], [*Boxes.PADDING]]
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob('*')) == before
    assert open_dataset(f'files/{tmp_path}').fingerprint == dataset.fingerprint


@pytest.mark.parametrize('make', MAKE)
def test_another_box_is_another_fingerprint(tmp_path, make):
    make(tmp_path)
    before = open_dataset(f'files/{tmp_path}').fingerprint
    for path in [*tmp_path.rglob('*.json*'), *tmp_path.rglob('*.xml')]:
        path.write_text(path.read_text().replace('[1, 2, 2, 2]', '[1, 2, 2, 3]').replace('<ymax>4<', '<ymax>5<'))
    assert open_dataset(f'files/{tmp_path}').fingerprint != before


def test_voc_counts_pixels_from_1_and_its_corners_are_inside(tmp_path):
    """The whole of an image, 40 x 30, is 1, 1, 40, 30."""
    make_voc(tmp_path)
    path = tmp_path / 'Annotations' / 'b.xml'
    path.write_text('<annotation><object><name>cat</name><bndbox><xmax>40</xmax><ymax>30.0</ymax><xmin>1</xmin>'
                    '<ymin>1</ymin></bndbox></object></annotation>')
    assert boxes_of(open_dataset(f'files/{tmp_path}'), 'train')[1] == [[0, 0, 40, 30, 0, 0]]


@pytest.mark.parametrize('make, write', [(make_voc, write_xml), (make_coco, None)], ids=['difficult', 'crowd'])
def test_ignored_objects(tmp_path, make, write):
    make(tmp_path)
    objects = [(0, 0, 10, 20, 'dog', True), (5, 5, 40, 30, 'cat')]
    if write:
        write(tmp_path, 'a', objects)
    else:
        path = tmp_path / 'annotations' / 'instances_train2017.json'
        path.write_text(json.dumps(coco({**OBJECTS['train'], 'a': objects})))
    assert boxes_of(open_dataset(f'files/{tmp_path}'), 'train')[0] == [[0, 0, 10, 20, 1, 1], [5, 5, 40, 30, 0, 0]]


def test_boxes_beyond_the_image_are_cut_and_those_without_an_area_left_out(tmp_path):
    make_voc(tmp_path)
    write_xml(tmp_path, 'c', [(-1, 0, 41, 30, 'cat'), (30, 20, 60, 50, 'dog'), (50, 5, 60, 15, 'dog'),
                              (8, 8, 9, 20, 'cat'), (3, 9, 8, 10, 'cat')])           # a pixel beyond is rounding
    dataset = open_dataset(f'files/{tmp_path}')
    assert dataset.origin == f'{tmp_path} (3 boxes without an area left out; 2 boxes beyond their images cut)'
    assert boxes_of(dataset, 'train')[2] == [[0, 0, 40, 30, 0, 0], [30, 20, 40, 30, 1, 0]]
    assert dataset.fields['boxes'].most == 2


def test_corners_in_place_of_sizes_are_noticed(tmp_path):
    make_roboflow(tmp_path)
    path = tmp_path / 'train' / '_annotations.coco.json'
    content = coco({'a': [(20, 10, 39, 29, 'dog')], 'b': [(20, 10, 39, 29, 'cat')], 'c': [(20, 10, 30, 29, 'cat')]})
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [x, y, x + width, y + height]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'most boxes reach beyond their images \(3 of 5\); a box must be in the form'):
        open_dataset(f'files/{tmp_path}')


def test_a_split_by_hash_is_kept_when_images_are_added(tmp_path):
    def stems(dataset, split):
        return {os.path.basename(path.decode()) for path in dataset.split(split)._paths.numpy()}
    images = {f'{i:03}': [(i % 20, 0, 30, 20, 'ab'[i % 2])] for i in range(50)}
    for name, objects in images.items():
        write_image(tmp_path / 'voc' / 'JPEGImages' / f'{name}.jpg')
        write_xml(tmp_path / 'voc', name, objects)
        for other in ('coco', 'lines'):
            write_image(tmp_path / other / f'{name}.jpg')
    (tmp_path / 'coco' / 'annotations.json').write_text(json.dumps(coco(images, {'a': 1, 'b': 2})))
    (tmp_path / 'lines' / 'metadata.jsonl').write_text('\n'.join(line(*item) for item in images.items()))
    for name in ('voc', 'coco', 'lines'):
        dataset = open_dataset(name, data_dir=str(tmp_path))
        parts = [stems(dataset, split) for split in ('train', 'validation', 'test')]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 50 and min(map(len, parts)) >= 2
    write_image(tmp_path / 'voc' / 'JPEGImages' / 'new.jpg')
    write_xml(tmp_path / 'voc', 'new', [(0, 0, 5, 5, 'a')])
    after = open_dataset('voc', data_dir=str(tmp_path))
    before = open_dataset('coco', data_dir=str(tmp_path))
    assert all(stems(before, split) <= stems(after, split) for split in ('train', 'validation', 'test'))


def test_images_of_several_sizes_come_as_their_files(tmp_path):
    make_voc(tmp_path)
    for name, size, box in (('b', (1, 1), []), ('c', (20_000, 20), [(100, 0, 19_000, 20, 'cat')])):
        write_image(tmp_path / 'JPEGImages' / f'{name}.jpg', size=size)
        write_xml(tmp_path, name, box, size)
    dataset = open_dataset(f'files/{tmp_path}')
    assert dataset.fields['image'] == Image((0, 0, 3))
    assert boxes_of(dataset, 'train') == [ROWS['train'][0], [], [[100, 0, 19_000, 20, 0, 0]]]
    files = everything(dataset.train, ['image'])['image']
    assert files[2] == (tmp_path / 'JPEGImages' / 'c.jpg').read_bytes()


@pytest.mark.parametrize('kind', ['jpg L', 'jpg CMYK', 'png RGBA', 'png LA', 'png L', 'png P', 'png 1', 'bmp RGB',
                                  'gif P', 'webp RGB'])
def test_images_of_all_kinds_have_three_channels(tmp_path, kind):
    ending, mode = kind.split()
    make_voc(tmp_path)
    (tmp_path / 'JPEGImages' / 'b.jpg').unlink()
    path = write_image(tmp_path / 'JPEGImages' / f'b.{ending}', mode)
    image = everything(open_dataset(f'files/{tmp_path}').train)['image'][1]
    with Picture.open(path) as file:
        expected = np.array(file.convert('RGBA').convert('RGB'), int)
    assert np.abs(image - expected).mean() < (20 if mode == 'CMYK' else 2)              # decoders differ


def test_a_lying_image_is_turned_and_its_boxes_are_those_of_the_upright_one(tmp_path):
    make_voc(tmp_path)
    exif = Picture.Exif()
    exif[0x112] = 6
    write_image(tmp_path / 'JPEGImages' / 'b.jpg', size=(30, 40), exif=exif)
    dataset = open_dataset(f'files/{tmp_path}')
    assert dataset.fields['image'] == Image((30, 40, 3)) and everything(dataset.train)['image'].shape == (3, 30, 40, 3)


def test_a_class_that_is_never_seen_keeps_its_number(tmp_path):
    make_coco(tmp_path)
    for path in (tmp_path / 'annotations').iterdir():
        content = json.loads(path.read_text())
        content['categories'].append({'id': 1, 'name': 'emu'})
        path.write_text(json.dumps(content))
    dataset = open_dataset(f'files/{tmp_path}')
    assert dataset.fields['boxes'].names == ('emu', 'cat', 'dog')
    assert boxes_of(dataset, 'validation') == [[[10, 10, 20, 20, 2, 0]]]


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


VOC_FAULTS = {
    'no xml': ('a.xml', '<object>', '<<object>', r'a.xml must be XML: not well-formed .*line 2'),
    'no number': ('a.xml', '<xmin>1<', '<xmin>one<', "a.xml: xmin of object 1 must be a number. Received: 'one'"),
    'nan': ('a.xml', '<xmin>1<', '<xmin>nan<', "a.xml: xmin of object 1 must be a number. Received: 'nan'"),
    'no corner': ('a.xml', '<ymax>30</ymax>', '', 'a.xml: ymax of object 2 must be a number. Received: None'),
    'no name': ('a.xml', '<name>dog</name>', '', 'a.xml: object 1 must have a name'),
    'swapped': ('a.xml', '<xmax>10<', '<xmax>-3<', 'a.xml: object 1: a box must be of .* left .* from 1 to -3'),
    'size': ('a.xml', '<width>40<', '<width>30<', r'a.xml must give the size of a.jpg, 40x30 .*Received: 30x30'),
    'unknown class': ('e.xml', 'cat', 'emu', 'test has classes that train has not: emu')}


@pytest.mark.parametrize('fault', VOC_FAULTS)
def test_faults_of_voc(tmp_path, fault):
    make_voc(tmp_path)
    name, old, new, message = VOC_FAULTS[fault]
    replaced(tmp_path / 'Annotations' / name, old, new)
    with pytest.raises(UserError, match=message) as error:
        open_dataset(f'files/{tmp_path}')
    assert '\n' not in str(error.value)


def test_faults_of_the_lists_of_voc(tmp_path):
    make_voc(tmp_path, {'validation': 'val'})
    lists = tmp_path / 'ImageSets' / 'Main'
    assert open_dataset(f'files/{tmp_path}').validation.num_examples == 1
    (lists / 'val.txt').write_text('d\na\n')
    with pytest.raises(UserError, match="val.txt must name each image once, in one split. Received: 'a', .* train.txt"):
        open_dataset(f'files/{tmp_path}')
    (lists / 'val.txt').write_text('d\nz\n')
    with pytest.raises(UserError, match="val.txt names 'z', for which there is no Annotations/z.xml"):
        open_dataset(f'files/{tmp_path}')
    (lists / 'val.txt').write_text('')
    with pytest.raises(UserError, match='gives an empty split: validation'):
        open_dataset(f'files/{tmp_path}')
    (lists / 'train.txt').unlink()
    with pytest.raises(UserError, match='must have a list train.txt. Received: val.txt, test.txt'):
        open_dataset(f'files/{tmp_path}')


def test_faults_of_images(tmp_path):
    make_voc(tmp_path)
    path = tmp_path / 'JPEGImages' / 'a.jpg'
    content = path.read_bytes()
    for bad in (b'', b'hello, world'):
        path.write_bytes(bad)
        with pytest.raises(UserError, match='a.jpg must be a JPEG, PNG, BMP, GIF or WebP image. Received: Unid'):
            open_dataset(f'files/{tmp_path}')
    path.unlink()
    with pytest.raises(UserError, match='a.xml has no image: .*/JPEGImages/a.jpg is missing'):
        open_dataset(f'files/{tmp_path}')
    os.mkfifo(path)
    with pytest.raises(UserError, match='a.jpg must be a regular file'):
        open_dataset(f'files/{tmp_path}')
    path.unlink()
    path.write_bytes(content)
    dataset = open_dataset(f'files/{tmp_path}')
    path.write_bytes(content[:500])
    with pytest.raises(tf.errors.InvalidArgumentError):
        everything(dataset.train)
    assert dataset.train.find_unreadable() == str(path)


COCO_FAULTS = {
    'no json': ('"images"', 'images', 'train2017.json must be JSON with .*Received: JSONDecodeError.*line 1'),
    'no images': ('"images"', '"image"', "must be JSON with images .*Received: KeyError: 'images'"),
    'missing image': ('a.jpg', 'z.jpg', "train2017.json names 'z.jpg', which is missing; looked in .*/train2017"),
    'no box': ('"bbox": [0, 0, 10, 20]', '"bbox": []', r'annotations\[0\] must have image_id .*Received: ValueError'),
    'unknown category': ('"category_id": 90', '"category_id": 3', r'annotations\[0\] must .*Received: KeyError: 3'),
    'unknown image': ('"image_id": 98', '"image_id": 1', r'annotations\[2\] must have .*Received: KeyError: 1'),
    'equal ids': ('"id": 99', '"id": 100', 'must have an id of its own for each'),
    'negative': ('[0, 0, 10, 20]', '[0, 0, -1, 20]', r'annotations\[0\]: a box must .*Received: x from 0 to -1'),
    'infinite': ('[0, 0, 10, 20]', '[0, 0, Infinity, 20]', r'annotations\[0\]: a box must .*Received: x from 0 to inf'),
    'size': ('"width": 40', '"width": 41', 'train2017.json must give the size of a.jpg, 40x30 .*Received: 41x30')}
LINES_FAULTS = {
    'no json': ('{"file', '{file', 'metadata.jsonl line 1 must be .*Received: JSONDecodeError'),
    'no list': ('"categories": ["cat"]', '"categories": 5', 'metadata.jsonl line 3 must be .*Received: TypeError'),
    'other number': ('"categories": ["cat"]', '"categories": []', 'line 3 must be .*Received: ValueError: zip'),
    'three numbers': ('[1, 2, 2, 2]', '[1, 2, 2]', 'line 3 must be .*Received: TypeError'),
    'no category': ('["cat"]', '[-1]', 'line 3 must be .*Received: ValueError: -1 is no category'),
    'missing image': ('b.jpg', 'z.jpg', "line 2 names 'z.jpg', which is missing"),
    'negative': ('[1, 2, 2, 2]', '[1, 2, -2, 2]', 'metadata.jsonl line 3: a box must be .*Received: x from 1 to -1')}
FAULTS = [(make_coco, 'annotations/instances_train2017.json', *COCO_FAULTS[fault]) for fault in COCO_FAULTS]
FAULTS += [(make_lines, 'train/metadata.jsonl', *LINES_FAULTS[fault]) for fault in LINES_FAULTS]


@pytest.mark.parametrize('make, file, old, new, message', FAULTS,
                         ids=[*COCO_FAULTS, *(f'lines, {fault}' for fault in LINES_FAULTS)])
def test_faults_of_coco_and_lines(tmp_path, make, file, old, new, message):
    make(tmp_path)
    replaced(tmp_path / file, old, new)
    with pytest.raises(UserError, match=message) as error:
        open_dataset(f'files/{tmp_path}')
    assert '\n' not in str(error.value)


def test_numbers_without_names_are_their_own(tmp_path):
    make_lines(tmp_path, number={'cat': 0, 'dog': 10})
    dataset = open_dataset(f'files/{tmp_path}')
    assert dataset.fields['boxes'].names == tuple(map(str, range(11)))
    assert boxes_of(dataset, 'validation') == [[[10, 10, 20, 20, 10, 0]]]
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    with pytest.raises(UserError, match='line 1 must be .*Received: IndexError'):
        open_dataset(f'files/{tmp_path}')


def test_no_objects_at_all(tmp_path):
    make_lines(tmp_path)
    (tmp_path / 'train' / 'metadata.jsonl').write_text('\n'.join(line(name, []) for name in 'abc'))
    with pytest.raises(UserError, match='must have objects in its split train. Received: none'):
        open_dataset(f'files/{tmp_path}')


def test_without_pillow(tmp_path, monkeypatch):
    make_lines(tmp_path)
    monkeypatch.setitem(sys.modules, 'PIL', None)
    with pytest.raises(UserError, match=r'boxes or masks needs Pillow: pip install -e "\.\[vision\]"'):
        open_dataset(f'files/{tmp_path}')


def test_a_command_says_in_one_line_what_is_wrong(tmp_path, run_python):
    make_voc(tmp_path / 'cells')
    command = ['train.py', '--model=cnn', f'--dataset=files/{tmp_path}/cells', f'--workdir={tmp_path}/run']
    done = run_python(*command, check=False)
    assert (done.returncode, done.stderr) == (2, 'error: `task` classification needs image (image), label (label). '
                                              f'Received: dataset=files/{tmp_path}/cells, which has image (image), '
                                              'boxes (boxes)\n')
    replaced(tmp_path / 'cells' / 'Annotations' / 'a.xml', '<xmin>1<', '<xmin><')
    done = run_python(*command, check=False)
    assert (done.returncode, done.stderr) == (2, f'error: `dataset` {tmp_path}/cells/Annotations/a.xml: xmin of object '
                                              "1 must be a number. Received: ''\n")
    assert not (tmp_path / 'run').exists()


@pytest.mark.skipif(not (REAL_DATA / 'bccd').is_dir(), reason='needs the folder bccd')
def test_bccd():
    dataset = open_dataset('bccd', data_dir=str(REAL_DATA))
    assert str(dataset) == (f'bccd: 205 train, 87 validation, 72 test, from {REAL_DATA}/bccd (2 boxes without an area '
                            'left out)')
    assert dataset.fields == {'image': Image((480, 640, 3)), 'boxes': Boxes(('Platelets', 'RBC', 'WBC'), 30)}
    counts = [sum(map(len, boxes_of(dataset, split))) for split in ('train', 'validation', 'test')]
    assert sum(counts) == 4886
