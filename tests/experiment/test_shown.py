"""Hyperparameters for TensorBoard; tests/test_front_doors.py has the rest of what a run shows."""

from tensorboard.plugins.hparams import metadata, summary

import recipes
from experiment.shown import hyperparameters


def test_every_field_that_has_a_value_is_a_hyperparameter():
    recipe = recipes.load('transformer_number_words')[1].replace(dataset='files/b\udcffd', ema=0.5)     # no UTF-8
    values = hyperparameters(recipe)
    expected = {'model': 'transformer', 'task': 'translation', **recipe.values(), 'dataset': 'files/b\ufffdd'}
    assert recipe.model.dropout is None and 'dropout' not in values
    assert values == {name: value for name, value in expected.items() if value is not None}
    written = summary.session_start_pb(values).value[0].metadata.plugin_data.content
    assert metadata.parse_session_start_info_plugin_data(written).hparams['ema'].number_value == 0.5
