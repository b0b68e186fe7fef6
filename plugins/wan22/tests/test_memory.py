"""With the ``sequential`` offloader at most one expert is loaded at any time, and the result is the same."""

import pytest
import torch

from lightx2v_core import load
from lightx2v_core.builtin.sequential import Sequential
from lightx2v_wan22.tiny import write_tiny_a14b

SMALL = {"size": (32, 32), "frames": 5, "steps": 4, "prompt": "a fox", "seed": 3}


@pytest.fixture
def held(monkeypatch):
    """Bytes of all weights on the device, recorded after every read."""
    found = []
    plain = Sequential.active

    def active(self, component):
        for _module, weights in self._placed.values():
            if not hasattr(weights, "watched"):
                weights.watched = True
                fill = weights.fill

                def watched(prefix, device, fill=fill, self=self):
                    done = fill(prefix, device)
                    found.append(total(self))
                    return done

                weights.fill = watched
        found.append(total(self))
        return plain(self, component)

    monkeypatch.setattr(Sequential, "active", active)
    return found


def total(offloader):
    modules = [module for module, _ in offloader._placed.values()]
    return sum(p.nbytes for module in modules for p in module.parameters() if not p.is_meta)


def test_two_experts_take_the_memory_of_one(tmp_path, held):
    write_tiny_a14b(tmp_path, 0)
    plain = load(tmp_path).generate(**SMALL)
    pipeline = load(tmp_path, offloader="sequential")
    experts = {part.name: part.weights for part in pipeline.plan.components}
    assert held == []
    video = pipeline.generate(**SMALL)
    assert torch.equal(video.latents, plain.latents)
    assert torch.equal(video.frames, plain.frames)
    # never more than one of them: the tiny VAE is the largest here, and the experts are never there together
    assert set(held) == {0, *experts.values()}
    assert pipeline.plan.memory.device_weights == max(experts.values())
    again = pipeline.generate(**SMALL)
    assert torch.equal(again.latents, plain.latents)
