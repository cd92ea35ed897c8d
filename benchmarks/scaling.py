"""Weak scaling: 2 workers, one core each, against 1 worker on one core, with the default recipe of each model.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --model=lstm --batch_size=512

Three arrangements run in turns; every process is held on one core and keeps its batch B, by default the recipe's:

    one          one process; the other core is idle. The two cores take turns at it.
    two alone    two such processes at the same time, which do not know of each other
    two workers  two processes under MultiWorkerMirroredStrategy, global batch 2B

Efficiency is the examples per second of `two workers` over twice those of `one`. What two processes on one machine take
from each other (memory bandwidth, clock) is in `two alone`, so `two workers` over `two alone` is what working together
costs. Processes wait for their turn asleep. Linux only: elsewhere a process cannot be held on a core.
"""

import json
import os
import statistics

from absl import flags

import cli
from benchmarks.processes import Process, answers, ask, serve
from benchmarks.report import write
from errors import UserError
from recipes import DEFAULT
from strategies.workers import free_addresses

ALONE, WORKER = 'alone', 'worker'
ONE, TWO_ALONE, TWO_WORKERS = ARRANGEMENTS = 'one', 'two alone', 'two workers'
WARM_UP = 3            # calls before the first turn: the first compiles
ALL_REDUCES = 30       # per turn
COLUMNS = ('model', 'batch', 'ms: one', 'two alone', 'two workers', 'efficiency', 'workers/alone', 'MB per step',
           'ms all-reduce')


def main():
    model, core, turns = flags.FLAGS.model, flags.FLAGS.core, flags.FLAGS.turns
    if model not in ('', *DEFAULT):
        raise UserError(f'`model` must be one of {", ".join(DEFAULT)}. Received: model={model!r}')
    if turns < 1:
        raise UserError(f'`turns` must be at least 1. Received: turns={turns}')
    if core >= 0:
        be(model, core, flags.FLAGS.role)
        return
    cores = _two_cores()
    print(('{:<12}' + ' {:>13}' * (len(COLUMNS) - 1)).format(*COLUMNS), flush=True)
    measured = {}
    for name in [model] if model else DEFAULT:
        measured[name] = measure(name, cores, turns, flags.FLAGS.seconds)
        print(row(name, measured[name]), flush=True)
    name = '_'.join(['scaling', *filter(None, [model, str(flags.FLAGS.batch_size or '')])])
    write(name, {'models': measured})


def row(name, measured):
    """A line of the table."""
    medians = measured['medians']['milliseconds_a_step']
    numbers = [*(medians[a] for a in ARRANGEMENTS), measured['efficiency'], measured['workers_over_alone'],
               measured['bytes_all_reduced_a_step'] / 1e6, measured['medians']['milliseconds_an_all_reduce']]
    return f'{name:<12} {measured["batch_size"]:>13}' + ''.join(f' {number:>13.3f}' for number in numbers)


def _two_cores():
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_setaffinity') else []
    if len(cores) < 2:
        raise UserError('`benchmarks.scaling` needs Linux and two cores, to hold a process on each. '
                        f'Received: {len(cores)} cores')
    return cores[:2]


def measure(model, cores, turns, seconds):
    """Runs the turns of one model. Returns its record."""
    cluster = {'worker': free_addresses(2)}
    processes = []
    try:
        for index, core in enumerate(cores):
            task = {'cluster': cluster, 'task': {'type': 'worker', 'index': index}}
            processes.append((_process(model, core, ALONE), _process(model, core, WORKER, json.dumps(task))))
        alone, workers = zip(*processes)
        facts = [answers(alone)[0], answers(workers)[0]]
        for _ in range(WARM_UP):
            for group in (alone, workers):
                step = max(a['seconds'] / a['count'] for a in ask(group, 'steps', 2))
        count = max(1, round(seconds / step))
        ask(workers, 'all_reduces', ALL_REDUCES)
        timed = [{ONE: ask(alone[turn % 2:turn % 2 + 1], 'steps', count), TWO_ALONE: ask(alone, 'steps', count),
                  TWO_WORKERS: ask(workers, 'steps', count),
                  'all_reduces': ask(workers, 'all_reduces', ALL_REDUCES)} for turn in range(turns)]
    finally:
        for process in sum(processes, ()):
            process.close()
    return _record(*facts, count, timed)


