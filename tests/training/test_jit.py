"""Whether XLA compiles the step, decided from the layers of models that are built here."""

import keras
import numpy as np
import pytest

import models
from errors import UserError
from models.batch_norm import BatchNormalization
from settings import Training
from strategies import selection
from tests.distributed import SGD, B, F, Squares, run
from tests.models import examples
from training import batch_norm
from training.jit import PAYS_AFTER_STEPS, use_jit
from training.trainer import Trainer

LONG = PAYS_AFTER_STEPS
MEASURED = ['mlp', 'cnn', 'lstm', 'transformer']
SIZES = dict(reversed(list(examples.CASES.values()))) | {'transformer': examples.FORMS['pairs']}     # the first of each
IMAGE = (8, 8, 3)


def net(*layers, shape=IMAGE):
    return keras.Sequential([keras.Input(shape), *layers])


def model(name):
    return models.build(name, SIZES[name])


# What XLA cannot compile: (layers, hardware, replicas, the reason)
OBSTACLES = {
    'max-pooling': (lambda: net(keras.layers.MaxPooling2D(name='p')), 'gpu', 1, 'gradient of max-pooling (p)'),
    'max-pooling on a cpu': (lambda: net(keras.layers.MaxPooling1D(name='p'), shape=(8, 3)), 'cpu', 1, '(p)'),
    'a nested layer': (lambda: net(net(keras.layers.MaxPooling2D(name='p'))), 'gpu', 1, '(p)'),
    'batch norm': (lambda: net(BatchNormalization(name='n')), 'gpu', 2, 'all-reduce of BatchNormalization on 2'),
    'an LSTM': (lambda: net(keras.layers.LSTM(2, name='l'), shape=(8, 3)), 'gpu', 1, 'cuDNN kernel of LSTM (l)'),
    'a GRU': (lambda: net(keras.layers.Bidirectional(keras.layers.GRU(2)), shape=(8, 3)), 'gpu', 1, 'of GRU'),
}
# Near to them, and possible: (layers, hardware, replicas, and whether it must be deterministic, by default True)
POSSIBLE = {
    'average pooling': (lambda: net(keras.layers.AveragePooling2D(2)), 'gpu', 1),
    'the largest of all': (lambda: net(keras.layers.GlobalMaxPooling2D()), 'gpu', 1),
    'batch norm on one replica': (lambda: net(BatchNormalization()), 'gpu', 1),
    'an LSTM on a cpu': (lambda: net(keras.layers.LSTM(2), shape=(8, 3)), 'cpu', 1),
    'an LSTM without cuDNN': (lambda: net(keras.layers.LSTM(2, use_cudnn=False), shape=(8, 3)), 'gpu', 1),
    'max-pooling, not deterministic': (lambda: net(keras.layers.MaxPooling2D()), 'gpu', 1, False),
    'an Embedding, not deterministic': (lambda: net(keras.layers.Embedding(3, 2), shape=(4,)), 'gpu', 1, False),
    'an LSTM that cuDNN does not have': (lambda: net(keras.layers.LSTM(2, activation='relu'), shape=(8, 3)), 'gpu', 1),
}


@pytest.mark.parametrize('hardware', ['cpu', 'gpu', 'xla'])
@pytest.mark.parametrize('name', models.MODELS)
def test_auto_decides_for_every_model_and_says_why(name, hardware):
    expected = {'cpu': ['mlp'], 'gpu': ['mlp', 'transformer'], 'xla': []}[hardware]
    chosen, reason = use_jit('auto', model(name), hardware, 2, LONG)
    assert reason and (chosen == (name in expected) or name not in MEASURED)


@pytest.mark.parametrize('name', OBSTACLES)
def test_auto_is_off_where_xla_cannot_compile_a_layer_and_on_is_refused(name):
    build, hardware, replicas, why = OBSTACLES[name]
    built = build()
    chosen, reason = use_jit('auto', built, hardware, replicas, LONG)
    assert not chosen and why in reason
    with pytest.raises(UserError) as refused:
        use_jit('on', built, hardware, replicas, LONG)
    line = str(refused.value)
    assert line.startswith('`jit` must be off') and why in line and line.endswith('Received: jit=on')
    assert '\n' not in line
    assert use_jit('off', built, hardware, replicas, LONG) == (False, 'asked for')
    assert not use_jit('on', built, 'xla', replicas, LONG)[0]        # whose XLA can


