"""The German recipe on some real messages: the same after a kill, on other devices, as a SavedModel; odd strings."""

import json
import os
import re
import signal

import pytest

from data.sources.catalogs import read_corpus
from tests.conftest import ROOT
from tests.test_front_doors import ALONE, interrupted, results

SIZES = {'train': 1500, 'validation': 40, 'test': 150}
ODD = ['', ' \t\n ', 'x' * 10_000, 'Save \U0001f4be the \U0001f469‍\U0001f469‍\U0001f467 file', 'שמור את הקובץ',
       'احفظ الملف',
       '\udcff\udcfe broken', 'a\x00b', '%s <b>&</b>', '</s> <pad>']     # \udcff: the byte FF, in argv
SERVE = '''
import json, os, sys, tensorflow as tf, tensorflow_text
translate = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
texts = [text.encode('utf-8', 'surrogateescape') for text in json.loads(open(sys.argv[2]).read())]
out = translate(texts=tf.constant(texts))
print(json.dumps([{'text': text.decode(), 'log_probability': score, 'cut': cut} for text, score, cut in zip(
    out['text'].numpy(), out['log_probability'].numpy().tolist(), out['cut'].numpy().tolist())]))
''' + ALONE


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('texts')
    splits, _ = read_corpus('de')
    for split, size in SIZES.items():
        (folder / split).mkdir()
        for name, side in zip(('source.txt', 'target.txt'), zip(*splits[split][:size])):
            (folder / split / name).write_text('\n'.join(side) + '\n', encoding='utf-8')
    return folder


@pytest.fixture(scope='module')
def command(corpus):
    return ['train.py', '--recipe=transformer_gettext_de', f'--dataset=files/{corpus}', '--vocabulary_size=800',
            '--max_length=32', '--batch_size=32', '--warmup_steps=10', '--beam_size=2', '--steps=30', '--eval_every=20',
            '--average_last=3', '--average_every=5', '--accumulate=4', '--checkpoint_every=5', '--steps_per_call=2']


@pytest.fixture(scope='module')
def whole(command, run_python, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    run_python(*command, f'--workdir={workdir}')
    return workdir


@pytest.mark.slow
def test_killed_and_resumed_equals_never_interrupted(whole, command, run_python, tmp_path):
    command = [*command, '--noexport', f'--workdir={tmp_path / "killed"}']
    assert interrupted(tmp_path / 'killed', signal.SIGKILL, 10, command)[0] == -signal.SIGKILL
    code, _ = interrupted(tmp_path / 'killed', signal.SIGTERM, 25, command)        # two of the three are in the mean
    assert code == 75
    run_python(*command)
    one, killed = results(whole), results(tmp_path / 'killed')
    for key in ('weights_sha256', 'eval', 'best'):
        assert killed[key] == one[key]
    kept = [(folder / 'tokenizer' / 'subwords.model').read_bytes() for folder in (tmp_path / 'killed', whole)]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_four_devices_end_with_the_same_bits(whole, command, run_python, tmp_path, measured):
    run_python(*command, '--noexport', '--virtual_devices=4', f'--workdir={tmp_path}')
    one, four = results(whole), results(tmp_path)
    assert four['replicas'] == 4 and four['eval']['count'] == SIZES['test']
    assert four['weights_sha256'] == one['weights_sha256'] and four['eval'] == one['eval']
    measured('E1', 'gettext, packed, dropout, mean of checkpoints, BLEU', '4', 0.)


def predict(run_python, workdir, texts, *more):
    done = run_python('predict.py', f'--workdir={workdir}', '--json', *(f'--text={text}' for text in texts), *more)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_saved_model_translates_as_predict_does_without_the_project(whole, corpus, run_python, tmp_path):
    texts = (corpus / 'test' / 'source.txt').read_text().splitlines() + [text for text in ODD if '\x00' not in text]
    (tmp_path / 'texts.json').write_text(json.dumps(texts))
    served = json.loads(run_python('-c', SERVE, whole / 'export' / '1', tmp_path / 'texts.json', cwd=tmp_path,
                                   env={'PYTHONSAFEPATH': '1', 'PYTHONPATH': ''}).stdout)
    asked = predict(run_python, whole, texts)
    for text, ours, theirs in zip(texts, asked, served, strict=True):
        assert (ours['text'], ours['cut']) == (theirs['text'], theirs['cut']), text
        assert ours['log_probability'] == pytest.approx(theirs['log_probability'], abs=1e-4)
    by_text = dict(zip(texts, served))
    assert [by_text[t]['text'] for t in ODD[:2]] == ['', ''] and by_text['']['log_probability'] == 0
    assert [t for t in ODD if t in by_text and by_text[t]['cut']] == ['x' * 10_000]


@pytest.mark.slow
def test_translations_are_drawn_searched_and_pictured(whole, run_python, tmp_path):
    picture = tmp_path / 'attention.png'
    one = predict(run_python, whole, ['Save the file'], '--beam_size=1', f'--attention={picture}')
    assert picture.read_bytes().startswith(b'\x89PNG')
    drawn = [predict(run_python, whole, ['Save the file'], '--temperature=1.5', f'--seed={s}') for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != one


@pytest.mark.slow
@pytest.mark.parametrize('flags, message', [
    (['--attention=look.gif9'], '`attention` must be a file that ends in one of .*png'),
    (['--beam_size=0'], '`beam_size` must be at least 1 and at most 1,024. Received: beam_size=0'),
    (['--temperature=0'], '`temperature` must be above 0. Received: temperature=0'),
    (['--attention=look.png', '--text=b'], '`attention` is a picture of one sentence. Received: 2 times --text')])
def test_a_mistake_is_one_line(whole, run_python, tmp_path, flags, message):
    done = run_python(ROOT / 'predict.py', f'--workdir={whole}', '--text=a', *flags, check=False, cwd=tmp_path)
    assert done.returncode == 2 and not os.listdir(tmp_path)
    assert re.search(message, done.stderr) and done.stderr.count('\n') == 1
