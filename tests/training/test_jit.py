import pytest

import models
from errors import UserError
from training.jit import use_jit


@pytest.mark.parametrize('hardware', ['cpu', 'gpu', 'tpu'])
@pytest.mark.parametrize('model', models.MODELS)
def test_auto_decides_for_every_model_and_says_why(model, hardware):
    chosen, reason = use_jit('auto', model, hardware)
    assert isinstance(chosen, bool) and reason
    assert not (chosen and (hardware == 'tpu' or model == 'cnn'))


def test_a_user_is_obeyed_but_on_a_tpu():
    assert use_jit('on', 'lstm', 'cpu')[0] and not use_jit('off', 'mlp', 'cpu')[0]
    assert not use_jit('on', 'mlp', 'tpu')[0]


def test_the_tpu_wheel_has_no_xla_for_the_cpu(tmp_path, monkeypatch):
    (tmp_path / 'tensorflow_tpu-2.20.0.dist-info').mkdir()
    (tmp_path / 'tensorflow_tpu-2.20.0.dist-info' / 'METADATA').write_text('Name: tensorflow_tpu\nVersion: 2.20.0\n')
    monkeypatch.syspath_prepend(tmp_path)
    chosen, reason = use_jit('auto', 'mlp', 'cpu')
    assert not chosen and 'no XLA for the CPU' in reason
    assert use_jit('off', 'mlp', 'cpu') == (False, 'asked for')
    with pytest.raises(UserError, match='`jit` on needs XLA for the CPU, .* Received: jit=on'):
        use_jit('on', 'mlp', 'cpu')
