"""Every flag of every verb, given an address: one line, exit code 2, no folder `gs:` here. New flags are tested too."""

import json
import re
import subprocess
import sys

import pytest

import recipes
from cli import NO_PATHS
from errors import UserError
from tests.conftest import ROOT

ADDRESSES = ('gs://bucket/x', 's3://bucket/x')
RECIPES = ('mlp_digits', 'transformer_gettext_de', 'lstm_imdb', 'mlp_diabetes', 'cnn_digits')   # each kind of section
# Verb -> some of its flags that are paths: the test reads all flags from --help.
VERBS = {'train.py': {'workdir', 'data_dir', 'recipe', 'weights', 'dataset', 'tokenizer'},
         'preflight.py': {'data_dir', 'recipe', 'weights', 'output'}, 'program.py': {'data_dir', 'weights', 'output'},
         'evaluate.py': {'workdir', 'data_dir'}, 'predict.py': {'workdir', 'data_dir', 'image', 'attention'},
         'export.py': {'workdir', 'data_dir', 'output'}}
# What is tried with a flag that another one needs, or that would hide it.
WITH = {'export.py': ['--output=x'], 'program.py': ['--output=x']}

# Tries each command in a process of its own, forked: to import the project again for each would take minutes. Where
# TensorFlow is imported, it ends with another code.
FORK = '''
import contextlib, io, json, os, runpy, sys
import cli, preflight
sys.modules['tensorflow'] = None
for number, command in enumerate(json.load(sys.stdin)):
    sys.stdout.flush()
    process = os.fork()
    if not process:
        out, err, sys.argv, code = io.StringIO(), io.StringIO(), command, 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(sys.argv[0], run_name='__main__')
            except SystemExit as end:
                code = end.code
            except BaseException as error:
                code = repr(error)
        print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
        os._exit(0)
    os.waitpid(process, 0)
'''


@pytest.fixture(scope='module')
def run_all(tmp_path_factory):
    """run_all([command, ...]) -> [(exit code, stdout, stderr), ...], in an empty folder, which must stay empty."""
    def run(commands):
        folder = tmp_path_factory.mktemp('here')
        done = subprocess.run([sys.executable, '-c', FORK], cwd=folder, text=True, capture_output=True, timeout=600,
                              input=json.dumps([[str(ROOT / verb), *flags] for verb, *flags in commands]),
                              env={'PYTHONPATH': str(ROOT), 'HOME': str(folder), 'PATH': '/usr/bin:/bin'})
        assert not list(folder.iterdir()), list(folder.iterdir())
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(commands), done.stderr
        return answers
    return run


def what(verb, name, folder):
    """The flags that say what a verb is about, in a recipe."""
    if verb in ('train.py', 'preflight.py', 'program.py'):
        return [f'--recipe={name}']
    (folder / name).mkdir(exist_ok=True)
    (folder / name / 'recipe.json').write_text(recipes.load(name)[1].to_json())
    return [f'--workdir={folder / name}']


@pytest.mark.parametrize('verb', VERBS)
def test_an_address_is_no_path_in_any_flag(run_all, tmp_path, verb):
    contexts = [what(verb, name, tmp_path) for name in RECIPES]
    helps = run_all([[verb, *context, '--help'] for context in contexts])
    commands, seen = [], set()
    for context, (code, text, _) in zip(contexts, helps):
        assert code == 0
        for name in re.findall(r'^  --(?:\[no\])?(\w+)', text, flags=re.MULTILINE):
            if name not in NO_PATHS and name not in seen:
                seen.add(name)
                others = [flag for flag in context if not flag.startswith(f'--{name}=')]
                commands += [[verb, *others, *WITH.get(verb, []), f'--{name}={address}'] for address in ADDRESSES]
    assert VERBS[verb] <= seen
    for command, (code, out, err) in zip(commands, run_all(commands)):
        assert (code, out) == (2, ''), (command, code, err)
        assert err.startswith('error: ') and len(err.splitlines()) == 1, command
        # A flag of numbers, or one that is on or off, refuses any text.
        assert 'must be a path on this machine' in err or err.startswith(f'error: flag {command[-1]}: '), (command, err)


@pytest.mark.parametrize('verb, flag', [
    ('train.py', '--workdir'), ('train.py', '--weights'), ('train.py', '--data_dir'), ('train.py', '--recipe'),
    ('train.py', '--dataset=files/'), ('export.py', '--output'), ('preflight.py', '--output'),
    ('program.py', '--output'), ('predict.py', '--image'), ('evaluate.py', '--workdir')])
def test_the_line_names_the_flag(run_all, tmp_path, verb, flag):
    context = [one for one in what(verb, 'mlp_digits', tmp_path) if not one.startswith(f'{flag}=')]
    flag = flag if '=' in flag else f'{flag}='
    (code, out, err), = run_all([[verb, *context, f'{flag}gs://bucket/x']])
    name = flag.partition('=')[0]
    assert (code, out) == (2, '') and err == (
        f'error: `{name[2:]}` must be a path on this machine; a mounted bucket is one, see docs/limits.md. '
        f'Received: {flag}gs://bucket/x\n')


def test_what_is_no_path_may_hold_an_address(run_all, tmp_path):
    run = what('predict.py', 'lstm_imdb', tmp_path)
    (code, out, err), = run_all([['predict.py', *run, '--text=see gs://bucket/x']])
    assert 'path' not in err and code not in (0, 2)      # it went on, to TensorFlow
    (code, _, err), = run_all([['train.py', '--model=mlp', '--tpu=grpc://host:8470', '--strategy=nothing']])
    assert err.startswith('error: `strategy` must be one of')


def test_python_and_the_environment_are_told_too(monkeypatch, tmp_path):
    from data import open_dataset
    from data.gettext import write_corpus
    monkeypatch.chdir(tmp_path)
    for address in ADDRESSES:
        with pytest.raises(UserError, match='`data_dir` .* must be a folder that exists. Received'):
            open_dataset('digits', address)
        with pytest.raises(UserError, match='`folder` must be a path on this machine. Received'):
            write_corpus('de', address)
        monkeypatch.setenv('CONGRUENT_DATA', address)
        with pytest.raises(UserError, match='CONGRUENT_DATA. must be a folder that exists'):
            open_dataset('cifar10')
        monkeypatch.delenv('CONGRUENT_DATA')
    assert not list(tmp_path.iterdir())
