"""The loop with XLA and without, for one model: what `--jit=auto` is decided from (training/jit.py).

    python -m benchmarks.jit --model=mlp

Both loops run the model's default recipe on one CPU replica, in turns, in one process.
"""

import time

from absl import flags

import cli


def main():
    with cli.quiet_tensorflow():
        from benchmarks.runner import recipe_loop
    from benchmarks.report import save
    model, steps = flags.FLAGS.model, flags.FLAGS.steps
    runners = {name: recipe_loop(model, jit)[0] for name, jit in (('plain', 'off'), ('xla', 'on'))}
    times = {name: [] for name in runners}
    for turn in range(flags.FLAGS.turns + 1):
        for name, runner in runners.items():
            started = time.perf_counter()
            runner(steps)
            if turn:     # the first turn compiles
                times[name].append((time.perf_counter() - started) / steps * 1e3)
    save(f'jit_{model}', {'milliseconds_a_step': times}, ratio=('xla', 'plain'))


def define():
    flags.DEFINE_string('model', 'mlp', 'Model whose default recipe is measured.')
    flags.DEFINE_integer('turns', 10, 'Turns of each loop.')
    flags.DEFINE_integer('steps', 10, 'Steps a turn.')


if __name__ == '__main__':
    cli.run(main, define)
