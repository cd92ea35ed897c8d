"""Which devices train: selection, its reason, and its errors. This is a process's first TensorFlow call.

Asking for hardware that is not there is an error that says what was found and what to install. Only `auto` chooses.
"""

import contextlib
import ctypes
import dataclasses
import os

import tensorflow as tf

from errors import RunError, UserError, lookup
from strategies import cluster, diagnosis, doctor, gpu, hosts, jax_diagnosis
from strategies.tpu import bring_up

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8


@dataclasses.dataclass(frozen=True)
class Devices:
    """The chosen tf.distribute.Strategy, and what the rest of a run needs to know of it. pjrt.py has another kind."""
    name: str            # cpu, gpu, multiworker or tpu
    hardware: str        # cpu, gpu or tpu
    reason: str
    strategy: tf.distribute.Strategy
    workers: int = 1
    is_chief: bool = True
    bfloat16: bool = False      # whether these are GPUs that compute in bfloat16 where the precision is auto
    runtime: str = 'tensorflow'      # or pjrt

    @property
    def errors(self):
        """Exceptions of another runtime than TensorFlow's, whose messages begin with a code as TensorFlow's do."""
        return ()

    @property
    def versions(self):
        """{package: version} of another runtime than TensorFlow's."""
        return {}

    @property
    def kernels(self):
        """cpu or gpu, whose kernels TensorFlow calls one by one; or xla, where all replicas are one program."""
        return 'xla' if self.hardware == 'tpu' or self.runtime == 'pjrt' else self.hardware

    @property
    def replicas(self):
        return self.strategy.num_replicas_in_sync

    def from_chief(self, data):
        """bytes, those of the chief, on every worker; the others' are ignored."""
        return cluster.from_chief(self.strategy, data) if self.workers > 1 else data

    def on_host(self):
        """A scope in which TensorFlow computes on this process's CPU; elsewhere than on a TPU, where it likes."""
        return tf.device('CPU:0') if self.kernels == 'xla' else contextlib.nullcontext()

    def wait_for_all(self):
        """Returns when every worker has called it."""
        self.from_chief(b'')

    def __str__(self):
        count = f'{self.replicas} replica' + ('s' if self.replicas > 1 else '')
        return f'{self.name}, {count}: {self.reason}'


def select(strategy='auto', virtual_devices=0, tpu='', runtime='auto', process=None):
    """Returns Devices.

    Args:
        strategy: auto, cpu, gpu, multiworker or tpu.
        virtual_devices: N logical devices on this machine, to run N replicas without N chips; 0 is none.
        tpu: what TPUClusterResolver takes: 'local', a TPU's name or a grpc:// address. Empty: 'local'.
        runtime: auto, tensorflow or pjrt.
        process: (address of process 0, number of processes, number of this one) among several that jax joins, or None.

    Raises:
        UserError: the hardware is not there, or the arguments do not fit together.
    """
    chosen = lookup({'auto': _auto, 'cpu': _cpu, 'gpu': _gpu, 'multiworker': _multiworker, 'tpu': _tpu},
                    strategy, 'strategy')
    if virtual_devices < 0:
        raise UserError(f'`virtual_devices` must not be negative. Received: virtual_devices={virtual_devices}')
    if tpu and strategy not in ('auto', 'tpu'):
        raise UserError(f'`tpu` names the TPU of strategy tpu or auto. Received: tpu={tpu!r}, strategy={strategy}')
    _keep_freed_memory()
    try:
        if runtime == 'pjrt' or runtime == 'auto' and _only_jax_drives(strategy, tpu):
            from strategies import pjrt
            return pjrt.select(strategy, virtual_devices, tpu, 'asked for' if runtime == 'pjrt' else
                               'TensorFlow cannot drive this TPU, and jax can', process)
        if process:
            raise UserError('`coordinator_address` needs runtime pjrt; runtime tensorflow finds workers by TF_CONFIG. '
                            f'Received: coordinator_address={process[0]}, runtime={runtime}')
        return chosen(virtual_devices, tpu)
    except RuntimeError as error:   # logical devices are fixed at TensorFlow's first use
        raise UserError(f'`strategy` must be selected before anything else uses TensorFlow: {error}') from error


