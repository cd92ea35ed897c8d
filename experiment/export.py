"""A trained model as a SavedModel: raw inputs in, named outputs out, all preprocessing inside the graph."""

import math
import pathlib

import numpy as np
import tensorflow as tf

from errors import RunError, quiet_stderr
from experiment import warm_up
from experiment.formats.plain import without_cudnn
from experiment.trained import inference_model
from training.files import whole_folder

EXPORT_CHECKED = 64     # test examples on which an export is compared with its model
TOLERANCE = 1e-4     # probabilities; the same kernels run on both sides, in another batch size
NEAR_TIES = 1e-4     # share of masks' pixels, rounded up, whose class may differ: two classes are equally likely there


def export_run(workdir, recipe, trainer, dataset):
    """Exports a run's newest checkpoint, and compares it with the trained model. Both are rebuilt without a strategy,
    one from the checkpoint and one from the variables that were trained: raw inputs need the host."""
    arrays, _ = trainer.checkpoints.newest()
    with trainer.devices.on_host():
        saved, trained = (inference_model(recipe, trainer.task, a) for a in (arrays, trainer.state.arrays()))
        return write_checked(workdir.export, saved, trained, dataset, trainer.task)


def write_checked(folder, model, reference, dataset, task):
    """Writes `model`, built without a strategy, as a SavedModel. Returns its largest difference from `reference`.

    Raises:
        RunError: it cannot be written, or differs, see max_abs_difference. The folder is then what it was before.
    """
    def check(written):
        examples = dataset.test.gather(tf.range(min(EXPORT_CHECKED, dataset.test.num_examples), dtype=tf.int64))
        differences.append(max_abs_difference(written, reference, task, examples, folder))
        first = {name: value[:1] for name, value in examples.items()}
        warm_up.write(written, task.serving(model), task.served_inputs(first))
    differences = []
    export_saved_model(model, task, folder, check)
    return differences[0]


class Served(tf.Module):
    """What is saved: the variables that the functions read, and their look-up tables.

    Not the Keras model: a module that holds one saves other variables than its functions read, and a Session, which is
    how TensorFlow Serving and the C, Java and Go interfaces load, then finds none (TensorFlow 2.21, Keras 3.15).
    """

    def __init__(self, model, task):
        super().__init__()
        without_cudnn(model)
        self.variables_ = [getattr(variable, 'value', variable) for variable in model.weights]
        self.tables = list(task.tables)
        self.signatures_ = {name: tf.function(function, input_signature=specs)
                            for name, (function, specs) in task.serving(model).items()}


def export_saved_model(model, task, folder, check=None):
    """Writes `folder` (TensorFlow Serving wants a number for a name), replacing it only when all is written.

    check: function (path of what was written), which raises if it must not replace the folder.
    """
    served = Served(model, task)
    with whole_folder(folder, 'the SavedModel') as new:      # its name is no number: a server does not load it
        try:
            tf.saved_model.save(served, str(new), signatures=served.signatures_)
            if check:
                check(new)
        except tf.errors.OpError as error:
            # 'PATH; No space left on device [Op:SaveV2]', after the names of the operation and its device
            raise OSError(' '.join(error.message.rpartition('; ')[2].partition(' [Op:')[0].split())) from None
    return pathlib.Path(folder)


def max_abs_difference(folder, model, task, examples, name=None):
    """Largest difference between the outputs of a SavedModel and the model's own, over raw examples of a source.

    All outputs of all signatures are compared, as Python loads the SavedModel and as a Session does.
    name: of the SavedModel in messages, by default `folder`.

    Raises:
        RunError: a number differs by more than TOLERANCE, or anything else at all; or the SavedModel cannot be run.
    """
    inputs, largest = task.served_inputs(examples), 0.
    for signature, (function, specs) in task.serving(model).items():
        raw = {spec.name: value for spec, value in zip(specs, inputs[signature], strict=True)}
        ours = task.comparable({name: value.numpy() for name, value in function(*raw.values()).items()})
        for loader, load in (('Python', _by_python), ('a Session', _by_session)):
            where = f'the SavedModel for {name or folder}, loaded by {loader}'
            try:
                theirs = task.comparable(load(folder, signature, raw))
            except tf.errors.OpError as error:
                raise RunError(f'{where}, cannot run its signature {signature}: '
                               f'{" ".join(error.message.split())[:300]}') from None
            for output, value in ours.items():
                largest = max(largest, _difference(f'{where}, signature {signature}', output, value, theirs[output]))
    return largest


def _by_python(folder, signature, raw):
    outputs = tf.saved_model.load(str(folder)).signatures[signature](**raw)
    return {name: value.numpy() for name, value in outputs.items()}


def _by_session(folder, signature, raw):
    with quiet_stderr(), tf.compat.v1.Session(graph=tf.Graph()) as session:      # TensorFlow 2.20 notes its first
        loaded = tf.compat.v1.saved_model.loader.load(session, ['serve'], str(folder)).signature_def[signature]
        names = {name: tensor.name for name, tensor in loaded.outputs.items()}
        return session.run(names, {loaded.inputs[name].name: value.numpy() for name, value in raw.items()})


def _difference(where, name, ours, theirs):
    """The largest difference of numbers with a fraction, at most TOLERANCE; anything else must be equal.

    Of masks, [B, h, w] of whole numbers, a share of NEAR_TIES may differ.
    """
    if ours.shape != theirs.shape or ours.dtype.kind != theirs.dtype.kind:
        raise RunError(f'{where}: {name} is {theirs.dtype}{list(theirs.shape)}; the trained model gives '
                       f'{ours.dtype}{list(ours.shape)}')
    if np.issubdtype(ours.dtype, np.floating):
        largest = float(np.max(np.abs(ours - theirs), initial=0.))
        if not largest <= TOLERANCE:
            raise RunError(f'{where}: {name} differs from the trained model\'s by {largest:.2g}')
        return largest
    if np.sum(ours != theirs) > near_ties(ours):
        first = np.argwhere(ours != theirs)[0]
        raise RunError(f'{where}: {name} at {first.tolist()} is {theirs[tuple(first)]!r}; the trained model gives '
                       f'{ours[tuple(first)]!r}')
    return 0.


def near_ties(values):
    """How many of an array's whole numbers or strings may differ: none, but for masks, [B, h, w]."""
    return math.ceil(NEAR_TIES * values.size) if values.ndim == 3 and values.dtype.kind in 'iu' else 0
