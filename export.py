"""Exports any checkpoint of a run as a SavedModel, and checks it against the model.

    python export.py --workdir=runs/cnn_digits --checkpoint=best --output=served/digits/1
"""

import pathlib

from absl import flags

import frontdoor
from errors import UserError


def main(arguments):
    if arguments:
        raise UserError(f'`export.py` takes flags only. Received: {" ".join(arguments)}')
    args = flags.FLAGS
    frontdoor.required('workdir', 'output')
    output = pathlib.Path(args.output)
    if output.exists() and not (output / 'saved_model.pb').exists():
        raise UserError(f'`output` must be new, or a SavedModel to replace. Received: output={args.output!r}')
    with frontdoor.quiet_tensorflow():
        import assembly
        from strategies import selection
    selection.select('cpu')
    _, dataset, task, model, step = assembly.load(args.workdir, args.checkpoint, args.data_dir)
    difference = assembly.export(output, model, model, dataset, task)
    print(f'{output}: step {step} of {args.workdir}, differs from the model by at most {difference:.1e}')


def define():
    flags.DEFINE_string('workdir', None, 'Folder of a run made by train.py.')
    flags.DEFINE_string('checkpoint', 'newest', 'Which weights: newest, best, or a step.')
    flags.DEFINE_string('output', None, 'Folder to write. TensorFlow Serving wants its last part to be a number.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets.')


if __name__ == '__main__':
    frontdoor.run(main, define)
