import pytest

import models
from training.jit import use_jit


@pytest.mark.parametrize('kind', ['cpu', 'gpu', 'tpu'])
@pytest.mark.parametrize('model', models.MODELS)
def test_auto_decides_for_every_model_and_says_why(model, kind):
    chosen, reason = use_jit('auto', model, kind)
    assert isinstance(chosen, bool) and reason
    assert not (chosen and (kind == 'tpu' or model == 'cnn'))


def test_a_user_is_obeyed_but_on_a_tpu():
    assert use_jit('on', 'lstm', 'cpu')[0] and not use_jit('off', 'mlp', 'cpu')[0]
    assert not use_jit('on', 'mlp', 'tpu')[0]
