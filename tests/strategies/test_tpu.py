"""Bring-up's errors, real ones of TensorFlow where there is no TPU."""

import os
import time

import pytest

from errors import UserError
from strategies import diagnosis, doctor, tpu, workers
from strategies.diagnosis import Machine

WHEELS = {'tensorflow-tpu': '2.19.1', 'libtpu': '0.0.10'}


def fails(address):
    """The one line of the error, which comes within seconds."""
    start = time.monotonic()
    with pytest.raises(UserError, match=f"`strategy` tpu needs a TPU at '{address}': .* To fix it: ") as error:
        tpu.bring_up(address)
    assert time.monotonic() - start < 30 and '\n' not in str(error.value)
    assert str(error.value).endswith('. Received: strategy=tpu')
    return str(error.value)


def test_without_a_tpu_nothing_is_initialised(monkeypatch):
    monkeypatch.setattr(doctor, 'look', lambda: Machine(WHEELS, {'TPU_NAME': 'local', 'TPU_WORKER_ID': '0'}))
    assert 'this machine has no TPU' in fails('local')


def test_a_worker_that_is_not_there_is_named():
    address = 'grpc://' + workers.free_addresses(1)[0]
    assert f'no TPU worker answers at {address}' in fails(address)
    assert 'no TPU worker answers at' in fails('grpc://127.0.0.1:nothing')


def test_a_name_is_looked_up_in_google_cloud_alone(monkeypatch):
    monkeypatch.setenv('GCE_METADATA_IP', 'host.invalid')
    assert 'inside Google Cloud' in fails('my-tpu')


def test_what_tensorflow_says_becomes_its_cause(monkeypatch):
    """A machine with a TPU as far as its files say, and the plain wheel in spite of what its packages say."""
    machine = Machine(WHEELS, {}, tpu_chips=('v4',))
    monkeypatch.setattr(doctor, 'look', lambda: machine)
    assert f'cannot drive a TPU; only tensorflow-tpu can. To fix it: {diagnosis.install_tpu(machine)}' in fails('local')


def test_pjrt_must_be_set_before_tensorflow_is_imported(monkeypatch):
    machine = Machine(WHEELS, {}, tpu_chips=('v5e',), libtpu='/libtpu.so')
    monkeypatch.setattr(doctor, 'look', lambda: machine)
    monkeypatch.setattr(os, 'environ', {'NEXT_PLUGGABLE_DEVICE_USE_C_API': 'true'})
    assert 'export TF_PLUGGABLE_DEVICE_LIBRARY_PATH=/libtpu.so' in fails('local')
    tpu.prepare_environment()
    assert os.environ == {'NEXT_PLUGGABLE_DEVICE_USE_C_API': 'true', 'TF_PLUGGABLE_DEVICE_LIBRARY_PATH': '/libtpu.so'}


@pytest.mark.parametrize('machine, variables', [
    (Machine({'tensorflow': '2.21.0', 'libtpu': '0.0.42'}, {}), ()),
    (Machine(WHEELS, {}), ('TPU_SKIP_MDS_QUERY',)),
    (Machine(WHEELS, {}, tpu_chips=('v4',) * 4), ()),
    (Machine(WHEELS, {}, tpu_files=('/dev/vfio/0',)), ()),
    (Machine(WHEELS, {'TPU_ACCELERATOR_TYPE': 'v5litepod-8'}, tpu_files=('/dev/vfio/0',)),
     ('NEXT_PLUGGABLE_DEVICE_USE_C_API', 'TF_PLUGGABLE_DEVICE_LIBRARY_PATH')),
    (Machine(WHEELS, {}, tpu_chips=('v6e',)), ('NEXT_PLUGGABLE_DEVICE_USE_C_API', 'TF_PLUGGABLE_DEVICE_LIBRARY_PATH')),
])
def test_the_environment_of_each_machine(machine, variables):
    assert tuple(diagnosis.tpu_environment(machine)) == variables
