"""Saves a recipe's training step as a program that a machine without TensorFlow runs: see strategies/program.py.

    python program.py --model=cnn --output=cnn_program
    python -m strategies.program cnn_program          on any machine with jax: a GPU, a TPU, this CPU

Needs the extra `tpu`.
"""

import signal
import sys

from absl import flags

import cli
from settings import Options


def main(chosen):
    cli.required('output')
    args, recipe = flags.FLAGS, chosen.recipe
    for number in (signal.SIGINT, signal.SIGTERM):      # nothing is to be saved, and a compiler does not look for them
        signal.signal(number, signal.SIG_DFL)
    with cli.quiet_tensorflow():
        from experiment.program import save_program
    if chosen.inherited:
        _say(chosen.inherited)
    about = save_program(recipe, args.output, name=chosen.name, data_dir=args.data_dir, steps=args.batches,
                         drawn=args.drawn, compare=args.compare, exact=args.exact, say=_say)
    print(f'wrote {args.output}: {about["parameters"]:,} parameters, {about["steps"]} batches of '
          f'{about["batch_size"]}; to run it: python -m strategies.program {args.output}')


def _say(line):
    """Progress goes to the error stream, where it is in nobody's way."""
    print(line, file=sys.stderr, flush=True)


def define():
    flags.DEFINE_string('output', None, 'Folder for the program; it must not exist yet.')
    flags.DEFINE_integer('batches', 8, 'Number of batches to save, and of steps to compare.', 1, 1_000)
    flags.DEFINE_boolean('compare', True, 'Steps on this machine too, for the weights that another one must reach.')
    flags.DEFINE_boolean('drawn', False, 'Weights that each machine draws anew, in place of stored ones; for models '
                                         'whose files would be too large.')
    flags.DEFINE_boolean('exact', False, 'Precision float32, and products in full float32 also where a device has a '
                                         'faster kind: TensorFloat-32 on GPUs, bfloat16 on TPUs.')
    cli.define_flags(Options, ('data_dir',))


if __name__ == '__main__':
    cli.run(main, define, recipe=True)
