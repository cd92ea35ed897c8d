"""ONNX: SIGNATURE.onnx per plain signature, for the runtimes of ONNX."""

import logging

import onnxruntime
import tf2onnx

EXTRA, RUNTIME, OPSET = 'onnx', 'onnxruntime', 18      # the newest operators that tf2onnx 1.17 writes


def write(plain, model, folder, quantize='none'):
    logging.getLogger('tf2onnx').setLevel(logging.CRITICAL)      # it reports attempts that it then gives up
    for name, function in plain.functions.items():
        tf2onnx.convert.from_function(function, input_signature=plain.specs[name], opset=OPSET,
                                      output_path=str(folder / f'{name}.onnx'))


def load(folder, task, threads=0):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, sessions = threads, {}

    def run(signature, inputs):
        if signature not in sessions:
            sessions[signature] = onnxruntime.InferenceSession(str(folder / f'{signature}.onnx'), options,
                                                               providers=['CPUExecutionProvider'])
        session = sessions[signature]
        return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))
    return run
