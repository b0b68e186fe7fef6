"""Memory limits: their syntax, refused values, and the choice of ``auto`` among the core's own offloaders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.api import NoOptions, OffloaderSpec, OffloadForecast
from lightx2v_core.config.load import load_config
from lightx2v_core.config.texts import parse_bytes
from lightx2v_core.errors import ConfigError, RequestError
from lightx2v_core.plan.memory import MemoryLimits, limits
from lightx2v_core.spec.context import Device

GPU = Device(kind="cuda", memory=24 * 10**9, capability=(8, 9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24GB", 24 * 10**9),
        ("24 GiB", 24 * 2**30),
        ("1.5g", 1_500_000_000),
        ("500MB", 500_000_000),
        ("8Gi", 8 * 2**30),
        ("2TB", 2 * 10**12),
        ("4096", 4096),
        ("10 kB", 10_000),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected
    assert load_config({"memory": {"vram_limit": text}}).config.memory.vram_limit == expected


@pytest.mark.parametrize("text", ["", "GB", "24 gigs", "-1GB", "1,5GB", "1e9"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a number and a unit, such as 24GB"):
        load_config({"memory": {"ram_limit": text}})


@pytest.mark.parametrize("value", [0, -5, 1.5, True])
def test_numbers_have_to_be_bytes(value: Any) -> None:
    with pytest.raises(ConfigError, match="ram_limit"):
        load_config({"memory": {"ram_limit": value}})


def test_a_cpu_has_one_memory() -> None:
    memory = load_config({"memory": {"vram_limit": "4GB", "ram_limit": "6GB"}}).config.memory
    assert limits(memory, Device()) == MemoryLimits(device=None, host=4 * 10**9)
    assert limits(memory, GPU) == MemoryLimits(device=4 * 10**9, host=6 * 10**9)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    writer.write_tiny(folder, 0)
    return folder


def plan(tiny: Path, *specs: OffloaderSpec[Any], **values: Any) -> Any:
    from lightx2v_core.config.keywords import KEYWORDS, keyword_values
    from lightx2v_core.plan.resolve import resolve
    from lightx2v_core.testing import plugin_set
    from lightx2v_wan21 import plugin

    small = {"size": (32, 32), "frames": 5, "model_path": str(tiny), **values}
    keys = {**KEYWORDS, "model_path": ("model_path",)}
    loaded = load_config(None, keyword_values(small, keys))
    return resolve(loaded, plugin_set(*specs, name="acme", wan21=plugin)).plan


def spec(name: str, **costs: Any) -> OffloaderSpec[NoOptions]:
    return OffloaderSpec(
        name=name,
        summary=name,
        build=lambda _config, _ctx: None,  # type: ignore[arg-type,return-value]
        forecast=lambda _config, _ctx, _loads: OffloadForecast(activations=0, **costs),
    )


def test_without_limits_nothing_changes(tiny: Path) -> None:
    found = plan(tiny)
    assert found.choice("offloader").use == "core/none"
    assert (found.memory.device_limit, found.memory.host_limit, found.memory.excess) == (None, None, "")


def test_auto_takes_what_costs_least_and_says_what_it_passed_over(tiny: Path) -> None:
    small = spec("small", weights=1000, exposed=0.1)
    slow = spec("slow", weights=1000, exposed=0.2)
    huge = spec("huge", weights=10**13)
    choice = plan(tiny, small, slow, huge, offloader="auto").choice("offloader")
    assert choice.use == "core/none"
    assert "auto: the least costly that fits" in choice.why
    assert list(choice.rejected) == ["huge"]
    assert "10000.47 GB of host memory" in choice.rejected["huge"][0]

    low = plan(tiny, small, slow, offloader="auto", ram_limit="472MB").choice("offloader")
    assert low.use == "acme/small"
    assert {"none", "sequential"} <= set(low.rejected)


def test_auto_for_one_component_goes_around_what_is_named_for_the_others(tiny: Path) -> None:
    components = {"dit": {"offloader": "auto"}}
    choices = plan(tiny, offloader="sequential", components=components).choices
    kinds = {choice.kind: choice for choice in choices}
    assert kinds["offloader of text_encoder"].use == "core/sequential"
    assert kinds["offloader of dit"].why.startswith("auto: ")


def test_when_nothing_fits_it_is_said_what_would(tiny: Path) -> None:
    with pytest.raises(RequestError) as caught:
        plan(tiny, offloader="auto", ram_limit="1MB")
    text = str(caught.value)
    assert text.startswith("no offloader fits 0.00 GB of host memory:")
    assert "none: 0.48 GB of host memory" in text
    assert "raise --ram-limit to one of the values above" in text


def test_a_limit_that_a_named_offloader_exceeds_is_a_warning_of_the_plan_and_refused(tiny: Path) -> None:
    from lightx2v_core.runtime.build import refuse_impossible

    found = plan(tiny, ram_limit="100MB")
    assert "forecast host memory of 0.48 GB exceeds --ram-limit 0.10 GB" in found.warnings[0]
    with pytest.raises(RequestError, match="use --offloader auto"):
        refuse_impossible(found)


def test_options_of_the_command_line(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightx2v_core.cli import main

    line = ["plan", "--model-path", str(tiny), "--size", "32x32", "--frames", "5", "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--offloader", "sequential", "--vram-limit", "8GB", "--ram-limit", "6GiB"])
    assert ended.value.code == 0
    memory = json.loads(capsys.readouterr().out)["plan"]["memory"]
    assert memory["host_limit"] == 6 * 2**30
    assert memory["details"] == ["one component at a time, read from its files"]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--vram-limit", "much"])
    assert ended.value.code == 2
    assert "--vram-limit: memory size 'much'" in capsys.readouterr().err


def test_implementations_are_chosen_by_options(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind that a user chooses has an option, and the plan says so in columns."""
    import torch
    from safetensors.torch import save_file

    from lightx2v_core.cli import main

    lora = tmp_path / "style.safetensors"
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file({f"{name}.lora_A.weight": torch.ones(4, 64), f"{name}.lora_B.weight": torch.ones(64, 4)}, lora)
    chosen = {"attention": "sdpa", "scheduler": "euler", "offloader": "sequential", "quantizer": "int8-torch",
              "lora_applier": "dynamic"}  # fmt: skip
    options = [word for kind, use in chosen.items() for word in (f"--{kind.replace('_', '-')}", use)]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model-path", str(tiny), "--size", "32x32", "--lora", str(lora), *options])
    assert ended.value.code == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    for kind, use in chosen.items():
        assert [kind, f"core/{use}", f"(--{kind.replace('_', '-')})"] in said
