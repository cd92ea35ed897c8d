"""E6, second half: the recipes' own steps, compiled by the real TPU compiler for TPUs that are not there.

    pytest -m slow tests/test_preflight.py
"""

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

import models
import recipes
from errors import UserError
from experiment import parts
from experiment.preflight import Preflight
from experiment.workdir import Workdir
from settings.models import Model
from strategies import selection
from strategies.preflight import compiler, report, topologies
from strategies.preflight.replicas import ProgramReplicas
from tests import flawed
from tests.conftest import ROOT, clean_environment

FIELDS = {'compiles', 'topology', 'chips', 'per_chip_batch', 'memory_bytes', 'memory_limit_bytes', 'flops_per_step',
          'bytes_per_step', 'all_reduce_bytes', 'bound', 'predicted_step_seconds', 'predicted_examples_per_second',
          'predicted_mfu', 'lint'}
MLP = [784 * 256, 256 * 128, 128 * 10]      # products of an example in the forward pass


@pytest.fixture(autouse=True)
def a_process_of_its_own():
    """As the command has it: a run of another test in this process may have asked for op determinism, under which
    TensorFlow lowers no gradient of max-pooling."""
    was_on = tensorflow_config.is_op_determinism_enabled()
    tensorflow_config.disable_op_determinism()
    yield
    if was_on:
        tf.config.experimental.enable_op_determinism()


class Flawed(Model):
    kind = 'flawed'


def flight(run_python, *arguments):
    done = run_python('preflight.py', '--json', *arguments, check=False)
    return json.loads(done.stdout), done


@pytest.fixture(scope='module')
def mlp(run_python):
    return flight(run_python, '--model=mlp', '--topology=v5e:2x4')


def sound(found, parameters, slots=2):
    """What must hold of any report of a recipe that trains."""
    assert FIELDS <= set(found) and found['compiles'] and found['evaluation']['compiles']
    memory = found['memory_bytes']
    # Adam keeps two numbers a weight; its step count and learning rate are a few bytes.
    assert memory['weights'] == 4 * parameters
    assert 0 <= memory['optimizer'] - slots * 4 * parameters < 64
    assert memory['weights'] + memory['optimizer'] <= memory['total'] < found['memory_limit_bytes']
    assert sum(size for kind, size in memory.items() if kind != 'total') == memory['total']
    # What the launch updates is donated: its new value takes the place of the old one.
    assert memory['outputs'] < 2 ** 16 and re.fullmatch('[0-9a-f]{16}', found['fingerprint'])
    # Every gradient, once, as float32, with the padding of tiles; and the few totals.
    assert found['all_reduce_bytes'] >= 4 * parameters if found['chips'] > 1 else found['all_reduce_bytes'] == 0
    seconds = [found[f'{kind}_seconds'] for kind in ('compute', 'memory', 'interconnect')]
    assert max(seconds) <= found['predicted_step_seconds'] <= sum(seconds)
    assert found[f'{found["bound"]}_seconds'] == max(seconds)
    assert found['predicted_examples_per_second'] == pytest.approx(
        found['global_batch_size'] / found['predicted_step_seconds'])
    assert 0 < found['predicted_mfu'] <= 1
    assert found['chip_hours'] == pytest.approx(found['hours'] * found['chips'])
    # The compiler computes what the model asks for, and no more than a tenth beside.
    assert found['compiled_flops_per_chip'] * found['chips'] == pytest.approx(found['flops_per_step'], rel=0.1)


