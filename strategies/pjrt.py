"""The devices that jax sees, as the replicas of a run: TPUs and GPUs, also of several hosts, and parts of this CPU."""

import dataclasses
import os

import numpy as np

from errors import UserError
from strategies import cluster
from strategies.preflight.replicas import ProgramReplicas
from strategies.selection import Devices

PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda', 'cpu': 'cpu'}      # strategy -> jax's name
INSTALL = {'tpu': 'pip install -e ".[tpu]"', 'gpu': 'pip install "jax[cuda12]"', 'cpu': 'pip install jax'}


@dataclasses.dataclass(frozen=True)
class PjrtDevices(Devices):
    """mesh: of one axis, `replica`; the devices of a host lie side by side, in the order of the hosts."""

    mesh: object = None
    runtime: str = 'pjrt'

    @property
    def local(self):
        """How many replicas this process has."""
        return self.replicas // self.workers

    @property
    def on_all(self):
        """Sharding of an array of which each device has a copy."""
        import jax
        return jax.sharding.NamedSharding(self.mesh, jax.P())

    def input_context(self):
        import jax
        import tensorflow as tf
        return tf.distribute.InputContext(self.workers, jax.process_index(), self.replicas)

    def element_spec(self, dataset_fn):
        """Nested TensorSpecs of what one replica is given."""
        return dataset_fn(self.input_context()).element_spec

    def put_block(self, slices, steps):
        """This host's slices of some steps, [steps * local, b, ...] -> an array [steps, B, ...] over all devices."""
        array = slices.reshape(steps, -1, *slices.shape[2:])                                 # [steps, local * b, ...]
        return self._put(array, (steps, array.shape[1] * self.workers, *array.shape[2:]), None, 'replica')

    def put_rows(self, rows):
        """A row per replica of this host, [local, ...] -> an array [replicas, ...] over all devices."""
        return self._put(rows, (self.replicas, *rows.shape[1:]), 'replica')

    def _put(self, array, shape, *axes):
        import jax
        sharding = jax.sharding.NamedSharding(self.mesh, jax.P(*axes))
        return jax.make_array_from_process_local_data(sharding, array, shape)

    def sum_over_hosts(self, values):
        """float [N] of this host -> their sum over all hosts."""
        if self.workers == 1:
            return values
        from jax.experimental import multihost_utils
        return np.sum(multihost_utils.process_allgather(values), axis=0)

    def from_chief(self, data):
        if self.workers == 1:
            return data
        from jax.experimental import multihost_utils
        length = int(multihost_utils.broadcast_one_to_all(np.int64(len(data))))
        here = np.frombuffer(data[:length].ljust(length, b'\0'), np.uint8)
        return np.asarray(multihost_utils.broadcast_one_to_all(here)).tobytes()


def select(strategy, virtual_devices=0, found='asked for'):
    """PjrtDevices of all that jax sees.

    Args:
        strategy: tpu, gpu or cpu. virtual_devices: devices into which a CPU is split.

    Raises:
        UserError: jax is missing, or sees no such device.
    """
    platform = PLATFORMS[strategy]
    if virtual_devices and strategy != 'cpu':
        raise UserError('`virtual_devices` is for the CPU with runtime pjrt. Received: '
                        f'virtual_devices={virtual_devices}, strategy={strategy}')
    if virtual_devices > 1:
        os.environ['XLA_FLAGS'] = (f'{os.environ.get("XLA_FLAGS", "")} '
                                   f'--xla_force_host_platform_device_count={virtual_devices}').strip()
    if strategy == 'gpu':
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'.strip()
    devices = _open(strategy, platform)
    mesh_devices = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
    import jax
    return PjrtDevices(strategy, strategy, f'{found}; {_named(devices)} by jax {jax.__version__}',
                       ProgramReplicas(len(devices)), workers=jax.process_count(), is_chief=jax.process_index() == 0,
                       mesh=jax.sharding.Mesh(mesh_devices, ('replica',)))


def _open(strategy, platform):
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        import jax
        import jax.export  # noqa: F401
    except ImportError as error:
        raise UserError(f'`runtime` pjrt needs jax: {INSTALL[strategy]}. Received: {error}') from None
    jax.config.update('jax_enable_x64', True)      # step numbers and random keys are of 64 bits
    jax.config.update('jax_platforms', platform if platform == 'cpu' else f'{platform},cpu')
    try:
        if cluster.size() > 1:
            _join(jax)
        return jax.devices(platform)
    except RuntimeError as error:
        raise UserError(f'`runtime` pjrt finds no {strategy.upper()}: {" ".join(str(error).split())[:200]}. '
                        f'Received: strategy={strategy}, runtime=pjrt') from None


def _join(jax):
    """Joins the cluster that TF_CONFIG or Slurm names: its first worker is the coordinator."""
    hosts, index = cluster.hosts(), cluster.rank()
    jax.distributed.initialize(hosts[0], len(hosts), index)


def _named(devices):
    kinds = sorted({device.device_kind for device in devices})
    return f'{len(devices)} x {", ".join(kinds)}'
