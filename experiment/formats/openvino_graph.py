"""OpenVINO: SIGNATURE.xml and SIGNATURE.bin per plain signature."""

import sys

sys.modules.setdefault('openvino_telemetry', None)      # absent, it reports to nobody that a model was converted
import openvino  # noqa: E402

RUNTIME = 'openvino'


def write(plain, model, folder, quantize='none'):
    for name, function in plain.functions.items():
        graph = openvino.convert_model(function)
        # By place: the converter renames an output that has the name of an input.
        for port, output in zip(graph.outputs, plain.outputs(name), strict=True):
            port.get_tensor().set_names({output})
        for port, spec in zip(graph.inputs, plain.specs[name], strict=True):
            port.get_tensor().set_names({spec.name})
        openvino.save_model(graph, str(folder / f'{name}.xml'), compress_to_fp16=False)


def load(folder, task, threads=0):
    # Processors that have bfloat16 would take it by themselves.
    config = {'INFERENCE_PRECISION_HINT': 'f32', **({'INFERENCE_NUM_THREADS': threads} if threads else {})}
    core = openvino.Core()
    compiled = {file.stem: core.compile_model(str(file), 'CPU', config) for file in folder.glob('*.xml')}

    def run(signature, inputs):
        outputs = compiled[signature](inputs)
        return {port.any_name: outputs[port] for port in compiled[signature].outputs}
    return run
