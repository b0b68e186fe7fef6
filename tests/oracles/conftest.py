"""Weights of ours in the modules of other libraries, by the key maps that read their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightx2v_core.checkpoint.layouts import MappedHeader, apply_key_map
from lightx2v_core.spec.components import KeyMap
from lightx2v_core.spec.tensors import Header, TensorInfo


@pytest.fixture(scope="session", autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def fill() -> Callable[..., nn.Module]:
    return filled_by_names


@pytest.fixture(scope="session")
def check_names() -> Callable[..., MappedHeader]:
    return checked_names


def checked_names(
    network: nn.Module, key_map: KeyMap, expected: Mapping[str, tuple[int, ...]], unstored: str = r"(?!)"
) -> MappedHeader:
    """The state dict of ``network``, mapped: it has exactly the names and shapes of ``expected``, but for axes of
    length one and the names that ``unstored`` matches."""
    infos = {
        name: TensorInfo(name=name, shape=tuple(tensor.shape), dtype="float32", file=Path("x"))
        for name, tensor in network.state_dict().items()
    }
    mapped = apply_key_map(key_map, Header(tensors=infos))
    assert mapped is not None
    stored = {name: shape for name, shape in expected.items() if not re.search(unstored, name)}
    assert {name: _long(shape) for name, shape in mapped.header.shapes.items()} == {
        name: _long(shape) for name, shape in stored.items()
    }
    return mapped


def filled_by_names(
    network: nn.Module, key_map: KeyMap, tensors: Mapping[str, Tensor], unstored: str = r"(?!)"
) -> nn.Module:
    """``network`` with our weights, after ``checked_names``. Tensors whose parts it has apart are taken apart."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    mapped = checked_names(network, key_map, shapes, unstored)
    held, state = network.state_dict(), {}
    for name, stored in mapped.stored.items():
        for part, tensor in zip(stored, tensors[name].chunk(len(stored)), strict=True):
            state[part] = tensor.reshape(held[part].shape)
    left_out = network.load_state_dict(state, strict=False)
    assert not left_out.unexpected_keys
    # a dropped name has no weight of its own, such as the second name of a shared one
    assert all(any(re.search(drop, name) for drop in key_map.drops) for name in left_out.missing_keys)
    return network.eval()


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)
