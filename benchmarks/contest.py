"""Contenders that are timed in turns: each is a process of its own, with one thread per core, and sleeps meanwhile."""

import logging
import os
import statistics
import tempfile

from absl import flags

import cli
from benchmarks import collect
from benchmarks.processes import Process, answers, ask, serve

# How PyTorch's threads wait for each other, unless the environment says so: asleep. By default they spin; beside other
# work on the machine a training step then took 2 to 6 times the CPU time.
WAIT = 'PASSIVE'
PAGE = collect.ROOT / 'docs' / 'speed.md'


def threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def wait_policy():
    return os.environ.get('OMP_WAIT_POLICY', WAIT)


def start(module, contender, compiled='', *arguments):
    """Starts `python -m benchmarks.MODULE --contender=...`, which calls `be`.

    compiled: the folder for what torch.compile writes, so that nothing is left, or taken from another run.
    """
    environment = {**os.environ, 'OMP_WAIT_POLICY': wait_policy(), 'CUDA_VISIBLE_DEVICES': '',
                   'TORCHINDUCTOR_CACHE_DIR': compiled}
    return Process(['-m', f'benchmarks.{module}', f'--contender={contender}', *arguments], environment)


def be(contender, make, case):
    """The process of a contender, 'CASE/NAME'. make: function (case) -> ({fact: value}, function (number of calls))."""
    name, who = contender.split('/')
    try:
        if who.startswith('torch'):
            import torch
            torch.set_num_threads(threads())
            logging.getLogger('torch').setLevel(logging.ERROR)      # one notes that there is no CUDA
        else:
            with cli.quiet_tensorflow():
                import tensorflow as tf
            tf.config.threading.set_intra_op_parallelism_threads(threads())
        facts, call = make(case)
        call(1)
    except Exception as error:
        if not who.startswith('torch'):
            raise
        # Not installed, or no C++ compiler, which torch.compile needs: the others run all the same.
        serve({'skipped': f'{type(error).__name__}: {(str(error).strip() or "no message").splitlines()[0]}'}, {})
        return
    serve(facts, {name: call})


def keras_facts(model):
    import keras
    import numpy as np
    return {'parameters': sum(int(np.prod(v.shape)) for v in model.trainable_weights),
            'versions': {'keras': keras.__version__}}


def measure(name, case, contenders, starter, turns, seconds):
    """The record of a case: each contender's facts and what each of its turns took.

    starter: function (contender, folder for what is compiled) -> Process. seconds: about how long a turn of ours lasts.
    """
    processes, facts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for contender in contenders:      # one after the other: its first calls have the machine to themselves
                processes[contender] = starter(f'{name}/{contender}', folder)
                [facts[contender]] = answers([processes[contender]])
                print(f'{name}: {contender} {facts[contender]}', flush=True)
            racing = {contender: [processes[contender]] for contender in facts if 'skipped' not in facts[contender]}
            warm = {contender: ask(group, name, 2)[0] for contender, group in racing.items()}
            count = max(1, round(seconds * 2 / warm['ours']['seconds']))
            timed = {contender: [] for contender in racing}
            for _ in range(turns):
                for contender, group in racing.items():
                    timed[contender] += ask(group, name, count)
                print(name, {contender: round(answered[-1]['seconds'] / count * 1e3)
                             for contender, answered in timed.items()}, 'ms', flush=True)
        finally:
            for process in processes.values():
                process.close()
    for contender, answered in timed.items():
        taken = [answer['seconds'] / count * 1e3 for answer in answered]
        facts[contender] |= {'median': statistics.median(taken), 'milliseconds': taken,
                             'cpu_milliseconds': [answer['cpu_seconds'] / count * 1e3 for answer in answered],
                             'cpu_share_while_others_ran': [answer['cpu_share_before'] for answer in answered[1:]]}
    return {**case, 'calls_per_turn': count, 'contenders': facts}


def table(head, examples, case, titles):
    """head: its first title. examples: what they are, in the plural."""
    return '\n'.join([f'| {head} | ms | {examples}/s | time over ours |', '|---|---|---|---|', *_rows(case, titles)])


def _rows(case, titles):
    """Lines of a table: milliseconds, examples/s, and the time over ours, of each contender of a record."""
    ours = case['contenders']['ours']['median']
    for name, facts in case['contenders'].items():
        if 'skipped' in facts:
            yield f'| {titles[name]} | not run: {facts["skipped"]} | | |'
            continue
        median = facts['median']
        yield (f'| {facts.get("title", titles[name])} | {median:.1f} | {1e3 * case["batch_size"] / median:,.1f} | '
               f'{median / ours:.2f} |')


def write_page(name, text):
    """Writes docs/speed.md anew between the two marks of a name."""
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    before, rest = PAGE.read_text(encoding='utf-8').split(f'{start}\n')
    PAGE.write_text(f'{before}{start}\n{text}\n{end}{rest.partition(end)[2]}', encoding='utf-8')


def define():
    flags.DEFINE_integer('turns', 10, 'Turns of each contender.')
    flags.DEFINE_float('seconds', 3., 'About how long a turn of ours lasts; the others do as many calls.')
    flags.DEFINE_boolean('quick', False, 'Few and small inputs, to try it out.')
    flags.DEFINE_string('contender', '', 'Be one contender, CASE/NAME; the command starts them itself.')
