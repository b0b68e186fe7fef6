"""The schedule of copies, on a device that only records: what is queued, in which order, after which events."""

import pytest
import torch
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.api import Budget, BuildContext
from lightx2v_offload.building import build_cpu, build_disk
from lightx2v_offload.options import CpuOptions, DiskOptions


@define(eq=False)
class Mark:
    """A point on one of the two queues: how much was queued there before."""

    queue: str
    at: int
    device: object

    def synchronize(self):
        self.device.waits += 1


@define(eq=False)
class Simulated:
    """A device with two queues, of copies and of computing. ``log`` holds what the host queued, in its order."""

    shared = False
    #: ("copy", buffer, uses that it waits for) or ("use", buffer, copies that it waits for)
    log: list = field(factory=list)
    copied: int = 0
    used: int = 0
    #: copies that computing has been told to wait for
    awaited: int = 0
    waits: int = 0
    taken: int = 0

    def host(self, nbytes):
        self.taken += nbytes
        return torch.empty(nbytes, dtype=torch.uint8)

    def free(self, memory):
        self.taken -= memory.nbytes

    def memory(self, nbytes):
        return torch.empty(nbytes, dtype=torch.uint8)

    def copy(self, source, target, after):
        target.copy_(source)
        self.log.append(("copy", target.data_ptr(), 0 if after is None else after.at))
        self.copied += 1
        return Mark("copies", self.copied, self)

    def wait(self, event):
        assert event.queue == "copies"
        self.awaited = max(self.awaited, event.at)

    def mark(self):
        return Mark("computing", self.used, self)

    def settle(self):
        self.waits += 1

    def use(self, module, _inputs):
        self.log.append(("use", module.weight.untyped_storage().data_ptr(), self.awaited))
        self.used += 1

    def check(self):
        """Whatever the device does first where events leave it free, no copy starts before the last use of its buffer
        has ended, and no use before the last copy into its buffer has."""
        uses, copies = {}, {}
        used = copied = 0
        for kind, buffer, waits_for in self.log:
            if kind == "use":
                used += 1
                uses[buffer] = used
                assert waits_for >= copies[buffer], "a use may start before its copy has ended"
            else:
                copied += 1
                copies[buffer] = copied
                assert waits_for >= uses.get(buffer, 0), "a copy may start before the last use has ended"


def placed(network, build, options, limit, count):
    meta, weights, there = network(count)
    device = Simulated()
    context = BuildContext(budget=Budget(device=limit))
    offloader = build(options, context, device)
    offloader.place("dit", meta, weights, meta.names)
    for block in meta.blocks:
        block.first.register_forward_pre_hook(device.use)
        block.second.register_forward_pre_hook(device.use)
    return offloader, device, meta, there


@settings(max_examples=60, deadline=None)
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
    # two uses a block, then the copy of the block after the next one, over the end of the step as well
    assert [kind for kind, _, _ in device.log] == ["use", "use", "copy"] * 10


def test_a_broken_schedule_is_noticed(network, monkeypatch):
    offloader, device, meta, _ = placed(network, build_cpu, CpuOptions(slots=2), None, 5)
    monkeypatch.setattr(device.__class__, "mark", lambda self: Mark("computing", 0, self))
    with offloader.active("dit"), torch.no_grad():
        meta(torch.randn(1, 8))
    with pytest.raises(AssertionError, match="before the last use"):
        device.check()


def test_from_disk_the_same_schedule_holds(network):
    options = DiskOptions(slots=2, ring=2, workers=2)
    context = BuildContext(budget=Budget(device=3000))
    meta, weights, there = network(6)
    device = Simulated()
    offloader = build_disk(options, context, device)
    offloader.place("dit", meta, weights, meta.names)
    for block in meta.blocks:
        block.first.register_forward_pre_hook(device.use)
    x = torch.randn(2, 8)
    for _ in range(3):
        with offloader.active("dit"), torch.no_grad():
            assert torch.equal(meta(x), there(x))
    device.check()
    offloader.close()
    assert device.taken == 0


def test_the_switch_between_experts_is_prefetched(network):
    """What comes first of the expert to come is on its way before the expert at work is done."""
    device, context = Simulated(), BuildContext()
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
    # cold: the rest and four blocks, and two ahead; warm: two of the blocks were there
    assert (unprepared, cold, warm) == (4, 7, 5)
    offloader.close()
