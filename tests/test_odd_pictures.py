"""Whole runs on folders of odd pictures, with boxes and with masks: trained, evaluated, exported and asked, no NaN.

    pytest -m slow tests/test_odd_pictures.py
"""

import json
import math

import numpy as np
import pytest
from PIL import Image

import recipes
import train
from settings import Options

pytestmark = pytest.mark.slow
# name -> (width, height, PIL's mode, ending)
PICTURES = {'tiny': (1, 1, 'RGB', 'png'), 'wide': (20_000, 3, 'RGB', 'jpg'), 'grey': (40, 30, 'L', 'png'),
            'cmyk': (33, 50, 'CMYK', 'jpg'), 'alpha': (64, 64, 'RGBA', 'png'), 'palette': (20, 70, 'P', 'png'),
            'plain': (48, 48, 'RGB', 'jpg'), 'tall': (2, 300, 'RGB', 'png')}
ASKED = ('tiny', 'wide', 'cmyk')        # of predict.py, a process each
SHORT = {'image_size': 64, 'width': 8, 'batch_size': 4, 'steps': 3, 'warmup_steps': 1, 'eval_every': 0}


def paint(path, width, height, mode):
    random = np.random.RandomState(len(path.name))
    image = Image.fromarray(random.randint(0, 256, (height, width, 3)).astype(np.uint8))
    image.convert(mode).save(path)


@pytest.fixture(scope='module')
def boxes(tmp_path_factory):
    """As Hugging Face's folders of images; the pictures of odd numbers have no object."""
    folder = tmp_path_factory.mktemp('data')
    for split in ('train', 'validation', 'test'):
        (folder / 'odd' / split).mkdir(parents=True)
        lines = []
        for number, (name, (width, height, mode, ending)) in enumerate(PICTURES.items()):
            paint(folder / 'odd' / split / f'{name}.{ending}', width, height, mode)
            # A box of the whole picture, one outside, one without an area.
            found = [[0, 0, width, height], [width + 3, 0, 5, 5], [0, 0, width, 0]] if number % 2 == 0 else []
            lines.append(json.dumps({'file_name': f'{name}.{ending}', 'objects': {
                'bbox': found, 'categories': ['ab'[i % 2] for i in range(len(found))]}}))
        (folder / 'odd' / split / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')
    return folder


@pytest.fixture(scope='module')
def masks(tmp_path_factory):
    """The third class is in no mask; one mask is void everywhere."""
    folder = tmp_path_factory.mktemp('data')
    (folder / 'odd').mkdir()
    (folder / 'odd' / 'classes.txt').write_text('a\nb\nnever seen\n')
    for split in ('train', 'validation', 'test'):
        for part in ('images', 'masks'):
            (folder / 'odd' / split / part).mkdir(parents=True)
        for name, (width, height, mode, ending) in PICTURES.items():
            paint(folder / 'odd' / split / 'images' / f'{name}.{ending}', width, height, mode)
            mask = np.full((height, width), 255, np.uint8)
            if name != 'plain':
                mask[:] = np.arange(width) % 2
            Image.fromarray(mask).save(folder / 'odd' / split / 'masks' / f'{name}.png')
    return folder


def array(path):
    with Image.open(path) as image:
        return np.array(image)


def trained(recipe, folder):
    _, found = recipes.load(recipe)
    workdir = folder / 'run'
    results = train.run(found.replace(dataset='odd', **SHORT), Options(workdir=str(workdir), data_dir=str(folder)))
    numbers = [value for value in results['eval'].values() if not isinstance(value, str)]
    assert all(map(math.isfinite, numbers)) and results['eval']['count'] == len(PICTURES)
    assert results['export_max_abs_diff'] <= 1e-4
    return workdir, results['eval']


def test_a_detector(boxes, run_python):
    workdir, values = trained('detector_bccd', boxes)
    assert 'ap' in values
    for name in ASKED:
        picture, output = boxes / 'odd' / 'test' / f'{name}.{PICTURES[name][-1]}', boxes / f'{name}.png'
        done = run_python('predict.py', f'--workdir={workdir}', f'--data_dir={boxes}', f'--image={picture}',
                          f'--output={output}')
        assert picture.name in done.stdout
        assert array(output).shape[1::-1] == PICTURES[name][:2]


def test_a_segmenter(masks, run_python):
    workdir, values = trained('unet_camvid', masks)
    assert 'iou/a' in values and 'iou/b' in values
    for name in ASKED:
        picture, output = masks / 'odd' / 'test' / 'images' / f'{name}.{PICTURES[name][-1]}', masks / f'{name}.png'
        done = run_python('predict.py', f'--workdir={workdir}', f'--data_dir={masks}', f'--image={picture}',
                          f'--output={output}', '--json')
        shares = json.loads(done.stdout)['shares']
        assert math.isclose(sum(shares.values()), 1., rel_tol=1e-5)
        mask = array(masks / f'{name}_mask.png')
        assert array(output).shape[1::-1] == mask.shape[::-1] == PICTURES[name][:2]
        assert set(np.unique(mask)) <= {0, 1, 2}
