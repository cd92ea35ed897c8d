"""What holds for every registered model: its size, its paths, its precision, its errors."""

import inspect

import keras
import numpy as np
import pytest

import models
from errors import UserError
from models.airbench import Bias, Whitening
from models.attention import MultiHeadAttention
from models.batch_norm import BatchNormalization
from models.bert import AtPositions, FirstToken, Places, WordBias, Zeros
from models.bert import SIZES as BERTS
from models.centernet import Distances
from models.dropout import Dropout
from models.encoder import AddPositions, HidePadding, MeanOfTokens
from models.lstm import LargestState
from models.resnet import StandardizedConv2D
from models.transformer import SIZES, Transformer
from models.transformer_layers import DecoderLayer, EncoderLayer, TokenEmbedding
from models.upsampling import BilinearUpsampling
from tests.models.examples import CASES, example

WORDS = {'source_vocabulary_size': 1000, 'target_vocabulary_size': 1000}
TOKENS = {'vocabulary_size': 1000, 'length': 20, 'outputs': 2}
VOCABULARY = {'vocabulary_size': 30_522, 'length': 8, 'outputs': 2}
BERT_COUNTS = {'tiny': 4_385_920, 'mini': 11_170_560, 'small': 28_763_648, 'medium': 41_373_184, 'minilm': 22_713_216,
               'base': 109_482_240, 'large': 335_141_888}      # with the pooler, which two classes follow
COUNTS = [
    ('mlp', {'input_shape': (784,), 'outputs': 10}, {}, 235_146),
    ('mlp', {'input_shape': (28, 28, 1), 'outputs': 10}, {}, 235_146),
    ('cnn', {'input_shape': (64, 64, 3), 'outputs': 10}, {}, 1_969_738),
    ('lstm', {'input_shape': (28, 28, 1), 'outputs': 10}, {}, 16_310),
    ('lstm', {'input_shape': (30, 7), 'outputs': 10}, {}, 4 * (50 * 7 + 2500 + 50) + 510),
    ('lstm', TOKENS, {'units': 30}, 1000 * 60 + 4 * 30 * (60 + 30 + 1) + 31 * 2),
    ('lstm', TOKENS, {'units': 30, 'bidirectional': True}, 1000 * 60 + 2 * 4 * 30 * (60 + 30 + 1) + 61 * 2),
    ('resnet', {'input_shape': (32, 32, 3), 'outputs': 10}, {}, 272_474 + 1_568),       # and the moving statistics
    ('resnet', {'input_shape': (32, 32, 3), 'outputs': 10}, {'norm': 'group'}, 272_474),
    ('airbench', {'input_shape': (32, 32, 3), 'outputs': 10}, {}, 1_114_200),
    ('airbench', {'input_shape': (32, 32, 3), 'outputs': 10}, {'width': 64}, 1_973_944),
    ('transformer', TOKENS, {}, 128_000 + 2 * (4 * 128 ** 2 + 2 * 128 * 512 + 512 + 5 * 128) + 129 * 2 + 2 * 128),
    ('transformer', TOKENS, {'norm': 'post'}, 128_000 + 2 * (4 * 128 ** 2 + 2 * 128 * 512 + 512 + 5 * 128) + 129 * 2),
    ('transformer', WORDS, {'size': 'tiny'}, 1_179_136),
    ('transformer', WORDS, {'size': 'tiny', 'norm': 'post'}, 1_179_136 - 4 * 128),
    ('transformer', WORDS, {'size': 'tiny', 'share_embeddings': True}, 1_179_136 - 1000 * 128),
    ('transformer', WORDS, {'size': 'small'}, 7_873_536),
    ('transformer', WORDS, {'size': 'base'}, 45_127_680),
    ('transformer', WORDS, {'size': 'big'}, 178_335_744),
    *(('bert', VOCABULARY, {'size': size}, count + 2 * (BERTS[size]['d_model'] + 1))
      for size, count in BERT_COUNTS.items()),
]
LAYERS = [
    (LargestState, {}), (AddPositions, {}), (HidePadding, {}), (MeanOfTokens, {}),
    (Dropout, {'rate': 0.1}),
    (BatchNormalization, {}), (Distances, {}), (BilinearUpsampling, {'factor': 2}),
    (Whitening, {}), (Bias, {'rate': 4.}),
    (AtPositions, {}), (FirstToken, {}), (Places, {}), (WordBias, {}), (Zeros, {}),
    (StandardizedConv2D, {'filters': 4, 'kernel_size': (3, 3)}),
    (TokenEmbedding, {'vocabulary_size': 11, 'd_model': 8}),
    (MultiHeadAttention, {'d_model': 8, 'heads': 2}),
    (EncoderLayer, {'d_model': 8, 'd_ff': 16, 'heads': 2}),
    (DecoderLayer, {'d_model': 8, 'd_ff': 16, 'heads': 2}),
    (Transformer, {'source_vocabulary_size': 11, 'target_vocabulary_size': 13, 'num_layers': 1, 'd_model': 8,
                   'd_ff': 16, 'heads': 2}),
]
SMALL = list(CASES.values())


