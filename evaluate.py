"""Evaluates a run's checkpoint on a split, every example exactly once.

    python evaluate.py --workdir=runs/cnn_digits
    python evaluate.py --workdir=runs/cnn_digits --split=validation --checkpoint=best
"""

import json

from absl import flags

import frontdoor
from errors import UserError, lookup


def main(arguments):
    if arguments:
        raise UserError(f'`evaluate.py` takes flags only. Received: {" ".join(arguments)}')
    args = flags.FLAGS
    lookup(dict.fromkeys(('train', 'validation', 'test')), args.split, 'split')
    frontdoor.required('workdir')
    with frontdoor.quiet_tensorflow():
        import assembly
        from strategies import selection
    from data import pipeline
    from training.evaluation import EvaluationStep, Evaluator
    devices = selection.select(args.strategy, args.virtual_devices, args.tpu)
    assembly.make_deterministic(devices.hardware)
    search = {name: args[name].value for name in ('beam_size', 'length_penalty') if args[name].present}
    with devices.strategy.scope():
        recipe, dataset, task, model, step = assembly.load(args.workdir, args.checkpoint, args.data_dir, **search)
    source, batch_size = dataset.split(args.split), args.batch_size or recipe.batch_size
    pipeline.per_replica(batch_size, devices.replicas)
    evaluate = Evaluator(devices.strategy, EvaluationStep(model, task),
                         pipeline.evaluation_slices(source, task.features, batch_size=batch_size),
                         pipeline.evaluation_steps(source, batch_size), source)
    with assembly.data_errors(dataset):
        values = evaluate()
    print(json.dumps({'step': step, 'split': args.split, **values}, indent=2))


def define():
    flags.DEFINE_string('workdir', None, 'Folder of a run made by train.py.')
    flags.DEFINE_string('checkpoint', 'newest', 'Which weights: newest, best, or a step.')
    flags.DEFINE_string('split', 'test', 'train, validation or test.')
    flags.DEFINE_integer('batch_size', 0, 'Global batch; 0 is the recipe\'s. The result does not depend on it.')
    flags.DEFINE_integer('beam_size', 1, 'Of translations: hypotheses that beam search keeps; 1 is greedy. Default: '
                                         'the recipe\'s.')
    flags.DEFINE_float('length_penalty', 0.6, 'Of beam search. Default: the recipe\'s.')
    flags.DEFINE_string('strategy', 'auto', 'Devices: auto, cpu, gpu, multiworker or tpu.')
    flags.DEFINE_integer('virtual_devices', 0, 'Split this machine\'s device into N logical ones.')
    flags.DEFINE_string('tpu', '', 'TPU to use: local, its name, or a grpc:// address.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets.')


if __name__ == '__main__':
    frontdoor.run(main, define)
