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

from absl import flags

import cli
from benchmarks import collect, contest
from benchmarks.processes import answers
from benchmarks.report import RESULTS, write
from errors import UserError

CASES = {'training': {'size': '20', 'batch_size': 128, 'side': 32},
         'inference': {'size': '50', 'batch_size': 8, 'side': 224}}
QUICK = {'training': {'batch_size': 8}, 'inference': {'batch_size': 2, 'side': 64}}
CONTENDERS = {'ours': 'ours', 'keras': 'Keras', 'torch': 'PyTorch', 'torch_compiled': 'PyTorch, `torch.compile`'}
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
    measured = {name: contest.measure(name, case, CONTENDERS, start, args.turns, args.seconds)
                for name, case in cases(args.quick).items()}
    measured[COLLECTIVES] = counted()
    write('vision_quick' if args.quick else 'vision_cpu',
          {'threads': contest.threads(), 'OMP_WAIT_POLICY': contest.wait_policy(), **measured,
           'commit': collect.commit()})
    if not args.quick:
        contest.write_page('vision', tables(json.loads((RESULTS / 'vision_cpu.json').read_text())))
    print(tables(measured))


def cases(quick):
    """{case: {'size', 'batch_size', 'side'}}"""
    return {name: {**case, **(QUICK[name] if quick else {})} for name, case in CASES.items()}


def counted():
    """{size: collectives of a training step on each of 2 replicas, and their bytes}."""
    process = start(COLLECTIVES)
    try:
        return answers([process])[0]
    finally:
        process.close()


def start(contender, compiled=''):
    return contest.start('vision', contender, compiled, *(['--quick'] if flags.FLAGS.quick else []))


def tables(record):
    """The tables of docs/speed.md."""
    parts = []
    for name, what in (('training', 'training step'), ('inference', 'inference')):
        case = record[name]
        head = f'ResNet-{case["size"]}, {what} of {case["batch_size"]} images of {case["side"]}x{case["side"]}'
        parts.append(contest.table(head, 'images', case, CONTENDERS))
    counts = ', '.join(f'{found["count"]} of ResNet-{size} ({found["bytes"] / 1e6:.2f} MB)'
                       for size, found in record[COLLECTIVES].items())
    return '\n\n'.join([*parts, f'Collectives in a training step on each of 2 replicas: {counts}.'])


if __name__ == '__main__':
    cli.run(main, contest.define)
