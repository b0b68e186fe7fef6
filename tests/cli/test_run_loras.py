"""LoRA files on the command line: refusals and reasons, warnings, and the contents of plan and record."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

Cli = Callable[..., Any]
Refused = Callable[..., None]
Q = "blocks.0.self_attn.q"


def write(path: Path, *bases: str, rank: int = 2, alpha: float | None = None, **more: Any) -> Path:
    tensors = dict(more)
    for base in bases:
        tensors[f"{base}.lora_down.weight"] = torch.randn(rank, 64)
        tensors[f"{base}.lora_up.weight"] = torch.randn(64, rank)
        if alpha is not None:
            tensors[f"{base}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def test_files_that_are_none(tiny: Path, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    refused(tiny, ("'nowhere.safetensors' does not exist",), "--lora", "nowhere.safetensors")
    refused(tiny, ("is a folder", "give a file in it"), "--lora", tmp_path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    refused(tiny, (path.name, "not a safetensors file"), "--lora", path)
    write(path, Q)
    path.write_bytes(path.read_bytes()[:-100])
    refused(tiny, (path.name, "truncated"), "--lora", path)
    save_file({f"blocks.0.{part}.weight": torch.zeros(4, 4) for part in "abc"}, path)
    refused(tiny, ("is not a LoRA file", "it contains blocks.0.a.weight", "lora_A.weight"), "--lora", path)
    write(path, Q)
    refused(tiny, ("did you mean 'lora.safetensors'?",), "--lora", tmp_path / "lora.safetensor")


def test_files_of_another_model(tiny: Path, refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", "single_blocks.0.linear1")
    words = ("changes nothing in dit of wan2.1-t2v", "2 of its 2 tensors", "is for another model")
    refused(tiny, words, "--lora", path)
    save_file({f"{Q}.lora_A.weight": torch.zeros(2, 65), f"{Q}.lora_B.weight": torch.zeros(64, 2)}, path)
    refused(tiny, ("changes nothing", f"{Q}.weight is [64, 64], the file has down [2, 65]"), "--lora", path)


def test_a_file_of_which_less_than_half_fits_is_for_another_model(
    tiny: Path, refused: Refused, cli: Cli, tmp_path: Path
) -> None:
    foreign = [f"blocks.{number}.self_attn.q" for number in range(7, 17)]
    path = write(tmp_path / "fox_4step.safetensors", Q, *foreign)
    words = ("fox_4step.safetensors is for another model: only 1 of its 11 pairs fit dit of wan2.1-t2v",)
    refused(tiny, words, "--lora", path)
    # keys of a text encoder do not point to another model, and differences tell where there are no pairs
    encoder = [f"lora_te_layers_{number}_q" for number in range(9)] + ["text_encoder.layers.0.q"]
    assert (
        cli("plan", "--model-path", tiny, "--lora", write(tmp_path / "te.safetensors", Q, *encoder)).status
        == 0
    )
    diffs = {f"blocks.{number}.self_attn.q.diff": torch.zeros(64, 64) for number in (0, 7, 8)}
    save_file(diffs, tmp_path / "diffs.safetensors")
    refused(tiny, ("only 1 of its 3 pairs",), "--lora", tmp_path / "diffs.safetensors")
    with_pair = write(tmp_path / "pair.safetensors", Q, **diffs)
    assert cli("plan", "--model-path", tiny, "--lora", with_pair).status == 0


def test_what_is_stated_beside_the_tensors_decides_the_scale(
    tiny: Path, cli: Cli, refused: Refused, tmp_path: Path
) -> None:
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "use_rslora": False}

    def plan(path: Path, *options: object) -> str:
        found = cli("plan", "--model-path", tiny, "--lora", path, *options)
        found.succeeded()
        return found.unfolded

    def beside(path: Path, **more: Any) -> Path:
        path.parent.mkdir(exist_ok=True)
        (path.parent / "adapter_config.json").write_text(json.dumps(said | more))
        tensors = {f"base_model.model.{Q}.lora_{part}.weight": torch.randn(*shape)
                   for part, shape in (("A", (2, 64)), ("B", (64, 2)))}  # fmt: skip
        save_file(tensors, path)
        return path

    peft = beside(tmp_path / "peft" / "adapter_model.safetensors")
    assert "scale alpha 8 of adapter_config.json / rank" in plan(peft)
    root = beside(tmp_path / "root" / "renamed.safetensors", use_rslora=True)
    assert "scale alpha 8 of adapter_config.json / sqrt(rank)" in plan(root)
    asks = beside(tmp_path / "asks" / "adapter_model.safetensors", use_some_trick=True)
    doubt = "unclear: adapter_config.json has unsupported setting use_some_trick True"
    refused(tiny, (doubt, '"alpha": 2'), "--lora", asks)
    entry = json.dumps([{"path": str(asks), "alpha": 2}])
    found = cli("plan", "--model-path", tiny, "--set", f"loras={entry}")
    found.succeeded()
    assert "scale alpha 2 of the configuration / rank" in found.unfolded
    assert "note: LoRA adapter_model.safetensors: the configured alpha of 2 is used, since" in found.unfolded
    # beside other weights it may be of these, which matters when it says another scale than 1
    lost = beside(tmp_path / "lost" / "fox.safetensors")
    write(tmp_path / "lost" / "other.safetensors", Q)
    refused(tiny, ("adapter_config.json next to it has lora_alpha 8, r 2",), "--lora", lost)
    assert "scale 1 (no alpha)" in plan(tmp_path / "lost" / "other.safetensors")
    beside(lost, lora_alpha=2)
    plan(lost)
    (lost.parent / "adapter_config.json").write_text("{")
    refused(tiny, ("adapter_config.json cannot be read",), "--lora", lost)


def test_a_part_without_effect_is_warned_of_or_refused(
    tiny: Path, refused: Refused, cli: Cli, tmp_path: Path
) -> None:
    path = write(tmp_path / "lora.safetensors", Q, "blocks.9.self_attn.q")
    words = "2 of its 4 tensors have no effect on dit: blocks.9.self_attn.q.lora_down.weight"
    found = cli("plan", "--model-path", tiny, "--lora", path)
    found.succeeded()
    assert f"warning: LoRA lora.safetensors: {words}" in found.unfolded
    assert "2 of 4 tensors have an effect, on 1 of the network" in found.unfolded
    refused(tiny, ("does not fit wan2.1-t2v", words), "--lora", path, "--strict-lora")
    refused(tiny, words, "--lora", path, "--set", "strict_lora=true")


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (
            {"name": "high_noise_model"},
            ("is for high_noise_model, which wan2.1-t2v", "it has dit, text_encoder"),
        ),
        ({"name": "dti"}, ("did you mean 'dit'?",)),
        ({"alpha": 0}, ("'alpha' must be above 0",)),
        ({"alpha_override": True}, ("'alpha_override' requires 'alpha'",)),
        ({"strength": "much"}, ("expected a number",)),
        ({"weight": 1}, ("unknown key 'weight'",)),
    ],
)
def test_entries_that_cannot_be(
    lora: dict[str, Any], words: tuple[str, ...], tiny: Path, refused: Refused, tmp_path: Path
) -> None:
    entry = {"path": str(write(tmp_path / "lora.safetensors", Q)), **lora}
    refused(tiny, words, "--set", f"loras={json.dumps([entry])}")


def test_an_applier_that_cannot_do_it(tiny: Path, refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", Q, **{f"{Q}.dora_scale": torch.ones(64, 1)})
    words = ("lora_applier dynamic cannot apply magnitude", "lora_applier=merge")
    refused(tiny, words, "--lora", path, "--set", "lora_applier=dynamic")


def test_strength_alpha_and_scale_in_the_plan(tiny: Path, cli: Cli, tmp_path: Path) -> None:
    with_alpha = write(tmp_path / "with.safetensors", Q, alpha=4.0)
    without = write(tmp_path / "without.safetensors", Q)

    def plan(path: Path, **entry: Any) -> str:
        loras = json.dumps([{"path": str(path), **entry}])
        found = cli("plan", "--model-path", tiny, "--set", f"loras={loras}")
        found.succeeded()
        return found.unfolded

    assert "strength 1 on dit (the only network)" in plan(with_alpha)
    assert "scale alpha 4 of the file / rank" in plan(with_alpha)
    assert "scale 1 (no alpha)" in plan(without)
    assert "scale alpha 8 of the configuration / rank" in plan(without, alpha=8)
    both = plan(with_alpha, alpha=8)
    assert "scale alpha 4 of the file / rank" in both
    assert "note: LoRA with.safetensors: the configured alpha of 8 is ignored" in both
    wins = plan(with_alpha, alpha=8, alpha_override=True)
    assert "scale alpha 8 of the configuration / rank" in wins
    assert "is not used" not in wins
    assert "note: LoRA with.safetensors has strength -0.5, outside" in plan(with_alpha, strength=-0.5)


def test_a_file_is_found_in_the_models_folder(model: Path, cli: Cli) -> None:
    (model / "loras").mkdir()
    path = write(model / "loras" / "fox.safetensors", Q)
    found = cli("plan", "--model-path", model, "--lora", "fox.safetensors:0.3")
    found.succeeded()
    assert "fox.safetensors: strength 0.3" in found.unfolded
    assert cli("plan", "--model-path", model, "--lora", path).status == 0


def test_the_record_of_a_run_tells_what_had_an_effect(tiny: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", Q, "blocks.1.self_attn.q", "stray", alpha=1.0)
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", "run", "--model-path", str(tiny), "--prompt", "fox", "--size", "32x32",
         "--frames", "1", "--steps", "1", "--lora", f"{path}:-2", "--output", str(tmp_path / "o.png")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 of its 9 tensors have no effect" in done.stderr
    (lora,) = json.loads((tmp_path / "o.json").read_text())["loras"]
    assert (lora["file"], lora["strength"], lora["component"]) == ("lora.safetensors", -2.0, "dit")
    assert lora["matched"] == {
        f"blocks.N.self_attn.q.{part}": 2 for part in ("alpha", "lora_down.weight", "lora_up.weight")
    }
    assert set(lora["unmatched"]) == {"stray.alpha", "stray.lora_down.weight", "stray.lora_up.weight"}
    assert lora["fingerprint"].startswith("sampled-sha256:")


def test_two_experts_have_to_be_told_apart(cli: Cli, refused: Refused, tmp_path: Path) -> None:
    writer = pytest.importorskip("lightx2v_wan22.tiny")
    writer.write_tiny_a14b(tmp_path / "a14b", 0)
    model = tmp_path / "a14b"

    def plan(*options: object) -> str:
        found = cli("plan", "--model-path", model, *options)
        found.succeeded()
        return found.unfolded

    path = write(tmp_path / "fox.safetensors", Q)
    words = (
        "has 2 networks",
        f"--lora high:{path} or --lora low:{path} or --lora both:{path}",
        "high_noise_model",
    )
    refused(model, words, "--lora", path)
    assert "strength 1 on high_noise (name high_noise_model)" in plan("--lora", f"high:{path}")
    both = plan("--lora", f"both:{path}:0.5")
    assert "strength 0.5 on high_noise (name both)" in both
    assert "strength 0.5 on low_noise (name both)" in both
    assert "on low_noise (name low_noise)" in plan(
        "--set", f'loras=[{{"path": "{path}", "name": "low_noise"}}]'
    )
    assert plan("--set", f'loras=[{{"path": "{path}", "name": "dit"}}]').count("(name dit)") == 2

    for ordinary in ("low_light_style", "high_heels", "highres"):
        path = write(tmp_path / f"{ordinary}.safetensors", Q)
        refused(model, ("has 2 networks", f"--lora high:{path}"), "--lora", path)

    named = write(tmp_path / "fox_low_noise.safetensors", Q)
    assert "on low_noise (file fox_low_noise.safetensors)" in plan("--lora", named)
    against = plan("--lora", f"high:{named}")
    assert "is applied to high_noise, but file fox_low_noise.safetensors says low_noise" in against
    other = write(tmp_path / "fox_HighNoise.safetensors", Q)
    swapped = plan("--lora", f"high:{named}", "--lora", f"low:{other}")
    assert "is applied to high_noise, but file fox_low_noise.safetensors says low_noise" in swapped
    assert "is applied to low_noise, but file fox_HighNoise.safetensors says high_noise" in swapped
    keyed = write(tmp_path / "keyed_high.safetensors", f"diffusion_model.transformer_2.{Q}")
    assert "is applied to low_noise, but file keyed_high.safetensors says high_noise" in plan("--lora", keyed)
    (tmp_path / "high_noise_model").mkdir()
    lost = write(tmp_path / "high_noise_model" / "fox_LOW.safetensors", Q)
    contradiction = "file fox_LOW.safetensors says low_noise and folder high_noise_model says high_noise; use"
    refused(model, contradiction, "--lora", lost)
    double = write(
        tmp_path / "pair.safetensors", f"transformer.{Q}", f"transformer_2.{Q}", "transformer_2.patch"
    )
    split = plan("--lora", double)
    assert split.count("(the file has keys for both networks)") == 2
    assert "2 of 2 tensors have an effect" in split
    assert "2 of 4 tensors have an effect" in split


def test_a_distilled_one_brings_its_defaults(tiny: Path, cli: Cli, refused: Refused, tmp_path: Path) -> None:
    named = "Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors"
    path = write(tmp_path / named, Q)

    def request(*options: object) -> dict[str, Any]:
        found = cli("run", "--model-path", tiny, "--dry-run", "--json", *options)
        found.succeeded()
        plan: dict[str, Any] = json.loads(found.out.splitlines()[-1])["plan"]
        return {**plan["request"], "notes": plan["notes"]}

    plain, distilled = request(), request("--lora", path)
    assert (plain["scheduler"], plain["steps"], plain["guide_scale"]) == ("unipc", 50, [5.0])
    assert (distilled["scheduler"], distilled["steps"], distilled["guide_scale"]) == ("distill", 4, [1.0])
    assert any(f"LoRA '{named}' is distilled to 4 steps" in note for note in distilled["notes"])
    against = request("--lora", path, "--scheduler", "unipc", "--steps", "8", "--guide-scale", "3")
    assert (against["scheduler"], against["steps"], against["guide_scale"]) == ("unipc", 8, [3.0])
    assert any("takes precedence" in note for note in against["notes"])
    assert request("--lora", f"{path}:-1")["scheduler"] == "unipc"  # taken away, not added
    trained = write(tmp_path / "style_v2-step00003000.safetensors", Q)
    assert request("--lora", trained)["scheduler"] == "unipc"


def test_distilled_ones_for_two_experts(cli: Cli, tmp_path: Path) -> None:
    writer = pytest.importorskip("lightx2v_wan22.tiny")
    writer.write_tiny_a14b(tmp_path / "a14b", 0)
    high = write(tmp_path / "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step.safetensors", Q)
    low = write(tmp_path / "wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step.safetensors", Q)

    def plan(*options: object) -> str:
        found = cli("plan", "--model-path", tmp_path / "a14b", *options)
        found.succeeded()
        return found.unfolded

    both = plan("--lora", high, "--lora", low)
    assert "steps 4 (" in both
    assert "guidance 1 (" in both
    one = plan("--lora", low)
    assert "steps 40 (" in one
    assert "is distilled, but there is none for high_noise" in one


def test_what_stays_beside_the_weights_is_forecast(tiny: Path, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "lora.safetensors", Q, rank=32)

    def peak(*options: object) -> int:
        found = cli(
            "run", "--model-path", tiny, "--dry-run", "--json", "--size", "32x32", "--frames", "1", *options
        )
        found.succeeded()
        return int(json.loads(found.out.splitlines()[-1])["plan"]["memory"]["device_peak"])

    assert peak("--lora", path) == peak()
    assert peak("--lora", path, "--set", "lora_applier=dynamic") - peak() == 2 * 32 * 64 * 4
