"""The two experts of a model under the names that people give them, and one of them alone, which is never a model of
one network."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
tiny = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import PluginSet, load_plugins  # noqa: E402
from lightx2v_core.errors import CheckpointError  # noqa: E402
from lightx2v_core.inspection.inspect import inspect  # noqa: E402
from lightx2v_core.plan.plan import Plan  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402

#: (the high-noise expert, the low-noise expert)
PAIRS = [
    ("Wan2_2-T2V-A14B_HIGH_bf16.safetensors", "Wan2_2-T2V-A14B_LOW_bf16.safetensors"),
    ("Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors", "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ.safetensors"),
    ("HighNoise/Wan2.2-T2V-A14B.safetensors", "LowNoise/Wan2.2-T2V-A14B.safetensors"),
    ("HighNoise/model.safetensors", "LowNoise/model.safetensors"),
    ("high/model.safetensors", "low/model.safetensors"),
    ("wan22High.safetensors", "wan22Low.safetensors"),
    ("remix_t2vHighV20.safetensors", "remix_t2vLowV20.safetensors"),
    ("wan22_HN.safetensors", "wan22_LN.safetensors"),
    ("wan2.2_t2v_high_noise_14B_fp16.safetensors", "wan2.2_t2v_low_noise_14B_fp16.safetensors"),
    ("my-high-remix.safetensors", "my-low-remix.safetensors"),
    ("diffusion_models/wan22_t2v_high.safetensors", "diffusion_models/wan22_t2v_low.safetensors"),
    ("unet/A14B_HIGH-00001-of-00001.safetensors", "unet/A14B_LOW-00001-of-00001.safetensors"),
]  # fmt: skip
#: names that say nothing of experts, or that belong to a model without any
ORDINARY = ["wan2.2-rapid-aio.safetensors", "low_light_style.safetensors", "Wan2_1-T2V-14B_high.safetensors",
            "highres_finetune.safetensors", "A14B.safetensors", "my_wan.safetensors"]  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts") / "model"
    tiny.write_tiny_a14b(folder, 1)
    return folder


@pytest.fixture
def base(original: Path, tmp_path: Path) -> Path:
    """The folder without its experts, their config.json in it."""
    folder = Path(shutil.copytree(original, tmp_path / "base"))
    shutil.copy(folder / "high_noise_model/config.json", folder / "config.json")
    for expert in ("high_noise_model", "low_noise_model"):
        shutil.rmtree(folder / expert)
    return folder


def place(original: Path, expert: str, path: Path, **metadata: str) -> None:
    tensors = {}
    for file in (original / f"{expert}_model").glob("*.safetensors"):
        tensors |= load_file(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata or None)


@lru_cache
def plugins() -> PluginSet:
    return load_plugins(only=["wan21", "wan22"], environ={})


def planned(folder: Path, **config: Any) -> Plan:
    values = {"model_path": str(folder), "device": "cpu", "prompt": "x", **config}
    return resolve(load_config(values), plugins()).plan


def refusal(folder: Path, **config: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        planned(folder, **config)
    return str(caught.value)


def files(plan: Plan) -> dict[str, list[str]]:
    return {part.name: [Path(file).name for file in part.files] for part in plan.components}


@pytest.mark.parametrize(("high", "low"), PAIRS)
def test_everyday_names_are_a_pair(original: Path, base: Path, high: str, low: str) -> None:
    place(original, "high_noise", base / high)
    place(original, "low_noise", base / low)
    plan = planned(base)
    assert plan.variant.startswith("wan2.2-t2v")
    assert files(plan)["high_noise"] == [Path(high).name]
    assert files(plan)["low_noise"] == [Path(low).name]
    (part,) = [item for item in plan.components if item.name == "high_noise"]
    assert part.files == (str(base / high),)


@pytest.mark.parametrize("pair", PAIRS[:9])
@pytest.mark.parametrize("number", [0, 1], ids=["high", "low"])
def test_one_of_a_pair_is_no_model_of_one_network(
    original: Path, base: Path, pair: tuple[str, str], number: int
) -> None:
    place(original, ("high_noise", "low_noise")[number], base / pair[number])
    message = refusal(base)
    assert "components.low_noise.path" in message or "components.high_noise.path" in message
    report = inspect(base, plugins())
    assert not report.runnable
    assert not [
        item for item in report.components if any(name.startswith("wan2.1") for name in item.variants)
    ]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_of_one_network(original: Path, base: Path, name: str) -> None:
    place(original, "high_noise", base / name)
    assert planned(base).variant.startswith("wan2.1-t2v")


def test_who_knows_better_says_so(original: Path, base: Path) -> None:
    place(original, "high_noise", base / "quality_high.safetensors")
    assert "--model wan21/wan2.1" in refusal(base) or "low_noise" in refusal(base)
    assert planned(base, model="wan2.1").variant.startswith("wan2.1-t2v")


@pytest.mark.parametrize("where", ["metadata", "config", "boundary"])
def test_a_configuration_or_a_title_that_says_expert(original: Path, base: Path, where: str) -> None:
    title = {"modelspec.title": "Wan2.2 T2V A14B high noise"} if where == "metadata" else {}
    place(original, "high_noise", base / "model.safetensors", **title)
    said = {"config": {"_name_or_path": "Wan2.2-T2V-A14B/low_noise_model"}, "boundary": {"boundary": 0.875}}
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | said.get(where, {})))
    assert "expert" in refusal(base)
    assert planned(base, model="wan2.1").warnings


def test_two_networks_whose_names_say_nothing(original: Path, base: Path) -> None:
    place(original, "high_noise", base / "one.safetensors")
    place(original, "low_noise", base / "two.safetensors")
    message = refusal(base)
    assert "components.dit.path" in message
    assert "components.high_noise.path and components.low_noise.path" in message
    both = {
        "high_noise": {"path": str(base / "one.safetensors")},
        "low_noise": {"path": str(base / "two.safetensors")},
    }
    assert files(planned(base, components=both))["low_noise"] == ["two.safetensors"]


def test_a_folder_for_both_is_read_by_the_same_names(original: Path, base: Path, tmp_path: Path) -> None:
    for expert, name in (("high_noise", "x_HIGH.safetensors"), ("low_noise", "x_LOW.safetensors")):
        place(original, expert, tmp_path / "other" / name)
    plan = planned(base, components={"dit": {"path": str(tmp_path / "other")}})
    assert files(plan)["high_noise"] == ["x_HIGH.safetensors"]
    assert files(plan)["low_noise"] == ["x_LOW.safetensors"]


def test_a_folder_with_one_network_is_not_both_experts(original: Path, base: Path, tmp_path: Path) -> None:
    place(original, "high_noise", tmp_path / "other" / "diffusion_pytorch_model.safetensors")
    plan = planned(base, components={"dit": {"path": str(tmp_path / "other")}})
    assert plan.variant.startswith("wan2.1-t2v")


@pytest.mark.parametrize("kind", ["keys", "folders"])
def test_experts_in_each_others_place_are_warned_of(original: Path, base: Path, kind: str) -> None:
    """As LoRA files are that are applied to the other expert."""
    inside = {"keys": "x_{}.safetensors", "folders": "{}_noise_model/w.safetensors"}
    paths = {word: base / inside[kind].format(word) for word in ("high", "low")}
    for word, path in paths.items():
        other = {"high": "low", "low": "high"}[word]
        if kind != "keys":
            path = path.with_name(f"wan22_{other}_noise.safetensors")
        place(original, f"{word}_noise", path)
    keys = {"high_noise": {"path": str(paths["low"])}, "low_noise": {"path": str(paths["high"])}}
    plan = planned(base, **({"components": keys} if kind == "keys" else {}))
    said = [text for text in plan.warnings if "is used as" in text]
    assert len(said) == 2
    assert "is used as high_noise, but the name" in said[0]
    assert said[0].endswith("says low_noise")


def test_experts_in_their_own_place_are_not(original: Path) -> None:
    assert not [text for text in planned(original).warnings if "is used as" in text]


@pytest.mark.parametrize("name", ["wan2.2_t2v_high_noise_14B.safetensors", "A14B_HighNoise.safetensors"])
def test_the_whole_name_of_an_expert_is_beyond_doubt(original: Path, base: Path, name: str) -> None:
    place(original, "high_noise", base / name)
    assert "an expert of a Wan2.2 model" in refusal(base, model="wan2.1")
