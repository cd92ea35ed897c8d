"""Chips and topologies against the TPU compiler: what it opens, and the memory that it gives a program."""

import math
import re

import pytest

from errors import UserError
from strategies.preflight import topologies
from strategies.preflight.topologies import CHIPS, GIB
from tests import tpu_programs


def test_a_name_is_parsed():
    topology = topologies.parse('v4:4x4x8')
    assert (topology.name, topology.chip, topology.shape, topology.chips) == ('v4:4x4x8', CHIPS['v4'], (4, 4, 8), 128)


def test_each_shape_opens_with_one_device_a_chip():
    opened = tpu_programs.compiled().chips
    assert opened == {f'{kind}:{shape}': topologies.parse(f'{kind}:{shape}').chips
                      for kind, chip in CHIPS.items() for shape in chip.shapes}
    assert {min(opened.values()), max(opened.values())} == {1, 256}


@pytest.mark.parametrize('kind', CHIPS)
def test_usable_memory_is_what_the_compiler_says(kind):
    message = tpu_programs.compiled().memory[kind]
    gib = float(re.search(r'exceeds available HBM \(([\d.]+)G\)', message)[1])
    assert CHIPS[kind].usable_hbm_bytes == int(gib * GIB) < CHIPS[kind].hbm_bytes


@pytest.mark.parametrize('kind, pod_bandwidth', [('v4', 1.1e15 / 4096), ('v5e', 51.2e12 / 256),
                                                 ('v6e', 102.4e12 / 256)])
def test_interconnect_agrees_with_the_all_reduce_bandwidth_of_a_pod(kind, pod_bandwidth):
    assert CHIPS[kind].ici_bandwidth == pytest.approx(pod_bandwidth, rel=0.01)


@pytest.mark.parametrize('kind', CHIPS)
def test_shapes_have_the_dimensions_of_the_torus(kind):
    for text in CHIPS[kind].shapes:
        topology = topologies.parse(f'{kind}:{text}')
        assert len(topology.shape) == CHIPS[kind].torus_dimensions
        assert topology.chips == math.prod(topology.shape)


@pytest.mark.parametrize('name, message', [
    ('v7:2x2', r"`topology` must be one of v4, v5e, v5p, v6e. Received: topology='v7'"),
    ('v5e:3x5', r"`topology` must be one of v5e:1x1, v5e:2x2, .*v5e:16x16. Received: topology='v5e:3x5'"),
    ('v5e', r"`topology` must be one of v5e:1x1, .* Received: topology='v5e'$"),
    ('', r"`topology` must be one of v4, v5e, v5p, v6e. Received: topology=''"),
])
def test_an_unknown_name_lists_the_known_ones(name, message):
    with pytest.raises(UserError, match=message):
        topologies.parse(name)
