"""A trained model in the formats of other runtimes, each run in its own runtime and compared with the model.

A format is a module here with
    RUNTIME                       the package that runs it
    write(plain, model, folder, quantize)
    load(folder, task, threads=0) -> function (signature, {name: array}) -> {name: array}; threads: 0 is the
                                     runtime's own number

Plain signatures: those of a task whose inputs are numbers, without the answers that are strings.
"""

import importlib

from errors import UserError, lookup

HUGGING_FACE = 'huggingface'          # weights alone, see experiment/published.py
DESCRIPTION = 'description.json'      # in the folder of each: what it holds, and how it compares with the model
FORMATS = {'keras': 'keras_file', 'litert': 'litert', 'onnx': 'onnx_graph', 'openvino': 'openvino_graph'}
STATIC = ('litert', 'onnx', 'openvino')                   # formats that can hold a static batch size
QUANTIZED = {'litert': ('dynamic_range', 'float16')}      # format -> what its `quantize` may be, beside none


def module_of(name):
    """The module of a format.

    Raises:
        UserError: there is no such format, or it is not installed.
    """
    file = lookup(FORMATS, name, 'format')
    try:
        return importlib.import_module(f'experiment.formats.{file}')
    except ModuleNotFoundError as error:
        raise UserError(f'`format` {name} needs a package that is not installed, {error.name}: '
                        f'pip install -e ".[{name}]". Received: format={name}') from None
    except Exception as error:      # another version of a package that it needs, too
        raise UserError(f'`format` {name} cannot use its packages: {" ".join(str(error).split())[:200]}. Installed '
                        f'together: pip install -e ".[{name}]". Received: format={name}') from None


def check(name, quantize, batch_size):
    """Raises UserError where there is no such format, or it cannot be quantized so, or has no static batch size."""
    lookup({'saved_model': None, **FORMATS, HUGGING_FACE: None}, name, 'format')
    allowed = ('none', *QUANTIZED.get(name, ()))
    if quantize not in allowed:
        raise UserError(f'`quantize` must be {" or ".join(allowed)} for the format {name}. '
                        f'Received: quantize={quantize}')
    if batch_size < 0 or batch_size and name not in STATIC:
        raise UserError(f'`batch_size` must be {"at least 0" if name in STATIC else "0"} for the format {name}. '
                        f'Received: batch_size={batch_size}')