def test_mlp(mlp):
    found, done = mlp
    assert done.returncode == 0
    sound(found, parameters=235_146)
    assert found['flops_per_step'] == pytest.approx(2 * 128 * (3 * sum(MLP) - MLP[0]), rel=0.1)
    assert (found['chips'], found['per_chip_batch'], found['all_reduces']) == (8, 16, 1)
    assert found['precision'] == 'bfloat16' and found['interconnect_seconds'] > 0
    # A block of 16 batches: of the launch that runs, of the next two, and the one that is being sent. Images of
    # 28x28 are padded to whole tiles.
    assert found['steps_per_launch'] == 16
    assert found['memory_bytes']['batches'] == 4 * 16 * 16 * (4 * MLP[0] // 256 + 4 + 4)
    assert found['memory_bytes']['padding'] > found['memory_bytes']['batches']


def test_nothing_but_the_report_and_the_progress_is_printed(mlp):
    _, done = mlp
    assert [line.split()[0] for line in done.stderr.splitlines()] == ['compiling', 'compiling']


def test_the_table_says_what_the_report_holds(mlp):
    text = report.table(mlp[0])
    for part in (f'program   {mlp[0]["fingerprint"]}, at most 16 steps', '8 x TPU v5e', '128 = 8 x 16',
                 'compiles  yes', 'MFU', 'bound by interconnect', 'assuming'):
        assert part in text
    assert max(map(len, text.splitlines())) <= report.WIDTH


@pytest.mark.parametrize('fault, reason', [('dynamic', 'has the dynamic shape'), ('string', 'has a string'),
                                           ('host', 'runs on the host')])
def test_what_a_tpu_cannot_run_is_refused_with_its_line(monkeypatch, fault, reason):
    monkeypatch.setitem(models.MODELS, 'flawed', flawed.builder(fault))
    lines = (ROOT / 'tests' / 'flawed.py').read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if f'the {fault} line' in text)
    recipe = dataclasses.replace(recipes.load('mlp_digits')[1], model=Flawed())
    found = Preflight(say=lambda line: None).check(recipe, topologies.parse('v5e:1x1'))
    assert not found['compiles']
    assert f'/{fault}' in found['reason'] and reason in found['reason']
    assert f'tests/flawed.py:{line}' in found['reason'] and '\n' not in found['reason']


def test_an_operation_that_xla_does_not_know_is_named_with_its_line():
    def step(x):
        return tf.nn.dilation2d(x, tf.ones([2, 2, 1]), [1] * 4, 'SAME', 'NHWC', [1] * 4)

    with pytest.raises(compiler.CannotCompile, match=r'Dilation2D.*test_preflight\.py:\d+\)$') as error:
        compiler.lower(step, tf.TensorSpec([1, 4, 4, 1]))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('arguments, message', [
    (['--model=mlp', '--topology=v9:2x4'], '`topology` must be one of v4, v5e, v5p, v6e.'),
    (['--model=mlp', '--topology=v5e:3x5'], '`topology` must be one of v5e:1x1, .*v5e:16x16'),
    (['--model=mlp', '--topology=v5e:16x16'], '`batch_size` .*divisible.*batch_size=128, replicas=256'),
    (['--model=mlp', '--topology=v5e:2x4,v5e:4x4'], '`topology` and `per_chip_batch` take several values only with'),
    (['--model=mlp', '--per_chip_batch=x'], '`per_chip_batch` must be a number'),
    (['--model=mlp', '--per_chip_batch=8', '--batch_size=64'], '`per_chip_batch` and `batch_size` exclude'),
    (['--model=mlp', '--output=x'], '`output` is for --sweep. Received: output=x'),
    (['--model=mlp', '--sweep', '--json'], '`json` is not for --sweep. Received: json=True'),
    (['--model=mlp', '--sweep', '--find_batch_size'], '`find_batch_size` is not for --sweep'),
    (['mlp'], '`preflight.py` takes flags only'),
])
def test_usage_errors_are_one_line(arguments, message, run_python):
    done = run_python('preflight.py', *arguments, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'libtpu', None)
    with pytest.raises(UserError, match=r'needs jax and libtpu.*pip install -e "\.\[tpu\]"'):
        compiler.open_topology(topologies.parse('v5e:2x4'))


def test_what_libtpu_cannot_open_is_one_line():
    topology = topologies.Topology('v5e:3x5', topologies.CHIPS['v5e'], (3, 5), 15)
    with pytest.raises(UserError, match=r'libtpu [\d.]+ with jax [\d.]+ cannot open v5e:3x5: ') as error:
        compiler.open_topology(topology)
    assert '\n' not in str(error.value)


