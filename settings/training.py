"""How a model is trained: the same fields for every dataset, model and task."""

from dataclasses import dataclass

from settings.fields import Section, field

STEPS = 10 ** 9                 # more than any run has
BATCH_SIZE = 2 ** 24            # preflight's search for the largest batch goes this far


@dataclass(frozen=True)
class Training(Section):
    # Length
    batch_size: int = field(128, 'Global batch size: examples per step over all replicas, whose number must divide it.',
                            least=1, most=BATCH_SIZE)
    steps: int = field(0, 'Training length in steps. Give either steps or epochs.', least=0, most=STEPS)
    epochs: float = field(0., 'Training length in passes over the training split. Give either steps or epochs.',
                          least=0, most=10 ** 6)
    eval_every: int = field(0, 'Steps between evaluations on the validation split. 0 evaluates only at the end.',
                            least=0, most=STEPS)
    # Optimizer
    optimizer: str = field('adam', 'Name of any optimizer of Keras: sgd, adam, adamw, rmsprop, lion, muon, ...')
    learning_rate: float = field(1e-3, 'Peak learning rate.', above=0, most=1e30)     # float32 ends at 3e38
    schedule: str = field('constant', 'Learning rate after the warm-up; cosine and linear end at 0.',
                          choices=('constant', 'cosine', 'linear', 'inverse_sqrt'))
    warmup_steps: int = field(0, 'Steps in which the learning rate grows linearly from 0 to its peak.', least=0,
                              most=STEPS)
    momentum: float = field(0., 'Momentum of sgd and rmsprop.', least=0, below=1)
    nesterov: bool = field(False, 'Nesterov momentum of sgd.')
    beta_2: float = field(0., 'Decay rate of Adam\'s mean of squared gradients. 0 means Keras\'s default.', least=0,
                          below=1)
    epsilon: float = field(0., 'Constant added to Adam\'s denominator. 0 means Keras\'s default.', least=0,
                           most=10 ** 6)
    weight_decay: float = field(0., 'Decoupled weight decay of matrices and kernels (not of biases and norms).',
                                least=0, most=10 ** 6)
    clip_norm: float = field(0., 'Maximum global norm of the averaged gradient. 0 means no limit.', least=0,
                             most=10 ** 9)
    ema: float = field(0., 'Momentum of an exponential moving average of the weights, which evaluation and export use. '
                           '0 means none.', least=0, below=1)
    average_last: int = field(0, 'Number of last checkpoints whose mean weights evaluation and export use. 0 means '
                                 'none.', least=0, most=STEPS)
    average_every: int = field(0, 'Steps between the checkpoints of `average_last`.', least=0, most=STEPS)
    # Numbers
    accumulate: int = field(1, 'Number of micro-batches in which the global batch is computed, spread over the '
                               'replicas. They save memory, and a run ends with the same bits on any number of '
                               'replicas that divides them.', least=1, most=BATCH_SIZE)
    precision: str = field('auto', 'Precision of the computation; weights stay float32. auto means bfloat16 on a TPU '
                                   'and on GPUs of compute capability 8.0 or more, and float32 elsewhere; a resumed '
                                   'run keeps what it began with.',
                           choices=('auto', 'float32', 'bfloat16', 'float16'))
    seed: int = field(0, 'Seed of weights, data order, augmentation and dropout.', least=0, most=2 ** 31 - 1)

    def rules(self):
        yield 'accumulate', f'must divide `batch_size` ({self.batch_size})', self.batch_size % self.accumulate == 0
        yield 'epochs', f'and `steps` exclude each other (steps={self.steps})', not (self.steps and self.epochs)
        yield 'steps', 'or `epochs` must say how long to train', bool(self.steps or self.epochs)
        yield 'nesterov', 'needs `momentum`', self.momentum or not self.nesterov
        both = bool(self.average_last) == bool(self.average_every)
        yield 'average_every', f'and `average_last` ({self.average_last}) go together', both
        one = not (self.average_last and self.ema)
        yield 'ema', f'and `average_last` ({self.average_last}) exclude each other', one
