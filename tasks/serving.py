"""A trained model as a SavedModel: raw inputs in, named outputs out, all preprocessing inside the graph."""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from errors import RunError

TOLERANCE = 1e-4     # probabilities; the same kernels run on both sides, in another batch size


class Served(tf.Module):
    """What is saved: the model, and the features with their tables."""

    def __init__(self, model, task):
        super().__init__()
        self.model, self.features = model, task.features


def export_saved_model(model, task, folder):
    """Writes `folder` (TensorFlow Serving wants a number for a name), replacing it only when all is written."""
    folder = pathlib.Path(folder)
    temporary = folder.with_name(f'.{folder.name}.tmp')     # not a number: a server that watches does not load it
    shutil.rmtree(temporary, ignore_errors=True)
    served = Served(model, task)
    served.signatures_ = {name: tf.function(function, input_signature=specs)
                          for name, (function, specs) in task.serving(model).items()}
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        tf.saved_model.save(served, str(temporary), signatures=served.signatures_)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except tf.errors.OpError as error:
        # 'PATH; No space left on device [Op:SaveV2]', after the names of the operation and its device
        reason = ' '.join(error.message.rpartition('; ')[2].partition(' [Op:')[0].split())
        raise RunError(f'the SavedModel could not be written to {folder}: {reason}') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def max_abs_difference(folder, model, task, raw):
    """Largest difference between the saved model's outputs and the model's own, over the raw inputs [B, ...].

    Raises:
        RunError: they differ by more than TOLERANCE, or in any string or class.
    """
    function, specs = task.serving(model)['serving_default']
    served = tf.saved_model.load(str(folder)).signatures['serving_default'](**{specs[0].name: raw})
    largest = 0.
    for name, value in function(raw).items():
        ours, theirs = value.numpy(), served[name].numpy()
        if np.issubdtype(ours.dtype, np.floating):
            largest = max(largest, float(np.max(np.abs(ours - theirs), initial=0.)))
        elif (ours != theirs).any() and largest > TOLERANCE:
            raise RunError(f'the SavedModel in {folder} gives another {name} than the trained model')
    if largest > TOLERANCE:
        raise RunError(f'the SavedModel in {folder} differs from the trained model by {largest:.2g}')
    return largest
