"""ResNets on the CPU beside Keras's `fit` and `predict`, PyTorch, and PyTorch compiled, in turns.

    python -m benchmarks.vision            needs pip install -e ".[torch]"; without it PyTorch's rows say so
    python -m benchmarks.vision --quick    a minute or two, to try it out: writes vision_quick.json, and no page

Training: a step of ResNet-20 in its form for CIFAR, 128 images of 32x32, SGD with momentum, in float32. Ours is the
loop of train.py with its input, checks and determinism; the others have one batch in memory, and images that are
normalised. Inference: ResNet-50, 8 images of 224x224. Ours is the model in a tf.function, as an exported one runs.

Each contender (vision_contenders.py) is a process of its own, with one thread per core, and sleeps while another is
timed. Collectives of a training step are counted in its graph for 2 replicas. Writes benchmarks/results/vision_cpu.json
and the tables of docs/speed.md.
"""

import json
import os
import statistics
import tempfile

from absl import flags

import cli
from benchmarks import collect
from benchmarks.processes import Process, answers, ask
from benchmarks.report import RESULTS, write
from errors import UserError

PAGE = collect.ROOT / 'docs' / 'speed.md'
START, END = '<!-- vision -->', '<!-- /vision -->'
CASES = {'training': {'size': '20', 'batch_size': 128, 'side': 32},
         'inference': {'size': '50', 'batch_size': 8, 'side': 224}}
QUICK = {'training': {'batch_size': 8}, 'inference': {'batch_size': 2, 'side': 64}}
CONTENDERS = {'ours': 'ours', 'keras': 'Keras', 'torch': 'PyTorch', 'torch_compiled': 'PyTorch, `torch.compile`'}
# How PyTorch's threads wait for each other, unless the environment says so: asleep. By default they spin; beside other
# work on the machine a training step then took 2 to 6 times the CPU time.
WAIT = 'PASSIVE'
COLLECTIVES = 'collectives'
SIZES = ('20', '50')      # of which collectives are counted


def main():
    args = flags.FLAGS
    if args.contender:
        from benchmarks import vision_contenders
        vision_contenders.be(args.contender, cases(args.quick))
        return
    if args.turns < 1:
        raise UserError(f'`turns` must be at least 1. Received: turns={args.turns}')
    measured = {name: measure(name, case, args.turns, args.seconds) for name, case in cases(args.quick).items()}
    measured[COLLECTIVES] = counted()
    write('vision_quick' if args.quick else 'vision_cpu',
          {'threads': threads(), 'OMP_WAIT_POLICY': os.environ.get('OMP_WAIT_POLICY', WAIT), **measured,
           'commit': collect.commit()})
    if not args.quick:
        write_page()
    print(tables(measured))


def cases(quick):
    """{case: {'size', 'batch_size', 'side'}}"""
    return {name: {**case, **(QUICK[name] if quick else {})} for name, case in CASES.items()}


def threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def measure(name, case, turns, seconds):
    """The record of a case: each contender's facts and what each of its turns took."""
    processes, facts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for contender in CONTENDERS:      # one after the other: its first calls have the machine to themselves
                processes[contender] = _process(f'{name}/{contender}', folder)
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


def counted():
    """{size: collectives of a training step on each of 2 replicas, and their bytes}."""
    process = _process(COLLECTIVES)
    try:
        return answers([process])[0]
    finally:
        process.close()


def _process(contender, compiled=''):
    """compiled: the folder for what torch.compile writes, so that nothing is left, or taken from another run."""
    environment = {'OMP_WAIT_POLICY': WAIT, **os.environ, 'CUDA_VISIBLE_DEVICES': '',
                   'TORCHINDUCTOR_CACHE_DIR': compiled}
    quick = ['--quick'] if flags.FLAGS.quick else []
    return Process(['-m', 'benchmarks.vision', f'--contender={contender}', *quick], environment)


def tables(record):
    """The tables of docs/speed.md."""
    parts = []
    for name, what in (('training', 'training step'), ('inference', 'inference')):
        case = record[name]
        head = f'ResNet-{case["size"]}, {what} of {case["batch_size"]} images of {case["side"]}x{case["side"]}'
        parts.append('\n'.join([f'| {head} | ms | images/s | time over ours |', '|---|---|---|---|', *_rows(case)]))
    counts = ', '.join(f'{found["count"]} of ResNet-{size} ({found["bytes"] / 1e6:.2f} MB)'
                       for size, found in record[COLLECTIVES].items())
    return '\n\n'.join([*parts, f'Collectives in a training step on each of 2 replicas: {counts}.'])


def _rows(case):
    ours = case['contenders']['ours']['median']
    for name, facts in case['contenders'].items():
        if 'skipped' in facts:
            yield f'| {CONTENDERS[name]} | not run: {facts["skipped"]} | | |'
            continue
        median = facts['median']
        yield (f'| {facts.get("title", CONTENDERS[name])} | {median:.1f} | '
               f'{1e3 * case["batch_size"] / median:,.1f} | {median / ours:.2f} |')


def write_page():
    before, rest = PAGE.read_text(encoding='utf-8').split(f'{START}\n')
    record = json.loads((RESULTS / 'vision_cpu.json').read_text())
    PAGE.write_text(f'{before}{START}\n{tables(record)}\n{END}{rest.partition(END)[2]}', encoding='utf-8')


def define():
    flags.DEFINE_integer('turns', 10, 'Turns of each contender.')
    flags.DEFINE_float('seconds', 3., 'About how long a turn of ours lasts; the others do as many calls.')
    flags.DEFINE_boolean('quick', False, 'Few and small images, to try it out.')
    flags.DEFINE_string('contender', '', 'Be one contender, CASE/NAME; the command starts them itself.')


if __name__ == '__main__':
    cli.run(main, define)
