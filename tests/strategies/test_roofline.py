"""Predictions against arithmetic by hand."""

import pytest

from strategies.preflight import roofline, topologies

CHIP = topologies.CHIPS['v5e']
POD, BOARD = topologies.parse('v5e:16x16'), topologies.parse('v5e:2x4')


def predict(topology=POD, flops=0, bytes=0, all_reduce_bytes=0, **more):
    return roofline.predict(topology, flops=flops, bytes=bytes, all_reduce_bytes=all_reduce_bytes, **more)


@pytest.mark.parametrize('name, bandwidth', [
    ('v5e:16x16', 200e9),       # rings in both dimensions: four links
    ('v5e:8x16', 150e9), ('v5e:2x4', 100e9), ('v5p:4x4x4', 600e9), ('v5p:2x2x1', 200e9), ('v4:4x4x8', 270e9),
])
def test_an_all_reduce_sends_what_it_must_over_the_links_that_there_are(name, bandwidth):
    topology = topologies.parse(name)
    expected = 2 * (topology.chips - 1) / topology.chips * 1e9 / bandwidth
    assert roofline.all_reduce_seconds(topology, 1e9) == pytest.approx(expected)


def test_one_chip_has_nothing_to_reduce():
    assert predict(topologies.parse('v5e:1x1'), flops=1e12, all_reduce_bytes=1e9).interconnect_seconds == 0


@pytest.mark.parametrize('costs, bound', [
    ({'flops': 197e12, 'bytes': 1e9, 'all_reduce_bytes': 1e9}, 'compute'),
    ({'flops': 1e12, 'bytes': 819e9, 'all_reduce_bytes': 1e9}, 'memory'),
    ({'flops': 1e12, 'bytes': 1e9, 'all_reduce_bytes': 1e11}, 'interconnect'),
])
def test_the_longest_is_the_bound(costs, bound):
    prediction = predict(**costs)
    assert prediction.bound == bound
    assert getattr(prediction, f'{bound}_seconds') == pytest.approx(1, rel=0.01)


def test_the_step_waits_for_the_slower_of_compute_and_memory_and_then_for_the_all_reduce():
    prediction = predict(flops=197e12, bytes=2 * 819e9, all_reduce_bytes=1e11)
    assert (prediction.compute_seconds, prediction.memory_seconds) == (1, 2)
    assert prediction.step_seconds == pytest.approx(2 + 2 * 255 / 256 * 1e11 / 200e9)
    assert prediction.mfu == pytest.approx(1 / prediction.step_seconds)


def test_mfu_counts_what_the_model_needs():
    assert predict(flops=197e12).mfu == 1
    assert predict(flops=197e12, model_flops=197e12 / 4).mfu == 0.25
    assert predict().mfu == 0


def test_fewer_links_take_longer():
    assert predict(BOARD, all_reduce_bytes=1e9).step_seconds > predict(POD, all_reduce_bytes=1e9).step_seconds


def test_assumptions_are_there_to_print():
    assert all(isinstance(line, str) and line for line in predict().assumptions)
