"""ResNet: sizes, the shapes of its features, its padding, its group norms, and weights by the names of others."""

import json

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import models
import recipes
from errors import UserError
from experiment import published
from models.pretrained import AS_IS, DENSE, Names
from models.resnet import SIZES, StandardizedConv2D, backbone, resnet
from models.resnet_names import HUGGING_FACE, LAYOUTS
from settings import Classification, Images, Recipe, ResNet, Training
from training.batch_norm import install

IMAGENET_COUNTS = {'18': 11_689_512, '34': 21_797_672, '50': 25_557_032, '101': 44_549_160, '152': 60_192_808}
MOVING = {'18': 9_600, '34': 17_024, '50': 53_120, '101': 105_344, '152': 151_424}
CIFAR_COUNTS = {'20': 272_474, '32': 466_906, '44': 661_338, '56': 855_770}


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize('size', SIZES)
def test_parameters_are_those_of_the_published_models(size):
    with keras.StatelessScope():        # in which no variable takes memory
        model = resnet((32, 32, 3), 10 if SIZES[size].is_small else 1000, size=size)
    assert count(model.trainable_variables) == (IMAGENET_COUNTS | CIFAR_COUNTS)[size]
    assert size not in MOVING or count(model.non_trainable_variables) == MOVING[size]
    assert f'{count(model.trainable_variables):,}' in resnet.__doc__


