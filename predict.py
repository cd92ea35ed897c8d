"""Asks a trained model about raw inputs: image files, sentences, or numbers.

    python predict.py --workdir=runs/cnn_digits --image=seven.png --image=two.jpg
    python predict.py --workdir=runs/transformer_number_words --text='two thousand and twenty-six'
    python predict.py --workdir=runs/mlp_diabetes --values=0.04,0.05,0.06,0.02,-0.04,-0.03,-0.04,-0.002,0.02,-0.02
"""

import json

from absl import flags

import frontdoor
from errors import UserError

KINDS = {'image': 'image', 'text': 'text', 'vector': 'values'}      # what a dataset's examples are -> the flag for it


def main(arguments):
    if arguments:
        raise UserError(f'`predict.py` takes flags only; name files by --image=FILE. Received: {" ".join(arguments)}')
    args = flags.FLAGS
    frontdoor.required('workdir')
    given = [name for name in KINDS.values() if args[name].value]
    if len(given) != 1:
        raise UserError('one of `--image`, `--text` and `--values` must say what to predict. Received: '
                        f'{", ".join(given) or "none"}')
    with frontdoor.quiet_tensorflow():
        import assembly
        from strategies import selection
    selection.select('cpu')
    _, _, task, model, _ = assembly.load(args.workdir, args.checkpoint, args.data_dir)
    wanted = KINDS[task.features.kind]
    if given != [wanted]:
        raise UserError(f'this run was trained on {task.features.kind}s: use --{wanted}. Received: --{given[0]}')
    inputs = args[wanted].value
    outputs = task.predict(model, inputs)
    for i, text in enumerate(inputs):
        answer = {name: values[i] for name, values in outputs.items()}
        print(json.dumps({wanted: text, **answer}, ensure_ascii=False) if args.json else task.describe(text, answer))


def define():
    flags.DEFINE_string('workdir', None, 'Folder of a run made by train.py.')
    flags.DEFINE_string('checkpoint', 'newest', 'Which weights: newest, best, or a step.')
    flags.DEFINE_multi_string('image', None, 'An image file (JPEG, PNG, BMP, GIF); may be given several times.')
    flags.DEFINE_multi_string('text', None, 'A sentence; may be given several times.')
    flags.DEFINE_multi_string('values', None, 'Numbers with commas between; may be given several times.')
    flags.DEFINE_boolean('json', False, 'Print one JSON object an input, with all outputs.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets.')


if __name__ == '__main__':
    frontdoor.run(main, define)
