"""Asks a trained model about raw inputs: image files, sentences, or numbers.

    python predict.py --workdir=runs/cnn_digits --image=seven.png --image=two.jpg
    python predict.py --workdir=runs/transformer_number_words --text='two thousand and twenty-six' --attention=look.png
    python predict.py --workdir=runs/transformer_gettext_de --text='Save the file' --temperature=0.8 --top_p=0.9
    python predict.py --workdir=runs/mlp_diabetes --values=0.04,0.05,0.06,0.02,-0.04,-0.03,-0.04,-0.002,0.02,-0.02
"""

import json

from absl import flags

import frontdoor
from errors import UserError
from training.files import write_atomically

KINDS = {'image': 'image', 'text': 'text', 'vector': 'values'}      # what a dataset's examples are -> the flag for it
SEARCH, SAMPLING = ('beam_size', 'length_penalty'), ('temperature', 'top_k', 'top_p')


def main(arguments):
    if arguments:
        raise UserError(f'`predict.py` takes flags only; name files by --image=FILE. Received: {" ".join(arguments)}')
    args = flags.FLAGS
    frontdoor.required('workdir')
    given = [name for name in KINDS.values() if args[name].value]
    if len(given) != 1:
        raise UserError('one of `--image`, `--text` and `--values` must say what to predict. Received: '
                        f'{", ".join(given) or "none"}')
    _check_text_flags(args, given[0])
    with frontdoor.quiet_tensorflow():
        import assembly
        from strategies import selection
    selection.select('cpu')
    search = {name: args[name].value for name in SEARCH if args[name].present}
    _, _, task, model, _ = assembly.load(args.workdir, args.checkpoint, args.data_dir, **search)
    wanted = KINDS[task.features.kind]
    if given != [wanted]:
        raise UserError(f'this run was trained on {task.features.kind}s: use --{wanted}. Received: --{given[0]}')
    inputs = args[wanted].value
    if any(args[name].present for name in SAMPLING):
        task.sampling = {name: args[name].value for name in SAMPLING} | {'seed': (args.seed, 0)}
    outputs = task.predict(model, inputs)
    for i, text in enumerate(inputs):
        answer = {name: values[i] for name, values in outputs.items()}
        shown = text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')     # a terminal takes no other
        named = {'source' if wanted == 'text' else wanted: shown, **answer}      # a translation is a text too
        print(json.dumps(named, ensure_ascii=False) if args.json else task.describe(shown, answer))
    if args.attention:
        write_atomically(args.attention, task.attention_picture(model, inputs[0], args.attention))


def _check_text_flags(args, given):
    """Before a model is loaded: what is for sentences only, and a picture of one."""
    for name in (*SEARCH, *SAMPLING, 'seed', 'attention'):
        if args[name].present and given != 'text':
            raise UserError(f'`{name}` is for --text. Received: --{given} and --{name}={args[name].value}')
    if args.attention and len(args.text) > 1:
        raise UserError(f'`attention` is a picture of one sentence. Received: {len(args.text)} times --text')


def define():
    flags.DEFINE_string('workdir', None, 'Folder of a run made by train.py.')
    flags.DEFINE_string('checkpoint', 'newest', 'Which weights: newest, best, or a step.')
    flags.DEFINE_multi_string('image', None, 'An image file (JPEG, PNG, BMP, GIF); may be given several times.')
    flags.DEFINE_multi_string('text', None, 'A sentence; may be given several times.')
    flags.DEFINE_multi_string('values', None, 'Numbers with commas between; may be given several times.')
    flags.DEFINE_integer('beam_size', 1, 'Of sentences: hypotheses that beam search keeps; 1 is greedy. Default: the '
                                         'recipe\'s.')
    flags.DEFINE_float('length_penalty', 0.6, 'Of beam search. Default: the recipe\'s.')
    flags.DEFINE_float('temperature', 1., 'This flag or one of the next two draws the tokens of sentences; below 1 the '
                                          'likelier ones more often.')
    flags.DEFINE_integer('top_k', 0, 'Draw among the likeliest so many tokens; 0 is all.')
    flags.DEFINE_float('top_p', 1., 'Draw among the likeliest tokens that have this probability together.')
    flags.DEFINE_integer('seed', 0, 'Of the draws.')
    flags.DEFINE_string('attention', '', 'File to write a picture to of what the model looked at: .png, .pdf, .svg. '
                                         'Needs matplotlib, of the extra `text`.')
    flags.DEFINE_boolean('json', False, 'Print one JSON object an input, with all outputs.')
    flags.DEFINE_string('data_dir', '', 'Folder of datasets.')


if __name__ == '__main__':
    frontdoor.run(main, define)
