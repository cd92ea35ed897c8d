"""The gradient of an embedding as a scatter and as a product, on whatever device jax finds (training/lookups.py).

    XLA_FLAGS=--xla_gpu_deterministic_ops=true python -m benchmarks.scatter

Prints milliseconds as JSON. Needs jax, and no TensorFlow.
"""

import json
import os
import statistics
import time

SIZES = ((2048, 64, 128), (8192, 8000, 256), (32768, 8000, 512))      # tokens N, vocabulary V, dimensions D


def measure(function, *arguments, turns=10):
    function(*arguments).block_until_ready()      # compiles
    times = []
    for _ in range(turns):
        started = time.perf_counter()
        function(*arguments).block_until_ready()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def main():
    import jax
    import jax.numpy as jnp
    rows = []
    for n, v, d in SIZES:
        ids = jax.random.randint(jax.random.key(0), (n,), 0, v)
        upstream = jax.random.normal(jax.random.key(1), (n, d))

        def product(precision):
            return jax.jit(lambda i, g: jnp.matmul(jax.nn.one_hot(i, v).T, g, precision=precision))
        functions = {'scatter': jax.jit(lambda i, g: jnp.zeros((v, d)).at[i].add(g)), 'float32': product('highest'),
                     'tensor_float_32': product('default')}
        rows.append({'sizes': [n, v, d], **{name: measure(f, ids, upstream) for name, f in functions.items()}})
    print(json.dumps({'device': jax.devices()[0].device_kind, 'jax': jax.__version__,
                      'XLA_FLAGS': os.environ.get('XLA_FLAGS', ''), 'milliseconds': rows}))


def table(deterministic, free):
    """The table of docs/gpu.md, of two stored records."""
    lines = ['| N, V, D | scatter | product, float32 | product, TensorFloat-32 | scatter without determinism |',
             '|---|---|---|---|---|']
    for row, other in zip(deterministic['milliseconds'], free['milliseconds']):
        sizes = ', '.join(f'{size:,}' for size in row['sizes'])
        numbers = row['scatter'], row['float32'], row['tensor_float_32'], other['scatter']
        lines.append(f'| {sizes} | ' + ' | '.join(f'{number:.2f}' for number in numbers) + ' |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
