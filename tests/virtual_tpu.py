"""The real tf.distribute.TPUStrategy over a TPU that is not there, to trace programs for it on any machine.

Only inside `tracing()`: nothing can be run. What is traced is what a TPU would be given; the compiler of preflight.py
then says whether it compiles.
"""

import collections
import contextlib

import tensorflow as tf
# Private: the one place where a resolver describes a TPU's hosts and cores. Pinned by tests/test_virtual_tpu.py.
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from strategies.graphs import called_functions, function_graph
from strategies.tpu_rules import violations

Device = collections.namedtuple('Device', 'name device_type memory_limit_bytes')


class VirtualTPU(tf.distribute.cluster_resolver.ClusterResolver):
    """A resolver of `hosts` hosts with `cores` cores in all."""

    task_type, task_id, environment = 'localhost', 0, ''

    def __init__(self, cores=8, hosts=1):
        self._cores, self._hosts = cores, hosts

    def cluster_spec(self):
        workers = {'worker': [f'host-{i}:8470' for i in range(self._hosts)]}
        return tf.train.ClusterSpec(workers if self._hosts > 1 else {})

    def master(self, *args, **kwargs):
        return ''

    def get_job_name(self):
        return 'worker' if self._hosts > 1 else 'localhost'

    def get_coordination_service_leader(self):
        return None

    def get_tpu_system_metadata(self):
        here = self._cores // self._hosts
        devices = [Device(f'/job:{self.get_job_name()}/replica:0/task:{host}/device:{kind}:{i}', kind, 0)
                   for host in range(self._hosts) for kind, count in (('TPU', here), ('CPU', 1)) for i in range(count)]
        return TPUSystemMetadata(num_cores=self._cores, num_hosts=self._hosts, num_of_cores_per_host=here,
                                 topology=None, devices=devices)


@contextlib.contextmanager
def tracing():
    """A tf.Graph, in which the strategy's variables need no device, and whose functions compare as anywhere else.

    Below a tf.Graph, TensorFlow takes `tensor == 0` for a question of identity, as it was in TensorFlow 1. So a program
    would be traced that is not the one that runs.
    """
    kept = tf.Tensor.__eq__, tf.Tensor.__ne__
    tf.Tensor.__eq__, tf.Tensor.__ne__ = _compared(tf.equal, kept[0]), _compared(tf.not_equal, kept[1])
    try:
        with tf.Graph().as_default():
            yield
    finally:
        tf.Tensor.__eq__, tf.Tensor.__ne__ = kept


def _compared(operation, otherwise):
    def compare(self, other):
        in_function = getattr(getattr(self, 'graph', None), 'building_function', False)
        return operation(self, other) if in_function and other is not None else otherwise(self, other)
    return compare


class Cluster:
    """What one strategy.run became in a graph: the operations on the TPU, and those of the host around them."""

    def __init__(self, graph):
        self.graph = graph
        operations = graph.get_operations()
        self.on_tpu = [op for op in operations if '_tpu_replicate' in op.node_def.attr]
        self.on_host = [op for op in operations if '_tpu_replicate' not in op.node_def.attr]
        metadata = next(op for op in operations if op.type == 'TPUReplicateMetadata')
        self.replicas = metadata.get_attr('num_replicas')

    def all_reduced(self):
        """Names of the tensors that are summed over all replicas."""
        return [op.inputs[0].name for op in self.on_tpu if op.type == 'CrossReplicaSum']

    def violations(self):
        """What in it a TPU cannot run, see tpu_rules.py."""
        return violations(self.graph, self.on_tpu)


def clusters(graph):
    """A Cluster for each strategy.run in a graph, the bodies of its loops, branches and calls included."""
    found = [Cluster(graph)] if any(op.type == 'TPUReplicateMetadata' for op in graph.get_operations()) else []
    names = {name: None for op in graph.get_operations() for name in called_functions(op)}
    for name in names:
        if (body := function_graph(graph, name)) is not None:
            found += clusters(body)
    return found
