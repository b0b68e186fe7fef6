"""LoRA files in conversions: taken, fitted and scaled as in a run, and what they bring is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_convert.conversion import convert  # noqa: E402
from lightx2v_convert.options import ConvertOptions  # noqa: E402
from lightx2v_core import load  # noqa: E402
from lightx2v_core.config.model import LoraConfig  # noqa: E402
from lightx2v_core.errors import RequestError  # noqa: E402
from lightx2v_core.events import Event, Warned  # noqa: E402
from lightx2v_wan21.tiny import write_tiny  # noqa: E402
from lightx2v_wan22.tiny import write_tiny_a14b  # noqa: E402

DIT = "diffusion_pytorch_model.safetensors"
Q, K = "blocks.0.self_attn.q", "blocks.1.cross_attn.k"
SMALL: dict[str, Any] = {"size": (32, 32), "frames": 1}


@pytest.fixture(scope="module")
def t2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def a14b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "a14b"
    write_tiny_a14b(folder)
    return folder


def write(path: Path, *bases: str, prefix: str = "", **metadata: str) -> Path:
    torch.manual_seed(len(path.name))
    tensors = {}
    for base in bases:
        tensors[f"{prefix}{base}.lora_A.weight"] = torch.randn(4, 64) * 0.05
        tensors[f"{prefix}{base}.lora_B.weight"] = torch.randn(64, 4) * 0.05
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    return path


def merged(source: Path, output: Path, *loras: LoraConfig, **options: Any) -> list[str]:
    """Convert; what was warned of."""
    events: list[Event] = []
    made = ConvertOptions(**{"dtype": "float32", "loras": loras, **options})
    convert(source, output, made, emit=events.append)
    return [event.message for event in events if isinstance(event, Warned)]


def weights(path: Path) -> dict[str, Any]:
    """The transformer of a file or folder."""
    files = [path] if path.is_file() else sorted(path.glob("diffusion_pytorch_model*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def changed(result: Path, source: Path) -> set[str]:
    got, was = weights(result), weights(source)
    return {name for name in was if not torch.equal(got[name].float(), was[name].float())}


def networks(**asked: Any) -> dict[str, dict[str, Any]]:
    """Weights of what a run would compute with."""
    with load(device="cpu", dtype="float32", **asked, **SMALL) as pipeline:
        return {"dit": dict(pipeline.module("dit").state_dict())}


@pytest.mark.parametrize("stated", ["none", "sidecar", "metadata", "pattern"])
def test_a_conversion_merges_what_a_run_merges(stated: str, t2v: Path, tmp_path: Path) -> None:
    folder, metadata = tmp_path / "lora", {}
    said = {"r": 4, "lora_alpha": 8, "use_rslora": stated == "metadata"}
    if stated == "pattern":
        said["alpha_pattern"] = {"cross_attn.k": 2}
    if stated == "metadata":
        metadata["lora_adapter_metadata"] = json.dumps(
            {f"transformer.{key}": value for key, value in said.items()}
        )
    path = write(folder / "adapter_model.safetensors", Q, K, prefix="base_model.model.", **metadata)
    if stated in ("sidecar", "pattern"):
        (folder / "adapter_config.json").write_text(json.dumps(said))
    merged(t2v, tmp_path / "out.safetensors", LoraConfig(path=str(path), strength=0.5), component="dit")
    was, got, lora = weights(t2v), load_file(tmp_path / "out.safetensors"), load_file(path)
    scales = {"none": (1, 1), "sidecar": (2, 2), "metadata": (4, 4), "pattern": (2, 0.5)}[stated]
    for base, scale in zip((Q, K), scales, strict=True):
        up, down = (lora[f"base_model.model.{base}.lora_{part}.weight"].double() for part in "BA")
        wanted = was[f"{base}.weight"].double() + 0.5 * scale * up @ down
        assert (got[f"{base}.weight"].double() - wanted).abs().max() < 1e-6
    loaded = networks(model_path=t2v, loras=[{"path": str(path), "strength": 0.5}])["dit"]
    assert all(torch.equal(loaded[f"{base}.weight"], got[f"{base}.weight"]) for base in (Q, K))


def test_a_part_without_effect_is_warned_of_or_refused(t2v: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "fox.safetensors", Q, "blocks.0.cross_attn.k_img")
    out = tmp_path / "out.safetensors"
    (warning,) = merged(t2v, out, LoraConfig(path=str(path)), component="dit")
    assert "fox.safetensors: 2 of its 4 tensors have no effect on dit: blocks.0.cross_attn.k_img" in warning
    assert changed(out, t2v) == {f"{Q}.weight"}
    with pytest.raises(RequestError, match="does not fit .* 2 of its 4 tensors have no effect"):
        merged(t2v, tmp_path / "o.safetensors", LoraConfig(path=str(path)), component="dit", strict_lora=True)
    foreign = write(tmp_path / "foreign.safetensors", Q, *(f"blocks.{n}.self_attn.q" for n in (7, 8)))
    with pytest.raises(RequestError, match="is for another model: only 1 of its 3 pairs"):
        merged(t2v, tmp_path / "o.safetensors", LoraConfig(path=str(foreign)), component="dit")


def test_an_alpha_settles_what_is_not_clear(t2v: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "fox.safetensors", Q, lora_alpha="8")
    with pytest.raises(RequestError, match="unclear: its metadata has lora_alpha 8.*--lora_alpha"):
        merged(t2v, tmp_path / "out.safetensors", LoraConfig(path=str(path)), component="dit")
    merged(t2v, tmp_path / "out.safetensors", LoraConfig(path=str(path), alpha=8), component="dit")
    lora, was = load_file(path), weights(t2v)
    wanted = was[f"{Q}.weight"] + 2 * lora[f"{Q}.lora_B.weight"] @ lora[f"{Q}.lora_A.weight"]
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors")[f"{Q}.weight"], wanted)


def test_an_expert_takes_files_that_are_for_it(a14b: Path, tmp_path: Path) -> None:
    low, out = a14b / "low_noise_model" / DIT, tmp_path / "out.safetensors"
    both = tmp_path / "both.safetensors"
    tensors = {
        f"{prefix}.{base}.lora_{part}.weight": torch.randn(*shape)
        for prefix, base in (("transformer", Q), ("transformer_2", K))
        for part, shape in (("A", (4, 64)), ("B", (64, 4)))
    }
    save_file(tensors, both)
    assert merged(low, out, LoraConfig(path=str(both))) == []
    assert changed(out, low) == {f"{K}.weight"}
    merged(a14b, tmp_path / "high.safetensors", LoraConfig(path=str(both)), component="high_noise")
    assert changed(tmp_path / "high.safetensors", a14b / "high_noise_model" / DIT) == {f"{Q}.weight"}
    named = write(tmp_path / "fox_high_noise.safetensors", Q)
    (warning,) = merged(low, tmp_path / "b.safetensors", LoraConfig(path=str(named)))
    assert "is applied to low_noise, but file fox_high_noise.safetensors says high_noise" in warning
    with pytest.raises(RequestError, match="is for high_noise_model, but .* is low_noise"):
        merged(low, tmp_path / "c.safetensors", LoraConfig(path=str(named), name="high_noise_model"))
    unnamed = tmp_path / "network.safetensors"
    unnamed.write_bytes(low.read_bytes())
    with pytest.raises(RequestError, match="--component high_noise or --component low_noise"):
        merged(unnamed, tmp_path / "d.safetensors", LoraConfig(path=str(both)))
    merged(unnamed, tmp_path / "d.safetensors", LoraConfig(path=str(both)), component="low_noise")
    assert changed(tmp_path / "d.safetensors", low) == {f"{K}.weight"}


def test_a_whole_model_of_two_experts(a14b: Path, tmp_path: Path) -> None:
    high = write(tmp_path / "fox_HIGH_4steps.safetensors", Q)
    low = write(tmp_path / "fox_LOW_4steps.safetensors", K)
    merged(a14b, tmp_path / "out", LoraConfig(path=str(high)), LoraConfig(path=str(low)), dtype=None)
    plan = load(tmp_path / "out", task="t2v", **SMALL).plan
    files = {item.name: Path(item.files[0]) for item in plan.components}
    for expert, base in (("high_noise", Q), ("low_noise", K)):
        assert changed(files[expert], a14b / f"{expert}_model" / DIT) == {f"{base}.weight"}
    request = plan.request
    assert (request.scheduler, request.steps, request.guide_scale, request.shift) == (
        "distill",
        4,
        (1.0,),
        5.0,
    )
    # one alone brings nothing, and the plan says why
    merged(a14b, tmp_path / "half", LoraConfig(path=str(high)))
    half = load(tmp_path / "half", task="t2v", **SMALL).plan
    assert half.request.steps == 40
    assert any("'fox_HIGH_4steps.safetensors' (in high_noise) is distilled" in note for note in half.notes)
    # both are in one folder there, and a second conversion distinguishes them
    merged(tmp_path / "out", tmp_path / "low.safetensors", component="low_noise")
    assert changed(tmp_path / "low.safetensors", a14b / "low_noise_model" / DIT) == {f"{K}.weight"}
    style = write(tmp_path / "style.safetensors", Q)
    with pytest.raises(RequestError, match="--lora high:"):
        merged(a14b, tmp_path / "o", LoraConfig(path=str(style)))


def test_what_a_distilled_file_brings_is_kept(t2v: Path, tmp_path: Path) -> None:
    def request(**asked: Any) -> tuple[Any, ...]:
        found = load(**asked, **SMALL).plan.request
        return found.scheduler, found.steps, found.guide_scale, found.shift

    path = write(tmp_path / "Wan21_cfg_step_distill_lora.safetensors", Q)
    wanted = request(model_path=t2v, loras=[str(path)])
    assert (wanted[0], wanted[2]) == ("distill", (1.0,))
    merged(t2v, tmp_path / "fox", LoraConfig(path=str(path)))
    assert request(model_path=tmp_path / "fox") == wanted
    # also through another conversion, as shards, and as one file beside the model
    convert(tmp_path / "fox", tmp_path / "int8", ConvertOptions(quantize="int8", split="shards"))
    assert request(model_path=tmp_path / "int8") == wanted
    merged(t2v, tmp_path / "merged.safetensors", LoraConfig(path=str(path)), component="dit")
    components = {"dit": {"path": str(tmp_path / "merged.safetensors")}}
    assert request(model_path=t2v, components=components) == wanted
    # taken away, or of a name that counts the steps of a training
    merged(t2v, tmp_path / "away", LoraConfig(path=str(path), strength=-1))
    trained = write(tmp_path / "style-step00003000.safetensors", Q)
    merged(t2v, tmp_path / "style", LoraConfig(path=str(trained)))
    assert (
        request(model_path=tmp_path / "away")
        == request(model_path=tmp_path / "style")
        == request(model_path=t2v)
    )


def test_the_command_takes_what_run_takes(
    a14b: Path, t2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightx2v_core.cli import main

    def run(status: int, *arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["convert", *map(str, arguments)])
        said = capsys.readouterr()
        assert int(caught.value.code or 0) == status, said
        return f"{said.out}{said.err}"

    style = write(tmp_path / "style.safetensors", Q)
    printed = run(0, a14b, "--lora", f"high:{style}:0.5", "--output", tmp_path / "out")
    assert "wrote" in printed
    part = write(tmp_path / "part.safetensors", Q, "blocks.0.cross_attn.k_img")
    assert "warning: LoRA part.safetensors" in run(0, t2v, "--lora", part, "--output", tmp_path / "a")
    assert "does not fit" in run(2, t2v, "--lora", part, "--strict-lora", "--output", tmp_path / "b")
    (t2v / "loras").mkdir(exist_ok=True)
    write(t2v / "loras" / "fox.safetensors", Q)
    run(0, t2v, "--lora", "fox.safetensors:0.8", "--output", tmp_path / "c")  # found in the model's folder
    assert changed(tmp_path / "c" / DIT, t2v) == {f"{Q}.weight"}
    assert "'alpha' must be above 0" in run(
        2, t2v, "--lora", style, "--lora_alpha", 0, "--output", tmp_path / "d"
    )
