"""Writes a trained model in another runtime's format, and compares what that runtime answers with the model.

The folder gets the format's files, description.json, and the files of the run's tokenizer where it has one.
"""

import importlib.metadata
import json

import numpy as np
import tensorflow as tf
import tqdm

from errors import RunError, quiet_stderr
from experiment.export import TOLERANCE, near_ties
from experiment.formats import DESCRIPTION
from experiment.formats.plain import Plain, without_cudnn
from training.files import whole_folder, write_atomically

CHUNK = 64      # examples that the two are asked about at a time


def convert(module, name, task, model, source, folder, quantize='none', batch_size=0):
    """Writes `folder`, replacing it only when all is written and compared. Returns its description, a dict.

    Args:
        module: of the format, see __init__.py. name: the format's.
        source: whose examples are compared, all of them.
        quantize: see the format's module; differences of a quantized model are told and not judged.
        batch_size: static number of examples; 0 is any, where the format can.

    Raises:
        RunError: it cannot be written, or an answer differs by more than TOLERANCE, or a number without a fraction at
            all. The folder is then what it was before.
    """
    with whole_folder(folder, 'the model') as new:
        plain = Plain(task, without_cudnn(model), getattr(module, 'batch_size', lambda _, wanted: wanted)(
            model, batch_size))
        run = _written(module, plain, model, new, quantize, task, name)
        _write_tokenizer(task, new)
        described = {'format': name, 'quantize': quantize, 'runtime': f'{module.RUNTIME} '
                     f'{importlib.metadata.version(module.RUNTIME)}', 'batch_size': plain.batch_size or 'any',
                     'signatures': _signatures(plain), **_names(task),
                     'compared': compare(run, plain, task, source, quantize != 'none', folder)}
        write_atomically(new / DESCRIPTION, json.dumps(described, indent=2).encode() + b'\n')
    return described


def _written(module, plain, model, folder, quantize, task, name):
    """The function that runs what was written, see `compare`."""
    try:
        with quiet_stderr():      # converters and runtimes report their progress there
            module.write(plain, model, folder, quantize)
            return module.load(folder, task)
    except OSError:
        raise
    except Exception as error:      # each converter has exceptions of its own
        raise RunError(f'the format {name} cannot hold this model: {_first_line(error)}') from None


def compare(run, plain, task, source, is_quantized=False, folder=''):
    """{signature: {examples, max_difference, unequal, and both's metrics}} over all examples of a source.

    run: function (signature, {name: array}) -> {name: array}, of the other runtime.
    """
    parts = {name: [] for name in plain.functions}
    for start in tqdm.trange(0, source.num_examples, CHUNK, unit='batch', leave=False, disable=None,
                             desc='compares', dynamic_ncols=True):
        indices = tf.range(start, min(start + CHUNK, source.num_examples), dtype=tf.int64)
        inputs = task.served_inputs(source.gather(indices))
        for name, specs in plain.specs.items():
            arrays = {spec.name: np.asarray(value) for spec, value in zip(specs, inputs[name], strict=True)}
            parts[name].append((_in_batches(_ours(plain, name), arrays, plain.batch_size),
                                _in_batches(_theirs(run, name, folder), arrays, plain.batch_size)))
    return {name: _compared(f'{folder}, signature {name}', *(_joined(side) for side in zip(*found)), task, source,
                            is_quantized) for name, found in parts.items()}


def _ours(plain, name):
    return lambda arrays: {k: v.numpy() for k, v in plain.functions[name](*map(tf.constant, arrays.values())).items()}


def _theirs(run, name, folder):
    def answers(arrays):
        try:
            return run(name, arrays)
        except Exception as error:      # each runtime has exceptions of its own
            raise RunError(f'{folder}, signature {name}: cannot be run: {_first_line(error)}') from None
    return answers


def _first_line(error):
    return ' '.join(str(error).split())[:300]


def _in_batches(function, arrays, size):
    """The outputs for all examples of the arrays, asked in batches of a static size, the last one filled up."""
    examples = len(next(iter(arrays.values())))
    if not size:
        return function(arrays)
    batches = [{name: array[np.minimum(np.arange(start, start + size), examples - 1)] for name, array in arrays.items()}
               for start in range(0, examples, size)]
    return {name: value[:examples] for name, value in _joined([function(batch) for batch in batches]).items()}


def _joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compared(where, ours, theirs, task, source, is_quantized):
    found = {'examples': source.num_examples, 'max_difference': 0., 'unequal': 0}
    for name, value in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != value.shape or other.dtype.kind != value.dtype.kind:
            raise RunError(f'{where}: {name} is {"missing" if other is None else f"{other.dtype}{list(other.shape)}"}; '
                           f'the trained model gives {value.dtype}{list(value.shape)}')
        if value.dtype.kind == 'f':
            largest = np.max(np.abs(value - other), initial=found['max_difference'])      # NaN, where there is one
            found['max_difference'] = float(largest)
        else:
            differing = (value != other).reshape(len(value), -1).sum(axis=1)
            found['unequal'] += int((differing > near_ties(value[:1])).sum())
    found |= {'model': task.score_served(ours, source), 'format': task.score_served(theirs, source)}
    if not is_quantized and not (found['max_difference'] <= TOLERANCE and not found['unequal']):
        raise RunError(f'{where}: its answers differ from the trained model\'s by {found["max_difference"]:.2g} '
                       f'at most (bound {TOLERANCE:g}), and {found["unequal"]} of {source.num_examples} in a whole '
                       'number')
    return found


def _signatures(plain):
    def tensors(specs):
        return {spec.name: {'dtype': spec.dtype.name, 'shape': spec.shape.as_list()} for spec in specs}
    return {name: {'inputs': tensors(plain.specs[name]), 'outputs': {
        output: {'dtype': spec.dtype.name, 'shape': spec.shape.as_list()}
        for output, spec in plain.outputs(name).items()}} for name in plain.functions}


def _names(task):
    return {'class_names': list(task.class_names)} if task.class_names else {}


def _write_tokenizer(task, folder):
    for name, content in task.tokenizer_files.items():
        (folder / 'tokenizer').mkdir(exist_ok=True)
        (folder / 'tokenizer' / name).write_bytes(content)
