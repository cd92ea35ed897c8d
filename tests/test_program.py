"""A training step that is saved, and run by jax where TensorFlow is not: the same losses and weights."""

import json
import sys

import numpy as np
import pytest

from errors import UserError
from strategies import program

# What a machine has that only runs programs.
WITHOUT_TENSORFLOW = '''
import sys
for name in ('tensorflow', 'keras', 'absl'):
    sys.modules[name] = None
from strategies.program import main
sys.exit(main(sys.argv[1:]))
'''
PRODUCTS = '''
import re, sys
import jax, jax.export
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_enable_x64', True)
with open(sys.argv[1], 'rb') as file:
    text = str(jax.export.deserialize(bytearray(file.read())).mlir_module())
products = re.findall(r'^ *%.* = stablehlo[.](?:dot|dot_general|convolution)[ (].*$', text, re.MULTILINE)
print(len(products), sum('HIGHEST' in product for product in products))
'''
SAVED = {'mlp': [], 'cnn': ['--batch_size=16', '--batches=2'], 'lstm': ['--batch_size=32'],
         # Not Adam: its first steps make a gradient's last digits as large as any other step.
         'transformer': ['--batch_size=16', '--batches=4', '--optimizer=sgd', '--learning_rate=0.5']}


def save(run_python, folder, *options, check=True):
    return run_python('program.py', f'--output={folder}', *options, check=check)


def run(run_python, *arguments):
    return json.loads(run_python('-c', WITHOUT_TENSORFLOW, *arguments, '--json', '--seconds=0.1').stdout)


@pytest.mark.slow
@pytest.mark.parametrize('model', SAVED)
def test_a_program_ends_with_the_weights_of_tensorflow(run_python, model, tmp_path, measured):
    save(run_python, tmp_path / 'saved', f'--model={model}', '--exact', *SAVED[model])
    found = run(run_python, tmp_path / 'saved', '--steps_per_call=2')
    assert found['checked_steps'] == len(found['losses']) >= 2 and found['losses'][-1] < found['losses'][0]
    assert found['loss_max_rel_diff'] < 1e-5 and 0 < found['weights_max_rel_diff'] < 1e-4
    assert found['precision'] == 'exact float32' and found['step_seconds'] > 0 and found['mfu'] is None
    measured('E6', f'jax in place of TensorFlow, {model}', 1, found['weights_max_rel_diff'])
    every, exact = map(int, run_python('-c', PRODUCTS, tmp_path / 'saved' / 'program.bin').stdout.split())
    assert every == exact > 4


@pytest.mark.slow
def test_weights_that_are_drawn_on_each_machine(run_python, tmp_path):
    """As large models in bfloat16 are carried; and what `program.py` refuses."""
    options = ['--model=transformer', '--precision=bfloat16', '--drawn', '--batch_size=8', '--batches=3']
    said = save(run_python, tmp_path / 'saved', *options).stdout
    assert f'wrote {tmp_path / "saved"}: 930,048 parameters, 3 batches of 8' in said
    assert sum(file.stat().st_size for file in (tmp_path / 'saved').iterdir()) < 1_000_000
    found = run(run_python, tmp_path / 'saved')
    assert 0 < found['loss_max_rel_diff'] < 2e-3 and found['weights_max_rel_diff'] is None
    for output, options, message in (('saved', [], '`output` must be a folder that does not exist yet'),
                                     ('new', ['--exact', '--precision=bfloat16'], '`exact` is for float32. Received'),
                                     ('new', ['--weights=nothing'], '`weights`'),
                                     ('new', ['--weights=x', '--drawn'], '`drawn` and `weights` exclude')):
        refused = save(run_python, tmp_path / output, '--model=mlp', *options, check=False)
        assert refused.returncode == 2 and message in refused.stderr and 'Traceback' not in refused.stderr


def test_what_is_drawn_follows_from_its_name():
    first, again = (program.draw('model/a', [40, 50], 'float32', 2., 0.5) for _ in range(2))
    assert first.dtype == np.float32 and np.array_equal(first, again)
    assert abs(first.mean() - 2) < 0.05 and abs(first.std() - 0.5) < 0.05
    assert not np.array_equal(first, program.draw('model/b', [40, 50], 'float32', 2., 0.5))
    constant = program.draw('optimizer/iteration', [], 'int64', 3)
    assert constant.dtype == np.int64 and constant.shape == () and constant == 3


@pytest.mark.parametrize('name, content, message', [
    (None, None, 'No such file'),
    ('program.json', b'{"format": 1, "st', 'Expecting|Unterminated|Invalid'),
    ('program.json', b'[]', "'list' object"),
    ('program.json', b'{"format": 2}', 'of format 1. Received: .*format 2'),
    ('state.safetensors', b'\xff' * 20, 'eader')])
def test_a_folder_that_is_no_program(name, content, message, tmp_path, capsys):
    for file in program.FILES if name else ():
        (tmp_path / file).write_bytes(b'{"format": 1, "state": {}}')
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'a program must be .*{message}'):
        program.read(tmp_path)
    assert program.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith('error: a program must be ')


@pytest.mark.parametrize('option', ['--steps_per_call=0', '--seconds=nan', '--seconds=-1'])
def test_numbers_out_of_range(option, capsys):
    assert program.main(['nothing', option]) == 2
    name = option[2:].split('=')[0]
    assert capsys.readouterr().err.startswith(f'error: `{name}` must be ')


def test_jax_is_missing(tmp_path, monkeypatch, capsys):
    for file, data in (('program.json', b'{"format": 1, "state": {}}'), ('program.bin', b'')):
        (tmp_path / file).write_bytes(data)
    for file in program.FILES[2:]:
        (tmp_path / file).write_bytes(b'\2\0\0\0\0\0\0\0{}')
    monkeypatch.setitem(sys.modules, 'jax', None)
    assert program.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith('error: jax is needed to run a program: pip install jax')


@pytest.mark.slow
def test_a_program_begins_with_the_weights_that_are_named(run_python, tmp_path):
    run_python('train.py', '--model=mlp', '--steps=40', '--noexport', f'--workdir={tmp_path / "run"}')
    save(run_python, tmp_path / 'saved', '--model=mlp', '--exact', '--batches=2', f'--weights={tmp_path / "run"}')
    found = run(run_python, tmp_path / 'saved')
    assert found['losses'][0] < 1. and found['loss_max_rel_diff'] < 1e-5      # of ten classes: untrained, 2.3