@pytest.mark.parametrize('size', ['18', '50', '20'])
@pytest.mark.parametrize('sides', [(64, 96), (65, 33), (None, None), (1, 1)])
def test_features_have_their_names_strides_and_channels(size, sides):
    with keras.StatelessScope():
        features = backbone(keras.Input((*sides, 3)), size, width=8)
    strides = {'stem': 1, 'stage1': 1, 'stage2': 2, 'stage3': 4} if size == '20' else {
        'stem': 2, 'stage1': 4, 'stage2': 8, 'stage3': 16, 'stage4': 32}
    assert list(features) == list(strides)
    for i, (name, stride) in enumerate(strides.items()):
        channels = 8 * 2 ** max(i - 1, 0) * (4 if size == '50' and i else 1)
        assert features[name].shape == (None, *(side and -(-side // stride) for side in sides), channels)


def test_a_backbone_of_any_size_gives_what_one_of_that_size_gives():
    images = np.random.default_rng(0).random((2, 33, 40, 3), np.float32)
    sized, free = (keras.Model(inputs, backbone(inputs, '18', width=4)['stage4'])
                   for inputs in (keras.Input((33, 40, 3)), keras.Input((None, None, 3))))
    free.set_weights(sized.get_weights())
    np.testing.assert_allclose(free(images), sized(images), atol=1e-6)


@pytest.mark.parametrize('size', ['18', '50', '20'])
def test_a_mirrored_image_of_an_odd_side_gives_mirrored_features(size):
    """Every layer pads both sides alike; only so, with kernels that are their own mirror images."""
    inputs = keras.Input((33, 33, 3))
    model = keras.Model(inputs, backbone(inputs, size, width=4))
    for v in model.trainable_variables:
        if v.path.endswith('kernel'):
            v.assign((v + v[:, ::-1]) / 2)
    images = np.random.default_rng(0).random((1, 33, 33, 3), np.float32)
    for name, feature in model(images).items():
        mirrored = np.array(model(images[:, :, ::-1])[name])
        assert np.abs(mirrored[:, :, ::-1] - feature).max() < 1e-5 * np.abs(mirrored).max(), name


def test_a_stride_sees_the_pixels_that_torchs_padding_gives_it():
    """The first output of a 7x7 convolution of stride 2 is centred on pixel 0, of an even side too."""
    images = np.zeros((1, 32, 32, 1), np.float32)
    images[0, 0, 0] = 1.
    inputs = keras.Input((32, 32, 1))
    model = keras.Model(inputs, backbone(inputs, '18', width=1, normalise='none'))
    kernel = np.zeros((7, 7, 1, 1), np.float32)
    kernel[3, 3] = 1.
    model.get_layer('stem_conv').kernel.assign(kernel)
    stem = np.array(model(images)['stem'])[0, :, :, 0]
    assert stem[0, 0] == pytest.approx(1., abs=1e-4) and np.count_nonzero(stem) == 1


def test_the_first_weights_are_torchs():
    keras.utils.set_random_seed(0)
    model = resnet((8, 8, 3), 1000, size='18')
    kernel = np.array(model.get_layer('stage3_block1_conv1').kernel)        # 3x3, 256 -> 256
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01) and np.abs(kernel).max() > 4 * kernel.std()
    logits = np.array(model.get_layer('logits').kernel)
    assert np.abs(logits).max() <= 512 ** -0.5 < 1.001 * np.abs(logits).max()
    assert all(np.all(np.array(v) == 1) for v in model.weights if v.path.endswith('gamma'))


def test_images_are_normalised_as_imagenet():
    for channels, mean, deviation in ((3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), (1, [0.459], [0.226])):
        layer = resnet((8, 8, channels)).get_layer('normalise')
        images = np.random.default_rng(0).random((2, 8, 8, channels), np.float32)
        np.testing.assert_allclose(layer(images), (images - mean) / np.array(deviation), atol=1e-5)
    assert 'normalise' not in [layer.name for layer in resnet((8, 8, 3), normalise='none').layers]


# --- Group norms ---

def test_groups_have_two_channels_at_least():
    for width, groups in ((64, 32), (128, 32), (32, 16), (16, 8), (48, 8), (1, 1)):
        with keras.StatelessScope():
            model = resnet((8, 8, 3), size='18', width=width, norm='group')
        assert model.get_layer('stem_norm').groups == groups


def test_standardised_kernels_have_mean_0_and_variance_1():
    layer = StandardizedConv2D(5, 3, use_bias=False)
    layer.build((None, 6, 6, 4))
    layer.kernel.assign(3 + 7 * np.random.default_rng(0).standard_normal(layer.kernel.shape))
    images = np.random.default_rng(1).random((2, 6, 6, 4), np.float32)
    kernel = np.array(layer.kernel)
    kernel = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
    np.testing.assert_allclose(layer(images), tf.nn.conv2d(images, kernel, 1, 'VALID'), atol=1e-4)


def test_with_group_norms_other_rows_do_not_matter():
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    model = resnet((16, 16, 3), width=8, norm='group')
    np.testing.assert_allclose(model(images, training=True)[:1], model(images[:1], training=True), atol=1e-5)
    assert not model.non_trainable_variables


def test_batch_norms_refuse_micro_batches_and_group_norms_do_not():
    install(resnet((8, 8, 3), norm='group'), accumulate=2, replicas=1)
    with pytest.raises(UserError, match='`accumulate` cannot equal one large batch with BatchNorm.* .stem_norm.'):
        install(resnet((8, 8, 3)), accumulate=2, replicas=1)


# --- Weights by the names of others ---

def named(model, layout='Hugging Face'):
    return LAYOUTS[layout].to_theirs({v.path: np.array(v) for v in model.weights})


def random_weights(model):
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape))
    return model


def small(size='18', outputs=5, width=4, channels=3, **options):
    return resnet((16, 16, channels), outputs, size=size, width=width, **options)


def recipe_of(weights, size='18', width=4, **options):
    return Recipe(data=Images('made'), task=Classification(), training=Training(steps=1),
                  model=ResNet(size=size, width=width, weights=str(weights), **options))


def write(folder, arrays, **described):
    folder.mkdir(exist_ok=True)
    (folder / published.FILE).write_bytes(safetensors.numpy.save(
        {name: np.asarray(array, order='C') for name, array in arrays.items()}))
    for name, content in described.items():
        (folder / f'{name}.json').write_text(json.dumps(content))
    return folder


