"""The schedule of copies, on a device that is as late and as strict as a GPU: which copies are queued, in which
order, after which events."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.api import Budget, BuildContext
from lightx2v_core.testing.profiles import examples
from lightx2v_offload.building import build_cpu, build_disk
from lightx2v_offload.late import LateDevice, QueueEvent
from lightx2v_offload.options import CpuOptions, DiskOptions


def placed(network, build, options, limit, count):
    meta, weights, there = network(count)
    device = LateDevice()
    context = BuildContext(budget=Budget(device=limit))
    offloader = build(options, context, device)
    offloader.place("dit", meta, weights, meta.names)
    for block in meta.blocks:
        block.first.register_forward_pre_hook(device.use)
        block.second.register_forward_pre_hook(device.use)
    return offloader, device, meta, there


@settings(max_examples=examples(60), deadline=None)
@given(
    count=st.integers(1, 7),
    slots=st.integers(2, 4),
    room=st.integers(0, 14),
    granularity=st.sampled_from(["model", "block", "phase"]),
    data=st.data(),
)
def test_no_copy_overtakes_a_use_and_no_use_its_copy(network, count, slots, room, granularity, data):
    options = CpuOptions(slots=slots, granularity=granularity)
    offloader, device, meta, there = placed(network, build_cpu, options, room * 512 or None, count)
    x = torch.randn(3, 8)
    orders = st.lists(st.integers(0, count - 1), max_size=2 * count) | st.just(list(range(count)))
    for index in range(4):
        meta.order = there.order = data.draw(orders) if index else list(range(count))
        with offloader.active("dit"), torch.no_grad():
            waits = device.waits
            assert torch.equal(meta(x), there(x))
            assert device.waits == waits, "the host waited inside the loop"
        assert all(parameter.is_meta for parameter in meta.parameters()), (
            "weights can be used after their use"
        )
    device.check()
    offloader.close()
    assert device.taken == 0


def test_copies_run_ahead_and_past_the_end_of_a_step(network):
    offloader, device, meta, _ = placed(network, build_cpu, CpuOptions(slots=2), None, 5)
    for _ in range(3):
        with offloader.active("dit"), torch.no_grad():
            meta(torch.randn(1, 8))
    waits = device.waits
    device.log.clear()
    for _ in range(2):
        with offloader.active("dit"), torch.no_grad():
            meta(torch.randn(1, 8))
    assert device.waits == waits, "the host waited between two steps"
    # two uses per block, then the copy of the block after the next one, also across the end of the step
    assert [kind for kind, _, _ in device.log] == ["use", "use", "copy"] * 10


def test_a_broken_schedule_is_noticed(network, monkeypatch):
    offloader, device, meta, _ = placed(network, build_cpu, CpuOptions(slots=2), None, 5)
    monkeypatch.setattr(device.__class__, "mark", lambda self: QueueEvent("computing", 0, self))
    with offloader.active("dit"), torch.no_grad():
        meta(torch.randn(1, 8))
    with pytest.raises(AssertionError, match="before the last use"):
        device.check()


@settings(max_examples=examples(60), deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    build=st.sampled_from([build_cpu, build_disk]),
    slots=st.integers(2, 3),
    workers=st.integers(1, 3),
    granularity=st.sampled_from(["block", "phase"]),
    room=st.none() | st.integers(0, 8000),
    host=st.none() | st.integers(0, 8000),
    data=st.data(),
)
def test_components_of_other_sizes_take_turns(
    network, counts, build, slots, workers, granularity, room, host, data
):
    """An encoder and networks, whose blocks all have other sizes: streamed units share the same buffers."""
    device = LateDevice()
    context = BuildContext(budget=Budget(device=room, host=host))
    if build is build_cpu:
        options = CpuOptions(slots=slots, granularity=granularity)
    else:
        options = DiskOptions(slots=slots, ring=2, workers=workers, granularity=granularity)
    offloader = build(options, context, device)
    placed = []
    for index, count in enumerate(counts):
        meta, weights, there = network(count, width=8 * (1 + (2 * index + 1) % 3))
        offloader.place(f"part {index}", meta, weights, meta.names)
        for block in meta.blocks:
            block.first.register_forward_pre_hook(device.use)
            block.second.register_forward_pre_hook(device.use)
        placed.append((f"part {index}", meta, there))
    turns = [*range(len(counts)), *data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=6))]
    for turn in turns:
        name, meta, there = placed[turn]
        x = torch.randn(2, meta.embed.in_features)
        with offloader.active(name), torch.no_grad():
            assert torch.equal(meta(x), there(x))
    device.check()
    offloader.close()
    assert device.taken == 0


def test_the_switch_between_experts_is_prefetched(network):
    """The first units of the next expert are in transfer before the current expert has ended."""
    device, context = LateDevice(), BuildContext()
    offloader = build_cpu(CpuOptions(slots=2), context, device)
    experts = {}
    for name in ("high_noise", "low_noise"):
        meta, weights, there = network(4)
        offloader.place(name, meta, weights, meta.names)
        experts[name] = (meta, there)
    x = torch.randn(1, 8)

    def run(name):
        with offloader.active(name), torch.no_grad():
            assert torch.equal(experts[name][0](x), experts[name][1](x))

    run("high_noise")
    run("high_noise")
    device.log.clear()
    run("high_noise")
    unprepared = len([kind for kind, _, _ in device.log if kind == "copy"])
    device.log.clear()
    run("low_noise")
    cold = len([kind for kind, _, _ in device.log if kind == "copy"])
    run("low_noise")
    offloader.prepare("high_noise")
    run("low_noise")
    device.log.clear()
    run("high_noise")
    warm = len([kind for kind, _, _ in device.log if kind == "copy"])
    # cold: the rest and four blocks, and two ahead; warm: two of the blocks are present
    assert (unprepared, cold, warm) == (4, 7, 5)
    offloader.close()
