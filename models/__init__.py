"""Architectures, by name. They know Keras only, so that each runs on every backend of Keras."""

import difflib
import inspect

from errors import UserError
from models.cnn import cnn
from models.lstm import lstm
from models.mlp import mlp
from models.transformer import transformer

MODELS = {'mlp': mlp, 'cnn': cnn, 'lstm': lstm, 'transformer': transformer}


def build(name, sizes, /, **options):
    """Builds a model from the dataset's own `sizes` and the recipe's `options`; an option that is None is left out.

    ```python
    model = models.build('cnn', {'input_shape': (64, 64, 3), 'outputs': 10})
    ```
    """
    if name not in MODELS:
        raise UserError(f'`model` must be one of {_names(MODELS)}{_closest(name, MODELS)}. Received: model={name!r}')
    options = {key: value for key, value in options.items() if value is not None}
    parameters = inspect.signature(MODELS[name]).parameters
    _check_sizes(name, sizes, parameters)
    _check_options(name, options, [key for key in parameters if key not in sizes])
    return MODELS[name](**sizes, **options)


def _check_sizes(name, sizes, parameters):
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    if not set(required) <= set(sizes) <= set(parameters):
        received = ', '.join(f'{key}={value!r}' for key, value in sizes.items())
        raise UserError(f'`dataset` must give the sizes that model {name!r} takes: {_names(required)}. '
                        f'Received: {received or "none"}')


def _check_options(name, options, known):
    for key, value in options.items():
        if key not in known:
            raise UserError(f'`{key}` is not an option of model {name!r}, which takes {_names(known) or "none"}'
                            f'{_closest(key, known)}. Received: {key}={value!r}')


def _names(names):
    return ', '.join(f'`{name}`' for name in names)


def _closest(name, names):
    match = difflib.get_close_matches(str(name), names, n=1)
    return f' (did you mean `{match[0]}`?)' if match else ''
