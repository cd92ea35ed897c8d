"""One file a published result. A recipe is found by its name, or by its model (and dataset)."""

from errors import UserError, lookup
from recipes import (cnn_digits, cnn_fashion_mnist, lstm_digits, lstm_fashion_mnist, mlp_diabetes, mlp_digits,
                     mlp_fashion_mnist, transformer_gettext_de, transformer_number_words)
from recipes.options import Options
from recipes.recipe import Recipe

RECIPES = {
    'mlp_digits': mlp_digits.RECIPE,
    'mlp_fashion_mnist': mlp_fashion_mnist.RECIPE,
    'mlp_diabetes': mlp_diabetes.RECIPE,
    'cnn_digits': cnn_digits.RECIPE,
    'cnn_fashion_mnist': cnn_fashion_mnist.RECIPE,
    'lstm_digits': lstm_digits.RECIPE,
    'lstm_fashion_mnist': lstm_fashion_mnist.RECIPE,
    'transformer_gettext_de': transformer_gettext_de.RECIPE,
    'transformer_number_words': transformer_number_words.RECIPE,
}

# What `--model=NAME` alone trains.
DEFAULT = {'mlp': 'mlp_digits', 'cnn': 'cnn_digits', 'lstm': 'lstm_digits',
           'transformer': 'transformer_number_words'}


def find(recipe=None, model=None, dataset=None):
    """Returns (name, Recipe): the one named, else that of (model, dataset), else the model's default recipe."""
    if recipe:
        return recipe, lookup(RECIPES, recipe, 'recipe')
    if not model:
        raise UserError(f'`--model` or `--recipe` must say what to train. Models: {", ".join(DEFAULT)}; '
                        f'recipes: {", ".join(RECIPES)}')
    default = lookup(DEFAULT, model, 'model')
    for name, candidate in RECIPES.items():
        if (candidate.model, candidate.dataset) == (model, dataset):
            return name, candidate
    return default, RECIPES[default]
