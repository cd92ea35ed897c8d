"""Arrays as HLO text writes them: element type, dimensions, layout in memory, and which memory."""

import dataclasses
import functools
import math
import re

_SHAPE = re.compile(r'([a-z]\w*)\[([^]]*)\](?:\{([\d,]*)(?::([^}]*))?\})?')


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array in memory: dimensions, which of them is minor (last in memory) first, tile and memory space."""
    dtype: str
    dims: tuple
    order: tuple
    tile: tuple
    space: int      # 0 is HBM, 1 VMEM; others are small scalar memories, and 5 is the host's

    def __str__(self):
        return f'{self.dtype}[{",".join(map(str, self.dims))}]'

    @property
    def bits(self):
        digits = re.match(r'[a-z]+(\d+)', self.dtype)
        return int(digits[1]) if digits else 8 * (self.dtype == 'pred')

    @property
    def bytes(self):
        return -(-math.prod(self.dims) * self.bits // 8)

    @property
    def padded_bytes(self):
        """In memory, where the minor dimensions fill whole tiles (openxla.org/xla/tiled_layout)."""
        minor = [self.dims[i] for i in self.order] or list(self.dims[::-1])
        minor += [1] * (len(self.tile) - len(minor))
        padded = [-(-size // tile) * tile for size, tile in zip(minor, self.tile[::-1])] + minor[len(self.tile):]
        return -(-math.prod(padded) * self.bits // 8)


@functools.lru_cache(maxsize=None)
def shapes(text):
    """The arrays of a type, a tuple's one after the other: 'f32[8,128]{1,0:T(8,128)S(1)}' -> (Shape,)."""
    return tuple(_shape(*match.groups()) for match in _SHAPE.finditer(text))


def _shape(dtype, dims, order, layout):
    layout = layout or ''
    # Tiles of tiles follow in further parentheses; they rearrange, and pad nothing more.
    tile, space = re.match(r'T\(([\d,]+)\)', layout), re.search(r'S\((\d+)\)', layout)
    return Shape(dtype, numbers(dims.replace('<=', '')), numbers(order), numbers(tile and tile[1]),
                 int(space[1]) if space else 0)


def numbers(text):
    """'1,0' -> (1, 0); empty or None -> ()."""
    return tuple(map(int, text.split(','))) if text else ()
