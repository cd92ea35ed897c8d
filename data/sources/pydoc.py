"""pydoc: the English documentation of the Python that runs, as passages: its topics, and the docstrings of its library.

A passage is one paragraph, or several short ones that follow each other, up to about WORDS words; white space is
collapsed, and what has few letters (tables, code) is left out. Passages of one text stay in one split: the hash of its
name decides, a twentieth for validation and one for test. Another version of Python has other texts.
"""

import ast
import pathlib
import platform
import re
import sysconfig
import warnings

import numpy as np

from data.dataset import Dataset, Text
from data.source import Subset, Tensors, hash_of

WORDS, FEWEST = 80, 6           # of a passage
LETTERS = 0.7                   # least share of letters and spaces in a paragraph
PARTS = 20                      # of which one is validation, and one test
LEFT_OUT = {'site-packages', 'dist-packages', 'test', 'tests', 'idlelib', 'lib2to3', 'turtledemo', '__pycache__'}


def open_pydoc(data_dir=None):
    passages, parts = [], []
    for name, text in _texts():
        found = list(_passages(text))
        passages += found
        parts += [hash_of(name) % PARTS] * len(found)
    passages, first = np.unique(np.array(passages, object).astype(str), return_index=True)     # some are inherited
    parts = np.array(parts)[first]
    source = Tensors(text=np.array([passage.encode() for passage in passages], object))
    train, validation, test = (np.flatnonzero(chosen) for chosen in (parts > 1, parts == 0, parts == 1))
    return Dataset('pydoc', Subset(source, train), Subset(source, validation), Subset(source, test),
                   fields={'text': Text('en')}, origin=f'the documentation of Python {platform.python_version()}')


def _texts():
    """(name, text) of each topic, and of each docstring of the library's files."""
    from pydoc_data.topics import topics
    yield from sorted(topics.items())
    library = pathlib.Path(sysconfig.get_path('stdlib'))
    for file in sorted(library.rglob('*.py')):
        name = file.relative_to(library)
        if LEFT_OUT.isdisjoint(name.parts) and name.parts[0] != 'pydoc_data':
            with warnings.catch_warnings(action='ignore', category=SyntaxWarning):
                tree = ast.parse(file.read_bytes())
            texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(
                node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
            yield str(name), '\n\n'.join(filter(None, texts))


def _passages(text):
    words = []
    for paragraph in re.split(r'\n\s*\n', text):
        more = paragraph.split()
        letters = sum(map(len, re.findall(r'[A-Za-z ]+', ' '.join(more))))
        if letters < LETTERS * len(' '.join(more)):
            continue
        if words and len(words) + len(more) > WORDS:
            yield ' '.join(words)
            words = []
        words += more
    if len(words) >= FEWEST:
        yield ' '.join(words)