@pytest.mark.parametrize('name', POSSIBLE)
def test_what_is_near_to_an_obstacle_is_none(name):
    build, hardware, replicas, *deterministic = POSSIBLE[name]
    assert use_jit('on', build(), hardware, replicas, LONG, *deterministic) == (True, 'asked for')
    assert use_jit('auto', build(), hardware, replicas, LONG, *deterministic)[0] == (hardware == 'gpu')


def test_auto_is_off_where_xla_is_slow_on_a_gpu():
    """Of an Embedding of Keras: ours has another gradient there."""
    embedding = net(keras.layers.Embedding(3, 2, name='e'), shape=(4,))
    chosen, reason = use_jit('auto', embedding, 'gpu', 1, LONG)
    assert not chosen and 'Embedding slow on a gpu (e)' in reason
    assert use_jit('on', embedding, 'gpu', 1, LONG) == (True, 'asked for')


def test_on_a_cpu_only_a_long_run_of_dense_layers_is_compiled():
    dense = net(keras.layers.Flatten(), keras.layers.Dense(4, activation='relu'), keras.layers.Dense(1))
    assert use_jit('auto', dense, 'cpu', 1, LONG)[0]
    chosen, reason = use_jit('auto', dense, 'cpu', 1, LONG - 1)
    assert not chosen and '16,000' in reason
    assert use_jit('auto', dense, 'gpu', 1, 1)[0] and use_jit('on', dense, 'cpu', 1, 1)[0]
    other = net(keras.layers.Flatten(), keras.layers.LayerNormalization(name='norm'), keras.layers.Dense(1))
    chosen, reason = use_jit('auto', other, 'cpu', 1, LONG)
    assert not chosen and 'norm' in reason


def trainer(layer, jit='auto', accumulate=1):
    return Trainer(Training(batch_size=B, steps=LONG, accumulate=accumulate), selection.select('cpu'), Squares(),
                   lambda: net(keras.layers.Reshape((F, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(1),
                               shape=(F,)), total_steps=LONG, workdir='unused', jit=jit)


def test_a_trainer_decides_from_the_model_that_it_built():
    """A model of an unknown name whose layers forbid XLA was compiled on a GPU, and then refused as if asked for."""
    made = trainer(keras.layers.MaxPooling1D(name='p'))
    assert not made.jit and 'max-pooling (p)' in made.jit_reason
    with pytest.raises(UserError, match='`jit` must be off .*max-pooling .p.*Received: jit=on'):
        trainer(keras.layers.MaxPooling1D(name='p'), 'on')
    assert trainer(keras.layers.Dense(1), 'on').jit


def test_the_batch_norm_of_keras_is_refused_and_ours_with_micro_batches():
    with pytest.raises(UserError, match='models.batch_norm.BatchNormalization .* Received: n$'):
        trainer(keras.layers.BatchNormalization(name='n'))
    with pytest.raises(UserError, match='`accumulate` .* BatchNormalization .n.. Received: accumulate=2'):
        trainer(BatchNormalization(name='n'), accumulate=2)
    layer = BatchNormalization(name='n')
    trainer(layer)
    assert layer.all_reduce is None and layer.fused is batch_norm.fused      # one replica
    trainer(layer, 'on')
    assert layer.fused is None           # of which XLA makes its own kernel


def test_the_tpu_wheel_has_no_xla_for_the_cpu(tmp_path, monkeypatch):
    (tmp_path / 'tensorflow_tpu-2.20.0.dist-info').mkdir()
    (tmp_path / 'tensorflow_tpu-2.20.0.dist-info' / 'METADATA').write_text('Name: tensorflow_tpu\nVersion: 2.20.0\n')
    monkeypatch.syspath_prepend(tmp_path)
    dense = model('mlp')
    chosen, reason = use_jit('auto', dense, 'cpu', 1, LONG)
    assert not chosen and 'no XLA for the CPU' in reason
    assert use_jit('off', dense, 'cpu', 1, LONG) == (False, 'asked for')
    with pytest.raises(UserError, match='`jit` on needs XLA for the CPU, .* Received: jit=on'):
        use_jit('on', dense, 'cpu', 1, LONG)


@pytest.mark.slow
def test_xla_computes_the_same_with_batch_norm_on_one_replica(measured):
    without, compiled = (run(selection.select('cpu'), jit=jit, batch_norm=True, **SGD)[0].state.arrays()
                         for jit in ('off', 'on'))
    worst = max(np.abs(value - compiled[name]).max() / max(np.abs(value).max(), 1e-3)
                for name, value in without.items())
    measured('E7', 'batch norm, xla', '1', worst)
    assert worst < 1e-4
