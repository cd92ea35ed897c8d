"""What a checkpoint must hold for a model to take it."""

import keras
import numpy as np
import pytest

from errors import RunError
from training.state import TrainState


def make():
    return TrainState(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name='d')], name='m'))


KERNEL, BIAS = 'model/m/d/kernel', 'model/m/d/bias'


@pytest.mark.parametrize('change, problem', [
    (lambda a: a.pop(KERNEL), f'{KERNEL} is only here'),
    (lambda a: a.clear(), f'{BIAS} is only here, and 1 more'),
    (lambda a: a.update(extra=a[BIAS]), 'extra is only there'),
    (lambda a: a.update({'average/m/e/kernel': a[KERNEL]}), 'average/m/e/kernel is only there'),
    (lambda a: a.update({KERNEL: a[KERNEL].T}), rf'{KERNEL} is float32 \[2, 3\] there, float32 \[3, 2\] here'),
    (lambda a: a.update({'average/m/d/kernel': a[BIAS]}), r'average/m/d/kernel is float32 \[2\] there, .* here'),
    (lambda a: a.update({BIAS: a[BIAS].astype('float64')}), rf'{BIAS} is float64 \[2\] there, float32 \[2\] here')])
def test_arrays_of_another_model_are_refused_and_change_nothing(change, problem):
    state = make()
    before = state.sha256()
    arrays = {name: array + 1 for name, array in state.arrays().items()}
    change(arrays)
    with pytest.raises(RunError, match=f'^checkpoint FILE does not fit this run: {problem}$'):
        state.restore(arrays, 'checkpoint FILE')
    assert state.sha256() == before


def test_arrays_of_this_model_are_taken_with_the_mean_of_checkpoints():
    state = make()
    arrays = {name: array + 1 for name, array in state.arrays().items()}
    arrays['average/m/d/kernel'] = np.ones([3, 2], np.float32)
    state.restore(arrays)
    for name, array in state.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
