"""Architectures, by name. They know Keras only, so that each runs on every backend of Keras."""

import inspect

from errors import UserError, lookup
from models.cnn import cnn
from models.lstm import lstm
from models.mlp import mlp
from models.transformer import transformer

MODELS = {'mlp': mlp, 'cnn': cnn, 'lstm': lstm, 'transformer': transformer}
# The sizes that a task can give each model: all names of one tuple. The builder's other parameters are options.
EXAMPLES, TOKENS = ('input_shape', 'outputs'), ('vocabulary_size', 'length', 'outputs')
SIZES = {'mlp': (EXAMPLES,), 'cnn': (EXAMPLES,), 'lstm': (EXAMPLES, TOKENS),
         'transformer': (('source_vocabulary_size', 'target_vocabulary_size'), TOKENS)}


def build(name, sizes, /, **options):
    """Builds a model from a task's `sizes` and the recipe's `options`; an option that is None is left out.

    ```python
    model = models.build('cnn', {'input_shape': (64, 64, 3), 'outputs': 10})
    ```
    """
    builder = lookup(MODELS, name, 'model')
    if tuple(sorted(sizes)) not in [tuple(sorted(known)) for known in SIZES[name]]:
        received = ', '.join(f'{key}={value!r}' for key, value in sizes.items())
        takes = '; or '.join(', '.join(known) for known in SIZES[name])
        raise UserError(f'`task` must give the sizes that model {name!r} takes: {takes}. '
                        f'Received: {received or "none"}')
    options = {key: value for key, value in options.items() if value is not None}
    known = options_of(name)
    for key, value in options.items():
        if key not in known:
            raise UserError(f'`{key}` is not an option of model {name!r}, which takes {", ".join(known) or "none"}. '
                            f'Received: {key}={value!r}')
    return builder(**sizes, **options)


def options_of(name):
    """[names of the options of a model]: the parameters of its builder that are no sizes."""
    sizes = {size for known in SIZES[name] for size in known}
    return [key for key in inspect.signature(MODELS[name]).parameters if key not in sizes]
