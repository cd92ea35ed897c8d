"""Weights in the files of other libraries: model.safetensors, in one piece or in shards, with JSON beside it.

What the names in them mean is the model's: `PUBLISHED` in models/__init__.py.
"""

import json
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from errors import UserError
from training.files import whole_folder, write_atomically

FILE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
DTYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': '<i1', 'U8': '<u1',
          'BOOL': '?'}
DESCRIPTIONS = ('config.json', 'preprocessor_config.json')
TOKENIZER = ('vocab.txt', 'tokenizer_config.json')


def is_published(path):
    """Whether a path is such a file or folder, and not a run's."""
    path = pathlib.Path(path)
    try:
        if path.suffix == '.safetensors':
            return path.is_file()
        return any((path / name).is_file() for name in (FILE, INDEX))
    except ValueError:      # a zero byte
        return False


def options(recipe):
    """{field: value} of the model that config.json beside the weights describes; {} without such a file.

    Raises:
        UserError: there is no such model here.
    """
    file = pathlib.Path(recipe.model.weights) / 'config.json'
    try:
        return _module(recipe.model.kind).options(_json(file)) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f'`weights` must fit the model: {error}. Received: weights={recipe.model.weights!r}') from None


def tokenizer(recipe):
    """{file name: bytes} of the tokenizer beside the weights; {} where there is none, or none is needed.

    Raises:
        UserError: the recipe asks for another one.
    """
    folder, data = pathlib.Path(recipe.model.weights), recipe.data
    files = {name: (folder / name).read_bytes() for name in TOKENIZER if (folder / name).is_file()}
    if 'vocab.txt' not in files or not hasattr(data, 'tokenizer'):
        return {}
    for name, used in (('tokenizer', 'wordpiece'), ('vocabulary_size', files['vocab.txt'].rstrip().count(b'\n') + 1)):
        if getattr(data, name) not in (0, '', used):
            raise UserError(f'`{name}` must be {used!r}, as in the folder of `weights`, whose tokenizer is used. '
                            f'Received: {name}={getattr(data, name)!r}')
    return files


def find(recipe, shapes):
    """({path: array}, [paths of the head that it lacks], how it names them) of the weights that a recipe names.

    Args:
        shapes: {path: shape} of the recipe's model.

    Raises:
        UserError: nobody publishes weights of this model, the files cannot be read, or they do not fit.
    """
    module, received = _module(recipe.model.kind), f'Received: weights={recipe.model.weights!r}'
    if module is None:
        raise UserError(f'`weights` of the model {recipe.model.kind} must be the folder of a run: no names of other '
                        f'libraries are known for it. {received}')
    try:
        theirs, described = _read(pathlib.Path(recipe.model.weights))
        module.check(described, shapes, recipe.model.values())
        layout, names = max(module.layouts(shapes).items(), key=lambda one: one[1].knows(shapes, theirs))
        return *names.to_ours(shapes, theirs), layout
    except ValueError as error:
        raise UserError(f'`weights` must fit the model: {error}. {received}') from None


def write(folder, recipe, model, sizes, class_names, tokenizer=None):
    """Writes a trained model as Hugging Face's library reads it. Returns the number of arrays.

    Args:
        model: of the recipe. sizes: of its task. class_names: of its task, or (). tokenizer: {file name: bytes} of its
            task; a BERT's files are written too.

    Raises:
        UserError: Hugging Face has no such model. RunError: the folder cannot be written; it is then what it was.
    """
    module, arrays = _module(recipe.model.kind), {v.path: np.asarray(v) for v in model.weights}
    shapes = {path: array.shape for path, array in arrays.items()}
    try:
        if module is None:
            raise ValueError('no names of theirs are known for it')
        theirs = module.layouts(shapes)['Hugging Face'].to_theirs(arrays)
        described = module.describe(shapes, recipe.model.values(), sizes, class_names)
    except ValueError as error:
        raise UserError(f'`format` huggingface cannot hold the model {recipe.model.kind} of this run: {error}. '
                        'Received: format=huggingface') from None
    theirs |= {name: np.asarray(value) for name, value in module.counters(theirs).items()}
    files = {FILE: safetensors.numpy.save({name: np.asarray(array, order='C') for name, array in theirs.items()},
                                          {'format': 'pt'}),
             **{name: (json.dumps(content, indent=2) + '\n').encode() for name, content in described.items()},
             **{name: content for name, content in (tokenizer or {}).items() if name in TOKENIZER}}
    with whole_folder(folder, 'the model') as new:
        for name, content in files.items():
            write_atomically(new / name, content)
    return len(theirs)


def _module(kind):
    from models import PUBLISHED  # Keras, which the verbs import after their flags
    return PUBLISHED.get(kind)


def _read(path):
    """({name: array of float32}, {file name: content of the JSON}). Raises ValueError: a file cannot be read."""
    if path.is_file():
        return _arrays(path), {}
    described = {name: _json(path / name) for name in DESCRIPTIONS if (path / name).is_file()}
    if (path / FILE).is_file():
        return _arrays(path / FILE), described
    shards = _json(path / INDEX).get('weight_map')
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ValueError(f'{INDEX} has no weight_map')
    arrays = {}
    for name in sorted(set(shards.values())):
        arrays |= _arrays(path / pathlib.Path(name).name)
    return arrays, described


def _arrays(file):
    try:
        return {name: _array(**tensor) for name, tensor in safetensors.deserialize(file.read_bytes())}
    except OSError as error:
        raise ValueError(f'{file.name} cannot be read ({error.strerror})') from None
    except Exception as error:      # safetensors' own, and a dtype of 8 bits
        raise ValueError(f'{file.name} cannot be read ({" ".join(str(error).split())[:100]})') from None


def _array(dtype, shape, data):
    """A tensor of a file; what has a fraction becomes float32, of which NumPy has no half called BF16."""
    if dtype == 'BF16':
        return (np.frombuffer(data, '<u2').astype(np.uint32) << 16).view(np.float32).reshape(shape)
    array = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    return array.astype(np.float32) if array.dtype.kind == 'f' else array


def _json(file):
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ValueError(f'{file.name} is not JSON ({error})') from None
    if not isinstance(content, dict):
        raise ValueError(f'{file.name} must hold an object')
    return content
