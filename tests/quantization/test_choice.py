"""The choice of quantizers for layers, and the errors if none fits: plans only, no weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.config.layers import Value  # noqa: E402
from lightx2v_core.config.lightx2v.schemes import MM_TYPES, SCHEMES  # noqa: E402
from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.catalog import quantizers  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.errors import CheckpointError, LightX2VError, PluginError  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402


@pytest.fixture
def plan(tiny: Path, path_of: Any) -> Any:
    """``plan(layout, **config)``: what would be done with a network of the reference set."""

    def make(layout: str | Path, **config: Any) -> Any:
        path = layout if isinstance(layout, Path) else path_of(layout)
        components = config.pop("components", {})
        components["dit"] = {"path": str(path), **components.get("dit", {})}
        values = {
            "model_path": str(tiny),
            "model": "wan2.1",
            "device": "cpu",
            "components": components,
            **config,
        }
        return resolve(load_config(values, []), load_plugins())

    return make


#: what an error about a scheme has one of
_HELP = ("alternatives: ", " instead", "no quantizer runs", "pip install", "cannot quantize", "runs on cuda")


def choices(resolved: Any) -> dict[str, str]:
    return {item.kind: item.use for item in resolved.plan.choices if item.kind.startswith("quantizer")}


def test_an_unsaid_quantizer_is_exact_and_faster_ones_are_named(plan):
    resolved = plan("int8_single")
    assert choices(resolved) == {"quantizer": "core/dequant"}
    (note,) = [note for note in resolved.plan.notes if "decoded" in note]
    assert "int8-torch" in note
    assert "--set components.dit.quantizer=" in note
    assert choices(plan("ckpt")) == {}


def test_the_forecast_counts_stored_bytes(plan):
    plain, quantized = plan("ckpt").plan, plan("int8_single").plan
    dit = {item.name: item for item in quantized.components}["dit"]
    before = {item.name: item for item in plain.components}["dit"]
    codes = 3 * (8 * 64 * 64 + 2 * 64 * 128)
    scales = 3 * (9 * 64 + 128)
    assert before.weights - dit.weights == 3 * codes - 4 * scales
    assert before.activations < dit.activations
    made = plan("ckpt", components={"dit": {"quantizer": "int8-torch"}}).plan
    assert {item.name: item for item in made.components}["dit"].weights == dit.weights


@pytest.mark.parametrize(
    ("layout", "use", "texts"),
    [
        ("int8_single", "fp8-torch",
         ("fp8-torch: reads fp8-channel", "wan2.1_t2v_int8.safetensors has blocks.", ".weight in int8-channel")),
        ("fp8_single", "int8-torch", ("reads int8-channel", "has blocks.", "(30 of 30", "alternatives: ")),
        ("fp8_single", "fp8-sgl", ("'fp8-sgl' needs the package sgl_kernel", "dequant, fp8-torch instead")),
        ("fp8_single", "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Q8F", ("(fp8-q8f)", "q8_kernels")),
        ("fp8_single", "fp9-torch", ("unknown quantizer 'fp9-torch'", "did you mean 'fp8-torch'")),
        ("ckpt", "nvfp4", ("'nvfp4' needs the package lightx2v_kernel", "no quantizer runs nvfp4 weights")),
    ],
)  # fmt: skip
def test_a_quantizer_that_does_not_fit_is_refused(layout, use, texts, plan):
    with pytest.raises(PluginError) as caught:
        plan(layout, quantizer=use)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("layout", "use", "wanted"),
    [
        ("int8_blocks", "int8", "int8-"),
        ("fp8_blocks", "fp8", "fp8-"),
        ("comfy_fp8_scaled", "fp8-pertensor", "fp8-torch"),
        ("fp8_blocks", ["fp8", "dequant"], "fp8-"),
    ],
)
def test_names_of_schemes_stand_for_kernels(layout, use, wanted, plan):
    (found,) = choices(plan(layout, components={"dit": {"quantizer": use}})).values()
    assert found.split("/")[1].startswith(wanted)


@pytest.mark.parametrize("use", [["fp8-sgl?", "fp8-torch"], ["fp8-vllm?", "fp8-acme?", "fp8-torch"]])
def test_a_wish_for_a_kernel_that_is_not_to_be_had_is_passed_over(use, plan):
    options = {"*": {"keep": ["blocks.0.*"]}}
    resolved = plan("fp8_blocks", quantizer={"use": use, "options": options})
    assert choices(resolved) == {"quantizer": "core/fp8-torch"}
    assert len(resolved.setup.quantization["dit"].kept) == 20


def test_every_name_of_a_scheme_is_known(plan):
    """Each is a quantizer, or says what runs its weights; none is unknown."""
    for name in [*SCHEMES, *MM_TYPES, *quantizers()]:
        said = ""
        try:
            plan("ckpt", components={"dit": {"quantizer": name}})
        except LightX2VError as exc:
            said = str(exc)
        assert "unknown quantizer" not in said, name
        assert not said or any(word in said for word in _HELP), said


def test_default_means_that_nothing_was_said(plan):
    assert choices(plan("ckpt", quantizer="Default")) == {}
    assert choices(plan("fp8_single", quantizer="Default")) == {"quantizer": "core/dequant"}


def test_layers_are_chosen_by_patterns(plan):
    options = {
        "dequant": {"format": "int8-channel", "only": ["*.ffn.*"], "keep": ["blocks.0.*", "blocks.2.*"]}
    }
    resolved = plan("ckpt", components={"dit": {"quantizer": {"use": "dequant", "options": options}}})
    assert set(resolved.setup.quantization["dit"].made) == {"blocks.1.ffn.0", "blocks.1.ffn.2"}
    resolved = plan(
        "int8_single", quantizer={"use": "int8-torch", "options": {"int8-torch": {"keep": ["*attn*"]}}}
    )
    assert set(resolved.setup.quantization["dit"].kept) == {
        f"blocks.{i}.ffn.{j}" for i in range(3) for j in (0, 2)
    }
    assert len(resolved.setup.quantization["dit"].decoded) == 24


def test_one_quantizer_for_all_takes_every_network_that_has_blocks(plan):
    resolved = plan("ckpt", quantizer="int8-torch")
    assert set(resolved.setup.quantization) == {"dit", "text_encoder", "vae"}
    assert all(
        ".attn." in name or ".ffn." in name for name in resolved.setup.quantization["text_encoder"].made
    )
    assert resolved.setup.quantization["vae"].chosen is None
    notes = plan("ckpt", quantizer="dequant").plan.notes
    assert "dit: dequant has nothing to do" in "".join(notes)


def test_a_component_without_linears_takes_no_quantizer(plan):
    with pytest.raises(PluginError, match="no layer of the Wan2.1 VAE can be quantized"):
        plan("ckpt", components={"vae": {"quantizer": "int8-torch"}})


BROKEN = {
    "has no blocks.1.ffn.0.weight_scale": lambda t: t.pop("blocks.1.ffn.0.weight_scale"),
    "is a scale, but its weight blocks.1.ffn.0.weight is missing": lambda t: t.pop("blocks.1.ffn.0.weight"),
    "is [3, 1]; a weight [128, 64]": lambda t: t.update({"blocks.1.ffn.0.weight_scale": torch.ones(3, 1)}),
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_quantized_files_are_refused_with_file_and_key(text, plan, case, tmp_path):
    tensors = load_file(case / "int8_single" / "wan2.1_t2v_int8.safetensors")
    BROKEN[text](tensors)
    save_file(tensors, tmp_path / "broken.safetensors")
    shutil.copy(case / "int8_single" / "config.json", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        plan(tmp_path / "broken.safetensors")
    assert text in str(caught.value)
    assert "broken.safetensors: blocks.1.ffn.0.weight" in str(caught.value)


def test_a_format_that_nothing_reads_is_refused(plan, case, tmp_path):
    tensors = load_file(case / "int8_single" / "wan2.1_t2v_int8.safetensors")
    layer = "blocks.1.ffn.2"
    tensors[f"{layer}.weight"] = torch.zeros(64, 64, dtype=torch.uint8)
    tensors[f"{layer}.weight_scale"] = torch.zeros(128, 8).to(torch.float8_e4m3fn)
    tensors[f"{layer}.weight_global_scale"] = torch.ones(())
    save_file(tensors, tmp_path / "mixed.safetensors")
    shutil.copy(case / "int8_single" / "config.json", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        plan(tmp_path / "mixed.safetensors")
    assert "mixed.safetensors, which is stored in int8-channel, nvfp4" in str(caught.value)


def test_the_plan_says_it_in_json(plan):
    data = json.loads(json.dumps(plan("int8_blocks", quantizer="int8-torch").plan.to_json()))
    choice = next(item for item in data["choices"] if item["kind"].startswith("quantizer"))
    assert choice["options"] == {"keep": [], "only": []}


# ---------------------------------------------------------------- names of kernels are wishes in the flat vocabulary


def _flat(name: str) -> dict[str, Any]:
    long = name.startswith("W-")
    return {"mm_config": {"mm_type": name}} if long else {"dit_quantized": True, "dit_quant_scheme": name}


WISHES = [
    "vllm", "sgl", "q8f", "triton", "torchao", "npu", "musa", "intel-xpu", "tmo", "iluvatar", "vllm-hygon-dcu",
]  # fmt: skip


@pytest.mark.parametrize("kernel", WISHES)
@pytest.mark.parametrize("format", ["fp8", "int8"])
def test_a_scheme_of_another_program_means_its_format(format, kernel, plan):
    name = f"{format}-{kernel}"
    if name not in {**SCHEMES, **quantizers()}:
        pytest.skip("no such scheme")
    resolved = plan(f"{format}_single", **_flat(name))
    (used,) = choices(resolved).values()
    notes = [note for note in resolved.plan.notes if f"'{name}'" in note]
    assert len(notes) == (0 if used.endswith(f"/{name}") else 1), (used, notes)
    assert all("dit_quant_scheme in config" in note and used.partition("/")[2] in note for note in notes)


def test_one_note_tells_of_the_wishes_of_all_components(plan):
    name = "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Unheard"
    resolved = plan("fp8_single", **_flat(name))
    (note,) = [note for note in resolved.plan.notes if name in note]
    assert "for the same weights" in note
    assert "(dit)" in note


def test_a_format_is_no_wish(plan):
    with pytest.raises(LightX2VError, match="no quantizer runs nvfp4 weights"):
        plan("fp8_single", **_flat("nvfp4"))


@pytest.mark.parametrize("scheme", ["fp8-sgl", "fp8-vllm"])
def test_what_is_quantized_on_load_gets_its_format_anywhere(scheme, plan):
    resolved = plan("ckpt", **_flat(scheme), weight_auto_quant=True)
    assert resolved.setup.quantization["dit"].target == "fp8-channel"
    assert resolved.setup.quantization["dit"].made


@pytest.mark.parametrize(
    "said",
    [
        {"dit_quantized": True, "dit_quant_scheme": "fp8-vllm"},
        {"components": {"dit": {"quantizer": "fp8-torch"}}},
    ],
)
def test_a_quantizer_on_the_command_line_beats_the_file(said, path_of, tiny):
    said = json.loads(json.dumps(said))
    said.setdefault("components", {}).setdefault("dit", {})["path"] = str(path_of("fp8_single"))
    over = [Value(path=("quantizer",), value="dequant", origin="--quantizer")]
    loaded = load_config({"model_path": str(tiny), "model": "wan2.1", "device": "cpu", **said}, over)
    assert choices(resolve(loaded, load_plugins())) == {"quantizer": "core/dequant"}
    (warning,) = [text for text in loaded.warnings if "--quantizer" in text]
    assert "components.dit.quantizer.use" in warning


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ('{"dit_quantized": true,\n "dit_quant_scheme": "nvfp4"}', "line 2, column 2: dit_quant_scheme: "),
        ('{\n\n"components": {"dit": {"quantizer": "int8-torch"}}}', "line 3, column 24: components.dit.quantizer"),
        ('{"quantizer":\n "fp8-vlm"}', "line 1, column 2: quantizer.use: unknown quantizer 'fp8-vlm'"),
        ('{"attention": "no-such"}', "line 1, column 2: attention.use: unknown attention 'no-such'"),
        ('{"scheduler": "no-such"}', "line 1, column 2: scheduler.use: unknown scheduler 'no-such'"),
        ('{"offloader": "no-such"}', "line 1, column 2: offloader.use: unknown offloader 'no-such'"),
        ('{"lora_applier": "no-such"}', "line 1, column 2: lora_applier.use: unknown lora_applier 'no-such'"),
        ('{"model_cls": "wan9.9"}', "line 1, column 2: model_cls: unknown model 'wan9.9'"),
    ],
)  # fmt: skip
def test_an_error_of_a_choice_names_file_line_and_key(text, texts, path_of, tiny, tmp_path):
    file = tmp_path / "flat.json"
    file.write_text(text)
    over = [Value(path=("model_path",), value=str(tiny), origin="--model-path"),
            Value(path=("components", "dit", "path"), value=str(path_of("fp8_single")), origin="--set")]  # fmt: skip
    if "model_cls" not in text:
        over.append(Value(path=("model",), value="wan2.1", origin="--model"))
    with pytest.raises(LightX2VError) as caught:
        resolve(load_config(file, over), load_plugins())
    assert f"{file}, {texts}" in str(caught.value)
