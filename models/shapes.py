"""Says in one line, before Keras does in many, that a dataset's examples do not fit a model."""

from errors import UserError


def check_input_shape(input_shape, rule, ranks, least=1):
    """Raises `UserError` unless the shape is static, its rank is in `ranks`, and its first two sizes are >= `least`."""
    static = all(isinstance(size, int) and size > 0 for size in input_shape)
    if not static or len(input_shape) not in ranks or min(input_shape[:2]) < least:
        raise UserError(f'`input_shape` must be {rule}. Received: input_shape={tuple(input_shape)}')
