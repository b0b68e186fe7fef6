"""Conversions: against the files of the reference set, round trips, and rejected options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.cli import main  # noqa: E402
from lightx2v_core.quant.arithmetic import dequantize_weight  # noqa: E402


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Any:
    """``convert(status, *arguments)``: the command line in this process; what it printed."""

    def run(status: int, *arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["convert", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        assert int(caught.value.code or 0) == status, captured.err
        return captured.out + captured.err

    return run


def tensors_of(path: Path) -> dict[str, Any]:
    if path.is_file():
        return load_file(path)
    found: dict[str, Any] = {}
    for file in path.glob("*.safetensors"):
        found |= load_file(file)
    return found


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Key for key, shape for shape, bit for bit."""
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].shape == tensor.shape, name
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (got[name], tensor)]
        assert torch.equal(*bits), name


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("int8_single", ("--quantize", "int8")),
        ("fp8_single", ("--linear_type", "fp8", "--quantized", "--single_file")),
        ("int8_blocks", ("--quantize", "int8", "--split", "blocks")),
        ("fp8_blocks", ("--linear_type", "fp8", "--save_by_block", "-t", "wan_dit")),
        ("comfy_fp8_scaled", ("--quantize", "fp8", "--layout", "comfyui")),
    ],
)
def test_results_are_the_files_of_the_reference_set(layout, options, convert, path_of, case, tmp_path):
    wanted = path_of(layout)
    out = tmp_path / "out"
    if "--single_file" not in options and wanted.is_file():
        out = tmp_path / "out.safetensors"
    convert(0, case / "ckpt", "--output", out, *options)
    same(tensors_of(out), tensors_of(wanted))
    if wanted.is_dir():
        assert {p.name for p in out.iterdir()} == {p.name for p in wanted.iterdir()}
        index = "diffusion_pytorch_model.safetensors.index.json"
        made, known = (json.loads((folder / index).read_text()) for folder in (out, wanted))
        assert made["weight_map"] == known["weight_map"]
        assert made["metadata"]["total_size"] == sum(p.stat().st_size for p in out.glob("*.safetensors"))
        assert (out / "config.json").read_text() == (case / "ckpt" / "config.json").read_text()
    assert not list(tmp_path.glob(".*")), "nothing is left of the work"


def test_metadata_say_how_a_file_was_made(convert, case, tmp_path):
    out = tmp_path / "out.safetensors"
    convert(0, case / "ckpt", "-o", out, "--quantize", "int8", "--keep", "blocks.0.*")
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("blocks.0.ffn.0.weight").dtype == torch.float32
        assert file.get_tensor("blocks.1.ffn.0.weight").dtype == torch.int8
    made = json.loads(metadata["lightx2v_convert"])
    assert metadata["format"] == "pt"
    assert made["source"] == ["diffusion_pytorch_model.safetensors"]
    assert made["source_hash"].startswith("sampled-sha256:")
    assert made["settings"] == {
        "quantize": "int8", "keep": ["blocks.0.*"], "layout": "official", "split": "single",
        "shard_bytes": 5_000_000_000,
    }  # fmt: skip


def test_the_report_has_the_error_of_every_layer(convert, case, tmp_path):
    printed = convert(
        0, case / "ckpt", "-o", tmp_path / "o.safetensors", "--quantize", "fp8", "--report", "--json"
    )
    events = [json.loads(line) for line in printed.splitlines()]
    report = events[-1]["report"]
    source, made = tensors_of(case / "ckpt"), load_file(tmp_path / "o.safetensors")
    assert len(report) == events[-1]["layers"] == 30
    for name, error in report.items():
        weight = source[f"{name}.weight"]
        stored = {suffix: made[f"{name}.{suffix}"] for suffix in ("weight", "weight_scale")}
        off = dequantize_weight(stored, "fp8-channel") - weight
        assert error["max_error"] == pytest.approx(float(off.abs().max()), rel=1e-5)
        assert error["relative_rmse"] == pytest.approx(float(off.norm() / weight.norm()), rel=1e-4)
    assert [event["done"] for event in events if event["event"] == "progress"][-1] == events[-1][
        "bytes"
    ] - _head(tmp_path / "o.safetensors")


def _head(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    "case_name", ["dit_wan21_t2v", "dit_wan21_i2v", "dit_wan21_flf2v", "dit_wan21_vace", "dit_wan22_ti2v_5b"]
)
def test_there_and_back_through_diffusers_names(case_name, convert, golden, tmp_path):
    ckpt = golden(case_name) / "ckpt"
    convert(0, ckpt, "-o", tmp_path / "diffusers.safetensors", "--layout", "diffusers")
    names = set(tensors_of(tmp_path / "diffusers.safetensors"))
    assert "condition_embedder.time_proj.weight" in names
    assert not any("self_attn" in name or "modulation" in name or "img_emb" in name for name in names)
    convert(0, tmp_path / "diffusers.safetensors", "-o", tmp_path / "back.safetensors", "-d", "backward")
    same(tensors_of(tmp_path / "back.safetensors"), tensors_of(ckpt))


