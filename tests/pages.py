"""The commands of README.md and docs/, as the tests execute them."""

import pathlib
import re
import subprocess
import sys

from tests.conftest import ROOT, clean_environment

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXTS = {page.name: page.read_text(encoding='utf-8') for page in PAGES}
LONG = ('speed.md', 'translation.md')      # pages whose commands take minutes: of the tier `results`
ELSEWHERE = ('tpu.md', 'adding.md')        # need a TPU; are tried by test_walk_throughs.py


def pages():
    """{file name: text} of the README and docs/, without what tests/test_walk_throughs.py tries in a copy."""
    return {name: re.sub(r'^## Add a .*?(?=^## (?!Add a ))', '', text, flags=re.DOTALL | re.MULTILINE)
            for name, text in TEXTS.items() if name != 'adding.md'}


def blocks(*names):
    """[(language, text)] of the blocks of commands of some pages."""
    return [block for name in names
            for block in re.findall(r'```(bash|python)\n(.*?)```', pages()[name], flags=re.DOTALL)]


def execute(language, text, folder):
    """Runs a block as a user would, in a copy of the project, and fails if it fails. Returns what it printed."""
    bin_folder = pathlib.Path(sys.executable).parent
    environment = clean_environment(PATH=f'{bin_folder}:/usr/bin:/bin', PYTHONPATH=str(folder))
    arguments = ['bash', '-ec', text] if language == 'bash' else [sys.executable, '-c', text]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{text}\n{done.stdout}\n{done.stderr}'
    return done.stdout
