"""Small programs, compiled by the real TPU compiler for one chip or eight, in one process of their own.

python -m tests.tpu_programs prints JSON: the programs' scheduled HLO with the compiler's own count of FLOPs, how many
chips each topology opens, and how much memory the compiler gives a program.
"""

import functools
import json
import subprocess
import sys
import types

from tests.conftest import ROOT, clean_environment

ROWS, TABLE = 256, 2 ** 20


@functools.cache
def compiled():
    """What the process prints: {programs: {name: {text, flops}}, chips: {topology: n}, memory: {kind: GiB}}."""
    from strategies.preflight.compiler import NO_MACHINE      # imports TensorFlow, which the child need not
    done = subprocess.run([sys.executable, '-m', 'tests.tpu_programs'], cwd=ROOT, text=True, capture_output=True,
                          env=clean_environment(**NO_MACHINE))
    assert done.returncode == 0, done.stderr
    return types.SimpleNamespace(**json.loads(done.stdout))


def programs():
    """{name: (function, argument shapes as (dtype, *dims))}; those that start with `all_` are for eight chips."""
    return {**products(), **loops(), **tables(), **advised(), **across_chips()}


SQUARE = [('bfloat16', 128, 128)] * 2


def layer(x, w):
    import jax.numpy as jnp
    return jnp.tanh(x @ w)


def products():
    """Whose FLOPs a shape gives."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def convolution(x, kernel, strides):
        y = lax.conv_general_dilated(x, kernel, strides, 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return jnp.sum(y.astype('float32') ** 2)

    def heads(x, w):
        return (x.reshape(384, 128) @ w).reshape(32, 12, 16, 4).transpose(0, 2, 1, 3)

    image = [('bfloat16', 2, 9, 9, 16), ('bfloat16', 3, 3, 16, 32)]
    return {
        'matmul': (lambda x, w: x @ w, [('bfloat16', 256, 512), ('bfloat16', 512, 384)]),
        'attention': (lambda q, k: jnp.einsum('bqhd,bkhd->bhqk', q, k), [('bfloat16', 8, 64, 4, 32),
                                                                         ('bfloat16', 8, 48, 4, 32)]),
        'heads': (heads, [('bfloat16', 32, 12, 128), ('bfloat16', 128, 64)]),
        'convolution': (lambda x, k: convolution(x, k, (2, 2)), image),
        'backward': (lambda x, k: jax.grad(convolution, (0, 1))(x, k, (2, 2)), image),
        'depthwise': (lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=64),
            [('bfloat16', 2, 9, 9, 64), ('bfloat16', 3, 3, 1, 64)])}


def loops():
    """Whose number of turns is known, bounded or unknown; and branches."""
    import jax.numpy as jnp
    from jax import lax

    def scan(x, w):
        return lax.scan(lambda x, _: (layer(x, w), None), x, None, length=7)[0]

    def nested(x, w):
        return lax.scan(lambda x, _: (lax.fori_loop(0, 5, lambda i, x: layer(x, w), x), None), x, None, length=3)[0]

    def bound_by_a_counter(x, w):
        n, x = lax.while_loop(lambda s: s[0] < 9, lambda s: (s[0] + 1, layer(s[1], w)), (0, x))
        return lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, layer(s[1], w.T)), (0, x))[1]

    def down(x, w):
        return lax.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 3, layer(s[1], w)), (10, x))[1]

    def at_most(x, w):
        return lax.while_loop(lambda s: (s[0] < 6) & (jnp.sum(s[1].astype('float32')) < 1), lambda s: (
            s[0] + 1, layer(s[1], w)), (0, x))[1]

    def unknown(x, w):
        return lax.while_loop(lambda x: jnp.sum(x.astype('float32')) < 100, lambda x: layer(x, w), x)

    def branches(p, x, w):
        return lax.cond(p > 0, lambda: layer(layer(x, w), w), lambda: layer(x, w))

    found = {f.__name__: (f, SQUARE) for f in (scan, nested, bound_by_a_counter, down, at_most, unknown)}
    return {'branches': (branches, [('int32',), *SQUARE]), **found}


def tables():
    """That read or write a slice, or some rows, of something large."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def read_slices(xs, w):
        return lax.scan(lambda total, x: (total + x @ w, None), jnp.zeros((1024, 128), xs.dtype), xs)[0]

    def write_slices(x, w):
        return lax.scan(lambda x, _: (layer(x, w),) * 2, x, None, length=64)[1]

    def lookups(table, ids):
        def step(total, i):
            with jax.named_scope('net/embedding'):
                return total + table[i], None
        return lax.scan(step, jnp.zeros((ROWS, 128)), ids)[0]

    def updates(table, ids, rows):
        return lax.scan(lambda table, i: (table.at[i].add(rows), None), table, ids)[0]

    return {
        'read_slices': (read_slices, [('bfloat16', 64, 1024, 256), ('bfloat16', 256, 128)]),
        'write_slices': (write_slices, [('bfloat16', 1024, 1024)] * 2),
        'gather': (lambda table, i: table[i], [('float32', TABLE, 128), ('int32', ROWS)]),
        'lookups': (lookups, [('float32', TABLE, 128), ('int32', 100, ROWS)]),
        'updates': (updates, [('float32', TABLE, 128), ('int32', 100, ROWS), ('float32', ROWS, 128)])}


