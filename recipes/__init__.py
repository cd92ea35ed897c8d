"""One file per published result, but for those in NOT_RUN; a file in this folder is its own registration.

A recipe is found by its name, by the path of a file of your own, or by its model, task and dataset.
"""

import dataclasses
import importlib
import pathlib
import pkgutil
import traceback

from errors import UserError, lookup
from settings import Recipe
from settings.recipe import SECTIONS

NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__))
# What `--model=NAME` alone trains, where that is not the first of its recipes.
FIRST = {'mlp': 'mlp_digits', 'resnet': 'resnet_fashion_mnist', 'transformer': 'transformer_number_words',
         'bert': 'bert_mlm_pydoc', 'centernet': 'detector_fashion_scenes', 'unet': 'unet_fashion_scenes'}
# Recipes without a stored result: nobody has run them here.
NOT_RUN = ('airbench_cifar10', 'bert_mlm_imdb', 'bert_mlm_pydoc', 'bert_squad', 'bert_sst2', 'centernet_coco',
           'deeplab_pets', 'resnet_cifar10', 'resnet_imagenet', 'unet_camvid', 'unet_fashion_scenes')


def load(name):
    """Returns (name, Recipe) of a recipe in this folder, or of a user's own: a path that ends in .py."""
    if name.endswith('.py'):
        return pathlib.Path(name).stem, _load_file(name)
    lookup(dict.fromkeys(NAMES), name, 'recipe')
    return name, importlib.import_module(f'recipes.{name}').RECIPE


def find(recipe=None, model=None, task=None, dataset=None):
    """Returns (name, Recipe): the one named; else that of model, task and dataset; else the model's default.

    A task that no recipe of the model has takes the place of the task in the model's recipe for the dataset.

    Raises:
        UserError: there is none, or the one named is of another model or task.
    """
    if recipe is None and model is None:
        raise UserError(f'`--model` or `--recipe` must say what to train. Models: {", ".join(DEFAULT)}; '
                        f'recipes: {", ".join(NAMES)}')
    for section, given in (('model', model), ('task', task)):
        if given is not None:
            lookup(SECTIONS[section], given, section)
    name, found = load(_best(model, task, dataset) if recipe is None else recipe)
    if recipe is None and task not in (None, found.task.kind) and dataset == found.data.dataset:
        name, found = f'{name},task={task}', dataclasses.replace(found, task=SECTIONS['task'][task]())
    for section, given in (('model', model), ('task', task)):
        kind = getattr(found, section).kind
        if given not in (None, kind):
            raise UserError(f'`{section}` of recipe {name} is {kind}: another one needs another recipe. '
                            f'Received: {section}={given!r}')
    return name, found


def _best(model, task, dataset):
    """The name of the recipe that fits best. A task or dataset that none has falls back to what the model has."""
    if model not in DEFAULT:
        raise UserError('`model` must have a recipe in recipes/, or --recipe one of your own. '
                        f'Received: model={model!r}')
    default = DEFAULT[model]
    recipes = {name: load(name)[1] for name in [default, *NAMES]}
    own = [name for name, r in recipes.items() if r.model.kind == model]
    fits = [name for name in own if task in (None, recipes[name].task.kind)]
    return next((name for name in fits or own if recipes[name].data.dataset == dataset), (fits or own)[0])


def _defaults():
    """{model: the name of the recipe that `--model` alone trains}, for the models that have one."""
    names = {}
    for name in NAMES:
        names.setdefault(load(name)[1].model.kind, name)
    return {model: FIRST.get(model, names[model]) for model in SECTIONS['model'] if model in names}


def inherited(name, recipe, given):
    """One line on what a recipe made for another dataset keeps, or None.

    Args:
        given: {field: value} of the fields that are given beside the recipe.
    """
    if given.get('dataset', recipe.data.dataset) == recipe.data.dataset:
        return None
    kept = [f'{field}={value}' for field, value in recipe.data.changed().items()
            if field != 'dataset' and field not in given]
    if not kept:
        return None
    listed = ', '.join(kept[:-1]) + ' and ' + kept[-1] if len(kept) > 1 else kept[0]
    return f'recipe {name} was made for {recipe.data.dataset}; {listed} {"are" if len(kept) > 1 else "is"} kept'


def _load_file(path):
    """The RECIPE of a user's file. It is run without being imported, which would leave compiled files beside it."""
    try:
        code = compile(pathlib.Path(path).read_bytes(), path, 'exec')
        names = {'__name__': pathlib.Path(path).stem, '__file__': path}
        exec(code, names)
    except OSError as error:
        raise UserError(f'`recipe` must be a name or a file that can be read ({error.strerror}). '
                        f'Received: recipe={path!r}') from None
    except Exception as error:
        raise UserError(f'{path}, line {_line(error, path)}: {_message(error)}') from None
    recipe = names.get('RECIPE')
    if not isinstance(recipe, Recipe):
        raise UserError(f'{path} must define RECIPE = Recipe(data=..., model=..., task=..., training=...). '
                        f'Received: {"nothing" if recipe is None else type(recipe).__name__}')
    return recipe


def _line(error, path):
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else 1


def _message(error):
    text = ' '.join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'


DEFAULT = _defaults()
