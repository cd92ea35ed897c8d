"""The picture of what a Transformer looked at."""

import numpy as np
import pytest

from errors import UserError
from interpretability.attention import cross_attention
from interpretability.pictures import draw_attention
from models.transformer import Transformer
from tests.opened import opened


@pytest.fixture(scope='module')
def looked_at():
    _, task = opened('number_words', 'translation')
    model = Transformer(*task.sizes.values(), num_layers=2, d_model=16, d_ff=32, heads=4)
    model.build({'source': (None, None), 'source_mask': (None, None), 'target': (None, None)})
    return model, task


def test_attention_is_of_real_tokens_and_a_distribution(looked_at):
    model, task = looked_at
    layers, targets, sources = cross_attention(model, task, 'two thousand and six')
    assert sources == ['two', 'thousand', 'and', 'six', '</s>']
    assert layers.shape == (2, len(targets), 5) and 0 < len(targets) <= task.target.length
    np.testing.assert_allclose(layers.sum(axis=-1), 1, atol=1e-5)
    assert np.ptp(layers, axis=-1).max() > 1e-6


@pytest.mark.parametrize('format, beginning', [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')])
def test_a_picture_has_the_format_that_its_name_asks_for(looked_at, format, beginning):
    assert draw_attention(*cross_attention(*looked_at, 'six'), format).startswith(beginning)


def test_an_unknown_format_is_one_line(looked_at):
    with pytest.raises(UserError, match='`attention` must be a file that ends in one of .*png.*Received: no ending'):
        draw_attention(*cross_attention(*looked_at, 'six'), '')
