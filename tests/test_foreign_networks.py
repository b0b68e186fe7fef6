"""Networks that other people derived from Wan: their tensors are those of Wan and some more, or take other channels, or
only their ``config.json`` says what they are. None is run as a Wan model without an explicit request."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
tiny = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import PluginSet, load_plugins  # noqa: E402
from lightx2v_core.errors import CheckpointError  # noqa: E402
from lightx2v_core.inspection.inspect import inspect  # noqa: E402
from lightx2v_core.plan.plan import Plan  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402

Tensors = dict[str, torch.Tensor]
NETWORK = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny Wan2.1 text-to-video folder, its network in one file."""
    folder = tmp_path / "model"
    tiny.write_tiny(folder, 1)
    save(folder, network(folder))
    return folder


def network(folder: Path) -> Tensors:
    found: Tensors = {}
    for file in sorted(folder.glob("diffusion_pytorch_model*.safetensors")):
        found |= load_file(file)
        file.unlink()
    for index in folder.glob("*.index.json"):
        index.unlink()
    return found


def save(folder: Path, tensors: Tensors) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / NETWORK)


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    save(folder, change(network(folder)))


def say(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def planned(folder: Path, **config: Any) -> Plan:
    values = {"model_path": str(folder), "device": "cpu", "prompt": "x", **config}
    return resolve(load_config(values), plugins()).plan


@lru_cache
def plugins() -> PluginSet:
    return load_plugins(only=["wan21", "wan22"], environ={})


def refusal(folder: Path, **config: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        planned(folder, **config)
    return str(caught.value)


def width(tensors: Tensors) -> int:
    return tensors["patch_embedding.weight"].shape[0]


def in_channels(count: int) -> Callable[[Tensors], Tensors]:
    return lambda t: t | {"patch_embedding.weight": torch.zeros(width(t), count, 1, 2, 2)}


def with_images(tensors: Tensors) -> Tensors:
    """The image branch of image-to-video networks."""
    d = width(tensors)
    extra = {f"img_emb.proj.{i}.{n}": torch.zeros(s) for i, n, s in (
        (0, "weight", (80,)), (0, "bias", (80,)), (1, "weight", (80, 80)), (1, "bias", (80,)),
        (3, "weight", (d, 80)), (3, "bias", (d,)), (4, "weight", (d,)), (4, "bias", (d,)))}  # fmt: skip
    for block in {name.split(".")[1] for name in tensors if name.startswith("blocks.")}:
        for part in "kv":
            extra[f"blocks.{block}.cross_attn.{part}_img.weight"] = torch.zeros(d, d)
            extra[f"blocks.{block}.cross_attn.{part}_img.bias"] = torch.zeros(d)
        extra[f"blocks.{block}.cross_attn.norm_k_img.weight"] = torch.zeros(d)
    return tensors | extra


#: what programs add to the tensors of a Wan network -> words of the message
EXTRAS = {
    "speech": ({"audio_injector.injector.0.q.weight": (64, 64), "casual_audio_encoder.weights": (1, 25, 1, 1)},
               "audio_injector, casual_audio_encoder"),
    "talk": ({"blocks.0.audio_cross_attn.q_linear.weight": (64, 64), "audio_proj.proj1.weight": (8, 8)},
             "audio_proj, blocks.N.audio_cross_attn"),
    "camera in blocks": ({"blocks.0.cam_encoder.weight": (64, 12), "blocks.1.cam_encoder.weight": (64, 12)},
                         "blocks.N.cam_encoder (2)"),
    "reference": ({"ref_conv.weight": (64, 16, 2, 2), "ref_conv.bias": (64,)}, "ref_conv (2)"),
    "adapter": ({"control_adapter.conv.weight": (64, 24, 2, 2)}, "control_adapter"),
    "second time": ({"time_embedding_r.0.weight": (64, 256)}, "time_embedding_r"),
    "norms of calibration": ({"blocks.0.affine_norm1.weight": (64,)}, "blocks.N.affine_norm1"),
    "rate": ({"fps_embedding.weight": (2, 64)}, "fps_embedding"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXTRAS)
def test_weights_that_would_have_no_effect_are_of_another_network(model: Path, kind: str) -> None:
    shapes, words = EXTRAS[kind]
    changed(model, lambda t: t | {name: torch.zeros(shape) for name, shape in shapes.items()})
    message = refusal(model)
    assert "no installed model recognizes" in message
    assert "for certain:" in message
    assert f"{len(shapes)} of its " in message
    assert words in message
    assert "--model wan21/wan2.1 runs it anyway" in message
    report = inspect(model, plugins())
    assert not report.runnable
    assert not any(item.variants for item in report.components)
    assert words in "\n".join(report.problems)


def test_who_asks_for_a_model_gets_it_and_is_told_what_is_left_out(model: Path) -> None:
    say(model, model_type="s2v")
    changed(model, lambda t: t | {"audio_injector.0.weight": torch.zeros(4, 4)})
    plan = planned(model, model="wan2.1")
    assert plan.variant.startswith("wan2.1-t2v")
    assert [text for text in plan.warnings if "audio_injector" in text and "would have no effect" in text]
    assert [text for text in plan.warnings if "model_type 's2v'" in text]


def test_what_training_leaves_behind_changes_nothing(model: Path) -> None:
    left = {"freqs": (8, 8), "rope.freqs_cos": (8,), "global_step": (1,), "scaled_fp8": (1,)}
    changed(model, lambda t: t | {name: torch.zeros(shape) for name, shape in left.items()})
    assert planned(model).variant.startswith("wan2.1-t2v")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "s2v"),
        ("model_type", "camera-control"),
        ("model_type", "t2v_audio"),
        ("model_type", 3),
        ("_class_name", "WanModel_S2V"),
        ("_class_name", "CausalWanModel"),
        ("_class_name", "HunyuanVideoTransformer3DModel"),
        ("_class_name", "WanAnimateModel"),
    ],
)
def test_a_configuration_that_says_another_network(model: Path, key: str, value: object) -> None:
    say(model, **{key: value})
    assert f"{key} {value!r}" in refusal(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "i2v"),  # copies of VACE and others say another task than theirs
        ("model_type", "wan2.1-t2v-14B"),
        ("model_type", None),
        ("model_type", ""),
        ("_class_name", "WanModel"),
        ("_class_name", "VaceWanModel"),
        ("_class_name", "WanTransformer3DModel"),
        ("_class_name", "Wan2_2Transformer3DModel"),
    ],
)
def test_a_configuration_that_says_what_there_is(model: Path, key: str, value: object) -> None:
    say(model, **{key: value})
    assert planned(model).variant.startswith("wan2.1-t2v")


