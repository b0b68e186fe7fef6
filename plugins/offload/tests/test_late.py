"""The test device of the schedules: as strict as a GPU, and as late as its events allow."""

import gc
import threading

import pytest
import torch

from lightx2v_offload.late import LateDevice


@pytest.fixture
def device():
    return LateDevice()


def test_a_copy_ends_when_somebody_waits_and_no_sooner(device):
    source, target = device.host(16), device.memory(16)
    event = device.copy(source.fill_(1), target, device.mark())
    source.fill_(2)  # writing without waiting corrupts the copy in flight
    assert set(target.tolist()) == {0xFF}
    device.wait(event)
    assert set(target.tolist()) == {2}


def test_copies_end_in_their_order_and_no_more_of_them_than_are_waited_for(device):
    source, targets = device.host(16).fill_(1), [device.memory(16) for _ in range(3)]
    events = [device.copy(source, target, None) for target in targets]
    thread = threading.Thread(target=events[1].synchronize)
    thread.start()
    thread.join()
    assert [int(target[0]) for target in targets] == [1, 1, 0xFF]
    device.settle()
    assert [int(target[0]) for target in targets] == [1, 1, 1]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (lambda d: d.host(32), lambda d: d.memory(16), "source of 32 bytes and a target of 16"),
        (lambda d: d.host(1), lambda d: d.memory(16), "source of 1 bytes and a target of 16"),
        (lambda d: torch.zeros(16, dtype=torch.uint8), lambda d: d.memory(16), "not pinned"),
        (lambda d: d.memory(16), lambda d: d.memory(16), "not pinned"),
        (lambda d: d.host(16), lambda d: d.host(16), "outside the device"),
        (lambda d: d.host(32)[::2], lambda d: d.memory(16), "source of a copy is not a 1-D tensor of bytes"),
        (
            lambda d: d.host(16),
            lambda d: d.memory(16).view(4, 4),
            "target of a copy is not a 1-D tensor of bytes",
        ),
        (lambda d: d.host(16).view(torch.float32), lambda d: d.memory(16), "is not a 1-D tensor of bytes"),
    ],
)
def test_what_a_gpu_refuses_is_refused(device, source, target, said):
    with pytest.raises(RuntimeError, match=said):
        device.copy(source(device), target(device), None)


def test_memory_on_its_way_stays_where_it_is(device):
    source, target = device.host(16), device.memory(16)
    device.copy(source, target, None)
    with pytest.raises(RuntimeError, match="unpinned while a copy from it is in flight"):
        device.free(source)
    device.settle()
    device.free(source)
    with pytest.raises(RuntimeError, match="was not pinned"):
        device.free(source)


def test_memory_of_the_device_that_goes_too_early_is_noticed(device):
    source, target = device.host(16), device.memory(16)
    device.copy(source, target, None)
    del target
    gc.collect()
    with pytest.raises(RuntimeError, match="released while a copy to it was in flight"):
        device.settle()


def test_what_computes_reads_memory_of_the_device_at_even_addresses(device):
    layer = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(RuntimeError, match="not on the device"):
        device.use(layer, ())
    memory = device.memory(32)
    for start, right in ((0, True), (4, False), (16, True)):
        weight = memory[start : start + 16].view(torch.float32).view(2, 2)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        if right:
            device.use(layer, ())
        else:
            with pytest.raises(RuntimeError, match="unaligned address"):
                device.use(layer, ())