def test_split_and_joined_again_is_the_same_file(convert, path_of, tmp_path):
    source = path_of("int8_single")
    first, second, third = tmp_path / "shards", tmp_path / "blocks", tmp_path / "one.safetensors"
    convert(0, source, "-o", first, "--split", "shards", "--shard-size", "60KB")
    assert len(list(first.glob("*.safetensors"))) > 3
    convert(0, first, "-o", second, "--split", "blocks")
    convert(0, second, "-o", third)
    same(tensors_of(third), tensors_of(source))
    convert(0, source, "-o", tmp_path / "chunks", "--chunk-size", "30")
    assert len(list((tmp_path / "chunks").glob("*.safetensors"))) == 5


def test_a_pth_file_becomes_safetensors_and_is_cast(convert, tiny, tmp_path):
    source = next(tiny.glob("models_t5*.pth"))
    convert(0, source, "-o", tmp_path / "t5.safetensors", "--dtype", "torch.float32")
    wanted = torch.load(source, weights_only=True)
    same(tensors_of(tmp_path / "t5.safetensors"), {name: tensor.float() for name, tensor in wanted.items()})
    printed = convert(0, source, "-o", tmp_path / "t5-int8.safetensors", "--quantize", "int8", "-t", "wan_t5")
    assert "layers in int8-channel" in printed
    names = {
        n.removesuffix(".weight_scale") for n in tensors_of(tmp_path / "t5-int8.safetensors") if "scale" in n
    }
    assert names == {n.removesuffix(".weight") for n in wanted if ".attn." in n or ".ffn." in n}


def test_a_quantized_model_made_here_is_run(convert, tiny, tmp_path):
    """Network and text encoder, both converted: the folder runs, and its latents are near those of the original."""
    from lightx2v_core import load

    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for file in [*folder.glob("diffusion*"), *folder.glob("models_t5*")]:
        file.unlink()
    convert(
        0,
        tiny,
        "--component",
        "dit",
        "-o",
        folder / "diffusion_pytorch_model.safetensors",
        "--quantize",
        "int8",
    )
    t5 = next(tiny.glob("models_t5*.pth"))
    convert(0, t5, "-o", folder / "models_t5_umt5-xxl-enc-int8.safetensors", "--quantize", "int8")
    small: dict[str, Any] = {"size": (32, 32), "frames": 1, "steps": 2, "prompt": "a fox", "guide_scale": 1.0}
    plain = load(tiny).generate(**small).latents
    pipeline = load(folder)
    used = {choice.kind: choice.use for choice in pipeline.plan.choices if "quantizer" in choice.kind}
    assert set(used.values()) == {"core/dequant"}
    got = pipeline.generate(**small).latents
    assert 0 < (got - plain).norm() / plain.norm() < 0.3


def test_quantized_weights_are_decoded_and_quantized_anew(convert, path_of, case, tmp_path):
    convert(0, path_of("int8_single"), "-o", tmp_path / "plain.safetensors", "--quantize", "none")
    plain = tensors_of(tmp_path / "plain.safetensors")
    assert set(plain) == set(tensors_of(case / "ckpt"))
    stored = tensors_of(path_of("int8_single"))
    layer = "blocks.2.ffn.0"
    assert torch.equal(
        plain[f"{layer}.weight"], stored[f"{layer}.weight"].float() * stored[f"{layer}.weight_scale"]
    )
    convert(0, path_of("int8_single"), "-o", tmp_path / "fp8.safetensors", "--quantize", "fp8")
    assert tensors_of(tmp_path / "fp8.safetensors")[f"{layer}.weight"].dtype == torch.float8_e4m3fn
    convert(0, path_of("comfy_fp8_scaled"), "-o", tmp_path / "official.safetensors")
    names = set(tensors_of(tmp_path / "official.safetensors"))
    assert f"{layer}.weight_scale" in names
    assert "scaled_fp8" not in names


def test_every_tensor_in_fp8(convert, case, tmp_path):
    convert(0, case / "ckpt", "-o", tmp_path / "full.safetensors", "--quantize", "fp8", "--full")
    found, source = tensors_of(tmp_path / "full.safetensors"), tensors_of(case / "ckpt")
    assert set(found) == set(source)
    for name, tensor in found.items():
        assert tensor.dtype == torch.float8_e4m3fn
        torch.testing.assert_close(tensor.float(), source[name], atol=0.002, rtol=0.07)