@contextlib.contextmanager
def worker_errors(devices):
    """Turns what a runtime says when another worker dies, or hangs for 10 s (20 s with jax), into one line."""
    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
            tf.errors.DeadlineExceededError)
    try:
        yield
    except (*lost, *devices.errors) as error:
        if isinstance(error, devices.errors) and str(error).startswith('RESOURCE_EXHAUSTED:'):
            reason = ' '.join(str(error).split())[:200]
            raise RunError(f'the run does not fit the memory of a device: {reason}') from None
        if devices.workers == 1 or isinstance(error, devices.errors) and not hosts.is_loss(error):
            raise
        hosts.claim_last_words()
        raise RunError(f'{hosts.LOST} ({type(error).__name__})') from error


def _only_jax_drives(strategy, tpu):
    """Whether a TPU of this machine is wanted that TensorFlow cannot drive, where jax is installed with its libtpu.

    Raises:
        UserError: strategy tpu is asked for, and neither can.
    """
    machine = doctor.look()
    if strategy not in ('auto', 'tpu') or tpu not in ('', 'local') or not machine.has_tpu:
        return False
    runtime, obstacle = jax_diagnosis.runtime(machine, 'tpu')
    if strategy == 'tpu' and not runtime:
        raise UserError(f'`strategy` tpu needs a TPU that jax or TensorFlow can drive: {obstacle}. '
                        'Received: strategy=tpu')
    return runtime == 'pjrt'


def _auto(virtual_devices, tpu):
    if cluster.size() > 1 and not tpu:
        return _multiworker(virtual_devices, tpu, found='auto found a cluster')
    if tpu or os.environ.get('TPU_NAME'):
        return _tpu(virtual_devices, tpu, found='a TPU is named')
    if not diagnosis.tpu(doctor.look()):
        return _tpu(virtual_devices, tpu, found='auto found a TPU')
    if tf.config.list_physical_devices('GPU'):
        return _gpu(virtual_devices, tpu)
    return _cpu(virtual_devices, tpu, found='auto found no GPU, no TPU that it can drive, and no cluster')


def _cpu(virtual_devices, _, found='asked for'):
    if tf.config.list_physical_devices('GPU'):
        tf.config.set_visible_devices([], 'GPU')    # or models would land on it
    if virtual_devices < 2:
        return Devices('cpu', 'cpu', found, tf.distribute.get_strategy())
    names = _split_device('CPU', virtual_devices)
    return Devices('cpu', 'cpu', f'{found}; {virtual_devices} virtual devices on this machine\'s CPU',
                   tf.distribute.MirroredStrategy(names))


def _gpu(virtual_devices, _):
    gpus = gpu.visible()
    if not gpus:
        built = 'can use' if tf.test.is_built_with_cuda() else 'is not built for'
        raise UserError(f'`strategy` gpu needs a GPU that TensorFlow sees; found none (TensorFlow {tf.__version__} '
                        f'{built} CUDA). On Linux with an NVIDIA driver: pip install "tensorflow[and-cuda]". '
                        'Received: strategy=gpu')
    if virtual_devices > 1:
        memory = gpu.share(virtual_devices)
        names = _split_device('GPU', virtual_devices, memory_limit=memory)
        return Devices('gpu', 'gpu', f'{virtual_devices} virtual devices of {memory:,} MiB on the first GPU',
                       tf.distribute.MirroredStrategy(names), bfloat16=gpu.have_bfloat16())
    gpu.grow_memory()
    return Devices('gpu', 'gpu', f'TensorFlow sees {len(gpus)} GPU' + ('s' if len(gpus) > 1 else ''),
                   tf.distribute.MirroredStrategy(), bfloat16=gpu.have_bfloat16())


