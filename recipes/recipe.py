"""The Recipe: everything that decides a run's result. Where and how fast it runs is decided by flags, not here.

A run is a pure function of (recipe, seed), so a recipe is frozen, typed, printed and saved as `workdir/recipe.json`.
`train.py` makes one flag of each field; the comment strings in `help` are what `--help` shows.
"""

import dataclasses
import json

from errors import UserError


def field(default, help):
    return dataclasses.field(default=default, metadata={'help': help})


@dataclasses.dataclass(frozen=True)
class Recipe:
    # What is learned
    model: str = field('', 'Architecture: mlp, cnn, lstm or transformer. Alone, it picks that model\'s default recipe.')
    size: str = field('', 'Row of the model\'s size table (transformer: tiny, small, base, big). Empty: the only size.')
    task: str = field('classification', 'What the output means: classification, regression or translation.')
    dataset: str = field('digits', 'Dataset: digits, diabetes, number_words, fashion_mnist, gettext/LANG, files/FOLDER '
                                   '(images by class, or two texts), or any TensorFlow Datasets name.')
    vocabulary_size: int = field(0, 'Subwords that source and target share, for texts without words of their own; 0 is '
                                    '8,000.')
    max_length: int = field(0, 'Tokens at which each side of such a pair is cut; 0 is 64.')
    packing: bool = field(False, 'Put several pairs into one row of `max_length` tokens in training; `batch_size` then '
                                 'counts rows.')
    tokenizer: str = field('', 'words or subwords')
    units: int = field(0, 'LSTM units')
    bidirectional: bool = field(False, 'LSTM')
    image_size: int = field(0, 'Side in pixels to which images are resized; 0 keeps the dataset\'s own size.')
    channels: int = field(0, 'Colour channels (1 grey, 3 RGB) to which images are converted; 0 keeps the dataset\'s.')
    augment: str = field('none', 'Random transform of training images: none, shift, flip, or flip_shift.')
    # The model's own
    share_embeddings: bool = field(False, 'One table for source, target and logits, of Transformers.')
    norm: str = field('', 'Of Transformers: pre or post (the paper\'s). Empty: the model\'s own.')
    # How much
    batch_size: int = field(128, 'Global batch: examples a step over all replicas, which must divide it.')
    steps: int = field(0, 'Training steps. Give either steps or epochs.')
    epochs: float = field(0., 'Training length in passes over the training split. Give either steps or epochs.')
    # Optimizer
    optimizer: str = field('adam', 'Any optimizer of Keras by name: sgd, adam, adamw, rmsprop, lion, muon, ...')
    learning_rate: float = field(1e-3, 'Peak learning rate.')
    schedule: str = field('constant', 'Learning rate after the warm-up: constant, cosine or inverse_sqrt.')
    warmup_steps: int = field(0, 'Steps in which the learning rate grows linearly from 0 to its peak.')
    momentum: float = field(0., 'Momentum, for sgd and rmsprop.')
    nesterov: bool = field(False, 'Nesterov\'s form of momentum, for sgd.')
    beta_2: float = field(0., 'Adam\'s decay of the mean of squared gradients; 0 is Keras\'s.')
    epsilon: float = field(0., 'Added to Adam\'s denominator; 0 is Keras\'s.')
    weight_decay: float = field(0., 'Decoupled weight decay of matrices and kernels (not of biases and norms).')
    clip_norm: float = field(0., 'Limit on the global norm of the averaged gradient; 0 is no limit.')
    ema: float = field(0., 'Momentum of an exponential moving average of the weights, used by evaluation and export; '
                           '0 is none.')
    average_last: int = field(0, 'Checkpoints, at the run\'s end, whose mean weights evaluation and export use; 0 is '
                                 'none.')
    average_every: int = field(0, 'Steps between the checkpoints of `average_last`.')
    accumulate: int = field(1, 'Micro-batches in which the global batch is computed, spread over the replicas. They '
                               'save memory; and a run has the same bits on any number of replicas that divides them.')
    # Regularisation and numbers
    dropout: float = field(-1., 'Dropout rate of models that have one; -1 keeps the model\'s own.')
    label_smoothing: float = field(0., 'Probability mass given to all classes alike in the training loss.')
    precision: str = field('auto', 'Computation: float32, bfloat16, float16 (weights stay float32), or auto: bfloat16 '
                                   'on a TPU, float32 elsewhere; a run that goes on keeps what it began with.')
    seed: int = field(0, 'Seed of weights, data order, augmentation and dropout.')
    # Decoding, in evaluation and export
    beam_size: int = field(1, 'Hypotheses that beam search keeps in translation; 1 is greedy.')
    length_penalty: float = field(0.6, 'Exponent of beam search\'s length penalty, arXiv:1609.08144, equation 14.')
    # When
    eval_every: int = field(0, 'Steps between evaluations on the validation split; 0 is only at the end.')

    def __post_init__(self):
        for f in dataclasses.fields(self):
            check_type(f, getattr(self, f.name))
        for name, rule, holds in self._rules():
            if not holds:
                raise UserError(f'`{name}` {rule}. Received: {name}={getattr(self, name)!r}')

    def _rules(self):
        """(field, rule, whether it holds) for every rule that needs no dataset and no device."""
        yield 'batch_size', 'must be at least 1', self.batch_size >= 1
        yield 'accumulate', 'must be at least 1', self.accumulate >= 1
        yield 'accumulate', f'must divide `batch_size` ({self.batch_size})', self.batch_size % self.accumulate == 0
        yield 'steps', 'must not be negative', self.steps >= 0
        yield 'epochs', 'must not be negative', self.epochs >= 0
        yield 'epochs', f'and `steps` exclude each other (steps={self.steps})', not (self.steps and self.epochs)
        yield 'steps', 'or `epochs` must say how long to train', bool(self.steps or self.epochs)
        yield 'learning_rate', 'must be positive', self.learning_rate > 0
        yield 'beam_size', 'must be at least 1', self.beam_size >= 1
        both = bool(self.average_last) == bool(self.average_every)
        yield 'average_every', f'and `average_last` ({self.average_last}) go together', both
        one = not (self.average_last and self.ema)
        yield 'ema', f'and `average_last` ({self.average_last}) exclude each other', one
        for name in ('vocabulary_size', 'max_length', 'image_size', 'warmup_steps', 'epsilon', 'weight_decay',
                     'clip_norm', 'average_last', 'average_every', 'seed', 'length_penalty', 'eval_every'):
            yield name, 'must not be negative', getattr(self, name) >= 0
        for name in ('momentum', 'beta_2', 'ema', 'label_smoothing'):
            yield name, 'must be in [0, 1)', 0 <= getattr(self, name) < 1
        yield 'dropout', 'must be in [0, 1), or -1 for the model\'s own', self.dropout == -1 or 0 <= self.dropout < 1
        yield 'channels', 'must be 0, 1 or 3', self.channels in (0, 1, 3)
        for name, known in CHOICES.items():
            yield name, f'must be one of {", ".join(known)}', getattr(self, name) in known

    def replace(self, **overrides):
        """The recipe with some fields changed. `steps` and `epochs` replace each other."""
        if overrides.get('steps') and 'epochs' not in overrides:
            overrides['epochs'] = 0.
        if overrides.get('epochs') and 'steps' not in overrides:
            overrides['steps'] = 0
        return dataclasses.replace(self, **overrides)

    def resolved(self, kind):
        """The recipe without `auto`, for the kind of hardware: cpu, gpu or tpu."""
        precision = 'bfloat16' if kind == 'tpu' else 'float32'
        return self.replace(precision=precision) if self.precision == 'auto' else self

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + '\n'

    @classmethod
    def from_json(cls, text):
        values = json.loads(text)
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f'`recipe` has fields that this version does not know. Received: {", ".join(unknown)}')
        return cls(**values)


CHOICES = {'norm': ('', 'pre', 'post'), 'schedule': ('constant', 'cosine', 'inverse_sqrt'),
           'precision': ('auto', 'float32', 'bfloat16', 'float16')}


def check_type(f, value):
    ok = isinstance(value, f.type) and not (f.type is int and isinstance(value, bool))
    if not ok and not (f.type is float and isinstance(value, int)):
        raise UserError(f'`{f.name}` must be of type {f.type.__name__}. Received: {f.name}={value!r}')


def differences(saved, wanted):
    """'field: saved there, wanted here' for each field in which two recipes differ."""
    return [f'{f.name}: {getattr(saved, f.name)!r} there, {getattr(wanted, f.name)!r} here'
            for f in dataclasses.fields(Recipe) if getattr(wanted, f.name) not in (getattr(saved, f.name), 'auto')]
