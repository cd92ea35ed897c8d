"""What a machine with GPUs is told and asked, where TensorFlow is told that there are some: this machine has none."""

import shutil
import subprocess
import types

import pytest
import tensorflow as tf

from experiment import parts
from strategies import cluster, gpu, selection

GIB = 2 ** 30
# The driver's library, which says what it has: the calls that we make, with their C types.
DRIVER = '''
#include <stddef.h>
int cuInit(unsigned flags) { return %d; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t) 80 << 30; return 0; }
'''


@pytest.fixture
def machine(monkeypatch):
    """machine(compute capability, ...) -> what TensorFlow is told about these GPUs, and the strategies made."""
    told = types.SimpleNamespace(growth=[], limits={}, devices=[])

    def make(*capabilities):
        gpus = [tf.config.PhysicalDevice(f'/physical_device:GPU:{i}', 'GPU') for i in range(len(capabilities))]
        details = dict(zip(gpus, ({'compute_capability': found} if found else {} for found in capabilities)))
        config = tf.config.experimental
        monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind=None: gpus if kind == 'GPU' else ['a CPU'])
        monkeypatch.setattr(config, 'get_device_details', details.get)
        monkeypatch.setattr(config, 'set_memory_growth', lambda device, on: told.growth.append((device, on)))
        monkeypatch.setattr(tf.config, 'set_logical_device_configuration', lambda device, shares: told.limits.update(
            {device: [share.memory_limit for share in shares]}))
        monkeypatch.setattr(tf.distribute, 'MirroredStrategy', lambda names=None: told.devices.append(names) or one())
        return gpus, told
    return make


def one():
    return types.SimpleNamespace(num_replicas_in_sync=1)


@pytest.mark.parametrize('capabilities, bfloat16', [
    ([(8, 0)], True), ([(9, 0), (8, 6)], True), ([(7, 5)], False), ([(12, 0), (7, 0)], False), ([None], False)])
def test_all_gpus_grow_and_decide_on_bfloat16(machine, capabilities, bfloat16):
    gpus, told = machine(*capabilities)
    devices = selection.select('auto')
    assert (devices.name, devices.hardware, devices.bfloat16) == ('gpu', 'gpu', bfloat16)
    assert told.growth == [(gpu, True) for gpu in gpus] and not told.limits and told.devices == [None]


def test_virtual_gpus_share_the_memory_of_the_card(machine, monkeypatch):
    gpus, told = machine((9, 0), (9, 0))
    monkeypatch.setattr(gpu, 'card_memory', lambda: 80 * GIB)
    devices = selection.select('gpu', virtual_devices=4)
    assert told.limits == {gpus[0]: [18432] * 4} and not told.growth      # 0.9 * 80 GiB / 4
    assert told.devices == [['GPU:0', 'GPU:1', 'GPU:2', 'GPU:3']]
    assert devices.bfloat16 and '4 virtual devices of 18,432 MiB' in str(devices)


@pytest.mark.parametrize('virtual', [0, 2])
def test_the_gpus_of_a_worker_grow_or_are_split_and_the_chief_decides_on_bfloat16(machine, monkeypatch, virtual):
    gpus, told = machine((7, 0))
    monkeypatch.setattr(gpu, 'card_memory', lambda: 40 * GIB)
    monkeypatch.setattr(cluster, 'size', lambda: 2)
    monkeypatch.setattr(cluster, 'task', lambda: ('worker', 1))
    monkeypatch.setattr(cluster, 'is_chief', lambda: False)
    monkeypatch.setattr(cluster, 'make_strategy', lambda cpus: one())
    monkeypatch.setattr(cluster, 'from_chief', lambda strategy, data: b'1')
    devices = selection.select('auto', virtual)
    assert (devices.name, devices.hardware, devices.bfloat16) == ('multiworker', 'gpu', True)
    assert told.growth == ([] if virtual else [(gpus[0], True)])
    assert told.limits == ({gpus[0]: [18432] * 2} if virtual else {})


@pytest.mark.skipif(not shutil.which('cc'), reason='needs a C compiler')
@pytest.mark.parametrize('error, found', [(0, 80 * GIB), (100, None)])      # 100: no device
def test_the_memory_of_a_card_is_what_the_driver_says(tmp_path, error, found):
    (tmp_path / 'driver.c').write_text(DRIVER % error)
    subprocess.run(['cc', '-shared', '-fPIC', '-o', tmp_path / 'driver.so', tmp_path / 'driver.c'], check=True)
    assert gpu.card_memory(str(tmp_path / 'driver.so')) == found


def test_without_a_driver_a_virtual_gpu_gets_what_it_always_got():
    assert gpu.card_memory('libnodriver.so.1') is None
    assert gpu.share(4) == 2048 or gpu.card_memory()


@pytest.mark.parametrize('precision, rounded', [('float32', False), ('bfloat16', True), ('float16', True)])
def test_products_of_float32_are_exact_where_the_precision_is_float32(machine, monkeypatch, precision, rounded):
    chosen, config = [], tf.config.experimental
    monkeypatch.setattr(config, 'enable_tensor_float_32_execution', chosen.append)
    parts.choose_products(precision)
    assert not chosen      # without a GPU
    monkeypatch.setattr(tf.config, 'get_visible_devices', lambda kind: ['a GPU'])
    parts.choose_products(precision)
    assert chosen == [rounded]
