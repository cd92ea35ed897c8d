"""Where a run starts from: `--weights=FOLDER` is another run, or holds weights that others published.

Without it the seed decides the weights, and for layers that have a `from_images` the training data do.
"""

import dataclasses

import numpy as np
import safetensors.numpy

from errors import RunError, UserError
from experiment import published
from experiment.workdir import Workdir
from training.checkpoint import Checkpoints
from training.state import hash_arrays, inference_arrays


@dataclasses.dataclass(frozen=True)
class Found:
    """What `weights` holds for a model: {path: array}, their hash, and the paths of the head that it has not.

    what: which weights of that folder they are, in words.
    """
    arrays: dict
    hash: str
    of_the_seed: list
    what: str

    def __str__(self):
        from models.pretrained import some      # Keras, which the verbs import after their flags
        rest = some(self.of_the_seed)
        return f'{self.what}, hash {self.hash[:16]}' + (
            f'; {rest} of the seed, since they are not there in this shape' if self.of_the_seed else '')


def find(trainer, recipe, workdir):
    """The Found that a new run of this recipe starts from, or None. Nothing is changed, nothing asked of other workers.

    Raises:
        UserError: the weights do not fit the model.
    """
    return None if workdir.begun or not recipe.model.weights else _find(trainer, recipe)


def start(trainer, recipe, found, batches):
    """Puts a trainer where its run starts. Returns a line on the weights that it was given, or ''.

    Args:
        found: from `find`. batches: a parts.Batches.

    Raises:
        RunError: a checkpoint does not fit, or workers read other weights. And that of `find`, if `found` is None.
    """
    # 1. This run's newest checkpoint. 2. `weights`. 3. The seed, from which the model was built, and the data.
    trainer.restore(batches.fingerprint)
    if trainer.resumed:
        return ''
    if not recipe.model.weights:
        return _from_data(trainer, batches)
    # Here all workers are at one point: which of them saw checkpoints in the folder may differ, `resumed` does not.
    found = found or _find(trainer, recipe)
    if trainer.devices.from_chief(found.hash.encode()) != found.hash.encode():
        raise RunError(f'`weights` must be the same on every worker; here its hash is {found.hash[:16]}, and not that '
                       f'of the chief. Received: weights={recipe.model.weights!r}')
    trainer.start_from(found.arrays, found.hash)
    return f'{recipe.model.weights}, {found}'


def _from_data(trainer, batches):
    """Gives layers that have a `from_images` their weights: from the first batch, as the model reads it in step 0.

    The chief alone computes them: another processor's eigenvectors may have other last bits.
    """
    import tensorflow as tf  # which the verbs import after their flags
    layers = [layer for layer in trainer.model._flatten_layers() if hasattr(layer, 'from_images')]
    if not layers:
        return ''
    count, found = trainer.training.batch_size, {}
    if trainer.devices.is_chief:
        images = batches.first(count)[0].numpy()
        with tf.device('CPU:0'):
            found = {getattr(layer, name).path: np.ascontiguousarray(value) for layer in layers
                     for name, value in layer.from_images(images).items()}
    found = safetensors.numpy.load(trainer.devices.from_chief(safetensors.numpy.save(found)))
    trainer.start_from(found, '')
    return f'{", ".join(sorted(found))} from the {count:,} images of the first batch'


def check(recipe, workdir):
    """Raises UserError where a run that has no checkpoint yet names weights that it cannot start from."""
    if recipe.model.weights and not workdir.begun and not published.is_published(recipe.model.weights):
        _run(recipe)


def described(recipe, workdir):
    """The recipe of a new run with the fields of its model that `weights` decide, where it leaves them open.

    Raises:
        UserError: they are of a model that is not here.
    """
    model = recipe.model
    left = [name for name in model.left_open if getattr(model, name) is None
            and not (model.size and name in model.by_size)]
    if workdir.begun or not model.weights or not left:
        return recipe
    theirs = (published.options(recipe) if published.is_published(model.weights) else _run(recipe)[1].model.values())
    return recipe.replace(**{name: theirs[name] for name in left if theirs.get(name) is not None})


def tokenizer(recipe, workdir):
    """{file name: bytes}: of the run's own tokenizer, else of that in `weights`; None if there is neither.

    Raises:
        UserError: the recipe asks for another tokenizer than that of `weights`.
    """
    own = workdir.tokenizer()
    if own or workdir.begun or not recipe.model.weights:
        return own
    if published.is_published(recipe.model.weights):
        return published.tokenizer(recipe) or own
    theirs, their_recipe = _run(recipe)
    files = theirs.tokenizer()
    for name in ('tokenizer', 'vocabulary_size') if files else ():
        asked, used = recipe.values().get(name), their_recipe.values().get(name)
        if asked not in ('', 0, used):
            raise UserError(f'`{name}` must be {used!r}, as in the run {theirs.path} of `weights`, whose tokenizer is '
                            f'used. Received: {name}={asked!r}')
    return files


def _run(recipe):
    """(Workdir, Recipe) of the run that `weights` names."""
    folder = recipe.model.weights
    workdir = Workdir(folder)
    if not (workdir.path / 'recipe.json').is_file() or not workdir.begun:
        raise UserError('`weights` must be the folder of a run of train.py that has a checkpoint, or hold '
                        f'{published.FILE}. Received: weights={folder!r}')
    theirs = workdir.recipe()
    if theirs.model.kind != recipe.model.kind:
        raise UserError(f'`weights` must be a run of the model {recipe.model.kind}; {folder} is one of '
                        f'{theirs.model.kind}. Received: weights={folder!r}')
    return workdir, theirs


def _find(trainer, recipe):
    from models.pretrained import match  # Keras, which the verbs import after their flags
    shapes = {v.path: v.shape for v in trainer.model.weights}
    if published.is_published(recipe.model.weights):
        arrays, of_the_seed, layout = published.find(recipe, shapes)
        return Found(arrays, hash_arrays(arrays), of_the_seed, f'named as by {layout}')
    received = f'Received: weights={recipe.model.weights!r}'
    workdir, theirs = _run(recipe)
    newest = Checkpoints(workdir.checkpoints, recipe=theirs.to_json()).newest()
    if newest is None:
        raise UserError(f'`weights` must be a run with a checkpoint that is not broken. {received}')
    # Averaged weights where there are any.
    arrays = {name.removeprefix('model/'): value for name, value in inference_arrays(newest[0]).items()}
    try:
        arrays, of_the_seed = match(shapes, arrays)
    except ValueError as error:
        raise UserError(f'`weights` must fit the model: {error}. {received}') from None
    return Found(arrays, hash_arrays(arrays), of_the_seed, f'step {newest[1]["step"]:,}')
