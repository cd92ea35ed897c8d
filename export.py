"""Exports any checkpoint of a run, as a SavedModel or for another runtime, and checks it against the model.

    python export.py --workdir=runs/cnn_digits --checkpoint=best --output=runs/served/digits/1
    python export.py --workdir=runs/cnn_digits --format=litert --output=runs/served/digits_litert
"""

import pathlib

from absl import flags

import cli
from errors import UserError
from experiment import formats
from experiment.workdir import Workdir


def main():
    args = flags.FLAGS
    cli.required('workdir', 'output')
    _check(args)
    Workdir(args.workdir).recipe()      # a mistake is told before TensorFlow is imported
    with cli.quiet_tensorflow():
        from experiment import export, published, trained
        from strategies import selection
        module = formats.module_of(args.format) if args.format in formats.FORMATS else None
    selection.select('cpu')
    recipe, dataset, task, model, step = trained.load(args.workdir, args.checkpoint, args.data_dir)
    start = f'{args.output}: step {step} of {args.workdir}'
    if args.format == formats.HUGGING_FACE:
        arrays = published.write(args.output, recipe, model, task.sizes, task.class_names, task.tokenizer_files)
        print(f'{start} in Hugging Face\'s names, {arrays} arrays')
        return
    if module is None:
        difference = export.write_checked(args.output, model, model, dataset, task)
        print(f'{start}, differs from the model by at most {difference:.1e}')
        return
    from experiment.formats.convert import convert
    described = convert(module, args.format, task, model, dataset.test, args.output, args.quantize, args.batch_size)
    print(f'{start} for {described["runtime"]}, batch size {described["batch_size"]}')
    for name, found in described['compared'].items():
        print(f'  {name}: {_told(found)}')


def _check(args):
    formats.check(args.format, args.quantize, args.batch_size)
    output = pathlib.Path(args.output)
    held = {'saved_model': 'saved_model.pb', formats.HUGGING_FACE: 'config.json'}.get(args.format, formats.DESCRIPTION)
    if output.exists() and not (output / held).exists():
        raise UserError(f'`output` must be new, or a folder of the format {args.format} to replace. '
                        f'Received: output={args.output!r}')


def _told(found):
    metrics = ', '.join(f'{name} {value:.4f} (the model {found["model"][name]:.4f})'
                        for name, value in found['format'].items() if isinstance(value, float))
    return (f'{metrics}{", " if metrics else ""}differs from the model by at most {found["max_difference"]:.1e} on '
            f'{found["examples"]:,} test examples, {found["unequal"]:,} unequal')


def define():
    cli.run_flags(devices=False)
    flags.DEFINE_string('output', None, 'Folder to write. TensorFlow Serving wants its last part to be a number.')
    flags.DEFINE_string('format', 'saved_model', f'Format: saved_model, {", ".join(formats.FORMATS)}; or '
                        f'{formats.HUGGING_FACE}, the weights of a resnet or bert in Hugging Face\'s names. All but '
                        'the first hold the signatures of numbers only; litert, onnx and openvino need the extra of '
                        'their name.')
    flags.DEFINE_string('quantize', 'none', 'Precision of the weights in a file of LiteRT: none, dynamic_range '
                        '(8 bits) or float16.')
    flags.DEFINE_integer('batch_size', 0, 'Static number of examples per request, for formats other than saved_model. '
                         '0 is any number, where the format can; recurrent layers in LiteRT then take 1.')


if __name__ == '__main__':
    cli.run(main, define)