def advised():
    """What is legal, and slow."""
    import jax
    import jax.numpy as jnp

    def two_layers(x, wide, w):
        with jax.named_scope('net/first'):
            x = x @ wide
        with jax.named_scope('net/head'):
            return x.astype('float32') @ w

    def padded(x, w):
        with jax.named_scope('net/narrow'):
            return x @ w

    def callback(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1

    return {
        'padded_products': (padded, [('bfloat16', 4096, 8), ('bfloat16', 8, 4096)]),
        'padded_memory': (lambda x: jnp.tanh(x) * 2, [('bfloat16', 20, 20, 20, 20, 20)]),
        'float32': (lambda x, w: x @ w, [('float32', 256, 512), ('float32', 512, 384)]),
        'float32_head': (two_layers, [('bfloat16', 256, 512), ('bfloat16', 512, 512), ('float32', 512, 128)]),
        'callback': (callback, [('float32', 8, 128)])}


def across_chips():
    import jax
    from jax import lax

    def everywhere(function, **specs):
        return lambda mesh, x: jax.shard_map(lambda x: function(x, 'x'), mesh=mesh, check_vma=False, **specs)(x)

    def sum_in_a_loop(x, axis):
        return lax.scan(lambda x, _: (lax.psum(x, axis) / 8, None), x, None, length=5)[0]

    split, whole, matrix = jax.P('x'), jax.P(), [('float32', 1024, 1024)]
    return {
        'all_reduce': (everywhere(lax.psum, in_specs=split, out_specs=whole), matrix),
        'all_reduce_in_a_loop': (everywhere(sum_in_a_loop, in_specs=split, out_specs=split), matrix),
        'all_gather': (everywhere(lax.all_gather, in_specs=split, out_specs=whole), matrix)}


def main():
    import jax
    import numpy as np
    from jax.experimental import topologies as jax_topologies

    from strategies.preflight import topologies

    def chips(name):
        topology = topologies.parse(name)
        return jax_topologies.get_topology_desc(platform='tpu', topology_name=name, **topology.options).devices

    def on_one(name):
        return jax.sharding.SingleDeviceSharding(chips(name)[0])

    def compile_(function, arguments, sharding):
        shapes = [jax.ShapeDtypeStruct(dims, dtype, sharding=sharding) for dtype, *dims in arguments]
        return jax.jit(function).lower(*shapes).compile()

    found = {}
    mesh = jax.sharding.Mesh(np.array(chips('v5e:2x4')), ('x',))
    eight = jax.sharding.NamedSharding(mesh, jax.P('x'))
    for name, (function, arguments) in programs().items():
        if name.startswith('all_'):
            function = functools.partial(function, mesh)
        program = compile_(function, arguments, eight if name.startswith('all_') else on_one('v5e:1x1'))
        found[name] = {'text': program.as_text(), 'flops': program.cost_analysis().get('flops', 0)}
    memory = {}
    for kind, chip in topologies.CHIPS.items():
        try:
            compile_(lambda x: x + 1, [('int8', 2 * chip.hbm_bytes)], on_one(f'{kind}:{chip.shapes[0]}'))
        except jax.errors.JaxRuntimeError as error:
            memory[kind] = str(error)
    names = [f'{kind}:{shape}' for kind, chip in topologies.CHIPS.items() for shape in chip.shapes]
    json.dump({'programs': found, 'chips': {name: len(chips(name)) for name in names}, 'memory': memory}, sys.stdout)


if __name__ == '__main__':
    main()
