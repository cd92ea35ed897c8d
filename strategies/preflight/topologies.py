"""TPU chips and slices by name: 'v5e:2x4' is eight chips of v5e in a grid of two by four.

Numbers are Google's, per chip: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "System architecture".
"""

import dataclasses
import math

from errors import UserError, lookup

GIB = 2 ** 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    hbm_bytes is nominal; usable_hbm_bytes is what libtpu gives a program (it says so when a program is too large).
    peak_flops is of bfloat16, with a multiply-add as 2. ici_bandwidth counts all links of a chip and one direction:
    what a chip can send while it receives as much; Google's "bidirectional" figures are twice that.
    """
    name: str
    hbm_bytes: int
    usable_hbm_bytes: int
    peak_flops: float           # FLOP/s
    hbm_bandwidth: float        # B/s
    ici_bandwidth: float        # B/s
    torus_dimensions: int
    wraps_at: int               # a dimension that is a multiple of this is a ring, a shorter one is a line
    mxu_size: int               # the matrix unit multiplies blocks of this many rows and columns
    chips_a_host: int
    shapes: tuple               # opened with libtpu 0.0.42.1
    options: tuple = ()         # what libtpu must be told beside the name

    @property
    def link_bandwidth(self):
        """B/s of one link in one direction; there are two links for each dimension of the torus."""
        return self.ici_bandwidth / (2 * self.torus_dimensions)


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a pod."""
    name: str           # as libtpu takes it
    chip: Chip
    shape: tuple
    chips: int

    @property
    def hosts(self):
        return -(-self.chips // self.chip.chips_a_host)

    @property
    def options(self):
        """Keyword arguments of jax.experimental.topologies.get_topology_desc beside platform and topology_name.

        With them a chip is one device, also one of v4, whose two cores are otherwise two devices of half its HBM.
        """
        # libtpu's host has 2x2 chips unless told otherwise, and refuses a slice that is smaller than its host.
        host = {'chips_per_host_bounds': (1, 1, 1)} if self.chips == 1 else {}
        return {**dict(self.chip.options), **host}


_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBIC = ('1x1x1', '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8')

# Interconnect: Google gives 1600 Gbit/s for v5e, 3200 for v6e and 4800 for v5p, and 400, 800 and 1200 GB/s where it
# counts both directions. For v4 its page has none; 6 links of 45 GB/s are in jax-ml.github.io/scaling-book/tpus, and
# agree with the page's all-reduce bandwidth (1.1 PB/s for 4096 chips). Rings: the same book, same chapter.
CHIPS = {chip.name: chip for chip in (
    # hbm_bytes of v5p: 96 GiB, of which Google's table gives the 95 that a program can use.
    Chip('v4', hbm_bytes=32 * GIB, usable_hbm_bytes=int(30.75 * GIB), peak_flops=275e12, hbm_bandwidth=1200e9,
         ici_bandwidth=270e9, torus_dimensions=3, wraps_at=4, mxu_size=128, chips_a_host=4, shapes=_CUBIC,
         options=(('chip_config_name', 'megacore'),)),
    Chip('v5e', hbm_bytes=16 * GIB, usable_hbm_bytes=int(15.75 * GIB), peak_flops=197e12, hbm_bandwidth=819e9,
         ici_bandwidth=200e9, torus_dimensions=2, wraps_at=16, mxu_size=128, chips_a_host=8, shapes=_FLAT),
    Chip('v5p', hbm_bytes=96 * GIB, usable_hbm_bytes=int(95.74 * GIB), peak_flops=459e12, hbm_bandwidth=2765e9,
         ici_bandwidth=600e9, torus_dimensions=3, wraps_at=4, mxu_size=128, chips_a_host=4, shapes=_CUBIC),
    Chip('v6e', hbm_bytes=32 * GIB, usable_hbm_bytes=int(31.25 * GIB), peak_flops=918e12, hbm_bandwidth=1600e9,
         ici_bandwidth=400e9, torus_dimensions=2, wraps_at=16, mxu_size=256, chips_a_host=8, shapes=_FLAT),
)}


def parse(name):
    """'v5e:2x4' -> Topology. Raises UserError for a kind or a shape that is not in CHIPS."""
    kind, _, text = name.partition(':')
    chip = lookup(CHIPS, kind, 'topology')
    if text not in chip.shapes:
        known = ', '.join(f'{kind}:{shape}' for shape in chip.shapes)
        raise UserError(f'`topology` must be one of {known}. Received: topology={name!r}')
    shape = tuple(map(int, text.split('x')))
    return Topology(name, chip, shape, math.prod(shape))
