"""Asks a trained model about raw inputs: image files, sentences, or numbers.

    python predict.py --workdir=runs/cnn_digits --image=seven.png --image=two.jpg
    python predict.py --workdir=runs/transformer_number_words --text='two thousand and twenty-six' --attention=look.png
    python predict.py --workdir=runs/transformer_gettext_de --text='Save the file' --temperature=0.8 --top_p=0.9
    python predict.py --workdir=runs/mlp_diabetes --values=0.04,0.05,0.06,0.02,-0.04,-0.03,-0.04,-0.002,0.02,-0.02
"""

import json
import pathlib

from absl import flags

import cli
from errors import UserError
from experiment.workdir import Workdir
from settings import Translation
from training.files import write_atomically

ASKED = ('image', 'text', 'values')      # what a task may be asked with
SEARCH, SAMPLING = ('beam_size', 'length_penalty'), ('temperature', 'top_k', 'top_p')


def main():
    args = flags.FLAGS
    cli.required('workdir')
    given = [name for name in ASKED if args[name].value]
    if len(given) != 1:
        raise UserError('one of `--image`, `--text` and `--values` must say what to predict. Received: '
                        f'{", ".join(given) or "none"}')
    search = {name: args[name].value for name in SEARCH if args[name].present}
    recipe = Workdir(args.workdir).recipe().replace(**search)      # a mistake is told before TensorFlow is imported
    _check_translation_flags(args, given[0], recipe)
    with cli.quiet_tensorflow():
        from draws import Draws
        from experiment import trained
        from strategies import selection
    selection.select('cpu')
    _, _, task, model, _ = trained.load(args.workdir, args.checkpoint, args.data_dir, **search)
    if given[0] not in task.asks:
        raise UserError(f'this run\'s task is {task.name}: use --{" or --".join(task.asks)}. Received: --{given[0]}')
    asked = args[given[0]].value
    if any(args[name].present for name in SAMPLING):
        task.sampling = {name: args[name].value for name in SAMPLING} | {'draws': Draws(args.seed)}
    outputs = task.predict(model, **{given[0]: asked})
    for i, text in enumerate(asked):
        answer = {name: values[i] for name, values in outputs.items()}
        shown = text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')     # a terminal takes no other
        named = {'source' if 'text' in answer else given[0]: shown, **answer}      # a translation is a text too
        print(json.dumps(named, ensure_ascii=False) if args.json else task.describe(shown, answer))
    if args.attention:
        _draw_attention(model, task, asked[0], args.attention)


def _draw_attention(model, task, text, path):
    from interpretability.attention import cross_attention
    from interpretability.pictures import draw_attention
    write_atomically(path, draw_attention(*cross_attention(model, task, text), pathlib.Path(path).suffix[1:].lower()))


def _check_translation_flags(args, given, recipe):
    """What is for texts that the model writes: sampling, and a picture of one of them."""
    for name in (*SAMPLING, 'seed', 'attention'):
        if args[name].present and recipe.task.kind != 'translation':
            raise UserError(f'`{name}` is for runs of the task translation; the task of this run is '
                            f'{recipe.task.kind}. Received: --{name}={args[name].value}')
    if args['seed'].present and not any(args[name].present for name in SAMPLING):
        raise UserError(f'`seed` is for sampling and needs one of --{", --".join(SAMPLING)}. '
                        f'Received: --seed={args.seed}')
    if args.attention and len(args.text) > 1:
        raise UserError(f'`attention` is a picture of one sentence. Received: {len(args.text)} times --text')


def define():
    cli.run_flags(devices=False)
    flags.DEFINE_multi_string('image', None, 'Image file (JPEG, PNG, BMP, GIF, WebP). The flag may be repeated.')
    flags.DEFINE_multi_string('text', None, 'Sentence. The flag may be repeated.')
    flags.DEFINE_multi_string('values', None, 'Numbers with commas between. The flag may be repeated.')
    cli.define_flags(Translation, SEARCH, inherit=True)
    flags.DEFINE_float('temperature', 1., 'Softmax temperature for sampling a text instead of searching; lower is more '
                                          'conservative.')
    flags.DEFINE_integer('top_k', 0, 'Number of most likely tokens to sample from. 0 means all.')
    flags.DEFINE_float('top_p', 1., 'Total probability of the most likely tokens to sample from.')
    flags.DEFINE_integer('seed', 0, 'Random seed for sampling.')
    flags.DEFINE_string('attention', '', 'File for a picture of the cross-attention of one sentence: .png, .pdf, .svg. '
                                         'Needs matplotlib, of the extra `text`.')
    flags.DEFINE_boolean('json', False, 'JSON output: one object per input, with all outputs.')


if __name__ == '__main__':
    cli.run(main, define)
