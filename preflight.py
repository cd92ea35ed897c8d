"""Compiles a recipe's training and evaluation step for a TPU that is not there, and says what they would cost.

    python preflight.py --model=transformer --topology=v5e:2x4
    python preflight.py --model=transformer --size=big --topology=v5e:16x16 --per_chip_batch=16
    python preflight.py --model=cnn --find_batch_size
    python preflight.py --model=cnn --sweep --topology=v5e:2x4,v5e:4x4 --per_chip_batch=16,64,256

Needs the extra `tpu`. Exit codes: 0 it compiles and fits, 1 it does not, 2 a flag is wrong.
"""

import json
import os
import signal
import sys

from absl import flags

import cli
from errors import FAILED, UserError
from settings import Options
from strategies.preflight import report, topologies


def main(chosen):
    args, recipe = flags.FLAGS, chosen.recipe
    slices = [topologies.parse(name) for name in args.topology]
    batches = [_positive(text) for text in args.per_chip_batch]
    if batches and 'batch_size' in chosen.given:
        raise UserError('`per_chip_batch` and `batch_size` exclude each other. '
                        f'Received: per_chip_batch={batches}, batch_size={recipe.training.batch_size}')
    if not args.sweep and (len(slices) > 1 or len(batches) > 1):
        raise UserError('`topology` and `per_chip_batch` take several values only with --sweep. '
                        f'Received: topology={",".join(args.topology)}, per_chip_batch={batches}')
    for name, applies in (('json', not args.sweep), ('find_batch_size', not args.sweep), ('output', args.sweep)):
        if flags.FLAGS[name].present and not applies:
            raise UserError(f'`{name}` is {"not for" if args.sweep else "for"} --sweep. '
                            f'Received: {name}={args[name].value}')
    for number in (signal.SIGINT, signal.SIGTERM):      # nothing is to be saved, and a compiler does not look for them
        signal.signal(number, signal.SIG_DFL)
    with cli.quiet_tensorflow():
        from experiment.preflight import Preflight
    if chosen.inherited:
        _say(chosen.inherited)
    preflight = Preflight(args.data_dir, _say)
    if args.sweep:
        files = report.write_sweep(preflight.sweep(recipe, slices, batches), args.output)
        print(f'wrote {" and ".join(map(str, files))}')
        return
    if batches:
        recipe = recipe.replace(batch_size=batches[0] * slices[0].chips)
    found = preflight.largest(recipe, slices[0]) if args.find_batch_size else preflight.check(recipe, slices[0])
    print(json.dumps(found, indent=2) if args.json else report.table(found), flush=True)
    return 0 if found['compiles'] else FAILED


def _positive(text):
    if not text.isdigit() or not int(text):
        raise UserError(f'`per_chip_batch` must be a number of at least 1. Received: per_chip_batch={text!r}')
    return int(text)


def _say(line):
    """Progress goes to the error stream, where it is in nobody's way."""
    print(line, file=sys.stderr, flush=True)


def define():
    flags.DEFINE_list('topology', 'v5e:2x4', f'TPU slice: chip and shape. Chips: {", ".join(topologies.CHIPS)}.')
    flags.DEFINE_list('per_chip_batch', [], 'Examples per step and chip, instead of the global --batch_size.')
    flags.DEFINE_boolean('find_batch_size', False, 'Search for the largest batch that fits, by compiling.')
    flags.DEFINE_boolean('json', False, 'JSON output of the report.')
    flags.DEFINE_boolean('sweep', False, 'Check of every topology with every per_chip_batch; writes sweep.csv and '
                                         'sweep.png.')
    flags.DEFINE_string('output', os.path.join('runs', 'preflight'), 'Folder for the files of --sweep.')
    cli.define_flags(Options, ('data_dir',))


if __name__ == '__main__':
    cli.run(main, define, recipe=True)
