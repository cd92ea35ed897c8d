"""The least time that a step can take on a slice: a roofline (Williams et al. 2009, doi:10.1145/1498765.1498785).

Three limits, each as if it were alone: arithmetic, memory and interconnect. A real step is slower than the largest.
"""

import dataclasses

# The all-reduces that libtpu 0.0.42.1 schedules for a step are synchronous: nothing else runs meanwhile.
ASSUMPTIONS = (
    'the matrix units run at their bfloat16 peak, and padding to their size costs nothing',
    'loads and stores overlap perfectly with arithmetic, so that the slower of the two counts',
    'the all-reduce waits for the whole backward pass, so that its time is added',
    'an all-reduce uses every link of a chip, at full speed and without latency; a dimension that does not wrap '
    'around has one link',
    'every launch runs all the steps whose batches it has, and what is around its loop is divided among them',
    'input, host and launch cost nothing, and neither does the latency of an operation or of a loop\'s turn',
)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of a step on each chip, and what they mean. All are lower bounds."""
    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    step_seconds: float
    bound: str              # compute, memory or interconnect: the largest of the three
    mfu: float              # model FLOPs utilisation, 0 to 1
    assumptions: tuple = ASSUMPTIONS


def predict(topology, *, flops, bytes, all_reduce_bytes, model_flops=None):
    """Returns a Prediction for one step.

    Args:
        topology: a topologies.Topology.
        flops: floating-point operations of a step on one chip, a multiply-add as 2 (hlo.Costs.flops).
        bytes: moved to and from HBM in a step on one chip (hlo.Costs.bytes).
        all_reduce_bytes: that one chip puts into all-reduces in a step (hlo.Costs.all_reduce_bytes).
        model_flops: of one chip's share of the step as the model needs them (training/flops.py), for MFU as in
            arXiv:2204.02311, appendix B. None: `flops`, which also counts what the compiler does twice.
    """
    chip = topology.chip
    seconds = {'compute': flops / chip.peak_flops, 'memory': bytes / chip.hbm_bandwidth,
               'interconnect': all_reduce_seconds(topology, all_reduce_bytes)}
    step = max(seconds['compute'], seconds['memory']) + seconds['interconnect']
    useful = flops if model_flops is None else model_flops
    return Prediction(*seconds.values(), step_seconds=step, bound=max(seconds, key=seconds.get),
                      mfu=useful / (step * chip.peak_flops) if step else 0.)


def all_reduce_seconds(topology, bytes):
    """A reduce-scatter and an all-gather: a chip sends (n - 1) / n of the bytes in each.

    That is the least for any algorithm (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002), and what rings in
    all dimensions at once reach (jax-ml.github.io/scaling-book/sharding).
    """
    links = sum(_links(size, topology.chip.wraps_at) for size in topology.shape)
    if not links:
        return 0.
    return 2 * (topology.chips - 1) / topology.chips * bytes / (links * topology.chip.link_bandwidth)


def _links(size, wraps_at):
    """Links of the chip that has fewest, along a dimension of `size` chips."""
    if size == 1:
        return 0
    return 1 if size % wraps_at else 2
