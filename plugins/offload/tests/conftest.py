"""Tiny checkpoints of every variant, and a network with blocks for offloading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightx2v_core.api import ModuleTensor


def pytest_configure() -> None:
    from lightx2v_core.testing.signals import hear_signals

    hear_signals()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Use one torch thread: such small networks do not profit from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Block(nn.Module):
    """A block of two linear layers and a small norm."""

    def __init__(self, width: int, inner: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width, dtype=dtype))
        self.first = nn.Linear(width, inner, dtype=dtype)
        self.second = nn.Linear(inner, width, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.tanh(self.first(x * self.scale)))


class Network(nn.Module):
    """A sequence of blocks of several sizes; ``order`` can permute or omit blocks."""

    def __init__(self, count: int = 5, width: int = 8, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width, dtype=dtype)
        self.blocks = nn.ModuleList(Block(width, width * (1 + index % 3), dtype) for index in range(count))
        self.order = list(range(count))
        self.names = [f"blocks.{index}" for index in range(count)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for index in self.order:
            x = self.blocks[index](x)
        return x


class Weights:
    """``ModuleWeights`` from tensors in memory, with ``computed`` as computed ones. ``on_read`` can raise errors."""

    def __init__(self, module: nn.Module, tensors: dict[str, Tensor], computed: Sequence[str] = ()) -> None:
        self.module, self.data, self.computed = module, tensors, frozenset(computed)
        self.reads: list[str] = []
        #: whether each read went through the page cache
        self.cached: set[bool] = set()
        self.on_read: Callable[[str], None] = lambda name: None

    def tensors(self, prefix: str) -> list[ModuleTensor]:
        found = []
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if name.startswith(f"{prefix}." if prefix else ""):
                path, _, key = name.rpartition(".")
                found.append(
                    ModuleTensor(
                        name=name,
                        owner=self.module.get_submodule(path),
                        key=key,
                        parameter=isinstance(tensor, nn.Parameter),
                        shape=tuple(tensor.shape),
                        dtype=tensor.dtype,
                        nbytes=tensor.numel() * tensor.element_size(),
                    )
                )
        return found

    def fill(self, prefix: str, device: str) -> int:
        raise AssertionError("offloaders of this plugin read into memory of their own")

    def direct(self, name: str) -> bool:
        return name not in self.computed

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        self.reads.append(name)
        self.cached.add(cached)
        self.on_read(name)
        out.copy_(self.data[name])


@pytest.fixture(scope="session")
def network() -> Callable[..., tuple[Network, Weights, Network]]:
    """``network(count)`` builds a network on the meta device, its weights, and the same network in memory; ``names``
    are the prefixes of its blocks."""

    def make(count: int = 5, computed: Sequence[str] = (), **sizes: Any) -> tuple[Network, Weights, Network]:
        torch.manual_seed(0)
        there = Network(count, **sizes)
        for parameter in there.parameters():
            nn.init.normal_(parameter, std=0.3)
        with torch.device("meta"):
            meta = Network(count, **sizes)
        tensors = {name: tensor.detach() for name, tensor in there.state_dict().items()}
        return meta, Weights(meta, tensors, computed), there

    return make


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``models(variant)`` returns the folder of a tiny checkpoint with several blocks, written at the first call."""
    root = tmp_path_factory.mktemp("models")

    def folder(variant: str) -> Path:
        path = root / variant
        if not path.exists():
            _write(path, variant)
        return path

    return folder


def _write(path: Path, variant: str) -> None:
    """Write the tiny checkpoint of a plugin, with more blocks than slots."""
    pytest.importorskip("lightx2v_wan21")
    with pytest.MonkeyPatch.context() as patch:
        if variant in ("t2v", "i2v", "flf2v", "vace"):
            from lightx2v_wan21 import tiny as tiny21

            architecture = tiny21.DitArchitecture
            patch.setattr(
                tiny21, "DitArchitecture", lambda **sizes: architecture(**{**sizes, "num_layers": 5})
            )
            patch.setitem(tiny21._BRANCHES, "vace", {"vace_layers": (0, 2, 4)})
            tiny21.write_tiny(path, task=variant)
            return
        pytest.importorskip("lightx2v_wan22")
        from lightx2v_wan22 import tiny

        patch.setitem(tiny._DIT, "num_layers", 5)
        if variant == "animate":
            tiny.write_tiny_animate(path)
        elif variant == "ti2v":
            tiny.write_tiny_ti2v(path)
        else:
            tiny.write_tiny_a14b(path, images=variant == "a14b-i2v")