def _record(alone, worker, count, timed):
    """What the two kinds of process said of themselves, and what each turn took -> the record of a model."""
    batch = alone['batch_size']

    def each(what, of, name='seconds'):
        return [of(a[name] / a['count'] for a in turn[what]) * 1e3 for turn in timed]

    rates = {ONE: [batch * count / turn[ONE][0]['seconds'] for turn in timed],
             TWO_ALONE: [sum(batch * count / a['seconds'] for a in turn[TWO_ALONE]) for turn in timed],
             TWO_WORKERS: [2 * batch * count / max(a['seconds'] for a in turn[TWO_WORKERS]) for turn in timed]}
    raw = {'examples_a_second': rates,
           'milliseconds_a_step': {ONE: each(ONE, max), TWO_ALONE: each(TWO_ALONE, statistics.mean),
                                   TWO_WORKERS: each(TWO_WORKERS, max)},
           'cpu_milliseconds_a_step': {a: each(a, statistics.mean, 'cpu_seconds') for a in ARRANGEMENTS},
           'milliseconds_an_all_reduce': each('all_reduces', max),
           'cpu_milliseconds_an_all_reduce': each('all_reduces', statistics.mean, 'cpu_seconds'),
           'cpu_share_of_a_waiting_worker': [a['cpu_share_before'] for turn in timed[1:] for a in turn[TWO_WORKERS]]}
    medians = {name: {k: statistics.median(v) for k, v in values.items()} if isinstance(values, dict)
               else statistics.median(values or [0.]) for name, values in raw.items()}
    rate = medians['examples_a_second']
    return {'batch_size': batch, 'jit': alone['jit'], 'steps_a_turn': count,
            'efficiency': round(rate[TWO_WORKERS] / rate[ONE] / 2, 4),
            'workers_over_alone': round(rate[TWO_WORKERS] / rate[TWO_ALONE], 4),
            'all_reduces_a_step': len(worker['all_reduced']), 'bytes_all_reduced_a_step': sum(worker['all_reduced']),
            'medians': medians, **raw}


def _process(model, core, role, tf_config=None):
    """A process that is held on a core."""
    environment = {k: v for k, v in os.environ.items() if k != 'TF_CONFIG'}
    return Process(['-m', 'benchmarks.scaling', f'--model={model}', f'--core={core}', f'--role={role}',
                    f'--batch_size={flags.FLAGS.batch_size}'],
                   {**environment, 'CUDA_VISIBLE_DEVICES': '', **({'TF_CONFIG': tf_config} if tf_config else {})})


def be(model, core, role):
    """One process, which waits to be asked."""
    os.sched_setaffinity(0, {core})        # before TensorFlow counts the cores for its threads
    with cli.quiet_tensorflow():
        from benchmarks.runner import all_reduced, recipe_loop
        from strategies import selection
    devices = selection.select('multiworker' if role == WORKER else 'cpu')
    runner, recipe, _, _, jit = recipe_loop(model, devices=devices, rows=flags.FLAGS.batch_size)
    asked = {'steps': runner}
    facts = {'batch_size': recipe.training.batch_size // devices.replicas, 'jit': jit}
    if role == WORKER:
        facts['all_reduced'] = all_reduced(runner)
        asked['all_reduces'] = _all_reduces(devices.strategy, runner.step.model.trainable_variables)
    serve(facts, asked)


def _all_reduces(strategy, variables):
    """A function (count) that only all-reduces tensors of the variables' shapes, `count` times one after the other."""
    import tensorflow as tf

    def mean(tensors):
        halves = [t / 2. for t in tensors]
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, halves)

    @tf.function
    def repeat(count):
        tensors = [tf.ones(v.shape) for v in variables]
        for _ in tf.range(count):
            tensors = [strategy.experimental_local_results(t)[0] for t in strategy.run(mean, args=(tensors,))]
        return tensors[0]
    return lambda count: repeat(tf.constant(count)).numpy()


def define():
    flags.DEFINE_string('model', '', f'Measure one model: {", ".join(DEFAULT)}. Default: all.')
    flags.DEFINE_integer('batch_size', 0, 'Examples per step of each process; 0 is the batch of the recipe.')
    flags.DEFINE_integer('turns', 8, 'Turns of each arrangement.')
    flags.DEFINE_float('seconds', 1., 'About how long a turn lasts.')
    flags.DEFINE_integer('core', -1, 'Be one process, on this core; the command starts them itself.')
    flags.DEFINE_enum('role', ALONE, (ALONE, WORKER), 'Which process to be.')


if __name__ == '__main__':
    cli.run(main, define)