@pytest.mark.parametrize("count", [32, 40, 48, 52, 100])
@pytest.mark.parametrize("asked", [{}, {"model": "wan2.1"}], ids=["auto", "requested"])
def test_a_network_that_takes_other_channels(model: Path, count: int, asked: dict[str, str]) -> None:
    say(model, in_dim=count)
    changed(model, in_channels(count))
    assert f"{count} input channels" in refusal(model, **asked)
    changed(model, with_images)
    message = refusal(model, **asked)
    assert f"has {count} input channels; image-to-video needs 36 (16 of noise, 4 of a mask, 16" in message


def test_a_network_that_makes_other_channels(model: Path) -> None:
    say(model, in_dim=48)
    changed(model, in_channels(48))
    assert "wan2.2-ti2v: its network has 16 output channels; TI2V has 48" in refusal(model)
    say(model, in_dim=16, out_dim=32)
    wide = {"head.head.weight": torch.zeros(128, 64), "head.head.bias": torch.zeros(128)}
    changed(model, lambda t: in_channels(16)(t) | wide)
    assert "has 32 output channels; Wan2.1 networks have 16" in refusal(model)


def test_what_is_wrong_with_a_file_is_not_hidden_by_a_model_that_it_is_not_for(model: Path) -> None:
    linear = model.parent / "linear.safetensors"
    tensors = network(model)
    save_file(tensors | {"patch_embedding.weight": tensors["patch_embedding.weight"].flatten(1)}, linear)
    reason = "patch_embedding.weight is [64, 64], a linear layer"
    message = refusal(model, components={"dit": {"path": str(linear)}})
    assert reason in message
    assert message.count("patch_embedding.weight is") == 1
    assert "high_noise" not in message
    linear.rename(model / NETWORK)
    assert reason in refusal(model)
    # and a file that only another model would need is none of its business
    (model / "Wan2.2_VAE.safetensors").write_bytes(b"no header")
    assert reason in refusal(model)


@pytest.mark.parametrize(
    "name", ["Phantom-Wan-14B_fp16", "Wan14BT2VFusionX_Phantom", "wan2.1-multitalk", "HuMo_17B"]
)
def test_a_name_that_says_what_else_a_network_is_given(model: Path, name: str) -> None:
    """Their tensors are those of text-to-video, and what they are for would be left out in silence."""
    (model / NETWORK).rename(model / f"{name}.safetensors")
    assert "whose networks have additional inputs" in refusal(model)
    assert planned(model, model="wan2.1").warnings


@pytest.mark.parametrize("name", ["wan_t2v", "phantomatic", "wan2.1_vs2v_style", "my_wan"])
def test_a_name_that_says_nothing_of_it(model: Path, name: str) -> None:
    (model / NETWORK).rename(model / f"{name}.safetensors")
    assert planned(model).variant.startswith("wan2.1-t2v")
