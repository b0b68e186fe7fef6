"""Faults while weights are read: one message, nothing left behind, and the next request works."""

import os
import threading
import time

import pytest
import torch

from lightx2v_core.api import BuildContext, RunError
from lightx2v_offload import ring
from lightx2v_offload.building import build_cpu, build_disk
from lightx2v_offload.late import LateDevice
from lightx2v_offload.options import CpuOptions, DiskOptions

X = torch.randn(2, 8)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lightx2v-reader")]


def run(offloader, meta, x=X):
    with offloader.active("dit"), torch.no_grad():
        return meta(x)


@pytest.fixture
def disk(network, tmp_path):
    """A network under the disk offloader, with weights whose reads can fail."""
    meta, weights, there = network(6)
    options = DiskOptions(workers=2, ring=2, scratch=str(tmp_path))
    offloader = build_disk(options, BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    yield offloader, meta, weights, there
    offloader.close()
    assert not readers()


def test_a_failing_read_is_the_error_of_the_run_and_the_next_works(disk):
    offloader, meta, weights, there = disk

    def fail(name):
        if name == "blocks.3.first.weight":
            raise RunError("the file was changed while it was in use")

    weights.on_read = fail
    with pytest.raises(RunError, match="was changed while"):
        run(offloader, meta)
    assert all(parameter.is_meta for parameter in meta.parameters())
    weights.on_read = lambda name: None
    assert torch.equal(run(offloader, meta), there(X))


def test_a_reader_that_breaks_is_told_of(disk):
    offloader, meta, weights, _ = disk

    def fail(name):
        raise SystemExit(3)

    weights.on_read = fail
    with pytest.raises(RunError, match="cannot read the weights of .*: SystemExit: 3"):
        run(offloader, meta)


@pytest.mark.load
def test_readers_that_are_gone_are_noticed(network, tmp_path, monkeypatch):
    """Reader threads that end immediately, as if killed."""
    monkeypatch.setattr(ring, "_LOOK", 0.05)
    monkeypatch.setattr(ring.RingStore, "_work", lambda self: None)
    meta, weights, _ = network(6)
    offloader = build_disk(DiskOptions(workers=2, ring=2, scratch=str(tmp_path)), BuildContext())
    with pytest.raises(RunError, match="a reader thread of the offloader died"):
        offloader.place("dit", meta, weights, meta.names)
        run(offloader, meta)
    offloader.close()
    assert not readers()


def test_an_error_of_the_network_ends_the_use_and_the_next_works(disk):
    offloader, meta, _, there = disk
    hook = meta.blocks[2].second.register_forward_pre_hook(lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run(offloader, meta)
        assert all(parameter.is_meta for parameter in meta.parameters())
    hook.remove()
    assert torch.equal(run(offloader, meta), there(X))


def test_a_use_that_was_left_open_disturbs_nobody(network):
    offloader = build_cpu(CpuOptions(), BuildContext())
    networks = {}
    for name in ("vae", "dit"):
        meta, weights, there = network(4)
        offloader.place(name, meta, weights, meta.names)
        networks[name] = (meta, there)

    def chunks():
        with offloader.active("vae"):
            yield networks["vae"][0](X)
            yield None

    with torch.no_grad():
        left_open = chunks()
        assert torch.equal(next(left_open), networks["vae"][1](X))
        with offloader.active("dit"):
            left_open.close()
            assert torch.equal(networks["dit"][0](X), networks["dit"][1](X))
    offloader.close()


@pytest.mark.load
def test_slow_reads_are_waited_for(disk):
    offloader, meta, weights, there = disk
    weights.on_read = lambda name: time.sleep(0.002)
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 2, 0], [], [0, 1, 2, 3, 4, 5]):
        meta.order = there.order = order
        assert torch.equal(run(offloader, meta), there(X))


@pytest.mark.load
def test_reading_goes_on_past_the_end_of_a_pass(disk):
    offloader, meta, weights, _ = disk
    run(offloader, meta)
    run(offloader, meta)
    end = time.monotonic() + 10
    names = [f"blocks.{index}.first.weight" for index in range(2)]
    while time.monotonic() < end and min(weights.reads.count(name) for name in names) < 3:
        time.sleep(0.01)
    # twice for the two passes, once for the one that may follow; tensors used in every call are read once
    assert weights.reads.count("blocks.0.first.weight") == weights.reads.count("blocks.1.first.weight") == 3
    assert weights.reads.count("blocks.2.first.weight") == 2
    assert weights.reads.count("embed.weight") == 1


@pytest.mark.load
def test_an_interrupt_while_waiting_leaves_nothing(disk):
    offloader, meta, weights, _ = disk
    release = threading.Event()
    weights.on_read = lambda name: release.wait(5)
    main = threading.get_ident()

    def interrupt():
        time.sleep(0.2)
        import signal

        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(offloader, meta)
    thread.join()
    release.set()


