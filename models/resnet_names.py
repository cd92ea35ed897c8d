"""A ResNet's weights elsewhere: names in Hugging Face's files and in torchvision's, which are timm's; config.json."""

from models.pretrained import AS_IS, CONVOLUTION, DENSE, Names
from models.resnet import IMAGENET, SIZES

NORM = {'gamma': 'weight', 'beta': 'bias', 'moving_mean': 'running_mean', 'moving_variance': 'running_var'}
COUNT = 'num_batches_tracked'           # of a norm in torch; nothing reads it where there is a momentum
STAGES, CONVOLUTIONS = range(1, 5), range(1, 4)
# What Hugging Face's ResNetConfig is where config.json is silent.
DEFAULTS = {'model_type': 'resnet', 'layer_type': 'bottleneck', 'depths': [3, 4, 6, 3], 'embedding_size': 64,
            'hidden_sizes': [256, 512, 1024, 2048], 'num_channels': 3, 'hidden_act': 'relu',
            'downsample_in_first_stage': False, 'downsample_in_bottleneck': False}
UNCHANGED = (0., 0., 0.), (1., 1., 1.)      # mean and deviation where images stay in [0, 1]


def _layer(ours, number, convolution, norm):
    """A convolution and its norm."""
    return {f'{ours}_conv{number}/kernel': (f'{convolution}.weight', CONVOLUTION),
            **{f'{ours}_norm{number}/{name}': (f'{norm}.{theirs}', AS_IS) for name, theirs in NORM.items()}}


def _head(theirs):
    return {'logits/kernel': (f'{theirs}.weight', DENSE), 'logits/bias': (f'{theirs}.bias', AS_IS)}


def _hugging_face():
    def layer(ours, number, theirs):
        return _layer(ours, number, f'{theirs}.convolution', f'{theirs}.normalization')
    table = layer('stem', '', 'embedder.embedder') | _head('classifier.1')
    for s in STAGES:
        ours, theirs = f'stage{s}_block{{}}', f'encoder.stages.{s - 1}.layers.{{}}'
        table |= layer(f'{ours}_shortcut', '', f'{theirs}.shortcut')
        for i in CONVOLUTIONS:
            table |= layer(ours, i, f'{theirs}.layer.{i - 1}')
    return Names(table, prefixes=('resnet.',), ignored=(COUNT,))


def _torchvision():
    table = _layer('stem', '', 'conv1', 'bn1') | _head('fc')
    for s in STAGES:
        ours, theirs = f'stage{s}_block{{}}', f'layer{s}.{{}}'
        table |= _layer(f'{ours}_shortcut', '', f'{theirs}.downsample.0', f'{theirs}.downsample.1')
        for i in CONVOLUTIONS:
            table |= _layer(ours, i, f'{theirs}.conv{i}', f'{theirs}.bn{i}')
    return Names(table, ignored=(COUNT,))


HUGGING_FACE = _hugging_face()
LAYOUTS = {'Hugging Face': HUGGING_FACE, 'torchvision and timm': _torchvision()}


def layouts(shapes):
    """{name of a library: Names} for a model of {path: shape}; the first is Hugging Face's."""
    return LAYOUTS


def check(described, shapes, options):
    """Raises ValueError where the files beside published weights ask for another model.

    Args:
        described: {file name: content} of config.json and preprocessor_config.json, as far as they are there.
        shapes: {path: shape} of the model. options: {name: value} of its section.
    """
    theirs = described.get('config.json', {})
    if 'model_type' in theirs:      # timm's has none
        for name, here in _config(shapes).items():
            there = theirs.get(name, DEFAULTS[name])
            if there != here:
                raise ValueError(f'{name} is {there!r} in config.json, {here!r} here{_as_a_size(theirs)}')
    images, timm = described.get('preprocessor_config.json', {}), theirs.get('pretrained_cfg', {})
    expected = [timm.get('mean'), timm.get('std')] if 'mean' in timm else [images.get('image_mean'),
                                                                           images.get('image_std')]
    if images.get('do_normalize') is False:
        expected = UNCHANGED
    if None not in expected and (name := _normalise(*expected)) != options['normalise']:
        raise ValueError(f'its images need normalise={name}')


def _normalise(mean, deviation):
    """The value of `normalise` that gives images this mean and deviation."""
    known = [*(('imagenet', *pair) for pair in IMAGENET.values()), ('none', *UNCHANGED)]
    name = next((name for name, *pair in known if _near(mean, pair[0]) and _near(deviation, pair[1])), None)
    if name is None:
        raise ValueError(f'its images are normalised by mean {mean} and deviation {deviation}, which no value of '
                         '`normalise` does')
    return name


def _near(values, others):
    return (isinstance(values, (list, tuple)) and len(values) == len(others)
            and all(isinstance(a, (int, float)) and abs(a - b) < 1e-3 for a, b in zip(values, others)))


def _as_a_size(theirs):
    theirs = DEFAULTS | theirs
    return next((f' (size={name} has it)' for name, size in SIZES.items() if list(size.depths) == theirs['depths']
                 and size.bottleneck == (theirs['layer_type'] == 'bottleneck')), '')


def describe(shapes, options, sizes, class_names):
    """{file name: content} that Hugging Face's library reads beside the weights of a model.

    Args:
        shapes: {path: shape} of the model. options: {name: value} of its section. sizes: {name: size} of its task.
        class_names: of the outputs, or ().

    Raises:
        ValueError: it has no such ResNet.
    """
    names = list(map(str, class_names or range(shapes['logits/bias'][0])))
    config = {'architectures': ['ResNetForImageClassification'], **_config(shapes), 'dtype': 'float32',
              'id2label': dict(enumerate(names)), 'label2id': {name: i for i, name in enumerate(names)}}
    height, width, channels = sizes['input_shape']
    images = {'image_processor_type': 'ViTImageProcessor', 'do_resize': True, 'resample': 2,
              'size': {'height': height, 'width': width}, 'do_rescale': True, 'rescale_factor': 1 / 255,
              'do_normalize': options['normalise'] == 'imagenet'}
    if images['do_normalize']:
        images |= dict(zip(('image_mean', 'image_std'), map(list, IMAGENET[channels])))
    return {'config.json': config, 'preprocessor_config.json': images}


def counters(names):
    """{name: 0} of what torch expects beside the arrays of these names."""
    end = NORM['moving_mean']
    return {name.removesuffix(end) + COUNT: 0 for name in names if name.endswith(end)}


def _config(shapes):
    """What of Hugging Face's config.json describes the architecture of a model of {path: shape}."""
    for path, reason in (('stem_norm/moving_mean', 'has no ResNet with group norms'),
                         ('stage4_block0_conv1/kernel', 'has no ResNet of three stages')):
        if path not in shapes:
            raise ValueError(f'Hugging Face {reason}')
    blocks = [[path for path in shapes if path.startswith(f'stage{s}_') and path.endswith('_conv1/kernel')]
              for s in STAGES]
    last = 3 if 'stage1_block0_conv3/kernel' in shapes else 2
    return DEFAULTS | {
        'layer_type': 'bottleneck' if last == 3 else 'basic', 'depths': [len(paths) for paths in blocks],
        'hidden_sizes': [shapes[f'stage{s}_block0_conv{last}/kernel'][-1] for s in STAGES],
        'embedding_size': shapes['stem_conv/kernel'][-1], 'num_channels': shapes['stem_conv/kernel'][-2]}
