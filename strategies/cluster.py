"""Several workers: which of them this process is, their strategy, and what the chief tells the others.

A cluster is named by TF_CONFIG, as everywhere in TensorFlow, or by Slurm. Worker 0 (or the job `chief`) is the chief:
the only one that reads and writes the run's folder.
"""

import json
import os

import numpy as np
import tensorflow as tf
# Private, because the public class takes one CPU device per worker; tests/test_equality_replicas.py pins the behaviour.
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

from errors import UserError

EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def size():
    """Number of workers (chief included) of this process's cluster; 0 without one."""
    return len(_workers(_config()))


def task():
    """(type, index) of this process. Raises UserError if TF_CONFIG does not say."""
    config = _config()
    kind, index = (config.get('task', {}).get(key) for key in ('type', 'index'))
    hosts = config['cluster'].get(kind, []) if kind in ('chief', 'worker') else []
    if not isinstance(index, int) or not 0 <= index < len(hosts):
        raise UserError('`TF_CONFIG` must name this process as a `task` of its cluster, of type chief or worker. '
                        f'Received: task={config.get("task")!r} of {config["cluster"]}')
    return kind, index


def is_chief():
    kind, index = task()
    return kind == 'chief' or (index == 0 and 'chief' not in _config()['cluster'])


def hosts():
    """The addresses of all workers, the chief's first."""
    return _workers(_config())


def rank():
    """The number of this process among `hosts`."""
    kind, index = task()
    return index if kind == 'chief' else index + len(_config()['cluster'].get('chief', []))


def make_strategy(cpu_devices):
    """MultiWorkerMirroredStrategy over all workers. Returns when all of them are there.

    cpu_devices: logical CPU devices of each worker, where there is no GPU; one replica each.
    """
    if cpu_devices < 2:
        return tf.distribute.MultiWorkerMirroredStrategy()

    class Extended(CollectiveAllReduceExtended):
        def _initialize_local_devices(self, cluster_resolver, worker_device):
            return tuple(f'{worker_device}/device:CPU:{i}' for i in range(cpu_devices)), 'CPU'

    class VirtualWorkers(tf.distribute.Strategy):
        _collective_key_base = 0

        def __init__(self):
            resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
            options = tf.distribute.experimental.CommunicationOptions()
            super().__init__(Extended(self, communication_options=options, cluster_resolver=resolver))
    return VirtualWorkers()


def from_chief(strategy, data):
    """bytes, those of the chief, on every worker.

    An all-reduce in which all others give zeros. As integers, so that a float keeps its bits: -0.0 + 0.0 is 0.0.
    """
    length = int(_sum_of_first(strategy, np.array([len(data)], np.int64))[0])
    if not length:
        return b''      # TensorFlow 2.21 crashes in an all-reduce of nothing
    words = np.zeros([-(-length // 4)], np.int32)
    here = np.frombuffer(data[:length].ljust(4 * len(words), b'\0'), np.int32) if is_chief() else words
    return _sum_of_first(strategy, here).tobytes()[:length]


def _sum_of_first(strategy, array):
    @tf.function
    def everywhere(value):
        def replica(value):
            context = tf.distribute.get_replica_context()
            value = tf.where(context.replica_id_in_sync_group == 0, value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
        return strategy.experimental_local_results(strategy.run(replica, args=(value,)))[0]
    return everywhere(tf.constant(array)).numpy()


def _config():
    """TF_CONFIG as a dict; made from Slurm's variables inside `srun` with several tasks, {} without any cluster."""
    if 'TF_CONFIG' not in os.environ and int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1:
        os.environ['TF_CONFIG'] = json.dumps(_slurm())
    text = os.environ.get('TF_CONFIG', '')
    try:
        config = json.loads(text or '{}')
        _workers(config)
        return config
    except (ValueError, AttributeError, TypeError):
        raise UserError(f'`TF_CONFIG` must be JSON like {EXAMPLE}. Received: TF_CONFIG={text!r}') from None


def _workers(config):
    cluster = config.get('cluster', {})
    return [*cluster.get('chief', []), *cluster.get('worker', [])]


def _slurm():
    # Slurm itself gives each task its GPUs (--gpus-per-task), so the resolver must not; but it wants to count some.
    tasks = int(os.environ['SLURM_STEP_NUM_TASKS'])
    # A job's own ports: two jobs may share a node.
    port = 20000 + int(os.environ.get('SLURM_JOB_ID', '0')) % 100 * 100
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=port, gpus_per_node=tasks,
                                                                   gpus_per_task=1, auto_set_gpu=False)
    cluster = resolver.cluster_spec().as_dict()
    return {'cluster': cluster, 'task': {'type': resolver.task_type, 'index': resolver.task_id}}
