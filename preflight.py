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

import frontdoor
import recipes
from errors import FAILED, UserError
from recipes import Recipe
from strategies.preflight import report, topologies


def main(arguments):
    if arguments:
        raise UserError(f'`preflight.py` takes flags only. Received: {" ".join(arguments)}')
    args = flags.FLAGS
    overrides = frontdoor.given(Recipe)
    _, recipe = recipes.find(args.recipe, overrides.get('model'), overrides.get('dataset'))
    recipe = recipe.replace(**overrides)
    slices = [topologies.parse(name) for name in args.topology]
    batches = [_positive(text) for text in args.per_chip_batch]
    if batches and 'batch_size' in overrides:
        raise UserError('`per_chip_batch` and `batch_size` exclude each other. '
                        f'Received: per_chip_batch={batches}, batch_size={recipe.batch_size}')
    if not args.sweep and (len(slices) > 1 or len(batches) > 1):
        raise UserError('`topology` and `per_chip_batch` take several values only with --sweep. '
                        f'Received: topology={",".join(args.topology)}, per_chip_batch={batches}')
    for number in (signal.SIGINT, signal.SIGTERM):      # nothing is to be saved, and a compiler does not look for them
        signal.signal(number, signal.SIG_DFL)
    with frontdoor.quiet_tensorflow():
        from rehearsal import Rehearsal
    rehearsal = Rehearsal(args.data_dir, _say)
    if args.sweep:
        files = report.write_sweep(rehearsal.sweep(recipe, slices, batches), args.output)
        print(f'wrote {" and ".join(map(str, files))}')
        return
    if batches:
        recipe = recipe.replace(batch_size=batches[0] * slices[0].chips)
    found = rehearsal.largest(recipe, slices[0]) if args.find_batch_size else rehearsal.check(recipe, slices[0])
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
    flags.DEFINE_string('recipe', None, f'Recipe to check: {", ".join(recipes.RECIPES)}. Each of its fields is a flag.')
    frontdoor.define_flags(Recipe, inherit=True)
    flags.DEFINE_list('topology', 'v5e:2x4', f'TPU slice, chip and shape; chips: {", ".join(topologies.CHIPS)}.')
    flags.DEFINE_list('per_chip_batch', [], 'Examples per step on each chip, instead of the global --batch_size.')
    flags.DEFINE_boolean('find_batch_size', False, 'Find the largest batch that fits, by compiling, and report it.')
    flags.DEFINE_boolean('json', False, 'Print the report as JSON.')
    flags.DEFINE_boolean('sweep', False, 'Check every topology with every per_chip_batch; write sweep.csv, sweep.png.')
    flags.DEFINE_string('output', os.path.join('runs', 'preflight'), 'Folder for the files of --sweep.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets.')


if __name__ == '__main__':
    frontdoor.run(main, define)
