"""The cases of benchmarks/hazards.py: models, data and optimizers that `model.fit` and our loop are both given."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from settings import MLP, Recipe, Regression, Training, Vectors

UNITS = 1000           # of the dropout case
FLOAT16_MAX = 65504
SEED = 1
# Several steps on real data (10 measurements of 310 patients), where a case needs no numbers worked out on paper.
DIABETES = Recipe(data=Vectors('diabetes'), model=MLP(), task=Regression(),
                  training=Training(batch_size=32, steps=40, optimizer='adam', learning_rate=0.01, eval_every=10))


@dataclasses.dataclass(frozen=True)
class Case:
    """SGD on the mean squared error over a few rows, in order, as often as `epochs` says."""
    build: Callable        # function () -> Keras model with one output
    x: np.ndarray          # float32 [N, F]
    y: np.ndarray          # float32 [N]
    batch_size: int
    learning_rate: float
    weights: np.ndarray | None = None      # float32 [N]; 0 is padding
    epochs: int = 1


def linear(initial='zeros', size=1, dtype='float32', before=()):
    """y = w x, behind the layers of `before`."""
    w = keras.layers.Dense(1, use_bias=False, kernel_initializer=initial, dtype=dtype, name='w')
    return keras.Sequential([keras.layers.Input((size,)), *before, w], name='linear')


def clipping():
    """Gradients of +10 on the first replica's rows and -8 on the second's: their mean is 1, as long as its limit."""
    return Case(linear, np.ones([4, 1], np.float32), np.float32([-5, -5, 4, 4]), batch_size=4, learning_rate=1.)


def dropout(layer):
    """One step on two rows of ones, one row per replica, after which w = mask of row 0 + 2 * mask of row 1."""
    return Case(lambda: linear(size=UNITS, before=[layer(0.5, seed=SEED, name='dropout')]),
                np.ones([2, UNITS], np.float32), np.float32([1, 2]), batch_size=2, learning_rate=0.5)


def masks(w):
    """The weights after the dropout case -> the masks of its two rows, bool [2, UNITS]."""
    codes = np.round(np.ravel(w)).astype(int)
    return np.stack([codes & 1, codes & 2]).astype(bool)


# (name, row that overflows, devices): rows 0 and 1 are the first replica's, 2 and 3 the second's.
OVERFLOWS = (('one', 3, 'one'), ('first', 0, 'two'), ('second', 3, 'two'))


def overflow(row):
    """Two steps; in the first, this row of four is too large for float16."""
    x = np.full([8, 1], 0.25, np.float32)
    x[row] = 2 * FLOAT16_MAX
    return Case(lambda: linear('ones', dtype='mixed_float16'), x, np.zeros(8, np.float32), batch_size=4,
                learning_rate=0.1)


def partial_batch():
    """9 rows in batches of 8."""
    x = np.arange(9, dtype=np.float32)[:, None] / 9
    return Case(lambda: linear('ones'), x, 2 * x[:, 0], batch_size=8, learning_rate=0.1)


def padded_batch():
    """4 real rows on the first replica, 1 on the second."""
    x = np.arange(8, dtype=np.float32)[:, None] / 8
    return Case(lambda: linear('ones'), x, 2 * x[:, 0], batch_size=8, learning_rate=0.1,
                weights=np.float32([1, 1, 1, 1, 1, 0, 0, 0]))


def batch_norm(layer):
    """Rows in order of size, so that the replicas see different means."""
    x = np.arange(8, dtype=np.float32)[:, None] / 8

    def build():
        return linear('ones', before=[layer(momentum=0.5, name='norm')])
    return Case(build, x, 2 * x[:, 0], batch_size=8, learning_rate=0.1, epochs=10)


def net(dropout_layer):
    """The model for DIABETES."""
    keras.utils.set_random_seed(SEED)
    return keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(32, activation='relu', name='hidden'),
                             dropout_layer(0.3, name='dropout'), keras.layers.Dense(1, name='output')], name='net')


def max_difference(some, others):
    """The largest absolute difference between two lists of arrays; nan if there is one."""
    return float(np.max([np.max(np.abs(a - b)) for a, b in zip(some, others, strict=True)]))


def as_text(numbers):
    """One for each replica; as text, because JSON has no inf and no nan."""
    return ' and '.join(f'{number:.4f}' for number in numbers)


def copies(variable):
    """Each replica's copy of a Keras variable."""
    return [np.array(value) for value in getattr(variable.value, 'values', (variable.value,))]
