"""The contenders of benchmarks/vision.py. Each function makes one, given its case.

case: {'size', 'batch_size', 'side'}. Returns ({fact: value}, function (number of calls)).
"""

import cli
from benchmarks import contest
from benchmarks.processes import serve

RATE, MOMENTUM, CLASSES = 0.01, 0.9, 10
DEPTHS, WIDTH = (3, 3, 3), 16      # ResNet-20: blocks per stage, channels of the first


def be(contender, cases):
    """The process of a contender, 'CASE/NAME', or of 'collectives'."""
    from benchmarks.vision import COLLECTIVES
    if contender == COLLECTIVES:
        serve(collectives(cases), {})
    else:
        contest.be(contender, MAKE[contender], cases[contender.split('/')[0]])


# --- Ours ---

def recipe(size='20', batch_size=128, side=32):
    """Images that need no folder, in memory, at the size of CIFAR's."""
    from settings import Classification, Images, Recipe, ResNet, Training
    return Recipe(data=Images('digits', image_size=side, channels=3), model=ResNet(size=size), task=Classification(),
                  training=Training(batch_size=batch_size, steps=1000, optimizer='sgd', learning_rate=RATE,
                                    momentum=MOMENTUM))


def ours_training(case):
    from benchmarks.runner import loop
    runner, *_ = loop(recipe(**case))
    return contest.keras_facts(runner.step.model), runner


def ours_inference(case):
    import tensorflow as tf

    import models
    images = _noise(case)
    model = models.build('resnet', {'input_shape': images.shape[1:], 'outputs': 1000}, size=case['size'])
    classify = tf.function(lambda x: tf.nn.softmax(model(x, training=False)),
                           input_signature=[tf.TensorSpec((None, *images.shape[1:]))])

    def call(count):
        for _ in range(count):
            classify(images).numpy()
    return contest.keras_facts(model), call


def collectives(cases):
    """{size: {'count', 'bytes'}} of our training step, on each of 2 replicas."""
    with cli.quiet_tensorflow():
        from benchmarks.runner import all_reduced, loop
        from strategies import selection
    from benchmarks.vision import SIZES
    devices, found = selection.select('cpu', virtual_devices=2), {}
    for size in SIZES:
        runner, *_ = loop(recipe(**{**cases['training'], 'size': size}), devices=devices, rows=2)
        sizes = all_reduced(runner)      # of both replicas
        found[size] = {'count': len(sizes) // devices.replicas, 'bytes': sum(sizes) // devices.replicas}
    return found


def _noise(case, channels_first=False):
    """float32 [B, H, W, 3], or [B, 3, H, W], in [0, 1)."""
    import numpy as np
    side = case['side']
    shape = (3, side, side) if channels_first else (side, side, 3)
    return np.random.default_rng(0).random((case['batch_size'], *shape), np.float32)


# --- Keras ---

def keras_training(case):
    import keras
    import tensorflow as tf
    model = keras_resnet20((case['side'], case['side'], 3))
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=['accuracy'])
    batch = _noise(case), tf.range(case['batch_size']) % CLASSES
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    return {'title': 'Keras, `fit`', **contest.keras_facts(model)}, lambda count: model.fit(
        batches, steps_per_epoch=count, shuffle=False, verbose=0)


def keras_resnet20(shape):
    """Image [H, W, C] -> logits: the layers of models/resnet.py, each Keras's own."""
    from keras import Input, Model, layers

    def convolve(x, filters, kernel, stride=1, relu=True):
        x = layers.Conv2D(filters, kernel, stride, padding='same', use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x) if relu else x

    inputs = Input(shape)
    x = convolve(inputs, WIDTH, 3)
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            filters, stride = WIDTH * 2 ** stage, 2 if stage and not block else 1
            y = convolve(convolve(x, filters, 3, stride), filters, 3, relu=False)
            x = convolve(x, filters, 1, stride, relu=False) if stride > 1 else x
            x = layers.ReLU()(layers.Add()([x, y]))                               # [B, H / s, W / s, filters]
    return Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def keras_inference(case):
    import keras
    import numpy as np
    images = _noise(case)
    # v1: the stride is in the first convolution of a bottleneck, so it computes less than the others; with biases.
    model = keras.applications.ResNet50(weights=None, input_shape=images.shape[1:])
    return {'title': 'keras.applications, `predict`', **contest.keras_facts(model)}, lambda count: model.predict(
        np.concatenate([images] * count), batch_size=len(images), verbose=0)


# --- PyTorch ---

def torch_training(case, compiled=False):
    import torch
    from torch.nn import functional as F
    torch.manual_seed(0)
    model = torch_resnet20()
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    images, labels = torch.from_numpy(_noise(case, True)), torch.arange(case['batch_size']) % CLASSES
    forward = torch.compile(model) if compiled else model

    def call(count):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(forward(images), labels).backward()
            optimizer.step()
    return _torch_facts(model), call


def torch_resnet20():
    """Images [B, 3, H, W] -> logits [B, CLASSES], the same layers once more."""
    from torch import nn

    def convolve(before, filters, kernel, stride=1):
        return [nn.Conv2d(before, filters, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(filters)]

    class Block(nn.Module):
        def __init__(self, before, filters, stride):
            super().__init__()
            self.inner = nn.Sequential(*convolve(before, filters, 3, stride), nn.ReLU(), *convolve(filters, filters, 3))
            self.shortcut = nn.Sequential(*(convolve(before, filters, 1, stride) if stride > 1 else []))

        def forward(self, x):
            return nn.functional.relu(self.inner(x) + self.shortcut(x))

    layers, before = [*convolve(3, WIDTH, 3), nn.ReLU()], WIDTH
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            filters = WIDTH * 2 ** stage
            layers.append(Block(before, filters, 2 if stage and not block else 1))
            before = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def torch_inference(case, compiled=False):
    import torch
    import torchvision
    model = torchvision.models.resnet50(weights=None).eval()
    images = torch.from_numpy(_noise(case, True))
    forward = torch.compile(model) if compiled else model

    def call(count):
        with torch.inference_mode():
            for _ in range(count):
                forward(images).softmax(-1)
    return _torch_facts(model), call


def _torch_facts(model):
    import torch
    import torchvision
    return {'parameters': sum(p.numel() for p in model.parameters()),
            'versions': {'torch': torch.__version__, 'torchvision': torchvision.__version__}}


MAKE = {'training/ours': ours_training, 'training/keras': keras_training, 'training/torch': torch_training,
        'training/torch_compiled': lambda case: torch_training(case, compiled=True),
        'inference/ours': ours_inference, 'inference/keras': keras_inference, 'inference/torch': torch_inference,
        'inference/torch_compiled': lambda case: torch_inference(case, compiled=True)}
