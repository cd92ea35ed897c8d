"""E5: with the same weights our ResNet gives what Hugging Face's, torchvision's and timm's give, forwards and
backwards; weights come in and go out byte for byte. Skipped where those packages are not installed: README.md, Start.
"""

import json
import os

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import models
from experiment import published
from models.resnet import SIZES
from models.resnet_names import LAYOUTS
from settings import Classification, Images, Recipe, ResNet, Training

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
os.environ['HF_HUB_OFFLINE'] = '1'      # nothing here may ask a hub
WIDTH, OUTPUTS, SIDES = 8, 5, (45, 32)      # TensorFlow's 'same' is torch's padding of odd sides only
HUGGING_FACE_LAYERS = {'18': ('basic', 1), '50': ('bottleneck', 4)}


def random_statistics(model):
    """Numbers as after training in every norm of a torch model, so that none could be left out unnoticed."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith('running_mean'):
            value.normal_(0, 0.1, generator=generator)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif 'norm' in name and value.ndim == 1 or value.ndim == 1 and ('bn' in name or 'downsample.1' in name):
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return model.eval()


def hugging_face(size, channels=3, width=WIDTH):
    """A random ResNetForImageClassification."""
    transformers = pytest.importorskip('transformers', reason='needs pip install -e ".[torch]"')
    layer, times = HUGGING_FACE_LAYERS[size]
    torch.manual_seed(0)
    return random_statistics(transformers.ResNetForImageClassification(transformers.ResNetConfig(
        num_channels=channels, embedding_size=width, hidden_sizes=[times * width * 2 ** s for s in range(4)],
        depths=list(SIZES[size].depths), layer_type=layer, num_labels=OUTPUTS)))


def package(name):
    try:
        return pytest.importorskip(name, reason='needs pip install -e ".[torch]"')
    except RuntimeError as error:      # of a wheel for another build of PyTorch
        pytest.skip(f'{name} does not fit this PyTorch: {error}')


def torchvision(size):
    package('torchvision')
    from torchvision.models import resnet
    torch.manual_seed(0)
    if size == '18':
        return random_statistics(resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=OUTPUTS))
    return random_statistics(resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3], num_classes=OUTPUTS))


def timm(size):
    return random_statistics(package('timm').create_model(f'resnet{size}', num_classes=OUTPUTS))


MODELS = [pytest.param(hugging_face, '18', WIDTH, id='Hugging Face, basic'),
          pytest.param(hugging_face, '50', WIDTH, id='Hugging Face, bottleneck'),
          pytest.param(torchvision, '18', 0, id='torchvision, basic'),
          pytest.param(torchvision, '50', 0, id='torchvision, bottleneck', marks=pytest.mark.slow),
          pytest.param(timm, '18', 0, id='timm, basic'),
          pytest.param(timm, '50', 0, id='timm, bottleneck', marks=pytest.mark.slow)]


def ours(size, width, folder, normalise='none', outputs=OUTPUTS, channels=3):
    """Our model with the weights that a folder holds."""
    recipe = Recipe(data=Images('made'), task=Classification(), training=Training(steps=1),
                    model=ResNet(size=size, width=width, normalise=normalise, weights=str(folder)))
    keras.utils.set_random_seed(0)
    model = models.build('resnet', {'input_shape': (*SIDES, channels), 'outputs': outputs},
                         **recipe.model.options())
    arrays, of_the_seed, layout = published.find(recipe, {v.path: v.shape for v in model.weights})
    for v in model.weights:
        if v.path not in of_the_seed:
            v.assign(arrays[v.path])
    return model, recipe, of_the_seed, layout


def saved(model, folder):
    folder.mkdir()
    state = {name: np.ascontiguousarray(value.numpy()) for name, value in model.state_dict().items()}
    (folder / published.FILE).write_bytes(safetensors.numpy.save(state, {'format': 'pt'}))
    return folder


@pytest.mark.parametrize('theirs, size, width', MODELS)
def test_logits_and_gradients_are_theirs(theirs, size, width, tmp_path, measured):
    torch_model = theirs(size)
    model, *_, layout = ours(size, width, saved(torch_model, tmp_path / 'saved'))
    rng = np.random.default_rng(0)
    images = rng.random((2, *SIDES, 3), np.float32)
    direction = rng.standard_normal((2, OUTPUTS)).astype('float32')
    with tf.GradientTape() as tape:
        logits = model(images)
        total = tf.reduce_sum(logits * direction)
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    gradients = {v.path: gradient.numpy() for v, gradient in zip(model.trainable_variables, gradients)}
    output = torch_model(torch.tensor(images.transpose(0, 3, 1, 2)))
    output = getattr(output, 'logits', output)
    (output * torch.tensor(direction)).sum().backward()

    scale = np.abs(logits).max()
    difference = np.abs(logits - output.detach().numpy()).max() / scale
    measured('E5', f'{theirs.__name__} ResNet {size}, logits', 'cpu', difference)
    assert difference < 1e-5 and np.std(logits) > 1e-3
    parameters = {LAYOUTS[layout].without_prefix(name): p for name, p in torch_model.named_parameters()}
    worst = 0.
    for path, (name, transform) in LAYOUTS[layout].of(gradients).items():
        gradient = transform.to_ours(parameters[name].grad.numpy())
        assert np.abs(gradient).max() > 0, path
        worst = max(worst, np.abs(gradient - gradients[path]).max() / np.abs(gradient).max())
    assert len(gradients) == len(parameters)
    measured('E5', f'{theirs.__name__} ResNet {size}, gradients', 'cpu', worst)
    assert worst < 1e-5


@pytest.mark.parametrize('size', HUGGING_FACE_LAYERS)
def test_weights_of_hugging_face_come_back_byte_for_byte(size, tmp_path):
    hugging_face(size).save_pretrained(tmp_path / 'theirs')
    model, recipe, of_the_seed, layout = ours(size, WIDTH, tmp_path / 'theirs')
    assert (of_the_seed, layout) == ([], 'Hugging Face')
    published.write(tmp_path / 'back', recipe, model, {'input_shape': (*SIDES, 3)}, ())
    before, after = ((tmp_path / name / published.FILE).read_bytes() for name in ('theirs', 'back'))
    assert before == after


def test_hugging_face_reads_what_is_written_and_answers_the_same(tmp_path):
    theirs = hugging_face('18')
    model, recipe, *_ = ours('18', WIDTH, saved(theirs, tmp_path / 'saved'), normalise='imagenet')
    published.write(tmp_path / 'out', recipe, model, {'input_shape': (*SIDES, 3)}, list('abcde'))
    transformers = pytest.importorskip('transformers')
    again, told = transformers.ResNetForImageClassification.from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not any(told.values()), told
    assert again.config.id2label == dict(enumerate('abcde'))
    mean, deviation = (np.array(json.loads((tmp_path / 'out' / 'preprocessor_config.json').read_text())[name], 'f4')
                       for name in ('image_mean', 'image_std'))
    images = np.random.default_rng(0).random((2, *SIDES, 3), np.float32)
    pixels = torch.tensor(((images - mean) / deviation).transpose(0, 3, 1, 2))
    logits = model(images)
    assert np.abs(logits - again.eval()(pixels).logits.detach().numpy()).max() < 1e-5 * np.abs(logits).max()


def test_only_the_moving_variance_of_training_differs_from_torchs(tmp_path):
    """Torch's is that of a sample, n / (n - 1) times Keras's, over the n = B * H * W pixels of each channel."""
    torch_model = hugging_face('18')
    model, *_ = ours('18', WIDTH, saved(torch_model, tmp_path / 'saved'))
    images = np.random.default_rng(0).random((4, *SIDES, 3), np.float32)
    logits = np.array(model(images, training=True))
    output = torch_model.train()(torch.tensor(images.transpose(0, 3, 1, 2))).logits.detach().numpy()
    assert np.abs(logits - output).max() < 1e-4 * np.abs(output).max()      # normalised by the same numbers
    state, norm = torch_model.state_dict(), model.get_layer('stem_norm')
    name = 'resnet.embedder.embedder.normalization.running_'
    np.testing.assert_allclose(norm.moving_mean, state[f'{name}mean'], rtol=1e-5, atol=1e-6)
    n = 4 * 23 * 16
    before = safetensors.numpy.load((tmp_path / 'saved' / published.FILE).read_bytes())[f'{name}var']
    added, theirs = np.array(norm.moving_variance) - 0.9 * before, state[f'{name}var'].numpy() - 0.9 * before
    np.testing.assert_allclose(added * n / (n - 1), theirs, rtol=1e-4)
    assert np.all(theirs > added * (1 + 0.5 / n))
