"""Every registered model in every form it has, known by the sizes it takes: small ones, and a batch to call it with."""

import numpy as np

import models

FORMS = {
    'images': {'input_shape': (8, 8, 1), 'outputs': 10},
    'boxes': {'input_shape': (32, 32, 3), 'box_classes': 3},
    'pixels': {'input_shape': (32, 32, 3), 'pixel_classes': 3},
    'tokens': {'vocabulary_size': 11, 'length': 6, 'outputs': 10},
    'hidden tokens': {'vocabulary_size': 11, 'length': 6, 'predictions': 2},
    'spans': {'vocabulary_size': 11, 'length': 6, 'spans': 2},
    'pairs': {'source_vocabulary_size': 11, 'target_vocabulary_size': 10},
}
CASES = {f'{name} of {form}': (name, sizes) for name in models.MODELS for form, sizes in FORMS.items()
         if set(sizes) <= set(models.sizes_of(name))}


def example(sizes):
    """A batch of 3 for a model of these sizes; of tokens, the second is shorter than its row."""
    random = np.random.default_rng(0)
    if 'input_shape' in sizes:
        return random.random((3, *sizes['input_shape']), dtype='float32')
    ids = random.integers(1, 11, (3, 6), dtype='int32') * (np.arange(6) < [[6], [3], [6]])
    if 'length' in sizes:
        arrays = {'ids': ids, 'mask': ids != 0}
        if 'predictions' in sizes:
            arrays['positions'] = np.array([[1, 5], [0, 2], [3, 3]], 'int32')
        if 'spans' in sizes:
            arrays['segments'] = np.array([[0, 0, 1, 1, 1, 1]] * 3, 'int32')
        return arrays
    return {**source_of(ids), 'target': random.integers(1, 10, (3, 5), dtype='int32')}


def source_of(ids, padding=0):
    """ids [B, S] -> the source's part of a Transformer's inputs."""
    return {'source': ids, 'source_mask': ids != padding}
