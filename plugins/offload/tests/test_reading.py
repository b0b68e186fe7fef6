"""Reads in every step: which tensors, and through which cache."""

import warnings

import pytest
import torch
from torch import nn

from lightx2v_core.api import BuildContext, open_uncached
from lightx2v_offload import scratch
from lightx2v_offload.building import build_disk
from lightx2v_offload.options import DiskOptions


@pytest.mark.parametrize("cached", [False, True])
def test_the_cache_of_the_system_is_used_when_asked(network, tmp_path, monkeypatch, cached):
    asked = []

    def opened(path):
        asked.append(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_uncached(path)

    monkeypatch.setattr(scratch, "open_uncached", opened)
    meta, weights, there = network(4, computed=["blocks.1.first.weight"])
    options = DiskOptions(workers=2, cached=cached, scratch=str(tmp_path))
    offloader = build_disk(options, BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    weights.cached.clear()  # computed tensors are read once, in the default way
    x = torch.randn(2, 8)
    with offloader.active("dit"), torch.no_grad():
        assert torch.equal(meta(x), there(x))
    assert weights.cached == {cached}
    assert bool(asked) is not cached, "the scratch file is read like the others"
    offloader.close()


def test_biases_and_norms_are_not_read_again(network):
    meta, weights, there = network(4, width=600)
    offloader = build_disk(DiskOptions(workers=1), BuildContext())
    offloader.place("dit", meta, weights, meta.names)
    x = torch.randn(2, 600)
    for _ in range(3):
        with offloader.active("dit"), torch.no_grad():
            assert torch.equal(meta(x), there(x))
    assert weights.reads.count("blocks.2.first.weight") >= 3
    for name in ("blocks.2.first.bias", "blocks.2.second.bias", "blocks.2.scale", "embed.weight"):
        assert weights.reads.count(name) == 1, name
    assert all(isinstance(parameter, nn.Parameter) and parameter.is_meta for parameter in meta.parameters())
    offloader.close()
