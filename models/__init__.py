"""Architectures, by name. They know Keras only, so that each runs on every backend of Keras."""

import inspect

from errors import UserError, lookup
from models import bert_names, resnet_names
from models.airbench import airbench
from models.bert import bert
from models.centernet import centernet
from models.cnn import cnn
from models.deeplab import deeplab
from models.lstm import lstm
from models.mlp import mlp
from models.resnet import resnet
from models.transformer import transformer
from models.unet import unet

MODELS = {
    'mlp': mlp,
    'cnn': cnn,
    'lstm': lstm,
    'resnet': resnet,
    'airbench': airbench,
    'transformer': transformer,
    'bert': bert,
    'centernet': centernet,
    'unet': unet,
    'deeplab': deeplab,
}
# Models of which others publish weights: the module that knows their names and descriptions.
PUBLISHED = {**dict.fromkeys(('resnet', 'centernet', 'unet', 'deeplab'), resnet_names), 'bert': bert_names}
# All sizes that a task can give. A builder's other parameters are options.
SIZES = ('input_shape', 'outputs', 'box_classes', 'pixel_classes', 'predictions', 'spans', 'vocabulary_size', 'length',
         'source_vocabulary_size', 'target_vocabulary_size')


def build(name, sizes, /, **options):
    """Builds a model from a task's `sizes` and the recipe's `options`; an option that is None is left out.

    ```python
    model = models.build('cnn', {'input_shape': (64, 64, 3), 'outputs': 10})
    ```
    """
    builder = lookup(MODELS, name, 'model')
    parameters = inspect.signature(builder).parameters
    required = [key for key, parameter in parameters.items() if parameter.default is parameter.empty]
    if not set(required) <= set(sizes) <= set(parameters):
        received = ', '.join(f'{key}={value!r}' for key, value in sizes.items())
        raise UserError(f'`task` must give sizes that model {name!r} takes: {", ".join(sizes_of(name))}. '
                        f'Received: {received or "none"}')
    options = {key: value for key, value in options.items() if value is not None}
    known = options_of(name)
    for key, value in options.items():
        if key not in known:
            raise UserError(f'`{key}` is not an option of model {name!r}, which takes {", ".join(known) or "none"}. '
                            f'Received: {key}={value!r}')
    return builder(**sizes, **options)


def sizes_of(name):
    return [key for key in inspect.signature(MODELS[name]).parameters if key in SIZES]


def options_of(name):
    """[names of the options of a model]."""
    return [key for key in inspect.signature(MODELS[name]).parameters if key not in SIZES]
