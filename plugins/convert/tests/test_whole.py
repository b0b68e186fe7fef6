"""A model's whole folder in one conversion, and what a conversion may be called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_convert.conversion import Conversion, convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core import load  # noqa: E402
from lightx2v_core.config.model import LoraConfig  # noqa: E402
from lightx2v_core.errors import RequestError  # noqa: E402
from lightx2v_wan21.tiny import write_tiny  # noqa: E402
from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_animate, write_tiny_ti2v  # noqa: E402

FP8 = ConvertOptions(quantize="fp8")
T5 = "models_t5_umt5-xxl-enc"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
DIT = "diffusion_pytorch_model.safetensors"
WRITERS: dict[str, Callable[[Path], None]] = {
    "t2v": write_tiny,
    "i2v": lambda folder: write_tiny(folder, 0, "i2v"),
    "a14b": write_tiny_a14b,
    "ti2v": write_tiny_ti2v,
    "animate": write_tiny_animate,
}
#: networks that are converted: component -> file; and files that are copied
RESULTS = {
    "t2v": ({"dit": DIT, "text_encoder": f"{T5}-fp8.safetensors"}, {"Wan2.1_VAE.pth", "taew2_1.pth"}),
    "i2v": (
        {"dit": DIT, "text_encoder": f"{T5}-fp8.safetensors", "image_encoder": f"{CLIP}-fp8.safetensors"},
        {"Wan2.1_VAE.pth", "taew2_1.pth"},
    ),
    "a14b": (
        {
            "high_noise": "high_noise_model.safetensors",
            "low_noise": "low_noise_model.safetensors",
            "text_encoder": f"{T5}-fp8.safetensors",
        },
        {"Wan2.1_VAE.pth", "taew2_1.pth"},
    ),
    "ti2v": ({"dit": DIT, "text_encoder": f"{T5}-fp8.safetensors"}, {"Wan2.2_VAE.pth", "taew2_2.pth"}),
    "animate": (
        {"dit": DIT, "text_encoder": f"{T5}-fp8.safetensors", "image_encoder": f"{CLIP}-fp8.safetensors"},
        {"Wan2.1_VAE.pth"},
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    above = tmp_path_factory.mktemp("models")

    def model(name: str) -> Path:
        if not (above / name).exists():
            WRITERS[name](above / name)
        return above / name

    return model


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", list(RESULTS))
def test_a_model_becomes_one_of_the_same_model(name, models, tmp_path):
    source, out = models(name), tmp_path / "fp8"
    done = convert(source, out, FP8)
    networks, copied = RESULTS[name]
    assert {path.name for path in done.files} == set(networks.values())
    assert set(done.copied) == copied | {"tokenizer.json", "config.json"}
    assert {path.name for path in out.iterdir()} == {*networks.values(), *done.copied}
    assert not done.lacking
    for component, file in networks.items():  # each is what a conversion of it alone gives
        alone = tmp_path / f"{component}.safetensors"
        convert(source, alone, ConvertOptions(quantize="fp8", component=component, drop=("textual.*",)))
        made, wanted = load_file(out / file), load_file(alone)
        assert set(made) == set(wanted)
        assert all(torch.equal(made[key].view(torch.uint8), wanted[key].view(torch.uint8)) for key in wanted)
    for file in copied:
        assert (out / file).read_bytes() == (source / file).read_bytes()
    task = {"ti2v": "t2v", "animate": "animate"}.get(name, name if name in ("t2v", "i2v") else "t2v")
    plan = load(out, task=task).plan
    assert {item.name for item in plan.components} >= set(networks)
    assert not list(tmp_path.glob(".*")), "nothing is left of the work"


def test_the_folders_by_precision_of_the_guide_are_made_in_one_command_each(models, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models("i2v"), model / "original")
    shutil.move(model / "original" / "google", model / "google")
    for precision in ("fp8", "int8"):
        done = convert(model, model / precision, ConvertOptions(quantize=precision, split="blocks"))
        assert {path.name for path in done.files} == {
            "block_0.safetensors", "block_1.safetensors", "non_block.safetensors",
            f"{T5}-{precision}.safetensors", f"{CLIP}-{precision}.safetensors",
        }  # fmt: skip
    for precision in ("fp8", "int8"):
        plan = load(model, task="i2v", config={"components": {"dit": {"precision": precision}}}).plan
        assert plan.components[0].files[0].endswith("block_0.safetensors")
    again = convert(model / "fp8", tmp_path / "int8", ConvertOptions(quantize="int8"))
    assert f"{T5}-int8.safetensors" in {path.name for path in again.files}
    # files missing in the source are reported
    shutil.rmtree(model / "google")
    alone = convert(model / "original", tmp_path / "alone", FP8)
    assert alone.lacking == ("tokenizer of the umT5-XXL text encoder",)


def test_a_folder_of_diffusers_and_one_of_single_files_become_one_too(models, tmp_path):
    source, folders = models("t2v"), tmp_path / "diffusers"
    for component, place in (("dit", "transformer"), ("text_encoder", "text_encoder"), ("vae", "vae")):
        convert(source, folders / place, ConvertOptions(component=component, layout="diffusers"))
    shutil.copytree(source / "google" / "umt5-xxl", folders / "tokenizer")
    done = convert(folders, tmp_path / "out", FP8)
    assert {path.name for path in done.files} == {DIT, f"{T5}-fp8.safetensors"}
    assert set(done.copied) == {"Wan2.1_VAE.safetensors", "tokenizer.json", "config.json"}
    assert load(tmp_path / "out").plan.components

    single = tmp_path / "single"
    shutil.copytree(source, single, ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    convert(source, single / "wan2.1_t2v_bf16_lightx2v_4step.safetensors", ConvertOptions(component="dit"))
    convert(single, tmp_path / "fp8", FP8)
    assert (tmp_path / "fp8" / "wan2.1_t2v_fp8_lightx2v_4step.safetensors").is_file()
    assert load(tmp_path / "fp8").plan.request.steps == 4


def test_what_is_distilled_stays_so(models, tmp_path):
    source, model = models("t2v"), tmp_path / "model"
    shutil.copytree(source, model / "distill_models", ignore=shutil.ignore_patterns("google"))
    shutil.copytree(source / "google", model / "google")
    convert(model, tmp_path / "one", FP8)
    assert (tmp_path / "one" / "distill_model.safetensors").is_file()
    assert load(tmp_path / "one").plan.request.steps == 4
    blocks = ConvertOptions(quantize="fp8", split="blocks")
    with pytest.raises(RequestError, match="is distilled, which names of block files cannot express"):
        convert(model, tmp_path / "blocks", blocks)
    convert(model, model / "distill_fp8", blocks)
    shutil.rmtree(model / "distill_models")
    assert load(model).plan.request.steps == 4


def test_a_lora_is_merged_into_the_one_transformer(models, tmp_path):
    source, lora = models("t2v"), tmp_path / "fox.safetensors"
    key = "blocks.0.self_attn.q"
    down, up = torch.ones(2, 64), torch.full((64, 2), 0.01)
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, lora)
    merge = (LoraConfig(path=str(lora), strength=0.5),)
    convert(source, tmp_path / "out", ConvertOptions(loras=merge))
    convert(source, tmp_path / "plain", ConvertOptions())
    made, plain = (load_file(tmp_path / name / DIT) for name in ("out", "plain"))
    assert [name for name in plain if not torch.equal(made[name], plain[name])] == [f"{key}.weight"]
    bf16 = f"{T5}-bf16.safetensors"
    assert (tmp_path / "out" / bf16).stat().st_size > 0
    encoders = [load_file(tmp_path / name / bf16) for name in ("out", "plain")]
    assert all(torch.equal(tensor, encoders[1][name]) for name, tensor in encoders[0].items())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("t2v", {"keep": ("blocks.0.*",)}, "choose one with --component"),
        ("t2v", {"only": ("*.ffn.*",)}, "choose one with --component"),
        ("t2v", {"layout": "diffusers", "quantize": None}, "choose one with --component"),
        ("a14b", {"split": "blocks"}, "--component high_noise and then --component low_noise"),
    ],
)
def test_what_is_said_of_one_network_is_not_said_of_a_model(name, options, words, models, tmp_path):
    with pytest.raises(RequestError, match=words):
        convert(models(name), tmp_path / "out", ConvertOptions(**{"quantize": "fp8", **options}))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_more_than_one_network_could_be_meant_asks(models, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models("t2v"), model)
    convert(model, model / "other_fp8.safetensors", ConvertOptions(quantize="fp8", component="dit"))
    with pytest.raises(RequestError, match=r"give one of the files, or --component(?s:.)*more than one"):
        convert(model, tmp_path / "out", FP8)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["out", "out.safetensors"])
def test_a_vae_that_lies_alone_above_the_networks_is_not_taken_for_what_is_meant(output, models, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models("a14b"), model, ignore=shutil.ignore_patterns("models_t5*", "taew*"))
    extra = model / "high_noise_model" / "other.safetensors"
    convert(model, extra, ConvertOptions(component="high_noise", quantize="int8"))
    with pytest.raises(RequestError, match="choose one with --component"):
        convert(model, tmp_path / output, FP8)
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("count", [1, 20, 60, 110])
def test_an_interrupted_conversion_of_a_model_goes_on(count, models, tmp_path):
    source, out = models("a14b"), tmp_path / "fp8"
    convert(source, tmp_path / "wanted", FP8)
    seen: list[Any] = []

    def stop(event: Any) -> None:
        seen.append(event)
        if len(seen) > count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, FP8, emit=stop)
    assert not out.exists()
    first: list[Any] = []
    done: Conversion = convert(source, out, FP8, emit=first.append)
    if count > 60:
        assert first[1].done > 0, "it begins where it was"
    assert len(done.files) == 3
    assert content(out) == content(tmp_path / "wanted")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "name",
    ["t5.pth", "models_t5_umt5-xxl-enc-fp8.pth", "a/b.pt", "x.CKPT", "dit.bin", "w.gguf", "w.safetensor"],
)
@pytest.mark.parametrize("component", ["text_encoder", None])
def test_a_file_that_is_not_written_is_refused_with_the_name_to_use(name, component, models, tmp_path):
    with pytest.raises(
        RequestError, match=r"only safetensors files are written; use the name \S+\.safetensors"
    ):
        convert(models("t2v"), tmp_path / name, ConvertOptions(component=component))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Wan2.1-T2V-1.3B-fp8", "model.fp8", "v1.0", "plain"])
def test_a_folder_may_have_dots_in_its_name_and_nothing_beside_its_file(name, models, tmp_path):
    done = convert(models("t2v"), tmp_path / name, ConvertOptions(component="vae"))
    assert done.files == (tmp_path / name / DIT,)
    assert done.files[0].is_file()


def test_a_file_may_end_in_capitals_and_a_folder_that_is_there_like_a_file(models, tmp_path):
    convert(models("t2v"), tmp_path / "VAE.SAFETENSORS", ConvertOptions(component="vae"))
    assert (tmp_path / "VAE.SAFETENSORS").is_file()
    (tmp_path / "x.pth").mkdir()
    convert(models("t2v"), tmp_path / "x.pth", ConvertOptions(component="vae"))
    assert (tmp_path / "x.pth" / DIT).is_file()


@pytest.mark.parametrize("component", ["text_encoder", "vae", "tiny_vae", "image_encoder"])
def test_an_encoder_does_not_get_the_configuration_of_the_transformer(component, models, tmp_path):
    source = models("i2v")
    convert(source, tmp_path / "out", ConvertOptions(component=component))
    assert not (tmp_path / "out" / "config.json").exists()
    convert(
        source, tmp_path / "all", ConvertOptions(component=component), copy=("config.json", "Wan2.1_VAE.pth")
    )
    assert {path.name for path in (tmp_path / "all").iterdir()} - {DIT} == {"Wan2.1_VAE.pth"}
    convert(source, tmp_path / "dit", ConvertOptions(component="dit"))
    assert json.loads((tmp_path / "dit" / "config.json").read_text())["_class_name"] == "WanModel"
