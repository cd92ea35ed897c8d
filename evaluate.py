"""Evaluates a run's checkpoint on a split, every example exactly once.

    python evaluate.py --workdir=runs/cnn_digits
    python evaluate.py --workdir=runs/cnn_digits --split=validation --checkpoint=best
"""

import json

from absl import flags

import cli
from errors import lookup
from experiment.workdir import Workdir
from settings import Options, Training, Translation
from settings.fields import check_field

SPLITS, SEARCH = ('train', 'validation', 'test'), ('beam_size', 'length_penalty')


def main():
    args = flags.FLAGS
    lookup(dict.fromkeys(SPLITS), args.split, 'split')
    cli.required('workdir')
    options = Options(**cli.given(Options))
    if args['batch_size'].present:
        check_field(Training, 'batch_size', args.batch_size)
    search = {name: args[name].value for name in SEARCH if args[name].present}
    Workdir(args.workdir).recipe().replace(**search)      # a mistake is told before TensorFlow is imported
    with cli.quiet_tensorflow(options):
        from data import pipeline
        from experiment import parts, trained
        from strategies import selection
        from training import randomness
    from training.evaluation import EvaluationStep
    from training.runtime import make_evaluator, make_state
    devices = selection.select(options.strategy, options.virtual_devices, options.tpu, options.runtime,
                               options.process)
    randomness.make_deterministic(devices.kernels)
    with devices.strategy.scope():
        recipe, dataset, task, model, step = trained.load(
            options.workdir, args.checkpoint, options.data_dir, **search)
    source, batch_size = dataset.split(args.split), args.batch_size or recipe.training.batch_size
    pipeline.per_replica(batch_size, devices.replicas)
    with selection.worker_errors(devices), parts.data_errors(dataset):
        evaluate = make_evaluator(devices, make_state(devices, model), EvaluationStep(model, task),
                                  *parts.evaluation_batches(task, source, batch_size))
        values = evaluate()
    print(json.dumps({'step': step, 'split': args.split, **values}, indent=2))


def define():
    cli.run_flags()
    flags.DEFINE_string('split', 'test', f'Split to evaluate: {", ".join(SPLITS)}.')
    flags.DEFINE_integer('batch_size', None, 'Global batch size. Without it, that of the run. The result does not '
                                             'depend on it.')
    cli.define_flags(Translation, SEARCH, inherit=True)


if __name__ == '__main__':
    cli.run(main, define)
