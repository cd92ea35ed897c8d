"""The devices that jax sees, as the replicas of a run: TPUs and GPUs, also of several hosts, and parts of this CPU."""

import contextlib
import dataclasses
import os

import numpy as np
import tensorflow as tf

from errors import RunError, UserError, quiet_stderr, quiet_stdout
from strategies import cluster, diagnosis, doctor, gpu, hosts, jax_diagnosis
from strategies.preflight.replicas import ProgramReplicas
from strategies.selection import Devices, keep_freed_buffers

PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda', 'cpu': 'cpu'}      # strategy -> jax's name


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
    def versions(self):
        found = {name: doctor.look().packages.get(name) for name in ('jax', 'jaxlib', 'libtpu')}
        return {name: version for name, version in found.items() if version}

    @property
    def errors(self):
        import jax
        return (jax.errors.JaxRuntimeError, *([ValueError] if self.workers > 1 else []))      # Gloo's

    @property
    def on_all(self):
        """Sharding of an array of which each device has a copy."""
        import jax
        return jax.sharding.NamedSharding(self.mesh, jax.P())

    def input_context(self):
        import jax
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


def select(strategy, virtual_devices=0, tpu='', found='asked for', process=None):
    """PjrtDevices of all that jax sees, on all hosts of a cluster.

    Args:
        strategy: tpu, gpu, cpu, or auto, the first of these that is there. virtual_devices: devices into which a CPU is
            split. tpu: '' or 'local'. process: as of `find`.

    Raises:
        UserError: jax is missing, or sees no such device; or an argument is tf.distribute's.
        RunError: another worker does not come, or is lost.
    """
    if strategy == 'auto':
        machine = doctor.look()
        strategy = 'tpu' if machine.has_tpu else 'gpu' if machine.nvidia_gpus else 'cpu'
    _check(strategy, virtual_devices, tpu)
    if strategy == 'cpu':
        keep_freed_buffers()
    tf.config.set_visible_devices([], 'GPU')      # they are jax's; TensorFlow would reserve their memory
    devices = _open(strategy, virtual_devices, find(strategy, process))
    import jax
    kinds = ', '.join(sorted({device.device_kind for device in devices}))
    return PjrtDevices(strategy, strategy, f'{found}; {len(devices)} x {kinds}, driven by jax {jax.__version__}',
                       ProgramReplicas(len(devices)), workers=jax.process_count(), is_chief=jax.process_index() == 0,
                       bfloat16=strategy == 'gpu' and _have_bfloat16(devices),
                       mesh=jax.sharding.Mesh(np.array(devices), ('replica',)))


def find(strategy, process=None):
    """Where this process is among several: (address of process 0, how many, its number), or () where jax finds that.

    Returns None if it is alone. process: the same, by flags; they and TF_CONFIG exclude each other, and both go before
    what jax finds: Open MPI's processes, and the hosts of a TPU slice.
    """
    if process and 'TF_CONFIG' in os.environ:
        raise UserError('`coordinator_address` names a cluster, but so does TF_CONFIG. Received: coordinator_address='
                        f'{process[0]}, TF_CONFIG={os.environ["TF_CONFIG"]!r}')
    place = process or (cluster.size() and (cluster.hosts()[0], cluster.size(), cluster.rank()))
    if place:
        return place if place[1] > 1 else None
    return () if hosts.known_to_jax(strategy) else None


def _check(strategy, virtual_devices, tpu):
    if strategy == 'multiworker':
        raise UserError('`strategy` multiworker is that of runtime tensorflow; with runtime pjrt several hosts are '
                        'found beside cpu, gpu and tpu, see docs/devices.md. '
                        'Received: strategy=multiworker, runtime=pjrt')
    if virtual_devices and strategy != 'cpu':
        raise UserError('`virtual_devices` with runtime pjrt is for the CPU. Received: '
                        f'virtual_devices={virtual_devices}, strategy={strategy}')
    if tpu not in ('', 'local'):
        raise UserError(f'`tpu` with runtime pjrt must be local. Received: tpu={tpu!r}')


def _open(strategy, virtual_devices, place):
    """All devices of a kind, those of a host side by side. place: as `find` returns."""
    platform = PLATFORMS[strategy]
    _add_flag({'cpu': f'--xla_force_host_platform_device_count={virtual_devices}' if virtual_devices else '',
               'gpu': '--xla_gpu_deterministic_ops=true', 'tpu': ''}[strategy])
    machine = doctor.look()
    absent = {'tpu': diagnosis.no_tpu, 'gpu': diagnosis.no_gpu, 'cpu': lambda _: None}[strategy](machine)
    jax = _import(strategy, machine)
    jax.config.update('jax_enable_x64', True)      # step numbers and random keys are of 64 bits
    jax.config.update('jax_platforms', platform if platform == 'cpu' else f'{platform},cpu')
    if place is not None and hosts.is_alone():
        hosts.join(jax, place)
    try:
        # Gloo notes its connections; libtpu says in many lines what one says.
        with quiet_stdout(), quiet_stderr() if absent else contextlib.nullcontext():
            devices = sorted(jax.devices(platform), key=lambda device: (device.process_index, device.id))
            _connect(jax, devices)
    except (RuntimeError, ValueError) as error:
        if hosts.is_loss(error):
            hosts.claim_last_words()
            raise RunError(hosts.LOST) from None
        # Only now: a plugin may also come otherwise than as a package.
        raise _no_devices(strategy, absent or jax_diagnosis.missing(machine, strategy) or _first_words(error)) from None
    if virtual_devices and len(jax.local_devices()) != virtual_devices:      # fixed at jax's first use
        raise UserError('`virtual_devices` must be chosen before anything else uses jax. '
                        f'Received: virtual_devices={virtual_devices}')
    return devices


def _import(strategy, machine):
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    if missing := jax_diagnosis.missing(machine, strategy, plugin=False):
        raise _no_devices(strategy, missing)
    try:
        import jax
        import jax.export
        jax.P, jax.shard_map, jax.distributed.is_initialized      # of 0.8 and newer
    except (ImportError, AttributeError) as error:
        raise UserError(f'`runtime` pjrt needs jax, 0.8 or newer: {jax_diagnosis.INSTALL[strategy]}. '
                        f'Received: runtime=pjrt ({error})') from None
    return jax


def _no_devices(strategy, reason):
    return UserError(f'`runtime` pjrt finds no {strategy.upper()}: {reason}. '
                     f'Received: strategy={strategy}, runtime=pjrt')


def _connect(jax, devices):
    """Lets all processes meet, and all devices, in each of the ways in which they will."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils
        multihost_utils.broadcast_one_to_all(np.int64(0))
        multihost_utils.process_allgather(np.int64(0))
        mesh, ones = jax.sharding.Mesh(np.array(devices), ('replica',)), np.ones([len(devices)])
        everywhere, split = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ('replica',)))
        array = jax.make_array_from_callback(ones.shape, split, lambda index: ones[index])
        jax.jit(jax.numpy.sum, out_shardings=everywhere)(array).block_until_ready()


def _add_flag(flag):
    flags = os.environ.get('XLA_FLAGS', '').split()
    os.environ['XLA_FLAGS'] = ' '.join([*flags, flag] if flag and flag not in flags else flags)


def _have_bfloat16(devices):
    """Whether all GPUs have units for bfloat16, by their compute capability."""
    return all(tuple(map(int, str(device.compute_capability).split('.'))) >= gpu.BFLOAT16 for device in devices)


def _first_words(error):
    return ' '.join(str(error).split())[:200]
