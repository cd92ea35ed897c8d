"""Which room may import which: every import of every module against the design's arrows. Nothing is imported for it."""

import ast
import sys

import pytest

from tests.conftest import ROOT

# Where a module is named, it alone and not its room. Each room may import itself, and other packages than ours.
ARROWS = {
    'errors': '', 'draws': '', 'settings': 'errors', 'recipes': 'errors settings', 'models': 'errors',
    'data': 'draws errors', 'tasks': 'data draws errors interpretability.palette', 'interpretability': 'errors models',
    'strategies': 'errors', 'training': 'draws errors strategies.graphs strategies.preflight',
    'experiment': 'data errors models settings strategies tasks training',
    'cli': 'errors recipes settings strategies.hosts strategies.selection strategies.tpu',
    'train': 'cli errors experiment settings strategies training',
    'evaluate': 'cli data errors experiment settings strategies training',
    'export': 'cli errors experiment strategies', 'preflight': 'cli errors experiment settings strategies',
    'program': 'cli errors experiment settings',
    'predict': 'cli draws errors experiment interpretability settings strategies training.files',
    'benchmarks': 'cli data draws errors experiment models recipes settings strategies tasks training',
}
ROOTS = {path.stem for path in ROOT.glob('*.py')} | {path.parent.name for path in ROOT.glob('*/*.py')} - {'tests'}
MODULES = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
           for root in ROOTS for path in (ROOT / f'{root}.py', *sorted((ROOT / root).rglob('*.py'))) if path.exists()}


def imports(name, functions=True):
    """('file:line', module) of each import of a module; without `functions`, of those that run when it is imported."""
    nodes = [ast.parse(MODULES[name].read_text())]
    while nodes:
        node = nodes.pop()
        place = f'{MODULES[name].relative_to(ROOT)}:{getattr(node, "lineno", 0)}'
        if isinstance(node, ast.Import):
            yield from ((place, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for full in (f'{node.module}.{alias.name}' for alias in node.names):
                yield place, full if full in MODULES else node.module
        elif functions or not isinstance(node, ast.FunctionDef):
            nodes += ast.iter_child_nodes(node)


def test_every_room_has_its_arrows():
    assert ROOTS == set(ARROWS)


@pytest.mark.parametrize('room', ARROWS)
def test_a_room_imports_only_what_its_arrows_say(room):
    allowed = [room, *ARROWS[room].split()]
    for name in (name for name in MODULES if name.split('.')[0] == room):
        for place, module in imports(name):
            if module.split('.')[0] in ROOTS | {'tests'}:
                assert any(f'{module}.'.startswith(f'{arrow}.') for arrow in allowed), f'{place} imports {module}'
            elif room == 'models':
                assert module.split('.')[0] in {'keras', *sys.stdlib_module_names}, f'{place} imports {module}'


@pytest.mark.parametrize('start', ['recipes', 'settings', 'cli', 'train', 'evaluate', 'export', 'predict', 'preflight',
                                   'program'])
def test_flags_are_parsed_before_tensorflow_is_imported(start):
    waiting = [name for name in MODULES if name.split('.')[0] == start]
    for name in waiting:     # grows while it is walked
        for place, module in imports(name, functions=False):
            assert module.split('.')[0] not in ('tensorflow', 'keras', 'jax'), f'{place}, for {start}, imports {module}'
            packages = {module, module.split('.')[0]} & set(MODULES)
            waiting += packages - set(waiting)
