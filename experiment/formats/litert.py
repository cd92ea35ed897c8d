"""LiteRT (TensorFlow Lite): model.tflite, one file with all plain signatures, of builtin operations only."""

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from experiment.formats.plain import is_recurrent

RUNTIME, FILE = 'ai-edge-litert', 'model.tflite'


def batch_size(model, wanted):
    """LiteRT has no list of tensors of unknown size, which Keras's recurrent layers keep their outputs in."""
    return wanted or (1 if is_recurrent(model) else 0)


def write(plain, model, folder, quantize='none'):
    """quantize: none; dynamic_range (weights in 8 bits, sums in float32); float16 (weights in 16 bits)."""
    saved = folder / 'saved_model'
    tf.saved_model.save(plain, str(saved), signatures=plain.functions)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=list(plain.functions))
    if quantize != 'none':
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == 'float16':
        converter.target_spec.supported_types = [tf.float16]
    (folder / FILE).write_bytes(converter.convert())
    tf.io.gfile.rmtree(str(saved))


def load(folder, task, threads=0):
    interpreter = Interpreter(model_path=str(folder / FILE), num_threads=threads or None)
    interpreter.allocate_tensors()      # now, while its notes are not shown
    runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}

    def run(signature, inputs):
        return runners[signature](**inputs)
    return run
