"""The launch of a training step: a loop of up to K steps in one program, over a block of their batches."""

import jax
import numpy as np
import tensorflow as tf

BLOCK = 16                   # at most: steps whose batches are sent together
BLOCK_BYTES = 64 * 2 ** 20   # at most: per host
# On the devices at once: the blocks of the launch that runs, of the one that waits for it, of the one after, and the
# one being sent; the last two also between launches.
BLOCKS, BLOCKS_AHEAD = 4, 2


class Launch:
    """Steps `low` to `high` of a block of K, as a jax function.

    Args:
        program: training.pjrt.program.Program of training.pjrt.lowering.training.
        mesh: the devices, of one axis. length: K.

    Attributes:
        changed, kept: numbers of the captured variables that the step updates, which are donated, and of the others.
        call: (values of `changed`, values of `kept`, block, first step, allowed [K], low, high, flags [R, F + 1]) ->
            (values of `changed`, totals [K, N, 2], flags [F + 1])
    """

    def __init__(self, program, mesh, length):
        self.program, self.mesh, self.length = program, mesh, length
        self.changed = sorted(program.updates)
        self.kept = [j for j in range(len(program.captured)) if j not in program.updates]
        whole, split, block = jax.P(), jax.P('replica'), jax.P(None, 'replica')
        self._specs = whole, whole, block, whole, whole, whole, whole, split
        everywhere = jax.shard_map(self._replica, mesh=mesh, check_vma=False, in_specs=self._specs,
                                   out_specs=(whole, whole, whole))
        self.call = jax.jit(everywhere, donate_argnums=0)

    def _replica(self, changed, kept, block, first, allowed, low, high, flags):
        def one(i, carry):
            state, totals, _ = carry
            values = self._merged(state, kept)
            outputs = self.program.call(*(field[i] for field in block), first + i, allowed[i], flags[0], *values)
            *results, raised = (outputs[j] for j in self.program.results)
            state = [outputs[self.program.updates[j]] for j in self.changed]
            return state, totals.at[i].set(jax.numpy.stack(results).reshape(totals.shape[1:])), raised
        sums = jax.numpy.zeros([self.length, len(self.program.results) // 2, 2], np.float32)
        return jax.lax.fori_loop(low, high, one, (changed, sums, jax.numpy.zeros_like(flags[0])))

    def _merged(self, changed, kept):
        """Both parts of the state, in the program's order."""
        values = dict(zip(self.changed, changed)) | dict(zip(self.kept, kept))
        return [values[j] for j in range(len(values))]

    def shapes(self, spec, flags):
        """What `call` is given, as jax.ShapeDtypeStructs. spec: of a replica's batch. flags: F."""
        mesh, length, captured = self.mesh, self.length, self.program.captured
        scalar = _shape([], np.int32, mesh)
        return (*(state_shapes([captured[j] for j in part], mesh) for part in (self.changed, self.kept)),
                block_shapes(spec, length, mesh), _shape([], np.int64, mesh), _shape([length], np.bool_, mesh), scalar,
                scalar, _shape([mesh.size, flags + 1], np.float32, mesh, 'replica'))


def block_shapes(spec, length, mesh):
    """The arrays of a block of batches of `spec` on each replica."""
    return [_shape([length, mesh.size * field.shape[0], *field.shape[1:]], field.dtype, mesh, None, 'replica')
            for field in tf.nest.flatten(spec)]


def state_shapes(captured, mesh):
    """The arrays of what a program captured."""
    return [_shape(variable.shape, variable.dtype, mesh) for variable in captured]


def _shape(shape, dtype, mesh, *axes):
    return jax.ShapeDtypeStruct(tuple(shape), tf.as_dtype(dtype).as_numpy_dtype,
                                sharding=jax.sharding.NamedSharding(mesh, jax.P(*axes)))


def block_length(spec, replicas):
    """K, for batches of `spec` on each of a host's replicas."""
    size = replicas * bytes_of(spec)
    return max(1, min(BLOCK, BLOCK_BYTES // max(size, 1)))


def bytes_of(spec):
    return sum(field.shape.num_elements() * field.dtype.size for field in tf.nest.flatten(spec))
