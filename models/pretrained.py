"""Weights of another model of the same architecture, by name. Strict, but for the head."""

HEAD = 'logits'     # the last layer, in every model


def match(shapes, arrays):
    """Says which array each variable of a model starts from.

    Args:
        shapes: {path of a variable: its shape}, of the whole model.
        arrays: {path: numpy array}, of the other model.

    Returns:
        ({path: array}, [paths of the head that has no array of its shape, and keeps its own values])

    Raises:
        ValueError: a variable outside the head has no array of its shape, or an array outside the head no variable.
    """
    left = sorted(path for path in {*shapes, *arrays} if path not in shapes or path not in arrays
                  or tuple(shapes[path]) != arrays[path].shape)
    for path in left:
        if HEAD not in path.split('/'):
            here = list(shapes[path]) if path in shapes else 'nothing'
            there = list(arrays[path].shape) if path in arrays else 'nothing'
            raise ValueError(f'{path} is {there} there, {here} here')
    return {path: arrays[path] for path in shapes if path not in left}, [path for path in left if path in shapes]
