"""Quantizers, LoRA appliers and offloaders of third parties are really used by a run, one component at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.api import (  # noqa: E402
    BuildContext,
    LoraApplierSpec,
    OffloaderSpec,
    PluginError,
    QuantizerSpec,
    changed,
    hookimpl,
)
from lightx2v_core.discovery.plugins import collected  # noqa: E402

SMALL: dict[str, Any] = {"size": (32, 32), "frames": 1, "steps": 2, "prompt": "a fox"}


class HalfLinear(nn.Module):
    """A linear whose file holds int8 codes and one scale a row."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(plain.weight.shape, dtype=torch.int8), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(plain.out_features, 1), requires_grad=False)
        self.bias = plain.bias

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.weight.float() * self.weight_scale, self.bias)


class RowInt8:
    """The quantizer of ``HalfLinear``."""

    def linear(self, plain: nn.Linear, layer: Any) -> nn.Module:
        with torch.device("meta"):
            return HalfLinear(plain)

    def quantize(self, weight: Any, format: str) -> dict[str, Any]:
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}

    def dequantize(self, stored: Mapping[str, Any], layer: Any) -> Any:
        return stored["weight"].float() * stored["weight_scale"]


class Adding:
    """A source with what adapters add, tensor by tensor."""

    def __init__(self, base: Any, adapters: Sequence[Any]) -> None:
        self.base, self.adapters = base, adapters
        self.names, self.info, self.close = base.names, base.info, base.close

    def read(self, name: str, device: str = "cpu") -> Any:
        steps = [(adapter, c) for adapter in self.adapters for c in adapter.changes if c.target == name]
        return changed(self.base.read(name, device), steps)


class Applier:
    def __init__(self) -> None:
        self.attached: list[str] = []

    def merged(self, base: Any, adapters: Sequence[Any]) -> Any:
        return Adding(base, adapters) if adapters else base

    def attach(self, module: nn.Module, adapters: Sequence[Any]) -> None:
        if adapters:
            self.attached.append(f"{type(module).__name__} {adapters[0].changes[0].target}")


class Watching:
    """Fills block by block and notes when each component is in use."""

    def __init__(self) -> None:
        self.placed: dict[str, int] = {}
        self.used: list[str] = []

    def place(self, component: str, module: nn.Module, weights: Any, blocks: Sequence[str]) -> None:
        for block in blocks:
            weights.fill(block, "cpu")
        assert not any(p.is_meta for b in blocks for p in module.get_submodule(b).parameters())
        weights.fill("", "cpu")
        self.placed[component] = len(blocks)

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        self.used.append(component)
        yield

    def prepare(self, component: str) -> None:
        self.used.append(f"{component} next")

    def close(self) -> None:
        self.used.append("closed")


def plugin_of(**hooks: list[Any]) -> ModuleType:
    """A plugin module whose hooks return the given specs."""
    module = ModuleType("acme_plugin")
    for name, specs in hooks.items():
        setattr(module, name, hookimpl(lambda specs=tuple(specs): specs))
    return module


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(tmp_path / "tiny", 0)
    return tmp_path / "tiny"


def plugins(**hooks: Any) -> Any:
    from lightx2v_wan21 import plugin

    return collected({"wan21": plugin, "acme": plugin_of(**hooks)})


def test_a_quantizer_takes_over_the_layers_that_are_in_its_format(checkpoint: Path) -> None:
    spec = QuantizerSpec(
        name="row-int8",
        summary="int8",
        formats=frozenset({"int8-channel"}),
        build=lambda c, x: RowInt8(),
    )
    with pytest.raises(PluginError, match=r"row-int8 .*has nothing to do"):
        load(checkpoint, plugins=plugins(lightx2v_quantizers=[spec]), quantizer="row-int8")
    plain = load(checkpoint).generate(**SMALL)
    shard = checkpoint / "diffusion_pytorch_model-00001-of-00002.safetensors"
    index = checkpoint / "diffusion_pytorch_model.safetensors.index.json"
    tensors = load_file(shard) | load_file(str(shard).replace("00001-of", "00002-of"))
    for name in [n for n in tensors if n.startswith("blocks.1.ffn") and n.endswith("weight")]:
        for suffix, tensor in RowInt8().quantize(tensors[name], "int8-channel").items():
            tensors[f"{name.removesuffix('.weight')}.{suffix}"] = tensor
    for path in checkpoint.glob("*.safetensors"):
        path.unlink()
    index.unlink()
    save_file(tensors, checkpoint / "diffusion_pytorch_model.safetensors")

    found = load(checkpoint, plugins=plugins(lightx2v_quantizers=[spec]), quantizer="row-int8")
    network = found.module("dit")
    assert isinstance(network.blocks[1].ffn[0], HalfLinear)
    assert isinstance(network.blocks[0].ffn[0], nn.Linear)
    got = found.generate(**SMALL)
    assert not torch.equal(got.latents, plain.latents)
    torch.testing.assert_close(got.latents, plain.latents, atol=0.5, rtol=0.1)


def test_an_applier_gets_the_adapters_and_its_source_is_loaded(checkpoint: Path, tmp_path: Path) -> None:
    applier = Applier()
    spec = LoraApplierSpec(name="acme", summary="adds", build=lambda config, ctx: applier)
    save_file({"head.head.diff_b": torch.arange(64.0)}, tmp_path / "lora.safetensors")
    lora = {"path": str(tmp_path / "lora.safetensors"), "strength": 0.5}
    found = plugins(lightx2v_lora_appliers=[spec])
    merged = load(checkpoint, plugins=found, lora_applier="acme", loras=[lora])
    plain = load(checkpoint, plugins=found)
    bias = plain.module("dit").head.head.bias
    wanted = bias + 0.5 * torch.arange(64.0)
    torch.testing.assert_close(merged.module("dit").head.head.bias, wanted)
    # first on the network that it proves itself with
    assert applier.attached == ["ModuleDict layer.weight", "WanDiT head.head.bias"]


def test_an_offloader_places_blocks_and_is_told_of_each_use(checkpoint: Path) -> None:
    made: list[Watching] = []

    def build(_config: Any, _ctx: BuildContext) -> Watching:
        made.append(Watching())
        return made[-1]

    spec = OffloaderSpec(name="watching", summary="watches", build=build)
    found = plugins(lightx2v_offloaders=[spec])
    video = load(checkpoint, plugins=found, offloader="watching").generate(**SMALL)
    assert torch.equal(video.latents, load(checkpoint).generate(**SMALL).latents)
    assert made[0].placed == {"text_encoder": 2, "dit": 2, "vae": 0}
    assert made[0].used == ["text_encoder", "text_encoder", "dit", "dit", "dit", "dit", "vae"]

    one = {"text_encoder": {"offloader": "watching"}}
    load(checkpoint, plugins=found, components=one).generate(**SMALL)
    assert made[1].placed == {"text_encoder": 2}


def test_one_component_at_a_time_gives_the_same_video(checkpoint: Path) -> None:
    plain = load(checkpoint)
    found = load(checkpoint, offloader="sequential")
    network = found.module("dit")
    assert all(parameter.is_meta for parameter in network.parameters())
    first, again = found.generate(**SMALL), found.generate(**SMALL)
    expected = plain.generate(**SMALL)
    assert torch.equal(first.frames, expected.frames)
    assert torch.equal(again.frames, expected.frames)
    assert all(parameter.is_meta for parameter in network.parameters())  # the VAE was the last one at work
    assert found.plan.memory.device_weights == max(part.weights for part in found.plan.components)