def test_the_program_of_one_replica_is_the_step_that_trains():
    """Run on this machine, the step that is compiled for a TPU changes the weights as the step of a run does."""
    recipe = recipes.load('mlp_digits')[1].replace(precision='float32')
    dataset, task = parts.open_data(recipe)
    weights = []
    for strategy in (ProgramReplicas(1), tf.distribute.get_strategy()):
        devices = selection.Devices('tpu', 'tpu', 'here', strategy)
        batches = parts.Batches(recipe, dataset, task, 1)
        trainer, _ = parts.make_trainer(recipe, batches.rows, task, devices, Workdir('unused'))
        batch = next(iter(batches.training(0)()))
        before = trainer.model.get_weights()
        step = tf.function(lambda: strategy.run(trainer.train_step, args=(batch, tf.constant(0, tf.int64))),
                           jit_compile=True)
        totals, _ = step()
        weights.append([*trainer.model.get_weights(), totals['loss'][0].numpy()])
        assert any((a != b).any() for a, b in zip(before, weights[-1]))
    for ours, theirs in zip(*weights):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_replica_sums_and_nothing_else():
    strategy = ProgramReplicas(2)
    with pytest.raises(ValueError, match='`reduce_op` must be SUM'):
        strategy.run(lambda: tf.distribute.get_replica_context().all_reduce('MEAN', tf.ones([])))


def transformer_flops(recipe, batch):
    """Products of the forward and backward pass, by hand: arXiv:1706.03762 with L layers of D and F."""
    specs = batch.spec[0]
    source, target = specs['source'].shape[1], specs['target'].shape[1]
    layers, d, f = 2, 128, 512
    attention = 4 * d * d
    encoder = source * (attention + 2 * d * f) + 2 * source * source * d
    decoder = target * (attention + 2 * d * f) + 2 * target * target * d
    cross = target * 2 * d * d + source * 2 * d * d + 2 * target * source * d
    return 3 * 2 * recipe.training.batch_size * (layers * (encoder + decoder + cross) + target * d * words(recipe))


def words(recipe):
    return parts.open_data(recipe)[1].sizes['target_vocabulary_size']


@pytest.mark.slow
def test_transformer(run_python):
    found, done = flight(run_python, '--model=transformer', '--topology=v5e:2x4')
    assert done.returncode == 0
    sound(found, parameters=930_048)
    recipe = recipes.load('transformer_number_words')[1]
    dataset, task = parts.open_data(recipe)
    by_hand = transformer_flops(recipe, parts.Batches(recipe, dataset, task, 8))
    assert found['flops_per_step'] == pytest.approx(by_hand, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize('model, topology, parameters', [
    ('cnn', 'v5e:2x4', 1_969_738), ('lstm', 'v6e:2x4', 13_910), ('lstm', 'v4:2x2x1', 13_910),
    ('lstm', 'v5p:2x2x2', 13_910)])
def test_other_models_and_chips(model, topology, parameters):
    found = Preflight(say=lambda line: None).check(recipes.find(model=model)[1], topologies.parse(topology))
    sound(found, parameters)
    assert found['uncounted_loops'] == []


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['batch', 'group'])
def test_resnet(norm):
    recipe = recipes.load('resnet_fashion_mnist')[1].replace(dataset='digits', image_size=16, size='18', width=8,
                                                             norm=norm)
    found = Preflight(say=lambda line: None).check(recipe, topologies.parse('v4:2x2x2'))
    assert found['compiles'] and found['evaluation']['compiles']
    # The step's, and two for each of the 20 batch norms; the compiler joins those that need not wait for each other.
    assert 20 < found['all_reduces'] <= 1 + 2 * 20 if norm == 'batch' else found['all_reduces'] == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', ['detector_fashion_scenes', 'unet_fashion_scenes'])
def test_boxes_and_masks(name):
    recipe = recipes.load(name)[1].replace(dataset='digit_scenes', image_size=32, width=8)
    found = Preflight(say=lambda line: None).check(recipe, topologies.parse('v5e:2x4'))
    assert found['compiles'] and found['evaluation']['compiles']


