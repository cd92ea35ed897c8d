"""ONNX: SIGNATURE.onnx per plain signature, for the runtimes of ONNX."""

import logging

import numpy as np
import onnxruntime
import tf2onnx
from tf2onnx.handler import tf_op

RUNTIME, OPSET = 'onnxruntime', 18      # the newest operators that tf2onnx 1.17 writes


@tf_op('Erfc')
class ComplementaryError:
    """erfc(x) = 1 - erf(x), which TensorFlow's exact GELU is made of; ONNX has erf alone."""

    @classmethod
    def version_9(cls, ctx, node, **kwargs):
        error = ctx.make_node('Erf', node.input, name=f'{node.name}/erf')
        one = ctx.make_const(f'{node.name}/one', np.ones([], np.float32))
        outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
        ctx.remove_node(node.name)
        ctx.make_node('Sub', [one.output[0], error.output[0]], name=node.name, outputs=outputs, shapes=shapes,
                      dtypes=dtypes)


def write(plain, model, folder, quantize='none'):
    logging.getLogger('tf2onnx').setLevel(logging.CRITICAL)      # it reports attempts that it then gives up
    for name, function in plain.functions.items():
        tf2onnx.convert.from_function(function, input_signature=plain.specs[name], opset=OPSET,
                                      output_path=str(folder / f'{name}.onnx'))


def load(folder, task, threads=0):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {file.stem: onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
                for file in folder.glob('*.onnx')}
    outputs = {name: [output.name for output in session.get_outputs()] for name, session in sessions.items()}

    def run(signature, inputs):
        return dict(zip(outputs[signature], sessions[signature].run(None, inputs), strict=True))
    return run