def test_loras_are_merged_first(convert, case, tmp_path):
    torch.manual_seed(0)
    up, down = torch.randn(128, 4), torch.randn(4, 64)
    lora = {
        "diffusion_model.blocks.0.ffn.0.lora_B.weight": up,
        "diffusion_model.blocks.0.ffn.0.lora_A.weight": down,
    }
    save_file(lora, tmp_path / "lora.safetensors")
    convert(
        0, case / "ckpt", "-o", tmp_path / "merged.safetensors", "--lora", f"{tmp_path}/lora.safetensors:0.5"
    )
    got, source = tensors_of(tmp_path / "merged.safetensors"), tensors_of(case / "ckpt")
    name = "blocks.0.ffn.0.weight"
    torch.testing.assert_close(got[name], source[name] + 0.5 * up @ down)
    same({k: v for k, v in got.items() if k != name}, {k: v for k, v in source.items() if k != name})
    lora_options = ("--lora_path", tmp_path / "lora.safetensors", "--lora_strength", "0.5")
    convert(0, case / "ckpt", "-o", tmp_path / "q.safetensors", *lora_options, "--quantize", "int8")
    convert(0, tmp_path / "merged.safetensors", "-o", tmp_path / "q2.safetensors", "--quantize", "int8")
    same(tensors_of(tmp_path / "q.safetensors"), tensors_of(tmp_path / "q2.safetensors"))
    # the original's converter takes several at once
    file = tmp_path / "lora.safetensors"
    several = ("-s", case / "ckpt", "-o", tmp_path / "two.safetensors", "--lora_path", file, file)
    convert(0, *several, "--lora_strength", "1.0", "-0.5")
    torch.testing.assert_close(tensors_of(tmp_path / "two.safetensors")[name], got[name])


def test_the_weights_of_a_stranger_are_quantized_without_code_of_its_own(convert, tmp_path):
    tensors = {
        "embed.weight": torch.randn(16, 8),
        "layers.0.fc.weight": torch.randn(8, 8),
        "layers.0.norm.weight": torch.ones(8),
        "layers.1.fc.weight": torch.randn(8, 8),
        "layers.1.embed.weight": torch.randn(8, 8),
        "out.weight": torch.randn(4, 8),
    }
    save_file(tensors, tmp_path / "acme.safetensors")
    convert(0, tmp_path / "acme.safetensors", "-o", tmp_path / "q.safetensors", "--quantize", "int8")
    found = tensors_of(tmp_path / "q.safetensors")
    assert {name for name in found if found[name].dtype == torch.int8} == {
        "layers.0.fc.weight",
        "layers.1.fc.weight",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["blocks.1.ffn.0.weight", "head.head.bias"])
def test_what_is_not_finite_is_refused_and_nothing_is_left_that_loads(name, value, convert, case, tmp_path):
    tensors = tensors_of(case / "ckpt")
    tensors[name].view(-1)[5] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    status = 1 if "weight" in name else 2
    said = convert(status, tmp_path / "bad.safetensors", "-o", out / "q.safetensors", "--quantize", "int8")
    assert name in said
    assert "not finite" in said
    assert not list(out.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--quantize", "int7"), "unsupported format 'int7'"),
        (
            ("--quantize", "int8-channel", "--layout", "comfyui"),
            "one scale per tensor, which int8-channel does not",
        ),
        (("--full",), "--full stores every tensor in fp8"),
        (("--keep", "blocks.0.*"), "--keep and --only select layers"),
        (("--quantized",), "needs --linear_type"),
        (("--bits", "4"), "only 8 bits"),
        (("-o_e", ".pth"), "only safetensors files are written"),
        (("--target-keys", "ffn"), "use --only"),
        (("--dtype", "int8"), "must be float32"),
        (("--shard-size", "much"), "is not a size"),
        (("--quantize", "int8", "--only", "nothing*"), "--only and --keep exclude all"),
        (("--split", "blocks"), "needs a folder"),
        (("--lora", "nowhere.safetensors"), "does not exist"),
    ],
)
def test_what_cannot_be_is_refused(options, words, convert, case, tmp_path):
    assert words in convert(2, case / "ckpt", "-o", tmp_path / "o.safetensors", *options)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_several_networks_takes_a_name(convert, tiny, tmp_path):
    said = convert(2, tiny, "-o", tmp_path / "o.safetensors")
    assert "--component" in said
    assert "umT5-XXL text encoder" in said
    assert "has no 'nose'" in convert(2, tiny, "-o", tmp_path / "o.safetensors", "--component", "nose")


def test_nothing_that_is_there_is_replaced_unasked(convert, case, tmp_path):
    out = tmp_path / "o.safetensors"
    out.write_bytes(b"precious")
    assert "use --overwrite to replace it" in convert(2, case / "ckpt", "-o", out)
    assert out.read_bytes() == b"precious"
    convert(0, case / "ckpt", "-o", out, "--overwrite")
    same(tensors_of(out), tensors_of(case / "ckpt"))
    assert "choose a new or empty folder" in convert(2, case / "ckpt", "-o", tmp_path, "--split", "blocks")
