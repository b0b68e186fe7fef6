"""GGUF files in models: planned without reading weights, run, offloaded, with LoRA, and converted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightx2v_core import load
from lightx2v_core.api import LightX2VError
from lightx2v_core.testing.imports import heavy_imports

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

#: linear layers of each block -> types: several in one file, as usual
KINDS = {
    "self_attn.q": "q6_k", "self_attn.k": "q4_k", "self_attn.v": "q5_k", "self_attn.o": "q3_k", "cross_attn.q": "q2_k",
    "cross_attn.k": "q8_0", "cross_attn.v": "q5_0", "cross_attn.o": "q5_1", "ffn.0": "q4_0", "ffn.2": "q4_1",
}  # fmt: skip
SIMPLE = frozenset({"q8_0", "q5_0", "q5_1", "q4_0", "q4_1"})
SMALL: dict[str, Any] = {"size": (32, 32), "frames": 1, "steps": 2, "prompt": "a fox", "guide_scale": 1.0}
#: official names of the text encoder's tensors -> those of llama.cpp
LLAMA = (
    ("token_embedding.", "token_embd."), ("norm1.", "attn_norm."), ("norm2.", "ffn_norm."), ("blocks.", "enc.blk."),
    ("pos_embedding.embedding.", "attn_rel_b."), ("attn.q.", "attn_q."), ("attn.k.", "attn_k."),
    ("attn.v.", "attn_v."), ("attn.o.", "attn_o."), ("ffn.gate.0.", "ffn_gate."), ("ffn.fc1.", "ffn_up."),
    ("ffn.fc2.", "ffn_down."),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny(folder, 0)
    return folder


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory, write, blocks, decoded) -> tuple[Path, Path]:
    """A model whose network is a GGUF file with ten types, and one with the same weights decoded."""
    where = tmp_path_factory.mktemp("models")
    packed, plain = where / "packed", where / "plain"
    for folder in (packed, plain):
        shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    tensors: dict[str, Any] = {}
    for file in tiny.glob("diffusion*.safetensors"):
        tensors |= load_file(file)
    stored, kinds, values = {}, {}, {}
    for number, (name, tensor) in enumerate(tensors.items()):
        layer = name.removesuffix(".weight").partition(".")[2].partition(".")[2]
        kind = KINDS.get(layer) if name.endswith(".weight") and name.startswith("blocks.") else None
        if kind is None:
            # as converters write them: embeddings in half precision, the rest in float32
            small = name.endswith("embedding.0.weight")
            stored[name] = values[name] = tensor.half() if small else tensor
        else:
            shape = "x".join(str(side) for side in tensor.shape)
            count = tensor.numel() // (32 if kind in SIMPLE else 256)
            stored[name], kinds[name] = blocks(kind, count, number), f"{kind}:{shape}"
            values[name] = decoded(stored[name], kind).view(tensor.shape)
    write(packed / "wan2.1-t2v-Q4_K_M.gguf", stored, kinds)
    save_file(values, plain / "diffusion_pytorch_model.safetensors")
    return packed, plain


@pytest.fixture(scope="module")
def expected(folders) -> torch.Tensor:
    return load(folders[1]).generate(**SMALL).latents


def cli(*words: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_plan_says_what_runs_it_and_imports_nothing_heavy(folders):
    said = json.loads(cli("plan", "--model-path", folders[0], "--json"))["plan"]
    (choice,) = [item for item in said["choices"] if item["kind"].startswith("quantizer")]
    assert (choice["use"], choice["why"]) == (
        "gguf/gguf", "default: the file is quantized, and this quantizer is exact",
    )  # fmt: skip
    (dit,) = [item for item in said["components"] if item["name"] == "dit"]
    assert dit["files"] == [str(folders[0] / "wan2.1-t2v-Q4_K_M.gguf")]
    assert dit["scheme"].startswith("gguf-q")
    assert dit["weights"] < 0.5 * sum(item.numel() * 4 for item in _plain(folders).values())
    found = heavy_imports(
        "import sys\nfrom lightx2v_core.config.load import load_config\n"
        "from lightx2v_core.discovery.plugins import load_plugins\nfrom lightx2v_core.plan.resolve import resolve\n"
        "resolve(load_config({'model_path': sys.argv[1], 'device': 'cpu'}, []), load_plugins())\n",
        forbidden=("torch", "numpy", "gguf"),
        arguments=(str(folders[0]),),
    )
    assert not found


def _plain(folders) -> dict[str, torch.Tensor]:
    return load_file(folders[1] / "diffusion_pytorch_model.safetensors")


def test_weights_stay_packed_and_the_result_is_that_of_decoded_ones(folders, expected):
    pipeline = load(folders[0])
    network = pipeline.module("dit")
    ffn = network.blocks[1].ffn[0]
    assert type(ffn).__name__ == "PackedLinear"
    assert (ffn.weight.dtype, tuple(ffn.weight.shape)) == (torch.uint8, (128 * 64 // 32, 18))
    assert pipeline.plan.warnings == ()
    torch.testing.assert_close(pipeline.generate(**SMALL).latents, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("offloader", ["sequential", "cpu", "disk"])
def test_offloading_changes_nothing(offloader, folders, expected):
    if offloader != "sequential":
        pytest.importorskip("lightx2v_offload")
    with load(folders[0], config={"offloader": offloader}) as pipeline:
        torch.testing.assert_close(pipeline.generate(**SMALL).latents, expected, atol=1e-5, rtol=1e-5)


def test_the_command_line_runs_it(folders, tmp_path, expected):
    dump = tmp_path / "dump.safetensors"
    cli(
        "run", "--model-path", folders[0], "--prompt", "a fox", "--size", "32x32", "--frames", "1", "--steps", "2",
        "--guide-scale", "1", "--output", tmp_path / "o.png", "--dump-tensors", dump,
    )  # fmt: skip
    torch.testing.assert_close(load_file(dump)["latents"], expected, atol=1e-5, rtol=1e-5)
    said = cli("inspect", folders[0])
    assert "gguf-q" in said
    assert "can run" in said


@pytest.fixture
def lora(tmp_path) -> Callable[[str], dict[str, Any]]:
    def make(layer: str) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        tensors = {
            f"diffusion_model.{layer}.lora_down.weight": torch.randn(4, 64, generator=generator) * 0.3,
            f"diffusion_model.{layer}.lora_up.weight": torch.randn(128, 4, generator=generator) * 0.3,
        }
        if "attn" in layer:
            tensors[f"diffusion_model.{layer}.lora_up.weight"] = torch.randn(64, 4, generator=generator)
        save_file(tensors, tmp_path / "lora.safetensors")
        return {"path": str(tmp_path / "lora.safetensors"), "strength": 0.5}

    return make


def test_a_lora_runs_beside_packed_weights(folders, lora):
    adapter = lora("blocks.0.self_attn.q")
    wanted = load(folders[1], config={"loras": [adapter]}).generate(**SMALL).latents
    got = load(folders[0], config={"loras": [adapter], "lora_applier": "dynamic"}).generate(**SMALL).latents
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_a_lora_is_merged_into_simple_types_and_refused_for_others(folders, lora):
    network = load(folders[0], config={"loras": [lora("blocks.0.ffn.0")]}).module("dit")
    from lightx2v_gguf.blocks import decode, encode

    added = load_file(lora("blocks.0.ffn.0")["path"])
    up, down = (added[f"diffusion_model.blocks.0.ffn.0.lora_{part}.weight"] for part in ("up", "down"))
    merged = _plain(folders)["blocks.0.ffn.0.weight"] + 0.5 * up @ down
    wanted = decode(encode(merged, "gguf-q4_0"), "gguf-q4_0")
    torch.testing.assert_close(
        decode(network.blocks[0].ffn[0].weight, "gguf-q4_0"), wanted, atol=1e-3, rtol=0
    )
    with pytest.raises(LightX2VError) as caught:
        load(folders[0], config={"loras": [lora("blocks.0.self_attn.q")]})
    assert "it is stored in gguf-q6_k, which gguf cannot write. Use --set lora_applier=dynamic" in str(
        caught.value
    )


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_text_encoder_with_the_names_of_llama_cpp(kind, tiny, tmp_path, write):
    folder, plain = tmp_path / "packed", tmp_path / "plain"
    for target in (folder, plain):
        shutil.copytree(tiny, target, ignore=shutil.ignore_patterns("models_t5*"))
    tensors = torch.load(tiny / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True)
    names, kinds, values = {}, {}, {}
    import gguf

    for name, tensor in tensors.items():
        new = name if name != "norm.weight" else "enc.output_norm.weight"
        for official, other in LLAMA:
            new = new.replace(official, other)
        large = tensor.dim() == 2 and "pos_embedding" not in name
        names[new] = tensor.float() if not large else tensor.half() if kind == "f16" else tensor.float()
        values[name] = names[new].float()
        if large and kind == "q8_0":
            kinds[new] = kind
            type_of = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(tensor.float().numpy(), type_of)
            values[name] = torch.from_numpy(gguf.quants.dequantize(packed, type_of)).view(tensor.shape)
    assert "enc.blk.0.attn_rel_b.weight" in names
    write(folder / f"umt5-xxl-encoder-{kind}.gguf", names, kinds, arch="t5encoder")
    torch.save(values, plain / "models_t5_umt5-xxl-enc-bf16.pth")
    pipeline = load(folder)
    (part,) = [item for item in pipeline.plan.components if item.name == "text_encoder"]
    assert part.layout == "llama.cpp"
    wanted = load(plain).generate(**SMALL).latents
    torch.testing.assert_close(pipeline.generate(**SMALL).latents, wanted, atol=1e-5, rtol=1e-5)


def test_converted_to_plain_and_to_other_formats(folders, lora, tmp_path):
    pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
    from lightx2v_convert.conversion import convert
    from lightx2v_convert.options import ConvertOptions
    from lightx2v_core.config.model import LoraConfig

    source = folders[0] / "wan2.1-t2v-Q4_K_M.gguf"
    convert(source, tmp_path / "p.safetensors", ConvertOptions(quantize="none"))
    wanted, got = _plain(folders), load_file(tmp_path / "p.safetensors")
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name
    convert(source, tmp_path / "i.safetensors", ConvertOptions(quantize="int8"))
    assert load_file(tmp_path / "i.safetensors")["blocks.0.ffn.0.weight"].dtype == torch.int8
    with pytest.raises(LightX2VError, match="which safetensors does not support; use --quantize none"):
        convert(source, tmp_path / "x.safetensors")
    merged = LoraConfig(path=lora("blocks.0.self_attn.q")["path"])
    with pytest.raises(LightX2VError, match="cannot be re-quantized after merging a LoRA; choose a target"):
        convert(source, tmp_path / "x.safetensors", ConvertOptions(loras=(merged,)))
    convert(source, tmp_path / "m.safetensors", ConvertOptions(loras=(merged,), quantize="none"))
    changed = {
        name
        for name, tensor in load_file(tmp_path / "m.safetensors").items()
        if not torch.equal(tensor, got[name])
    }
    assert changed == {"blocks.0.self_attn.q.weight"}


def test_plain_weights_are_packed_while_they_are_loaded(tiny):
    options = {"gguf": {"format": "gguf-q8_0", "keep": ["blocks.0.*"]}}
    pipeline = load(tiny, config={"components": {"dit": {"quantizer": {"use": "gguf", "options": options}}}})
    network = pipeline.module("dit")
    assert network.blocks[0].ffn[0].weight.dtype == torch.float32
    assert network.blocks[1].ffn[0].weight.shape == (128 * 64 // 32, 34)
    plain = load(tiny).generate(**SMALL).latents
    got = pipeline.generate(**SMALL).latents
    assert 0 < (got - plain).norm() / plain.norm() < 0.05


def test_a_third_party_model_is_packed_with_no_code_of_its_own(tmp_path):
    tiny = pytest.importorskip("lightx2v_example.tiny", reason="needs the example plugin")
    tiny.write_tiny(tmp_path / "pebble", 0)
    request: dict[str, Any] = {"prompt": "x", "seed": 1, "size": (32, 32), "steps": 2}
    plain = load(tmp_path / "pebble").generate(**request).latents
    section = {"use": "gguf", "options": {"gguf": {"format": "gguf-q8_0"}}}
    with load(tmp_path / "pebble", config={"quantizer": section}) as pipeline:
        assert any("quantized to gguf-q8_0" in note for note in pipeline.plan.notes)
        got = pipeline.generate(**request).latents
    assert 0 < (got - plain).norm() / plain.norm() < 0.1


def refusal(folder: Path, **config: Any) -> str:
    from lightx2v_core.config.load import load_config
    from lightx2v_core.discovery.plugins import load_plugins
    from lightx2v_core.plan.resolve import resolve

    with pytest.raises(LightX2VError) as caught:
        resolve(load_config({"model_path": str(folder), "device": "cpu", **config}, []), load_plugins())
    return str(caught.value)


def test_names_of_schemes(folders, tiny):
    for name in ("gguf-Q4_K_S", "gguf-Q4_K_M", "W-gguf-Q4_K", "gguf-Q6_K"):
        pipeline = load(folders[0], config={"components": {"dit": {"quantizer": name}}})
        assert any(choice.use == "gguf/gguf" for choice in pipeline.plan.choices)
    said = refusal(folders[0], components={"dit": {"quantizer": "int8-torch"}})
    assert "wan2.1-t2v-Q4_K_M.gguf has blocks." in said
    assert "alternatives: gguf" in said


def test_a_scheme_that_contradicts_the_file_is_refused(tiny, tmp_path, write):
    tensors: dict[str, Any] = {}
    for file in tiny.glob("diffusion*.safetensors"):
        tensors |= load_file(file)
    kinds = {
        name: "q8_0"
        for name in tensors
        if name.startswith("blocks.") and ".ffn." in name and "weight" in name
    }
    write(tmp_path / "wan-Q8_0.gguf", tensors, kinds)
    shutil.copy(tiny / "config.json", tmp_path)
    dit = {"path": str(tmp_path / "wan-Q8_0.gguf"), "quantizer": "gguf-Q4_K_S"}
    said = refusal(tiny, components={"dit": dit})
    assert "quantizer 'gguf-Q4_K_S' is for weights in gguf-q4_k, but wan-Q8_0.gguf has blocks." in said


def test_of_several_files_one_is_asked_for(folders, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folders[0], model)
    shutil.copy(model / "wan2.1-t2v-Q4_K_M.gguf", model / "wan2.1-t2v-Q5_K_M.gguf")
    assert "contains more than one diffusion transformer" in refusal(model)
    (model / "wan2.1-t2v-Q5_K_M.gguf").unlink()
    shutil.copy(folders[1] / "diffusion_pytorch_model.safetensors", model)
    plain = load(model)
    assert plain.plan.components[0].scheme == "" or "gguf" not in plain.plan.components[0].scheme
    packed = load(model, config={"components": {"dit": {"precision": "gguf"}}})
    assert any(choice.use == "gguf/gguf" for choice in packed.plan.choices)


def test_flat_keys_of_the_original_find_it(folders, tmp_path):
    values = {"dit_quantized": True, "dit_quant_scheme": "gguf-Q4_K_S"}
    flat = {**values, "dit_quantized_ckpt": str(folders[0] / "wan2.1-t2v-Q4_K_M.gguf")}
    assert any(choice.use == "gguf/gguf" for choice in load(folders[0], config=flat).plan.choices)


def test_without_the_plugin_it_is_named(folders):
    said = cli("plan", "--model-path", folders[0], "--disable-plugin", "gguf", status=2)
    assert "lightx2v-gguf reads .gguf files: pip install " in said
