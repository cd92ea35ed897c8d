"""Weights that others published, in real runs: --weights and export.py --format=huggingface."""

import json

import numpy as np
import pytest
import safetensors.numpy

from experiment import published
from experiment.trained import load
from models.resnet import resnet
from models.resnet_names import LAYOUTS
from training.checkpoint import Checkpoints

SMALL = ['train.py', '--model=resnet', '--dataset=digits', '--image_size=8', '--size=18', '--width=4',
         '--batch_size=16', '--steps=2', '--noexport']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of the weights of a ResNet-18 of 7 classes under torchvision's names."""
    folder, rng = tmp_path_factory.mktemp('published'), np.random.default_rng(0)
    arrays = {v.path: rng.uniform(0.5, 1.5, v.shape).astype(np.float32)
              for v in resnet((8, 8, 1), 7, size='18', width=4).weights}
    theirs = LAYOUTS['torchvision and timm'].to_theirs(arrays)
    content = safetensors.numpy.save({name: np.asarray(array, order='C') for name, array in theirs.items()})
    (folder / published.FILE).write_bytes(content)
    return folder, arrays


@pytest.mark.slow
def test_a_run_starts_from_published_weights_and_goes_back_to_them(run_python, folder, tmp_path):
    folder, arrays = folder
    done = run_python(*SMALL, f'--weights={folder}', '--learning_rate=1e-30', f'--workdir={tmp_path / "run"}')
    line = next(line for line in done.stdout.splitlines() if line.startswith('weights'))
    assert 'named as by torchvision and timm, hash ' in line and line.endswith(
        'logits/bias, logits/kernel of the seed, since they are not there in this shape')
    trained, metadata = Checkpoints(tmp_path / 'run' / 'checkpoints').newest()
    assert metadata['weights']
    for path, array in arrays.items():      # at this rate only the moving statistics have changed
        if 'logits' not in path and 'moving' not in path:
            np.testing.assert_array_equal(trained[f'model/{path}'], array, err_msg=path)
    run_python('export.py', f'--workdir={tmp_path / "run"}', '--format=huggingface', f'--output={tmp_path / "out"}')
    *_, model, _ = load(tmp_path / 'run')
    theirs = safetensors.numpy.load((tmp_path / 'out' / published.FILE).read_bytes())
    for name, array in LAYOUTS['Hugging Face'].to_theirs({v.path: np.array(v) for v in model.weights}).items():
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['id2label'] == {str(i): str(i) for i in range(10)}
    again = run_python(*SMALL, f'--weights={tmp_path / "out"}', f'--workdir={tmp_path / "again"}')
    line = next(line for line in again.stdout.splitlines() if line.startswith('weights'))
    assert 'named as by Hugging Face' in line and 'of the seed' not in line


@pytest.mark.slow
def test_weights_that_do_not_fit_are_one_line_and_leave_no_folder(run_python, folder, tmp_path):
    done = run_python(*SMALL, '--size=34', f'--weights={folder[0]}', f'--workdir={tmp_path / "run"}', check=False)
    assert done.returncode == 2 and not (tmp_path / 'run').exists()
    assert done.stderr.startswith('error: `weights` must fit the model: layer1.2.bn1.bias, layer1.2.bn1.running_mean, '
                                  'layer1.2.bn1.running_var and 77 more are not there. Received: weights=')
    assert len(done.stderr.splitlines()) == 1
