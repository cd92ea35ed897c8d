"""Asks a trained model about raw inputs: image files, sentences, or numbers, as its task wants.

    python predict.py --workdir=runs/cnn_digits --image=seven.png --image=two.jpg
    python predict.py --workdir=runs/detector_fashion_scenes --image=scene.png --output=found.png
    python predict.py --workdir=runs/transformer_number_words --text='two thousand and twenty-six' --attention=look.png
    python predict.py --workdir=runs/transformer_gettext_de --text='Save the file' --temperature=0.8 --top_p=0.9
    python predict.py --workdir=runs/bert_squad --question='Who wrote it?' --context=text.txt
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

# flag -> its help, to which absl adds that it can be repeated.
ASKED = {'image': 'Image file (JPEG, PNG, BMP, GIF, WebP)', 'text': 'Sentence', 'values': 'Numbers with commas between',
         'question': 'Question'}
ABOUT = {'context': 'File of the text, UTF-8, that answers the questions.'}
SEARCH, SAMPLING = ('beam_size', 'length_penalty'), ('temperature', 'top_k', 'top_p')
WRITING = (*SEARCH, *SAMPLING, 'seed', 'attention')      # of tasks whose model writes texts


def main():
    args = flags.FLAGS
    cli.required('workdir')
    recipe = Workdir(args.workdir).recipe()
    cli.required(recipe.data.asked_by, *filter(None, [recipe.data.about]))
    asked = args[recipe.data.asked_by].value
    about = {recipe.data.about: _read(args.context)} if recipe.data.about else {}
    given = {name: args[name].value for name in WRITING if name in args and args[name].present}
    search = {name: value for name, value in given.items() if name in SEARCH}
    recipe.replace(**search)      # a mistake is told before TensorFlow is imported
    _check_writing(given, asked)
    if recipe.task.drawn and args.output:
        _check_output(args.output, asked)
    with cli.quiet_tensorflow():
        from draws import Draws
        from experiment import trained
        from strategies import selection
    selection.select('cpu')
    _, _, task, model, _ = trained.load(args.workdir, args.checkpoint, args.data_dir, **search)
    if set(SAMPLING) & set(given):
        task.sampling = {name: args[name].value for name in SAMPLING} | {'draws': Draws(args.seed)}
    outputs = task.predict(model, **{recipe.data.asked_by: asked}, **about)
    if recipe.task.drawn and args.output:
        _draw(asked[0], {name: values[0] for name, values in outputs.items()}, args.output)
    for i, text in enumerate(asked):
        answer = {name: values[i] for name, values in outputs.items() if name not in recipe.task.drawn_only}
        shown = text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')     # a terminal takes no other
        # A translation is a text too.
        named = {'source' if recipe.data.asked_by in answer else recipe.data.asked_by: shown, **answer}
        print(json.dumps(named, ensure_ascii=False) if args.json else task.describe(shown, answer))
    if given.get('attention'):
        _draw_attention(model, task, asked[0], args.attention)


def _read(path):
    try:
        if pathlib.Path(path).exists() and not pathlib.Path(path).is_file():      # a pipe may never end
            raise UserError(f'`context` must be a regular file. Received: context={path!r}')
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'`context` must be a file that can be read ({error.strerror}). '
                        f'Received: context={path!r}') from None


def _draw_attention(model, task, text, path):
    from interpretability.attention import cross_attention
    from interpretability.pictures import draw_attention
    write_atomically(path, draw_attention(*cross_attention(model, task, text), pathlib.Path(path).suffix[1:].lower()))


def _draw(path, answer, output):
    """Writes what was found in an image file, drawn into it; of a mask also the mask, as NAME_mask.png."""
    from interpretability import drawings
    file = pathlib.Path(path).read_bytes()
    if 'mask' in answer:
        mask = f'{pathlib.Path(output).with_suffix("")}_mask.png'
        write_atomically(mask, drawings.encoded(drawings.coloured(answer['mask']), mask))
        drawn = drawings.overlaid(file, answer['mask'])
    else:
        drawn = drawings.boxes_drawn(file, answer['boxes'], answer['scores'], answer['labels'])
    write_atomically(output, drawings.encoded(drawn, output))


def _check_output(output, asked):
    from interpretability import drawings
    drawings.check(output)
    if len(asked) > 1:
        raise UserError(f'`output` is a picture of one image. Received: {len(asked)} times --image')


def _check_writing(given, asked):
    searched, sampled = ([name for name in names if name in given] for names in (SEARCH, SAMPLING))
    if searched and sampled:
        raise UserError(f'`{searched[0]}` is for searching and `{sampled[0]}` for sampling: give one of the two. '
                        'Received: ' + ' '.join(f'--{name}={given[name]}' for name in (searched[0], sampled[0])))
    if 'seed' in given and not sampled:
        raise UserError(f'`seed` is for sampling and needs one of --{", --".join(SAMPLING)}. '
                        f'Received: --seed={given["seed"]}')
    if given.get('attention') and len(asked) > 1:
        raise UserError(f'`attention` is a picture of one sentence. Received: {len(asked)} times --text')


def define():
    cli.run_flags(devices=False)
    flags.DEFINE_boolean('json', False, 'JSON output: one object per input, with all outputs.')


def define_of_run(workdir):
    """Defines the flags that the run in a folder can be asked with; see cli.run."""
    if not workdir:
        return '', dict.fromkeys([*ASKED, *ABOUT, *WRITING, 'output'],
                                 'is a flag of some runs only and needs --workdir')
    recipe = Workdir(workdir).recipe()
    own = recipe.data.asked_by
    flags.DEFINE_multi_string(own, None, ASKED[own])
    about = recipe.data.about
    if about:
        flags.DEFINE_string(about, None, ABOUT[about])
    if recipe.task.writes:
        _define_writing()
    if recipe.task.drawn:
        flags.DEFINE_string('output', '', f'File for a picture of {recipe.task.drawn}. Needs Pillow, of the extra '
                                          '`vision`.')
    what = f'the task {recipe.task.kind} on {recipe.data.kind.replace("_", " ")}'
    others = {name: f'is no flag for this run, which is of {what}: use --{own}'
              for name in {*ASKED, *ABOUT, *WRITING, 'output'} - {own, about}}
    return f'task: {recipe.task.kind}', others


def _define_writing():
    cli.define_flags(Translation, SEARCH, inherit=True)
    flags.DEFINE_float('temperature', 1., 'Softmax temperature for sampling a text instead of searching; lower is more '
                                          'conservative.')
    flags.DEFINE_integer('top_k', 0, 'Number of most likely tokens to sample from. 0 means all.')
    flags.DEFINE_float('top_p', 1., 'Total probability of the most likely tokens to sample from.')
    flags.DEFINE_integer('seed', 0, 'Random seed for sampling.')
    flags.DEFINE_string('attention', '', 'File for a picture of the cross-attention of one sentence: .png, .pdf, .svg. '
                                         'Needs matplotlib, of the extra `text`.')


if __name__ == '__main__':
    cli.run(main, define, of_run=define_of_run)
