"""Whole runs on a device that is as late and as strict as a GPU: text encoder, network and decoder, with blocks of many
sizes, share the same buffers, and results are bit-identical to those with resident weights."""

import pytest
import torch

from lightx2v_core import load
from lightx2v_offload import building
from lightx2v_offload.late import LateDevice

WAYS = {
    "cpu-model": {"use": "cpu", "options": {"cpu": {"granularity": "model"}}},
    "cpu-block": {"use": "cpu", "options": {"cpu": {"granularity": "block", "slots": 2}}},
    "cpu-phase": {"use": "cpu", "options": {"cpu": {"granularity": "phase", "slots": 3}}},
    "disk-block": {"use": "disk", "options": {"disk": {"granularity": "block", "ring": 2, "slots": 2}}},
    "disk-block-3": {"use": "disk", "options": {"disk": {"granularity": "block", "ring": 3, "slots": 3}}},
    "disk-phase": {
        "use": "disk",
        "options": {"disk": {"granularity": "phase", "ring": 2, "slots": 3, "workers": 1}},
    },
}
REQUESTS = ({"prompt": "a fox", "seed": 7}, {"prompt": "an owl in the snow", "seed": 8})


@pytest.fixture
def devices(monkeypatch):
    """Give every offloader built in a test its own device."""
    made = []

    def device(*, shared):
        made.append(LateDevice())
        return made[-1]

    monkeypatch.setattr(building, "HostDevice", device)
    return made


@pytest.fixture(scope="module")
def resident(models):
    known = {}

    def run(variant):
        if variant not in known:
            with load(models(variant), size=(32, 32), frames=5, steps=3) as pipeline:
                known[variant] = [pipeline.generate(**request) for request in REQUESTS]
        return known[variant]

    return run


@pytest.mark.parametrize("variant", ["t2v", "a14b"])
@pytest.mark.parametrize("way", WAYS)
def test_results_are_those_of_weights_that_stay(devices, models, resident, variant, way):
    check(devices, models, resident, variant, offloader=WAYS[way])


@pytest.mark.parametrize(
    "limits", [{"vram_limit": 0.5}, {"ram_limit": 0.5}, {"vram_limit": 0.3, "ram_limit": 0.7}]
)
@pytest.mark.parametrize("way", ["cpu-block", "disk-block", "disk-phase"])
def test_so_they_are_where_some_stay(devices, models, resident, way, limits, monkeypatch):
    """Intermediate limits: some blocks stay on the device, some in host memory."""
    policy = building.Limits.policy

    def limited(self, component, sizes, rest):
        self._limit = int((sum(sizes) + rest) * limits.get("vram_limit", 0.0)) or None
        return policy(self, component, sizes, rest)

    monkeypatch.setattr(building.Limits, "policy", limited)
    if "ram_limit" in limits:
        monkeypatch.setattr(building, "host_budget", lambda ctx: int(400_000 * limits["ram_limit"]))
    check(devices, models, resident, "a14b", offloader=WAYS[way])


def check(devices, models, resident, variant, **more):
    expected = resident(variant)
    with load(models(variant), size=(32, 32), frames=5, steps=3, **more) as pipeline:
        for _ in range(2):  # the second round starts from the state of the first
            for request, video in zip(REQUESTS, expected, strict=True):
                found = pipeline.generate(**request)
                assert torch.equal(found.latents, video.latents)
                assert torch.equal(found.frames, video.frames)
    assert devices, "the offloader worked on no device"
    assert all(device.copied for device in devices)
    for device in devices:
        device.check()
        assert device.taken == 0
