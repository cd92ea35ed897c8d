"""A run's folder: whose it is, what is in it, and whether it is finished. Needs no TensorFlow.

    recipe.json  tokenizer.model  checkpoints/  metrics.jsonl  tensorboard/  export/1/  results.json
"""

import json
import pathlib

from errors import UserError
from recipes.recipe import Recipe, differences
from training.checkpoint import write_atomically


def default_workdir(name, overrides):
    """runs/NAME, with the overridden fields, so that two experiments do not meet in one folder."""
    changed = ''.join(f',{field}={value}' for field, value in sorted(overrides.items()))
    return 'runs/' + (name + changed).replace('/', '_')


class Workdir:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.checkpoints, self.export = self.path / 'checkpoints', self.path / 'export' / '1'

    def recipe(self):
        """The recipe of the run in this folder.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        file = self.path / 'recipe.json'
        if not file.exists():
            raise UserError(f'`workdir` must hold a run, made by train.py; {file} is missing. '
                            f'Received: workdir={str(self.path)!r}')
        try:
            return Recipe.from_json(file.read_text(encoding='utf-8'))
        except (ValueError, TypeError) as error:
            raise UserError(f'{file} is not a recipe: {error}') from None

    def tokenizer(self):
        """The bytes of the run's subword model, or None."""
        file = self.path / 'tokenizer.model'
        return file.read_bytes() if file.exists() else None

    def claim(self, recipe, tokenizer=None):
        """Makes the folder the recipe's own; refuses one of another recipe, and leaves it as it was.

        Args:
            tokenizer: the bytes of the subword model that was trained for the run, if any.
        """
        self.check(recipe)
        self.path.mkdir(parents=True, exist_ok=True)
        if tokenizer and self.tokenizer() is None:
            write_atomically(self.path / 'tokenizer.model', tokenizer)
        if not (self.path / 'recipe.json').exists():
            write_atomically(self.path / 'recipe.json', recipe.to_json().encode())

    def check(self, recipe):
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'`workdir` must be a folder. Received: workdir={str(self.path)!r}')
        if (self.path / 'recipe.json').exists():
            different = differences(self.recipe(), recipe)
            if different:
                raise UserError(f'`workdir` {self.path} belongs to another recipe ({"; ".join(different)}). '
                                'Choose another --workdir, or remove that folder')

    def resumed_recipe(self, recipe):
        """`recipe`, with what the run in this folder has already decided for `auto`."""
        return self.recipe() if (self.path / 'recipe.json').exists() else recipe

    def results(self):
        """results.json of a finished run, else None."""
        file = self.path / 'results.json'
        return json.loads(file.read_text(encoding='utf-8')) if file.exists() else None

    def finish(self, results):
        write_atomically(self.path / 'results.json', (json.dumps(results, indent=2) + '\n').encode())