def found(folder, model, **options):
    return published.find(recipe_of(folder, **options), {v.path: v.shape for v in model.weights})


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_variable_has_a_name_of_its_own_in_each_layout(layout, size):
    with keras.StatelessScope():
        paths = [v.path for v in small(size).weights]
    names = LAYOUTS[layout].of(paths)
    assert list(names) == paths and len({name for name, _ in names.values()}) == len(paths)


@pytest.mark.parametrize('size', ['18', '50'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_weights_come_back_as_they_went(layout, size, tmp_path):
    model = random_weights(small(size))
    folder = write(tmp_path / 'a', named(model, layout) | {'x.num_batches_tracked': np.zeros((), np.int64)})
    for path in (folder, folder / published.FILE):
        arrays, of_the_seed, which = found(path, model, size=size)
        assert (of_the_seed, which) == ([], layout)
        assert all((arrays[v.path] == np.array(v)).all() for v in model.weights)


def test_a_prefix_may_be_absent_and_files_may_be_shards(tmp_path):
    model = random_weights(small())
    arrays = {name.removeprefix('resnet.'): array for name, array in named(model).items()}
    write(tmp_path / 'a', {name: array for name, array in arrays.items() if 'stages' in name})
    (tmp_path / 'a' / published.FILE).rename(tmp_path / 'a' / 'one.safetensors')
    write(tmp_path / 'a', {name: array for name, array in arrays.items() if 'stages' not in name})
    (tmp_path / 'a' / published.FILE).rename(tmp_path / 'a' / 'two.safetensors')
    index = {'weight_map': {name: 'one.safetensors' if 'stages' in name else 'two.safetensors' for name in arrays}}
    (tmp_path / 'a' / published.INDEX).write_text(json.dumps(index))
    assert published.is_published(tmp_path / 'a')
    ours, of_the_seed, _ = found(tmp_path / 'a', model)
    assert not of_the_seed and all((ours[v.path] == np.array(v)).all() for v in model.weights)
    (tmp_path / 'a' / 'one.safetensors').unlink()
    with pytest.raises(UserError, match='`weights` must fit the model: one.safetensors cannot be read'):
        found(tmp_path / 'a', model)


def test_a_head_of_other_classes_or_none_starts_from_the_seed(tmp_path):
    model = small(outputs=7)
    theirs = named(small(outputs=5))
    for arrays in (theirs, {name: array for name, array in theirs.items() if 'classifier' not in name}):
        ours, of_the_seed, _ = found(write(tmp_path / 'a', arrays), model)
        assert of_the_seed == ['logits/bias', 'logits/kernel']
        assert len(ours) == len(model.weights) - 2


def test_the_head_of_their_model_is_left_out_where_the_heads_here_are_others():
    names = Names({'stem/kernel': ('stem.weight', DENSE), 'logits/bias': ('fc.bias', AS_IS)})
    shapes = {'stem/kernel': (2, 3), 'head_boxes/kernel': (3, 4)}
    arrays, of_the_seed = names.to_ours(shapes, {'stem.weight': np.ones((3, 2)), 'fc.bias': np.ones(5)})
    assert list(arrays) == ['stem/kernel'] and of_the_seed == ['head_boxes/kernel']


@pytest.mark.parametrize('change, message', [
    (lambda arrays: arrays.pop('resnet.embedder.embedder.convolution.weight'),
     r'`weights` must fit the model: embedder.embedder.convolution.weight is not there. Received: weights='),
    (lambda arrays: arrays.update({f'resnet.extra.{i}': np.ones(1) for i in range(5)}),
     r'extra.0, extra.1, extra.2 and 2 more are not here. Received: weights='),
    (lambda arrays: [arrays.pop(f'resnet.encoder.stages.0.layers.{b}.layer.0.convolution.weight') for b in (0, 1)]
     + [arrays.update(x=np.ones(1))],
     r'encoder.stages.0.layers.0.layer.0.convolution.weight, encoder.*.layers.1.* are not there and x is not here'),
    (lambda arrays: arrays.update({'resnet.embedder.embedder.convolution.weight': np.ones((4, 3, 3, 3))}),
     r'stem_conv/kernel is \[3, 3, 3, 4\] there, \[7, 7, 3, 4\] here'),
    (lambda arrays: arrays.update({'resnet.embedder.embedder.convolution.weight': np.ones((4, 3))}),
     r'embedder.embedder.convolution.weight has 2 axes there, 4 here'),
])
def test_what_does_not_fit_is_named(change, message, tmp_path):
    model = small()
    arrays = dict(named(model))
    change(arrays)
    with pytest.raises(UserError, match=message) as error:
        found(write(tmp_path / 'a', arrays), model)
    assert '\n' not in str(error.value)


CONFIG = {'model_type': 'resnet', 'layer_type': 'basic', 'depths': [2, 2, 2, 2], 'hidden_sizes': [4, 8, 16, 32],
          'embedding_size': 4}


@pytest.mark.parametrize('config, message', [
    ({'depths': [3, 4, 6, 3], 'layer_type': 'bottleneck'},
     r"layer_type is 'bottleneck' in config.json, 'basic' here \(size=50 has it\)"),
    ({'depths': [3, 4, 6, 3]}, r'depths is \[3, 4, 6, 3\] in config.json, \[2, 2, 2, 2\] here \(size=34 has it\)'),
    ({'hidden_act': 'gelu'}, "hidden_act is 'gelu' in config.json, 'relu' here"),
    ({'downsample_in_bottleneck': True}, 'downsample_in_bottleneck is True in config.json, False here'),
    ({'model_type': 'convnext'}, "model_type is 'convnext' in config.json, 'resnet' here"),
    ({'num_channels': 1}, 'num_channels is 1 in config.json, 3 here'),
    ({'embedding_size': 64}, 'embedding_size is 64 in config.json, 4 here')])
def test_a_description_of_another_model_is_refused_by_name(config, message, tmp_path):
    model = small()
    found(write(tmp_path / 'a', named(model), config=CONFIG), model)
    with pytest.raises(UserError, match=message):
        found(write(tmp_path / 'b', named(model), config=CONFIG | config), model)


IMAGENET = {'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}


@pytest.mark.parametrize('described, normalise', [
    ({'preprocessor_config': IMAGENET}, 'imagenet'), ({'preprocessor_config': {'do_normalize': False}}, 'none'),
    ({'config': {'pretrained_cfg': {'mean': IMAGENET['image_mean'], 'std': IMAGENET['image_std']}}}, 'imagenet'),
    ({'preprocessor_config': {'do_normalize': True, 'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}}, None)])
def test_images_must_be_normalised_as_the_weights_expect(described, normalise, tmp_path):
    for given in ('imagenet', 'none'):
        model = small(normalise=given)
        folder = write(tmp_path / given, named(model), **described)
        if given == normalise:
            assert found(folder, model, normalise=given)[1] == []
            continue
        known, unknown = f'its images need normalise={normalise}', r'by mean \[0.5, .* no value of .normalise. does'
        with pytest.raises(UserError, match=known if normalise else unknown):
            found(folder, model, normalise=given)


@pytest.mark.parametrize('content', [b'', b'no safetensors', b'\xff' * 100])
def test_a_broken_file_is_one_line(content, tmp_path):
    write(tmp_path / 'a', {})
    (tmp_path / 'a' / published.FILE).write_bytes(content)
    with pytest.raises(UserError, match='model.safetensors cannot be read') as error:
        found(tmp_path / 'a', small())
    assert '\n' not in str(error.value)


def test_half_precision_is_read_as_float32(tmp_path):
    import ml_dtypes
    model = random_weights(small())
    for dtype in (np.float16, ml_dtypes.bfloat16):
        half = {name: array.astype(dtype) for name, array in named(model).items()}
        arrays, *_ = found(write(tmp_path / 'a', half), model)
        assert arrays['stem_conv/kernel'].dtype == np.float32
        np.testing.assert_array_equal(arrays['stem_norm/gamma'],
                                      np.array(model.get_layer('stem_norm').gamma).astype(dtype).astype(np.float32))


def test_a_model_without_published_names_takes_runs_only(tmp_path):
    recipe = recipes.load('cnn_digits')[1].replace(weights=str(write(tmp_path / 'a', {'x': np.ones(1)})))
    with pytest.raises(UserError, match='`weights` of the model cnn must be the folder of a run'):
        published.find(recipe, {})


@pytest.mark.parametrize('options, reason', [({'size': '20'}, 'no ResNet of three stages'),
                                             ({'size': '18', 'norm': 'group'}, 'no ResNet with group norms')])
def test_what_hugging_face_does_not_have_is_not_written(options, reason, tmp_path):
    model = resnet((16, 16, 3), 5, width=4, **options)
    with pytest.raises(UserError, match=f'`format` huggingface cannot hold the model resnet of this run: .*{reason}'):
        published.write(tmp_path / 'a', recipe_of('', **options), model, {'input_shape': (16, 16, 3)}, ())
    assert not list(tmp_path.iterdir())


def test_a_model_of_grey_images_is_written_and_read(tmp_path):
    model = random_weights(small(channels=1))
    published.write(tmp_path / 'a', recipe_of(''), model, {'input_shape': (16, 16, 1)}, ())
    assert found(tmp_path / 'a', model)[1] == []


def test_a_model_is_written_with_its_classes_and_its_normalisation(tmp_path):
    model = random_weights(small())
    published.write(tmp_path / 'a', recipe_of(''), model, {'input_shape': (16, 24, 3)}, list('abcde'))
    config, images = (json.loads((tmp_path / 'a' / name).read_text()) for name in published.DESCRIPTIONS)
    assert config.items() >= (CONFIG | {'id2label': dict(zip('01234', 'abcde'))}).items()
    assert images.items() >= (IMAGENET | {'size': {'height': 16, 'width': 24}, 'do_normalize': True}).items()
    arrays, of_the_seed, _ = found(tmp_path / 'a', model)
    assert not of_the_seed and all((arrays[v.path] == np.array(v)).all() for v in model.weights)
    assert HUGGING_FACE.knows({v.path: v.shape for v in model.weights}, arrays) == 0      # ours are no names of theirs


@pytest.mark.parametrize('name, sizes', [('centernet', {'box_classes': 3}), ('unet', {'pixel_classes': 3}),
                                         ('deeplab', {'pixel_classes': 3})])
def test_models_over_a_resnet_pass_its_options_on(name, sizes):
    sizes = {'input_shape': (32, 32, 3), **sizes}
    plain = {weight.path: weight.shape for weight in models.build(name, sizes, size='18', width=4).weights}

    def changed(**options):
        built = models.build(name, sizes, **{'size': '18', 'width': 4, **options})
        return {weight.path: weight.shape for weight in built.weights}, {layer.name for layer in built.layers}
    assert changed(width=8)[0].keys() == plain.keys() and changed(width=8)[0] != plain
    assert 'stem_norm/moving_mean' in plain and 'stem_norm/moving_mean' not in changed(norm='group')[0]
    assert changed(size='34')[0].keys() > plain.keys()
    assert 'normalise' in changed()[1] and 'normalise' not in changed(normalise='none')[1]


def test_a_dilated_last_stage_keeps_the_size_of_the_one_before():
    image = keras.Input((64, 96, 3))
    for size in ('18', '50'):
        *_, before, last = backbone(image, size, width=4, dilated=True).values()
        assert last.shape[1:3] == before.shape[1:3] == (4, 6)
        *_, last = backbone(image, size, width=4).values()
        assert last.shape[1:3] == (2, 3)
    with pytest.raises(UserError, match='`size` must be one of four stages.*Received: size='):
        backbone(image, '20', dilated=True)
