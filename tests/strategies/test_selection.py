"""Selection and its errors, on a machine with nothing but a CPU."""

import json

import pytest
import tensorflow as tf

from strategies import cluster, diagnosis, doctor, selection
from errors import UserError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ('TF_CONFIG', 'TPU_NAME'):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize('strategy', ['auto', 'cpu'])
def test_a_cpu_is_one_replica_and_says_why(strategy):
    devices = selection.select(strategy)
    assert (devices.name, devices.hardware, devices.replicas, devices.workers) == ('cpu', 'cpu', 1, 1)
    assert devices.is_chief
    assert ('found no GPU' if strategy == 'auto' else 'asked for') in str(devices)


@pytest.mark.parametrize('arguments, message', [
    ({'strategy': 'gpus'}, r'`strategy` must be one of auto, cpu, gpu, multiworker, tpu. Received: strategy=\'gpus\'. '
                           'Did you mean gpu'),
    ({'strategy': 'gpu'}, r'needs a GPU that TensorFlow sees; found none .*pip install "tensorflow\[and-cuda\]"'),
    ({'strategy': 'multiworker'}, 'needs the environment variable TF_CONFIG.*--num_workers.*Received: TF_CONFIG unset'),
    ({'strategy': 'tpu'}, 'needs a TPU at \'local\': this machine has no TPU: .*To fix it: .*Received: strategy=tpu'),
    ({'strategy': 'tpu', 'virtual_devices': 2}, '`virtual_devices` is for CPU and GPU'),
    ({'tpu': 'mine', 'virtual_devices': 2}, '`virtual_devices` is for CPU and GPU.*strategy=tpu .a TPU is named'),
    ({'strategy': 'cpu', 'tpu': 'mine'},
     "`tpu` names the TPU of strategy tpu or auto. Received: tpu='mine', strategy=cpu"),
    ({'virtual_devices': -1}, '`virtual_devices` must not be negative. Received: virtual_devices=-1'),
])
def test_errors_are_one_line_and_nothing_falls_back(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        selection.select(**arguments)
    assert '\n' not in str(error.value)


def test_virtual_devices_after_tensorflow_started_is_an_error():
    tf.config.list_logical_devices()
    with pytest.raises(UserError, match='must be selected before anything else uses TensorFlow'):
        selection.select('cpu', virtual_devices=2)


@pytest.mark.parametrize('text', ['{', '[1]', '3'])
def test_a_broken_cluster_is_shown(monkeypatch, text):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match='`TF_CONFIG` must be JSON like'):
        selection.select('auto')


def test_a_cluster_counts_its_chief(monkeypatch):
    hosts = {'chief': ['a:1'], 'worker': ['b:1', 'c:1']}
    monkeypatch.setenv('TF_CONFIG', json.dumps({'cluster': hosts, 'task': {'type': 'worker', 'index': 1}}))
    assert cluster.size() == 3


def test_auto_takes_a_tpu_that_the_wheel_can_drive_and_no_other(monkeypatch):
    wheels = {'tensorflow-tpu': '2.20.0', 'libtpu': '0.0.14'}
    monkeypatch.setattr(doctor, 'look', lambda: diagnosis.Machine(wheels, {}, tpu_chips=('v4',)))
    with pytest.raises(UserError, match='needs a TPU at \'local\''):      # it tries, and there is none in truth
        selection.select('auto')
    monkeypatch.setattr(doctor, 'look', lambda: diagnosis.Machine({'tensorflow': '2.21.0'}, {}, tpu_chips=('v4',)))
    assert selection.select('auto').name == 'cpu'


def test_auto_takes_a_named_tpu_seriously(monkeypatch):
    monkeypatch.setenv('TPU_NAME', 'my-tpu')
    with pytest.raises(UserError, match='needs a TPU at \'my-tpu\''):
        selection.select('auto')
