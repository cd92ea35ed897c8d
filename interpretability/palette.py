"""A colour for each class of a mask."""

import numpy as np


def palette(count):
    """uint8 [count, 3], those of Pascal VOC's masks: the bits of a class's number spread over red, green and blue."""
    numbers, colours = np.arange(count), np.zeros((count, 3), np.uint8)
    for bit in range(3):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours
