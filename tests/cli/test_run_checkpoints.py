"""Checkpoints that cannot be run: status 2, one message that names the file, and nothing written."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Refused = Callable[..., None]
SHARD_1 = "diffusion_pytorch_model-00001-of-00002.safetensors"
SHARD_2 = "diffusion_pytorch_model-00002-of-00002.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
TEXT, VAE, TOKENIZER = "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth", "google/umt5-xxl/tokenizer.json"


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_config(model: Path, **values: Any) -> None:
    change_json(model / "config.json", lambda config: config.update(values))


def one_file(model: Path, change: Callable[[dict[str, torch.Tensor]], object] = lambda state: None) -> Path:
    """The network as a single file, changed."""
    state = load_file(model / SHARD_1) | load_file(model / SHARD_2)
    change(state)
    for name in (SHARD_1, SHARD_2, INDEX):
        (model / name).unlink()
    save_file(state, model / "diffusion_pytorch_model.safetensors")
    return model / "diffusion_pytorch_model.safetensors"


def test_the_unchanged_checkpoint_runs(model: Path, cli: Callable[..., Any], out: Path) -> None:
    one_file(model)
    small = ("--prompt", "x", "--size", "16x16", "--frames", "1", "--steps", "1", "--output", out / "o.png")
    cli("run", "--model-path", model, *small).succeeded()
    assert sorted(path.name for path in out.iterdir()) == ["o.json", "o.png"]


# the folder


def test_a_missing_folder(model: Path, refused: Refused) -> None:
    refused(model.parent / "modle", ("does not exist", "did you mean 'model'?"))
    refused(model.parent / "other" / "folder", ("does not exist", "contains: model, out"))
    refused("~no_such_user_here/model", "does not exist")
    refused("x" * 5000, "does not exist")


def test_an_empty_folder_and_a_file(tmp_path: Path, refused: Refused, tiny: Path) -> None:
    (tmp_path / "void").mkdir()
    refused(tmp_path / "void", "is empty")
    refused(tiny / VAE, "is a file; use the folder")


def test_a_folder_of_other_things(tmp_path: Path, refused: Refused, tiny: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    refused(
        tmp_path / "other",
        ("no installed model recognizes", "it contains notes.txt", "diffusion transformer"),
    )


def test_every_missing_component_is_named_at_once(model: Path, refused: Refused) -> None:
    for name in (TEXT, VAE):
        (model / name).unlink()
    words = ("cannot be run", "text_encoder: no umT5-XXL", TEXT, "vae: no Wan2.1 VAE", VAE, "components.vae.path",
             "it contains config.json, ", SHARD_1)  # fmt: skip
    refused(model, words)


def test_a_missing_network(model: Path, refused: Refused) -> None:
    for name in (SHARD_1, SHARD_2, INDEX):
        (model / name).unlink()
    refused(model, ("no diffusion transformer", "diffusion_pytorch_model*.safetensors", "it contains"))


def test_a_missing_tokenizer(model: Path, refused: Refused) -> None:
    (model / TOKENIZER).unlink()
    refused(model, ("text_encoder: tokenizer is missing", "tokenizer.json"))


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_damaged_config_json(model: Path, refused: Refused, content: str) -> None:
    (model / "config.json").write_bytes(content.encode("latin-1"))
    refused(model, "config.json")


def test_no_config_json(model: Path, refused: Refused) -> None:
    (model / "config.json").unlink()
    refused(model, "there is no config.json next to the network")


def test_a_config_json_without_the_number_of_heads(model: Path, refused: Refused) -> None:
    change_json(model / "config.json", lambda config: config.pop("num_heads"))
    refused(model, "num_heads")


@pytest.mark.parametrize("heads", [0, -1, 3, 64, 1000, "2", 2.5, None, [2], True, 10**30], ids=repr)
def test_an_impossible_number_of_heads(model: Path, refused: Refused, heads: Any) -> None:
    change_config(model, num_heads=heads)
    refused(model, "num_heads")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dim", 96, "config.json needs [96"),
        ("dim", 1 << 40, "config.json needs [1099511627776"),
        ("dim", "64", "'dim'"),
        ("dim", -64, "'dim'"),
        ("ffn_dim", 256, "ffn.0.weight is [128, 64], config.json needs [256, 64]"),
        ("num_layers", 3, "num_layers"),
        ("num_layers", 1, "num_layers"),
        ("num_layers", 0, "num_layers"),
        ("num_layers", "2", "num_layers"),
        ("in_dim", 36, "config.json needs [64, 36, 1, 2, 2]"),
        ("freq_dim", 128, "config.json needs [64, 128]"),
        ("text_len", "512", "text_len"),
        ("text_len", 0, "text_len"),
        ("eps", "small", "eps"),
    ],
)
def test_a_config_json_that_contradicts_the_tensors(
    model: Path, refused: Refused, key: str, value: Any, words: str
) -> None:
    change_config(model, **{key: value})
    refused(model, words)


def test_a_config_json_with_far_too_many_layers(model: Path, refused: Refused) -> None:
    """Found by counting, not by listing the tensors of all these layers."""
    change_config(model, num_layers=100_000)
    refused(model, ("num_layers = 100000", "2 blocks"))


# weights


def test_a_truncated_shard(model: Path, refused: Refused) -> None:
    path = model / SHARD_2
    path.write_bytes(path.read_bytes()[:-1000])
    refused(model, (SHARD_2, "truncated", "download it again"))
    path.write_bytes(path.read_bytes()[:100])
    refused(model, (SHARD_2, "truncated"))
    path.write_bytes(b"")
    refused(model, SHARD_2)


def test_a_picture_as_weights(model: Path, refused: Refused) -> None:
    (model / SHARD_1).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    refused(model, (SHARD_1, "not a safetensors file"))


def test_a_lora_as_weights(model: Path, refused: Refused) -> None:
    for name in (SHARD_1, SHARD_2, INDEX):
        (model / name).unlink()
    state = {f"diffusion_model.blocks.0.self_attn.q.lora_{part}.weight": torch.zeros(4, 4) for part in "AB"}
    save_file(state, model / "diffusion_pytorch_model.safetensors")
    refused(model, ("no installed model recognizes", "patch_embedding.weight"))


def test_a_shard_is_missing(model: Path, refused: Refused) -> None:
    (model / SHARD_2).unlink()
    refused(model, (SHARD_2, "missing", "download"))
    (model / INDEX).unlink()
    refused(model, ("00002", "missing"))


@pytest.mark.parametrize("target", ["../x.safetensors", "/x.safetensors", "C:\\x.safetensors"])
def test_an_index_that_points_outside(model: Path, refused: Refused, target: str) -> None:
    change_json(model / INDEX, lambda index: index["weight_map"].update({"blocks.0.norm3.bias": target}))
    refused(model, ("refused", "outside the folder"))


def test_an_index_that_does_not_agree(model: Path, refused: Refused) -> None:
    change_json(model / INDEX, lambda index: index["weight_map"].update({"blocks.9.x": SHARD_1}))
    refused(model, (INDEX, "does not match its shards", "blocks.9.x"))
    (model / INDEX).write_text("{")
    refused(model, (INDEX, "not a shard index"))


def test_two_networks(model: Path, refused: Refused) -> None:
    path = one_file(model)
    path.with_name("diffusion_pytorch_model_fp8.safetensors").write_bytes(path.read_bytes())
    words = (
        "more than one diffusion transformer",
        "diffusion_pytorch_model_fp8.safetensors",
        "components.dit.path",
    )
    refused(model, words)


def test_tensors_that_are_missing_or_have_another_shape(model: Path, refused: Refused) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["blocks.1.ffn.0.weight"]
        state["blocks.1.norm3.weight"] = torch.zeros(5)

    one_file(model, change)
    refused(
        model,
        ("1 of 69 tensors are missing: blocks.1.ffn.0.weight", "blocks.1.norm3.weight is [5]", "needs [64]"),
    )


def test_a_weight_in_int8_needs_its_scale(model: Path, refused: Refused) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        name = "blocks.0.ffn.0.weight"
        state[name] = state[name].to(torch.int8)

    one_file(model, change)
    refused(model, ("blocks.0.ffn.0.weight is int8", "has no blocks.0.ffn.0.weight_scale"))


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", [TEXT, VAE])
def test_a_pth_that_holds_code(model: Path, refused: Refused, name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"w": torch.ones(1), "x": Attack(f"touch {marker}")}, model / name)
    refused(model, (name, "rejected, and nothing in it was executed", "system"))
    assert not marker.exists()


def test_a_pth_that_holds_something_else(model: Path, refused: Refused) -> None:
    torch.save({"w": torch.ones(1), "epoch": 5}, model / VAE)
    refused(model, (VAE, "'epoch' is not a tensor but int"))
    torch.save([1, 2], model / VAE)
    refused(model, (VAE, "instead of named tensors"))
    torch.save({"w": torch.ones(1)}, model / VAE)
    refused(model, (VAE, "no Wan2.1 VAE", "has no tensor 'conv1.weight'"))


def test_a_damaged_pth(model: Path, refused: Refused) -> None:
    content = (model / VAE).read_bytes()
    (model / VAE).write_bytes(content[:-5000])
    refused(model, (VAE, "truncated"))
    (model / VAE).write_text("this is text")
    refused(model, (VAE, "not a torch.save file"))
    with zipfile.ZipFile(model / VAE, "w") as file:
        file.writestr("x.txt", "x")
    refused(model, (VAE, "no data.pkl"))


def test_a_text_encoder_of_another_model(model: Path, refused: Refused, tmp_path: Path) -> None:
    (model / TEXT).write_bytes((model / VAE).read_bytes())
    refused(model, "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 5}', '{"version": "1.0", "model": null}'])
def test_a_damaged_tokenizer(model: Path, cli: Callable[..., Any], out: Path, content: str) -> None:
    (model / TOKENIZER).write_text(content)
    small = ("--prompt", "x", "--size", "16x16", "--frames", "1", "--steps", "1", "--output", out / "o.png")
    cli("run", "--model-path", model, *small).failed(2, "tokenizer.json")
    assert list(out.iterdir()) == []