def _multiworker(virtual_devices, _, found='asked for'):
    workers = cluster.size()
    if not workers:
        raise UserError('`strategy` multiworker needs the environment variable TF_CONFIG, which names all workers and '
                        f'this one: {cluster.EXAMPLE}; or Slurm\'s srun, or --num_workers on one machine. '
                        'Received: TF_CONFIG unset or without workers')
    kind, index = cluster.task()
    gpus = gpu.visible()
    if virtual_devices > 1 and gpus:
        _split_device('GPU', virtual_devices, memory_limit=gpu.share(virtual_devices))
    elif virtual_devices > 1:
        _split_device('CPU', virtual_devices)
    else:
        gpu.grow_memory()
    strategy = cluster.make_strategy(0 if gpus else virtual_devices)
    # One precision for all: that of the chief's GPUs.
    bfloat16 = bool(cluster.from_chief(strategy, b'1' if gpu.have_bfloat16() else b'')) if gpus else False
    return Devices('multiworker', 'gpu' if gpus else 'cpu', f'{found}; this is {kind} {index} of {workers}', strategy,
                   workers=workers, is_chief=cluster.is_chief(), bfloat16=bfloat16)


def _tpu(virtual_devices, tpu, found='asked for'):
    if virtual_devices:
        raise UserError('`virtual_devices` is for CPU and GPU; a TPU has its own cores. '
                        f'Received: virtual_devices={virtual_devices}, strategy=tpu ({found})')
    address = tpu or os.environ.get('TPU_NAME') or 'local'
    return Devices('tpu', 'tpu', f'{found} ({address})', bring_up(address))


def _keep_freed_memory():
    """Tells glibc not to give freed memory back to the system, from which each step would fetch it again.

    A strategy's replicas run in threads of their own, whose heaps glibc trims at once: of an LSTM's step (batch 1024,
    one core) that was 21 of 72 ms.
    """
    _tell_malloc((M_MMAP_THRESHOLD, 2 ** 25),       # the largest that it takes
                 (M_TRIM_THRESHOLD, 2 ** 31 - 1), (M_TOP_PAD, 2 ** 26))


def keep_freed_buffers():
    """The same for buffers of any size, of jax's threads: glibc's heaps of threads hold 64 MiB at most.

    XLA takes the temporaries of a program as one buffer per launch. To fetch it again was 75 of 300 ms of a
    Transformer's step on the CPU (212 MB).
    """
    _tell_malloc((M_ARENA_MAX, 1), (M_MMAP_MAX, 0))


def _tell_malloc(*options):
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:     # elsewhere than with glibc there is nothing to tell
        for option, value in options:
            mallopt(option, value)


def _split_device(device_type, count, **share):
    """Makes `count` logical devices of the first physical one; returns their names. share: of each, of a GPU's."""
    device = tf.config.list_physical_devices(device_type)[0]
    tf.config.set_logical_device_configuration(
        device, [tf.config.LogicalDeviceConfiguration(**share) for _ in range(count)])
    return [f'{device_type}:{i}' for i in range(count)]


def usable():
    """{strategy: (whether this machine can use it, one line that says why)}."""
    machine, gpus, workers = doctor.look(), len(tf.config.list_physical_devices('GPU')), cluster.size()
    machine = dataclasses.replace(machine, exit_code=0, said={
        'version': tf.__version__, 'cuda': tf.test.is_built_with_cuda(), 'gpus': gpus})
    return {'cpu': (True, f'{os.cpu_count()} cores'), 'gpu': _usable(machine, 'gpu'),
            'multiworker': (True, f'a cluster of {workers} workers' if workers else
                            'on this machine by --num_workers=N; on several by TF_CONFIG or Slurm'),
            'tpu': _usable(dataclasses.replace(machine, exit_code=None), 'tpu')}


def _usable(machine, hardware):
    runtime, obstacle = jax_diagnosis.runtime(machine, hardware)
    if runtime == 'tensorflow':
        what = f'TensorFlow sees {machine.said["gpus"]} GPU' + ('s' if machine.said['gpus'] > 1 else '')
        return True, f'{what if hardware == "gpu" else "this machine has a TPU"}, by runtime tensorflow'
    if runtime == 'pjrt':
        by = '--runtime=pjrt' if hardware == 'gpu' else 'runtime pjrt'
        return True, f'by {by}, jax {machine.packages["jax"]}; not by TensorFlow, because {obstacle.problem}'
    return False, f'{obstacle.problem}; fix: {obstacle.fix}'