@pytest.mark.parametrize('name, sizes, options, count', COUNTS)
def test_parameter_count(name, sizes, options, count):
    assert models.build(name, sizes, **options).count_params() == count


def test_every_count_that_a_model_states_is_checked_and_every_size():
    stated = {name for name, build in models.MODELS.items() if 'parameters' in build.__doc__}
    assert stated <= {name for name, *_ in COUNTS} and {'mlp', 'cnn', 'lstm'} <= stated
    for model, sizes in (('transformer', SIZES), ('bert', BERTS)):
        assert {options.get('size', 'tiny') for name, _, options, _ in COUNTS if name == model} == set(sizes)
    assert {name for name, _ in SMALL} == set(models.MODELS)


def test_sizes_of_the_paper():
    paper = ('num_layers', 'd_model', 'd_ff', 'heads', 'dropout')
    assert [SIZES['base'][key] for key in paper] == [6, 512, 2048, 8, 0.1]
    assert [SIZES['big'][key] for key in paper] == [6, 1024, 4096, 16, 0.3]


def arguments(cls):
    """The names of all constructor arguments, inherited ones included, without those of keras.layers.Layer."""
    names = []
    for base in cls.__mro__:
        if base in (keras.Model, keras.layers.Layer):
            break
        if '__init__' in vars(base):
            names += [name for name, parameter in inspect.signature(base.__init__).parameters.items()
                      if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
    # A convolution of Keras has the first in its class, and the others only once they are used.
    return set(names) - {'self', 'rank', 'lora_rank', 'lora_alpha'}


def changed(value):
    """A legal value other than `value`, to see that the config does not just repeat a default."""
    if isinstance(value, bool):
        return not value
    return {None: None, 'pre': 'post', 0.1: 0.25, 0.0: 0.25}.get(value, value)


@pytest.mark.parametrize('cls, required', LAYERS)
def test_config_is_complete(cls, required):
    assert required.keys() <= arguments(cls)
    own = inspect.signature(cls.__init__).parameters if '__init__' in vars(cls) else {}
    defaults = {key: parameter.default for key, parameter in own.items() if parameter.default is not parameter.empty}
    given = {**{key: changed(value) for key, value in defaults.items()}, **required}
    if cls is Transformer:
        given['target_vocabulary_size'] = given['source_vocabulary_size']  # as share_embeddings asks
    layer = cls(**given, name='some_name', dtype='mixed_bfloat16')
    config = layer.get_config()
    assert arguments(cls) <= config.keys()
    assert {key: config[key] for key in given} == given
    again = cls.from_config(config)
    assert again.get_config() == config
    assert (again.name, again.compute_dtype) == ('some_name', 'bfloat16')


def test_every_own_class_is_registered_and_tested():
    own = {cls for cls in keras.saving.get_custom_objects().values() if cls.__module__.startswith('models.')
           and isinstance(cls, type) and issubclass(cls, keras.layers.Layer)}
    assert own == {cls for cls, _ in LAYERS}


@pytest.mark.parametrize('name, sizes', SMALL)
def test_weight_paths_are_unique_and_stable(name, sizes):
    first, second = models.build(name, sizes), models.build(name, sizes)
    paths = [weight.path for weight in first.weights]
    assert len(set(paths)) == len(paths)
    assert paths == [weight.path for weight in second.weights]
    assert all('/' in path for path in paths)


@pytest.mark.parametrize('policy', ['mixed_float16', 'mixed_bfloat16'])
@pytest.mark.parametrize('name, sizes', SMALL)
def test_logits_are_float32_under_mixed_precision(name, sizes, policy):
    full = models.build(name, sizes)
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        mixed = models.build(name, sizes)
    finally:
        keras.config.set_dtype_policy(default)
    mixed.set_weights(full.get_weights())
    expected, logits = full(example(sizes)), mixed(example(sizes))
    assert logits.dtype == 'float32'
    difference = np.abs(logits - expected).max()
    # Not 0, since the layers below did compute in half precision; and near, since it is the same function.
    assert 0 < difference < 0.2 * max(1., np.abs(expected).max() / 8)      # those of a new DeepLab are 30 to 40
    assert all(weight.dtype == 'float32' for weight in mixed.weights)


@pytest.mark.parametrize('name, sizes', SMALL)
def test_options_that_are_none_are_left_out(name, sizes):
    assert models.build(name, sizes, unknown=None, size=None).count_params() > 0


@pytest.mark.parametrize('name, sizes, options, parts', [
    ('cnm', {}, {}, ['`model`', ', '.join(models.MODELS), 'Did you mean cnn?', "model='cnm'"]),
    (None, {}, {}, ['`model`', 'model=None']),
    ('transformer', {'input_shape': (8, 8), 'outputs': 10}, {},
     ['`task`', 'source_vocabulary_size, target_vocabulary_size', 'input_shape=(8, 8), outputs=10']),
    ('mlp', WORDS, {}, ['`task`', 'input_shape', 'source_vocabulary_size=1000']),
    ('mlp', {}, {}, ['`task`', 'Received: none']),
    ('mlp', {'input_shape': (8,), 'outputs': 10}, {'size': 'big'}, ['`size` is not an option', "size='big'"]),
    ('mlp', {'input_shape': (8,), 'outputs': 10}, {'outputs': 3}, ['`outputs` is not an option', 'outputs=3']),
    ('transformer', WORDS, {'droput': 0.1}, ['`droput`', 'which takes size, dropout, norm', 'droput=0.1']),
    ('transformer', WORDS, {'size': 'huge'}, ['`size`', 'tiny, small, base, big', "size='huge'"]),
    ('transformer', WORDS, {'norm': 'none'}, ['`norm`', "'pre' or 'post'", "norm='none'"]),
    ('transformer', WORDS, {'dropout': 1.0}, ['`dropout`', 'below 1', 'dropout=1.0']),
    ('transformer', {**WORDS, 'source_vocabulary_size': 9}, {'share_embeddings': True},
     ['`share_embeddings`', 'source_vocabulary_size=9, target_vocabulary_size=1000']),
    ('transformer', TOKENS, {'share_embeddings': True}, ['`share_embeddings`', 'a classifier has one vocabulary']),
    ('cnn', {'input_shape': (64, 3, 1), 'outputs': 2}, {}, ['`input_shape`', 'at least 4', 'input_shape=(64, 3, 1)']),
    ('cnn', {'input_shape': (64, 64), 'outputs': 2}, {}, ['`input_shape`', 'channels', 'input_shape=(64, 64)']),
    ('cnn', {'input_shape': (None, None, 3), 'outputs': 2}, {}, ['`input_shape`', 'input_shape=(None, None, 3)']),
    ('lstm', {'input_shape': (64,), 'outputs': 2}, {}, ['`input_shape`', '(steps, features)', 'input_shape=(64,)']),
    ('mlp', {'input_shape': (), 'outputs': 2}, {}, ['`input_shape`', 'input_shape=()']),
    ('mlp', {'input_shape': (0,), 'outputs': 2}, {}, ['`input_shape`', 'input_shape=(0,)']),
])
def test_errors_are_one_clear_line(name, sizes, options, parts):
    with pytest.raises(UserError) as error:
        models.build(name, sizes, **options)
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message


def test_smallest_image_of_the_cnn_builds():
    assert models.build('cnn', {'input_shape': (4, 4, 1), 'outputs': 2}).output_shape == (None, 2)


@pytest.mark.parametrize('name, sizes', [case for case in SMALL if 'length' in case[1]])
def test_padding_and_other_rows_cannot_change_a_logit(name, sizes):
    """The answer to a text depends on its tokens alone."""
    keras.utils.set_random_seed(0)
    model, x = models.build(name, sizes), example(sizes)
    outputs = (lambda x: np.where(x['mask'][..., None], model(x), 0.)) if 'spans' in sizes else model
    before = np.array(outputs(x))
    rounding = 1e-6 * max(1., np.abs(before).max())      # another size of batch is summed by another kernel
    padding = dict(x, ids=np.where(x['mask'], x['ids'], 7))
    np.testing.assert_allclose(outputs(padding), before, rtol=0, atol=rounding)
    one = {key: value[1:2] for key, value in x.items()}
    np.testing.assert_allclose(outputs(one), before[1:2], rtol=0, atol=rounding)
    words = dict(x, ids=np.where(x['mask'], 11 - x['ids'], x['ids']))
    changed = np.abs(outputs(words) - before).max(axis=-1)
    assert changed[x['mask'] if 'spans' in sizes else ...].min() > 1e-5
