"""Keras: model.keras, the model alone, for Python with this repository; the task computes what is around it."""

import keras

from experiment.formats.plain import Plain

RUNTIME, FILE = 'keras', 'model.keras'


def write(plain, model, folder, quantize='none'):
    model.save(folder / FILE)


def load(folder, task, threads=0):
    functions = Plain(task, keras.saving.load_model(folder / FILE)).functions

    def run(signature, inputs):
        return {name: value.numpy() for name, value in functions[signature](*inputs.values()).items()}
    return run
