"""ONNX: SIGNATURE.onnx per plain signature, for the runtimes of ONNX."""

import logging

import onnxruntime
import tf2onnx

RUNTIME, OPSET = 'onnxruntime', 18      # the newest operators that tf2onnx 1.17 writes


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