@pytest.mark.slow
def test_a_batch_too_large_is_refused_and_the_largest_that_fits_is_found():
    """A network whose batch alone fills the memory, so that each try takes seconds."""
    recipe = recipes.load('lstm_digits')[1].replace(batch_size=2 ** 21)
    compiled, topology = Preflight(say=lambda line: None), topologies.parse('v5e:1x1')
    refused = compiled.check(recipe, topology)
    assert not refused['compiles']
    assert refused['memory_bytes']['total'] > refused['memory_limit_bytes'] == topology.chip.usable_hbm_bytes
    assert 'GiB more than the 15.75 GiB that it can use' in refused['reason']
    largest = refused['largest_per_chip_batch']
    assert 0 < largest < 2 ** 21 and f'{largest:,} examples per chip' in report.table(refused)
    fits = compiled.check(recipe.replace(batch_size=largest), topology)
    assert fits['compiles'] and fits['memory_bytes']['total'] <= fits['memory_limit_bytes']
    assert fits['memory_bytes']['total'] > 0.8 * fits['memory_limit_bytes']


@pytest.mark.slow
@pytest.mark.parametrize('version', ['0.0.14', '0.0.10'])
def test_the_compilers_of_the_tpu_wheels_are_too_old(run_python, tmp_path, version):
    """Those of tensorflow-tpu 2.20.0 and 2.19.1: they do not read what jax writes."""
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', tmp_path,
                    f'libtpu=={version}'], check=True, capture_output=True)
    done = run_python('preflight.py', '--json', '--model=lstm', check=False, env={'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f'error: libtpu {version} is too old for programs of jax ')


@pytest.mark.slow
def test_ctrl_c_ends_it_while_the_compiler_works():
    process = subprocess.Popen([sys.executable, 'preflight.py', '--model=transformer'], cwd=ROOT, text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment())
    with process:
        assert 'compiling' in process.stderr.readline()
        time.sleep(15)      # it lowers for 8 s, and then compiles for half a minute
        process.send_signal(signal.SIGINT)
        assert process.wait(2) == -signal.SIGINT
        assert 'Traceback' not in process.stderr.read()


@pytest.mark.slow
def test_a_sweep_writes_a_table_and_a_picture(run_python, tmp_path):
    done = run_python('preflight.py', '--model=mlp', '--sweep', '--topology=v5e:1x1,v5e:2x2',
                      '--per_chip_batch=64,1024', f'--output={tmp_path}')
    rows = list(csv.DictReader((tmp_path / 'sweep.csv').read_text().splitlines()))
    assert [(r['topology'], r['per_chip_batch'], r['compiles']) for r in rows] == [
        (t, b, 'True') for t in ('v5e:1x1', 'v5e:2x2') for b in ('64', '1024')]
    assert float(rows[1]['predicted_mfu']) > float(rows[0]['predicted_mfu'])
    assert (tmp_path / 'sweep.png').read_bytes().startswith(b'\x89PNG') and 'sweep.csv' in done.stdout


def test_the_page_states_the_stored_reports():
    page = (ROOT / 'docs' / 'tpu.md').read_text(encoding='utf-8')
    text = page.split('<!-- preflight -->')[1].split('<!-- /')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.strip().splitlines()[2:]]
    assert {row[0].split()[0] for row in rows} == {'mlp', 'cnn', 'lstm', 'transformer'}
    for model, topology, batch, gflop, memory, all_reduced, bound, least, mfu in rows:
        name, _, size = model.partition(' ')
        stored = f'preflight_{name}_{size if size == "big" else ""}_{topology.replace(":", "_")}'.replace('__', '_')
        found = json.loads((ROOT / 'benchmarks' / 'results' / f'{stored}.json').read_text())
        assert (found['model'], found['size'], found['compiles']) == (name, size, True)
        assert (found['topology'], found['per_chip_batch'], found['bound']) == (topology, int(batch), bound)
        assert gflop == f'{found["flops_per_step"] / 1e9:,.2f}' and mfu == f'{found["predicted_mfu"]:.1%}'
        assert memory == f'{found["memory_bytes"]["total"] / 2 ** 20:,.1f}'
        assert all_reduced == f'{found["all_reduce_bytes"] / 2 ** 20:,.2f}'
        assert least == f'{found["predicted_step_seconds"] * 1e6:,.1f}'
