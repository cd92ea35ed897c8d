"""Exports any checkpoint of a run as a SavedModel, and checks it against the model.

    python export.py --workdir=runs/cnn_digits --checkpoint=best --output=served/digits/1
"""

import pathlib

from absl import flags

import cli
from errors import UserError
from experiment.workdir import Workdir


def main():
    args = flags.FLAGS
    cli.required('workdir', 'output')
    output = pathlib.Path(args.output)
    if output.exists() and not (output / 'saved_model.pb').exists():
        raise UserError(f'`output` must be new, or a SavedModel to replace. Received: output={args.output!r}')
    Workdir(args.workdir).recipe()      # a mistake is told before TensorFlow is imported
    with cli.quiet_tensorflow():
        from experiment import export, trained
        from strategies import selection
    selection.select('cpu')
    _, dataset, task, model, step = trained.load(args.workdir, args.checkpoint, args.data_dir)
    difference = export.write_checked(output, model, model, dataset, task)
    print(f'{output}: step {step} of {args.workdir}, differs from the model by at most {difference:.1e}')


def define():
    cli.run_flags(devices=False)
    flags.DEFINE_string('output', None, 'Folder to write. TensorFlow Serving wants its last part to be a number.')


if __name__ == '__main__':
    cli.run(main, define)
