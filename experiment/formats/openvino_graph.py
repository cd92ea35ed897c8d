"""OpenVINO: SIGNATURE.xml and SIGNATURE.bin per plain signature."""

import shutil
import sys

import tensorflow as tf

sys.modules.setdefault('openvino_telemetry', None)      # absent, it reports to nobody that a model was converted
import openvino  # noqa: E402

RUNTIME = 'openvino'


def write(plain, model, folder, quantize='none'):
    saved = folder / 'saved_model'
    for name, function in plain.functions.items():
        # From a folder: OpenVINO 2026.4 cannot read a function under Python 3.13.
        tf.saved_model.save(plain, str(saved), signatures=function)
        openvino.save_model(openvino.convert_model(saved), str(folder / f'{name}.xml'), compress_to_fp16=False)
        shutil.rmtree(saved)


def load(folder, task, threads=0):
    # Processors that have bfloat16 would take it by themselves.
    config = {'INFERENCE_PRECISION_HINT': 'f32', **({'INFERENCE_NUM_THREADS': threads} if threads else {})}
    core = openvino.Core()
    compiled = {file.stem: core.compile_model(str(file), 'CPU', config) for file in folder.glob('*.xml')}

    def run(signature, inputs):
        outputs = compiled[signature](inputs)
        return {port.any_name: outputs[port] for port in compiled[signature].outputs}
    return run
