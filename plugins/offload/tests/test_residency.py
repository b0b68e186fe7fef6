"""Residency of units, and its forecast at plan time."""

import itertools

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.api import Budget, BuildContext, Device, Speeds, Workload
from lightx2v_offload.forecast import cpu_forecast, disk_forecast
from lightx2v_offload.options import CpuOptions, DiskOptions
from lightx2v_offload.residency import plan_residency

SIZES = st.lists(st.integers(1, 1000), max_size=40)
CUDA = Device(kind="cuda", memory=24 * 10**9)
#: Wan2.1 14B in bfloat16, 75600 tokens, its text encoder and its VAE
DIT = Workload(
    name="dit",
    weights=28_600_000_000,
    activations=6_000_000_000,
    blocks=(702_000_000,) * 40,
    passes=2,
    seconds=10.0,
)
TEXT = Workload(
    name="text_encoder", weights=11_360_000_000, activations=100_000_000, blocks=(386_000_000,) * 24
)
VAE = Workload(name="vae", weights=508_000_000, activations=9_000_000_000)


@settings(deadline=None)
@given(SIZES, st.integers(0, 5000), st.integers(0, 50_000), st.integers(2, 4))
def test_a_residency_keeps_its_allowance_where_that_is_possible(sizes, rest, allowance, buffers):
    found = plan_residency(sizes, rest, allowance, buffers)
    least = plan_residency(sizes, rest, None, buffers)
    assert found.total <= max(allowance, least.total)
    assert found.streamed + found.held == sum(sizes) + rest
    assert found.held == rest + sum(sizes[index] for index in found.stay)
    assert least.stay == frozenset()
    # the rest of the allowance is smaller than any streamed unit
    if found.streamed and found.total <= allowance:
        assert (
            min(size for index, size in enumerate(sizes) if index not in found.stay) > allowance - found.total
        )


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 59))
def test_what_comes_and_goes_is_spread_evenly(count, stays):
    found = plan_residency([10] * count, 0, 10 * (min(stays, count - 3) + 2), 2)
    away = [index for index in range(count) if index not in found.stay]
    gaps = [after - before for before, after in itertools.pairwise(away)]
    if gaps:
        assert max(gaps) <= 3 * (count / len(away)) + 1


@pytest.mark.parametrize("limit", [12, 16, 24, 40, 80])
def test_a_forecast_follows_the_limit(limit):
    context = BuildContext(
        device=CUDA,
        budget=Budget(device=limit * 10**9, activations={"dit": DIT.activations, "vae": VAE.activations}),
    )
    found = cpu_forecast(CpuOptions(), context, [DIT, TEXT, VAE])
    assert found.weights + found.activations <= limit * 10**9
    assert found.host == DIT.weights + TEXT.weights + VAE.weights
    without = cpu_forecast(CpuOptions(), evolve(context, budget=Budget()), [DIT, TEXT, VAE])
    assert without.moved == 2 * sum(DIT.blocks) >= found.moved
    assert (found.moved == 0) == (limit >= 40)


def test_time_that_copies_cannot_hide():
    context = BuildContext(device=CUDA, speeds=Speeds(copy=25e9, disk=2e9))
    assert cpu_forecast(CpuOptions(), context, [DIT]).exposed == 0  # 1.1 s of copies behind 10 s of computing
    fast = evolve(DIT, seconds=0.5)
    assert cpu_forecast(CpuOptions(), context, [fast]).exposed == pytest.approx(2 * (28.08 / 25 - 0.5))
    assert disk_forecast(DiskOptions(), context, [DIT]).exposed == pytest.approx(2 * (28.08 / 2 - 10))
    assert cpu_forecast(CpuOptions(granularity="model"), context, [fast]).moved == 0


def test_experts_take_turns():
    context = BuildContext(device=CUDA)
    high, low = evolve(DIT, name="high_noise"), evolve(DIT, name="low_noise")
    one, two = (cpu_forecast(CpuOptions(), context, loads) for loads in ([high], [high, low]))
    assert (two.weights, two.moved) == (one.weights, one.moved)
    assert two.host == 2 * one.host


def test_on_a_cpu_a_disk_takes_little_memory_and_no_host_memory_beside_it():
    found = disk_forecast(DiskOptions(ring=3), BuildContext(), [DIT, VAE])
    assert found.host == 0
    rest = DIT.weights - sum(DIT.blocks)
    assert found.weights == 3 * 702_000_000 + rest
    assert found.weights + found.activations == VAE.weights + VAE.activations
    assert disk_forecast(DiskOptions(), BuildContext(), [evolve(DIT, direct=False)]).scratch == DIT.weights
