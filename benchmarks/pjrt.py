"""A training step by jax's runtime, and the same step compiled by TensorFlow's XLA, both on one CPU device.

    python -m benchmarks.pjrt --model=mlp

Both loops run the model's default recipe, pipeline included, in turns, in one process; the ratio is of the medians.
CPU time, which a busy machine changes less, is in the record too. Below the ratio: what a launch costs beside its
steps, and how long a step waits for its data. The cost of a launch is the difference between as many steps in launches
of one, and all in one launch.
"""

import statistics
import time

from absl import flags

import cli
from errors import UserError


def launch_seconds(runner, turns):
    """Seconds per launch, beside the steps in it."""
    times = {1: [], runner.block_length: []}
    for _ in range(turns):
        for steps, measured in times.items():
            started = time.perf_counter()
            for low in range(0, runner.block_length, steps):
                launch = runner.launch(low, low + steps)
            launch.flags()      # they are there when all steps have ended
            measured.append(time.perf_counter() - started)
    single, together = (statistics.median(measured) for measured in times.values())
    return (single - together) / (runner.block_length - 1)


def main():
    model, steps, turns = flags.FLAGS.model, flags.FLAGS.steps, flags.FLAGS.turns
    for name, value in (('steps', steps), ('turns', turns)):
        if value < 1:
            raise UserError(f'`{name}` must be at least 1. Received: {name}={value}')
    with cli.quiet_tensorflow():
        from benchmarks.runner import recipe_loop
        from strategies import selection
    from benchmarks.report import save
    devices = selection.select('cpu', runtime='pjrt')      # first, as in a run: it tells malloc how to keep memory
    runners = {'tensorflow': recipe_loop(model, 'on')[0], 'pjrt': recipe_loop(model, devices=devices)[0]}
    times, cpu, waited = {name: [] for name in runners}, {name: [] for name in runners}, []
    for turn in range(turns + 2):
        for name, runner in runners.items():
            started, used = time.perf_counter(), time.process_time()
            call = runner(steps)
            if turn > 1:     # the first two turns compile and warm up
                times[name].append((time.perf_counter() - started) / steps * 1e3)
                cpu[name].append((time.process_time() - used) / steps * 1e3)
                waited += [call.waited * 1e3] if name == 'pjrt' else []
    runner, step = runners['pjrt'], statistics.median(times['pjrt'])
    launch = launch_seconds(runner, turns) * 1e3
    share = launch / (runner.block_length * step)
    save(f'pjrt_{model}', {'milliseconds_per_step': times, 'cpu_milliseconds_per_step': cpu,
                           'milliseconds_per_step_waited': waited,
                           'milliseconds_per_launch': launch, 'steps_per_launch': runner.block_length,
                           'launch / its steps': share, 'waited / step': statistics.median(waited) / step},
         ratio=('pjrt', 'tensorflow'))
    print(f'a launch of {runner.block_length} steps adds {launch:.3f} ms, {share:.2%}; '
          f'data are waited for {statistics.median(waited) / step:.2%} of a step')


def define():
    flags.DEFINE_string('model', 'mlp', 'Model whose default recipe is measured.')
    flags.DEFINE_integer('turns', 10, 'Turns of each loop.')
    flags.DEFINE_integer('steps', 160, 'Steps per turn.')


if __name__ == '__main__':
    cli.run(main, define)