def test_computed_weights_are_computed_once(network, tmp_path):
    computed = ["blocks.1.first.weight", "embed.weight"]
    meta, weights, there = network(5, computed=computed)
    offloader = build_disk(DiskOptions(scratch=str(tmp_path), workers=2), BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    assert weights.reads == ["embed.weight", "blocks.1.first.weight"]
    assert not list(tmp_path.iterdir()), "the scratch file has no name"
    for _ in range(3):
        assert torch.equal(run(offloader, meta), there(X))
    assert [weights.reads.count(name) for name in computed] == [1, 1]
    offloader.close()


def test_scratch_is_kept_when_asked_and_is_a_checkpoint(network, tmp_path):
    from safetensors.torch import load_file

    meta, weights, _ = network(3, computed=["blocks.1.first.weight"])
    offloader = build_disk(DiskOptions(scratch=str(tmp_path), keep_scratch=True), BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    offloader.close()
    (kept,) = tmp_path.iterdir()
    found = load_file(kept)
    assert list(found) == ["blocks.1.first.weight"]
    assert torch.equal(found["blocks.1.first.weight"], weights.data["blocks.1.first.weight"])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_scratch_disk_is_an_error_and_leaves_nothing(network, tmp_path, monkeypatch, call, keep):
    meta, weights, _ = network(3, computed=["blocks.1.first.weight"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    options = DiskOptions(scratch=str(tmp_path), keep_scratch=keep)
    offloader = build_disk(options, BuildContext())
    with pytest.raises(
        RunError, match=r"scratch file of 0\.00 GB .* No space left on device; set the offloader"
    ):
        offloader.place("dit", meta, weights, meta.names)
    offloader.close()
    assert not list(tmp_path.iterdir())


def test_computing_in_another_dtype_goes_through_the_scratch_too(network):
    meta, weights, there = network(4, dtype=torch.bfloat16)
    weights.data = {name: tensor.float() for name, tensor in weights.data.items()}
    weights.computed = frozenset(weights.data)
    offloader = build_disk(DiskOptions(workers=1), BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    x = X.bfloat16()
    assert torch.equal(run(offloader, meta, x), there(x))
    offloader.close()


@pytest.mark.parametrize("build", [build_cpu, build_disk])
@pytest.mark.parametrize("number", range(9))
def test_a_copy_that_fails_is_the_error_of_the_run_and_leaves_nothing(network, build, number):
    """In the first use, in the prefetch past its end, and in the second use: the error of the device is raised."""
    meta, weights, there = network(4)
    device = Failing(number)
    options = CpuOptions() if build is build_cpu else DiskOptions(workers=1, ring=2)
    offloader = build(options, BuildContext(), device)
    offloader.place("dit", meta, weights, meta.names)
    with pytest.raises(RuntimeError, match="^the device is gone$"):
        for _ in range(3):
            assert torch.equal(run(offloader, meta), there(X))
    assert all(parameter.is_meta for parameter in meta.parameters())
    device.number = -1
    assert torch.equal(run(offloader, meta), there(X)), "the next use is right"
    device.number = device.copied
    with pytest.raises(RuntimeError, match="^the device is gone$"):
        run(offloader, meta, X)
        run(offloader, meta, X)
    offloader.close()
    assert device.taken == 0
    assert not readers()


@pytest.mark.parametrize("build", [build_cpu, build_disk])
def test_a_device_that_is_gone_for_good_is_told_of_and_closed(network, build):
    """Every call of the device raises the same error: the run reports it, and host memory is released."""
    meta, weights, _ = network(4)
    device = Failing(2)
    options = CpuOptions() if build is build_cpu else DiskOptions(workers=1, ring=2)
    offloader = build(options, BuildContext(), device)
    offloader.place("dit", meta, weights, meta.names)
    device.for_good = True
    with pytest.raises(RuntimeError, match="^the device is gone$"):
        run(offloader, meta)
    with pytest.raises(RuntimeError, match="^the device is gone$"):
        offloader.close()
    assert device.taken == 0
    assert not readers()


@pytest.mark.parametrize("number", range(4))
def test_memory_that_cannot_be_locked_is_an_error_and_the_rest_is_given_back(network, number):
    """The first buffer of the ring, the second, the tensors used in every call."""
    meta, weights, there = network(4)
    device = Scarce(number)
    offloader = build_disk(DiskOptions(workers=1, ring=3), BuildContext(), device)
    offloader.place("dit", meta, weights, meta.names)
    with pytest.raises(RunError, match="^cannot pin host memory$"):
        run(offloader, meta)
    assert torch.equal(run(offloader, meta), there(X))
    offloader.close()
    assert device.taken == 0


class Scarce(LateDevice):
    """A device that fails to pin memory in call ``number``."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def host(self, nbytes):
        self.number -= 1
        if self.number == -1:
            raise RunError("cannot pin host memory")
        return super().host(nbytes)


class Failing(LateDevice):
    """A device that fails at copy ``number``; ``for_good``: at every call from then on."""

    def __init__(self, number):
        super().__init__()
        self.number, self.for_good = number, False

    def copy(self, source, target, after):
        if self.copied == self.number or self._is_gone():
            raise RuntimeError("the device is gone")
        return super().copy(source, target, after)

    def settle(self):
        self._answer()
        super().settle()

    def reach(self, point):
        self._answer()
        super().reach(point)

    def _is_gone(self):
        return self.for_good and self.copied >= self.number

    def _answer(self):
        if self._is_gone():
            self._queue.clear()  # no copy is in flight any more
            raise RuntimeError("the device is gone")
