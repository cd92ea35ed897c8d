"""N replicas as one program for XLA to compile: what a TPU's replicas are, without a TPU.

The step is traced once. Its replica number and its all-reduces become XLA's own operations, which the compiler turns
into transfers between the chips of a topology.
"""

import tensorflow as tf
# tf.tpu.cross_replica_sum has no kernel off a TPU; this operation has.
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
# Private, because the public class fixes the number of replicas at 1; tests/test_preflight.py pins the behaviour.
from tensorflow.python.distribute.one_device_strategy import OneDeviceExtended


class ProgramReplicas(tf.distribute.Strategy):
    """A strategy of `replicas` replicas. Its `run` may only be called while XLA compiles; nothing runs."""

    def __init__(self, replicas):
        super().__init__(_Extended(self, replicas))


class _Extended(OneDeviceExtended):
    def __init__(self, strategy, replicas):
        super().__init__(strategy, 'CPU:0')      # the weights lie on the host while the program is made
        self._replicas = replicas

    @property
    def _num_replicas_in_sync(self):
        return self._replicas

    def _call_for_each_replica(self, fn, args, kwargs):
        with _Replica(self._container_strategy(), 0):
            return fn(*args, **kwargs)


class _Replica(tf.distribute.ReplicaContext):
    @property
    def replica_id_in_sync_group(self):
        return tf.cast(gen_xla_ops.xla_replica_id(), tf.int32)

    def all_reduce(self, reduce_op, value, options=None):
        if tf.distribute.ReduceOp(getattr(reduce_op, 'value', reduce_op)) != tf.distribute.ReduceOp.SUM:
            raise ValueError(f'`reduce_op` must be SUM. Received: reduce_op={reduce_op}')
        return tf.nest.map_structure(self._sum, value)

    def _sum(self, t):
        everyone = tf.constant([list(range(self.num_replicas_in_sync))], tf.int32)
        if t.dtype == tf.float64:
            # XLA's operation takes none here. A slot per replica for the halves of its bits, of which sums are exact.
            bits = tf.bitcast(t, tf.uint32)                                                 # [..., 2]
            mine = tf.reshape(tf.range(self.num_replicas_in_sync) == self.replica_id_in_sync_group,
                              [-1] + [1] * bits.shape.rank)
            bits = tf.where(mine, bits[None], tf.zeros([], tf.uint32))                      # [R, ..., 2]
            return tf.reduce_sum(tf.bitcast(self._all_reduce(bits, everyone), tf.float64), axis=0)
        return self._all_reduce(t, everyone)

    def _all_reduce(self, t, everyone):
        return gen_xla_ops.xla_all_reduce(input=t, group_assignment=everyone, reduce_op='Add', mode='CrossReplica')
