"""Which architecture: one section per model. A field is an option of the function of that name in models/."""

from dataclasses import dataclass

from settings.fields import Section, field


@dataclass(frozen=True)
class Model(Section):
    """Attributes:
        left_open: fields that `weights` decide where they are None. by_size: those of them that a size decides.
    """
    weights: str = field('', 'Folder of a run of the same model, from whose newest weights this run starts; for '
                             'resnet and what is built on it also a folder of Hugging Face\'s, torchvision\'s or '
                             'timm\'s weights of a ResNet; for bert, of Hugging Face\'s. Without it, the seed decides '
                             'them.')

    left_open, by_size = (), ()

    def options(self):
        """{name: value} of what the function is given besides the task's sizes: what differs from its defaults."""
        return {name: value for name, value in self.changed().items() if name != 'weights'}


@dataclass(frozen=True)
class MLP(Model):
    kind = 'mlp'


@dataclass(frozen=True)
class CNN(Model):
    kind = 'cnn'


@dataclass(frozen=True)
class LSTM(Model):
    kind = 'lstm'
    units: int = field(50, 'Units of the LSTM, in each direction.', least=1, most=2 ** 16)
    bidirectional: bool = field(False, 'Second LSTM that reads the sequence backwards.')
    dropout: float = field(0., 'Dropout rate before the last layer, and of the embeddings of tokens.', least=0, below=1)


@dataclass(frozen=True)
class Residual(Model):
    """What a ResNet and the models over one have in common. A section's `size` comes first."""
    width: int = field(0, 'Channels inside the blocks of the first stage. 0 means those of the size: 16 or 64.',
                       least=0, most=2 ** 12)
    norm: str = field('batch', 'Normalisation of activations: batch, over the global batch; or group, within each '
                               'example, as `accumulate` needs it.', choices=('batch', 'group'))
    normalise: str = field('imagenet', 'Normalisation of images inside the model: by the mean and deviation of '
                                       'ImageNet\'s, as weights from elsewhere expect; or none.',
                           choices=('imagenet', 'none'))


LARGE, SMALL = ('18', '34', '50', '101', '152'), ('20', '32', '44', '56')


@dataclass(frozen=True)
class ResNet(Residual):
    kind = 'resnet'
    size: str = field('20', 'Row of the size table: 20, 32, 44, 56 for images as small as CIFAR\'s; the others for '
                            'ImageNet\'s.', choices=(*SMALL, *LARGE))


@dataclass(frozen=True)
class CenterNet(Residual):
    kind = 'centernet'
    size: str = field('18', 'Row of the ResNet\'s size table.', choices=LARGE)


@dataclass(frozen=True)
class UNet(Residual):
    kind = 'unet'
    size: str = field('18', 'Row of the ResNet\'s size table.', choices=LARGE)


@dataclass(frozen=True)
class DeepLab(Residual):
    kind = 'deeplab'
    size: str = field('50', 'Row of the ResNet\'s size table.', choices=LARGE)


@dataclass(frozen=True)
class Airbench(Model):
    kind = 'airbench'
    width: int = field(48, 'Filters of the first block; the others have 4 times as many. The paper has 64.', least=1,
                       most=2 ** 12)


@dataclass(frozen=True)
class Transformer(Model):
    kind = 'transformer'
    size: str = field('tiny', 'Row of the size table.', choices=('tiny', 'small', 'base', 'big'))
    dropout: float = field(None, 'Dropout rate. Without it, that of the size.', least=0, below=1)
    norm: str = field('pre', 'Position of LayerNorm: pre (before each sub-layer) or post (after it, as in the paper).',
                      choices=('pre', 'post'))
    share_embeddings: bool = field(False, 'One embedding table shared by source, target and logits.')


@dataclass(frozen=True)
class Bert(Model):
    kind = 'bert'
    by_size = 'num_layers', 'd_model', 'd_ff', 'heads'
    left_open = 'size', *by_size, 'positions', 'activation', 'norm_epsilon'
    size: str = field(None, 'Row of the size table. Without it, the size of published `weights`, else tiny.',
                      choices=('tiny', 'mini', 'small', 'medium', 'minilm', 'base', 'large'))
    num_layers: int = field(None, 'Number of layers. Without it, that of the size.', least=1, most=1024)
    d_model: int = field(None, 'Width of the representation. Without it, that of the size.', least=1, most=2 ** 16)
    d_ff: int = field(None, 'Width of the feed-forward networks. Without it, that of the size.', least=1, most=2 ** 18)
    heads: int = field(None, 'Number of attention heads. Without it, that of the size.', least=1, most=1024)
    positions: int = field(None, 'Rows of the table of positions, the longest text in tokens. Without it, those of '
                                 'published `weights`, else 512.', least=2, most=2 ** 16)
    activation: str = field(None, 'Activation of the feed-forward networks: GELU as it is defined, or by tanh, as in '
                                  'the code of BERT. Without it, that of published `weights`, else gelu.',
                            choices=('gelu', 'gelu_tanh'))
    norm_epsilon: float = field(None, 'Constant added to the variance in LayerNorm. Without it, that of published '
                                      '`weights`, else 1e-12.', above=0, below=1)
    dropout: float = field(0.1, 'Dropout rate.', least=0, below=1)

    def idle(self):
        if self.size and None not in (self.num_layers, self.d_model, self.d_ff, self.heads):
            yield 'size', 'does nothing beside `num_layers`, `d_model`, `d_ff` and `heads`'
