"""``Pipeline.module``: the networks of a loaded model, for those who look into them, hook or compile them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

wan21_tiny = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from lightx2v_core import load  # noqa: E402
from lightx2v_core.api import RequestError  # noqa: E402

SMALL: dict[str, Any] = {
    "prompt": "a fox", "seed": 1, "size": (32, 32), "frames": 5, "steps": 2, "guide_scale": 1
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "t2v"
    wan21_tiny.write_tiny(path)
    return path


@pytest.mark.parametrize("offloader", ["none", "sequential"])
def test_a_hook_on_the_network_sees_every_step(folder: Path, offloader: str) -> None:
    pipeline = load(folder, device="cpu", offloader=offloader)
    assert {part.name for part in pipeline.plan.components} == {"dit", "text_encoder", "vae"}
    calls: list[object] = []
    pipeline.module("dit").register_forward_hook(lambda *_: calls.append(None))
    pipeline.generate(**SMALL)
    assert len(calls) == SMALL["steps"]
    assert sum(tensor.numel() for tensor in pipeline.module("vae").state_dict().values()) > 0


def test_a_network_that_is_compiled_makes_the_same_video(folder: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    pipeline, counter = load(folder, device="cpu"), CompileCounter()
    before = pipeline.generate(**SMALL)
    pipeline.module("dit").compile(backend=counter)
    after = pipeline.generate(**SMALL)
    assert counter.frame_count > 0
    torch.testing.assert_close(after.frames, before.frames)


def test_the_experts_are_networks_of_their_own(tmp_path: Path) -> None:
    wan22_tiny = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")
    wan22_tiny.write_tiny_a14b(tmp_path)
    pipeline = load(tmp_path, device="cpu")
    assert pipeline.module("high_noise") is not pipeline.module("low_noise")
    with pytest.raises(
        RequestError, match="no network 'dit'; its networks are: text_encoder, high_noise, low_noise, vae"
    ):
        pipeline.module("dit")


def test_a_name_that_is_almost_right_is_named(folder: Path) -> None:
    pipeline = load(folder, device="cpu")
    with pytest.raises(RequestError, match="no network 'text_encodr'; did you mean 'text_encoder'"):
        pipeline.module("text_encodr")


def test_the_old_name_of_a_strength_works_and_says_so(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"head.head.diff_b": torch.ones(64)}, tmp_path / "l.safetensors")
    pipeline = load(folder, device="cpu", loras=[str(tmp_path / "l.safetensors")])
    with pytest.warns(DeprecationWarning, match="Pipeline.weigh_lora, which is called set_lora_strength now"):
        plan = pipeline.weigh_lora(tmp_path / "l.safetensors", 0.5)
    assert plan == pipeline.set_lora_strength(tmp_path / "l.safetensors", 0.5)
    assert [lora.strength for lora in pipeline.loras] == [0.5]
