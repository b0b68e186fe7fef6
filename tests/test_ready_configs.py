"""The ready configurations and the example scripts: every one is planned against the real headers of its models."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import field, frozen

from lightx2v_core.config import jsonc
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.config.schema import schema
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import LightX2VError
from lightx2v_core.plan import device
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.resolve import resolve
from lightx2v_core.spec.context import Device

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs"


@frozen(kw_only=True)
class Case:
    """A configuration, the folders it is for, and what its plan must say. Sizes are [width, height]."""

    folders: tuple[str, ...]
    steps: int
    shift: float
    guide_scale: tuple[float, ...]
    size: tuple[int, int]
    frames: int = 81
    fps: float = 16
    scheduler: str = "unipc"
    #: kind -> implementation, and components in another precision than the original
    choices: dict[str, str] = field(factory=dict)
    precision: dict[str, str] = field(factory=dict)


SD, HD, TI = (832, 480), (1280, 720), (1280, 704)
T2V = ("Wan2.1-T2V-1.3B", "Wan2.1-T2V-14B")
I2V = ("Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P")
A14B_T, A14B_I, TI2V, ANIMATE = (
    ("Wan2.2-T2V-A14B",), ("Wan2.2-I2V-A14B",), ("Wan2.2-TI2V-5B",), ("Wan2.2-Animate-14B",),
)  # fmt: skip
CPU, DISK = {"offloader": "offload/cpu"}, {"offloader": "offload/disk"}


def _wan(folders: tuple[str, ...], steps: int, shift: float, scale: Any, size: Any, **more: Any) -> Case:
    scales = scale if isinstance(scale, tuple) else (scale,)
    return Case(folders=folders, steps=steps, shift=shift, guide_scale=scales, size=size, **more)


def _distilled(folders: tuple[str, ...], size: Any, **more: Any) -> Case:
    return _wan(folders, 4, 5, 1, size, scheduler="distill", **more)


CASES: dict[str, Case] = {
    "wan/wan_t2v": _wan(T2V, 50, 8, 6, SD),
    "wan/wan_i2v": _wan(I2V, 40, 3, 5, SD),
    "wan/wan_flf2v": _wan(("Wan2.1-FLF2V-14B-720P",), 50, 16, 5, HD),
    "wan/wan_vace": _wan(("Wan2.1-VACE-1.3B", "Wan2.1-VACE-14B"), 50, 16, 5, SD),
    "wan22/wan_moe_t2v": _wan(A14B_T, 40, 12, (4, 3), HD),
    "wan22/wan_moe_i2v": _wan(A14B_I, 40, 5, (3.5, 3.5), HD),
    "wan22/wan_moe_flf2v": _wan(A14B_I, 40, 16, (3.5, 3.5), HD),
    "wan22/wan_ti2v_t2v": _wan(TI2V, 50, 5, 5, TI, frames=121, fps=24),
    "wan22/wan_ti2v_i2v": _wan(TI2V, 50, 5, 5, TI, frames=121, fps=24),
    "wan22/wan_animate": _wan(ANIMATE, 20, 5, 1, HD, frames=77, fps=30),
    "wan22/wan_animate_lora": _wan(ANIMATE, 4, 5, 1, HD, frames=77, fps=30),
    "wan22/wan_moe_t2v_4090": _wan(A14B_T, 40, 12, (4, 3), HD, choices=CPU),
    "wan22/wan_moe_i2v_4090": _wan(A14B_I, 40, 5, (3.5, 3.5), HD, choices=CPU),
    "wan22/wan_moe_flf2v_4090": _wan(A14B_I, 40, 16, (3.5, 3.5), HD, choices=CPU),
    "wan22/wan_ti2v_t2v_4090": _wan(TI2V, 50, 5, 5, TI, frames=121, fps=24, choices=CPU),
    "wan22/wan_ti2v_i2v_4090": _wan(TI2V, 50, 5, 5, TI, frames=121, fps=24, choices=CPU),
    "wan22/wan_animate_4090": _wan(ANIMATE, 20, 5, 1, HD, frames=77, fps=30, choices=CPU),
    "wan22/wan_moe_i2v_distill": _distilled(("pair",), HD),
    "wan22/wan_moe_i2v_distill_fp8": _distilled(
        ("pair_fp8", "pairs"), HD, precision={"high_noise": "fp8", "low_noise": "fp8"}
    ),
    "wan22/wan_moe_i2v_distill_int8": _distilled(
        ("pairs",), HD, precision={"high_noise": "int8", "low_noise": "int8"}
    ),
    "wan22/wan_moe_i2v_distill_4090": _distilled(
        ("pair_fp8",), HD, precision={"high_noise": "fp8", "low_noise": "fp8"}, choices=CPU
    ),
    "wan22/wan_moe_i2v_distill_lora": _distilled(A14B_I, HD),
    "distill/wan_t2v_distill_4step_cfg": _distilled(("t2v_single",), SD),
    "distill/wan_t2v_distill_4step_cfg_fp8": _distilled(("t2v_fp8",), SD, precision={"dit": "fp8"}),
    "distill/wan_t2v_distill_4step_cfg_int8": _distilled(("t2v_int8",), SD, precision={"dit": "int8"}),
    "distill/wan_i2v_distill_4step_cfg": _distilled(("single", "structured"), SD),
    "distill/wan_i2v_distill_4step_cfg_fp8": _distilled(
        ("singles", "structured"), SD, precision={"dit": "fp8"}
    ),
    "distill/wan_i2v_distill_4step_cfg_int8": _distilled(("singles",), SD, precision={"dit": "int8"}),
    "distill/wan_i2v_distill_4step_cfg_lora": _distilled(I2V[:1], SD),
    "offload/block/wan_t2v": _wan(T2V[1:], 50, 8, 6, SD, choices=CPU),
    "offload/block/wan_t2v_1_3b": _wan(T2V[:1], 50, 8, 6, SD, choices=CPU),
    "offload/block/wan_i2v": _wan(I2V[:1], 40, 3, 5, SD, choices=CPU),
    "offload/phase/wan_t2v": _wan(T2V[1:], 50, 8, 6, SD, choices=CPU),
    "offload/phase/wan_i2v": _wan(I2V[:1], 40, 3, 5, SD, choices=CPU),
    "offload/disk/wan_t2v": _wan(T2V[1:], 50, 8, 6, SD, choices=DISK),
    "offload/disk/wan_i2v": _wan(I2V[:1], 40, 3, 5, SD, choices=DISK),
    "changing_resolution/wan_t2v": _wan(T2V, 50, 8, 6, SD),
    "changing_resolution/wan_t2v_U": _wan(T2V[:1], 50, 8, 6, SD),
    "changing_resolution/wan_i2v": _wan(I2V[:1], 40, 3, 5, SD),
    "changing_resolution/wan_i2v_U": _wan(I2V[:1], 40, 3, 5, SD),
}


def module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


Folder = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """``folder(name)``: the folder of a model or of one of the guides' layouts, with every header and no data."""
    for plugin in ("wan21", "wan22"):
        pytest.importorskip(f"lightx2v_{plugin}", reason="needs the model plugins")
    guides = module("guides", Path(__file__).parent / "layouts" / "guides.py")
    root = tmp_path_factory.mktemp("models")
    made: dict[str, Path] = {}

    def t2v(path: Path, name: str, kind: str) -> None:
        guides.without_network(path, T2V[1])
        guides.write_network(path / name, guides.REAL.network_tensors(T2V[1]), kind)

    writers: dict[str, Callable[[Path], Any]] = {
        "pair": lambda path: guides.pairs(path, "original"),
        "pair_fp8": lambda path: guides.pairs(path, "fp8"),
        "pairs": lambda path: guides.pairs(path, "original", "fp8", "int8"),
        "single": lambda path: guides.single_files(path, "original"),
        "singles": lambda path: guides.single_files(path, "original", "fp8", "int8"),
        "structured": lambda path: guides.structured(path, "distill_models", "distill_fp8"),
        "t2v_single": lambda path: t2v(path, "wan2.1_t2v_14b_lightx2v_4step.safetensors", "original"),
        "t2v_fp8": lambda path: t2v(path, "wan2.1_t2v_14b_scaled_fp8_e4m3_lightx2v_4step.safetensors", "fp8"),
        "t2v_int8": lambda path: t2v(path, "wan2.1_t2v_14b_int8_lightx2v_4step.safetensors", "int8"),
    }

    def get(name: str) -> Path:
        if name not in made:
            path = root / name
            path.mkdir()
            writers.get(name, lambda path: guides.official(path, name))(path)
            if guides.REAL.has_no_holes(path):
                pytest.skip("this file system has no sparse files")
            made[name] = path
        return made[name]

    return get


def lora_files(folder: Path, name: str) -> None:
    """The files that a configuration with LoRAs names, beside a model."""
    guides = module("guides", Path(__file__).parent / "layouts" / "guides.py")
    for lora in jsonc.read(CONFIGS / f"{name}.json").get("loras", ()):
        if not (folder / lora["path"]).exists():
            guides.lora(folder / lora["path"], folder.name)


def planned(name: str, path: Path) -> Plan:
    values = [Value(path=("model_path",), value=str(path), origin="--model-path")]
    loaded = load_config(CONFIGS / f"{name}.json", [*values, *on_cpu()])
    assert loaded.warnings == ()
    return resolve(loaded, load_plugins(environ={})).plan


def on_cpu() -> list[Value]:
    """What makes plans the same on every machine."""
    return [
        Value(path=("device",), value="cpu", origin="test"),
        Value(path=("dtype",), value="bfloat16", origin="test"),
    ]


def test_every_configuration_is_checked() -> None:
    found = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.json")}
    # what comes with lightx2v-mini is run and looked at in tests/mini
    assert found - {"mini/t2v"} == set(CASES)


@pytest.mark.parametrize(
    ("name", "where"), [(name, where) for name, case in CASES.items() for where in case.folders]
)
def test_plan(name: str, where: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    installed = Registry(load_plugins(environ={}))
    for kind, use in case.choices.items():
        if not installed.named(kind, use):
            plugin, _, short = use.partition("/")
            with pytest.raises(LightX2VError, match=f"unknown {kind} '{short}'") as caught:
                planned(name, folder(where))
            assert f"lightx2v-core[{plugin}]" in str(caught.value)
            pytest.skip(f"{kind} {use} is not installed; the plan says so")
    path = folder(where)
    lora_files(path, name)
    monkeypatch.chdir(path)
    plan = planned(name, path)
    request = plan.request
    assert (request.steps, request.shift, request.scheduler) == (case.steps, case.shift, case.scheduler)
    assert request.guide_scale == case.guide_scale
    assert (request.width, request.height) == case.size
    assert (request.frames, request.fps) == (case.frames, case.fps)
    assert {"task", *case.choices} <= {"task", *(choice.kind for choice in plan.choices)}
    for kind, use in case.choices.items():
        assert plan.choice(kind).use == use
    for part in plan.components:
        wanted = case.precision.get(part.name, "")
        assert {"fp8": "float8", "int8": "int8", "": ""}[wanted] in part.precision, part
    assert all(value != "default" or key in UNSAID for key, value in plan.origins.items()), plan.origins


#: what a ready configuration leaves to the user
UNSAID = {"seed", "prompt"}


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("_4090")])
def test_a_card_of_24_gb_is_enough(name: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the forecast: on a machine that has such a card and enough memory beside it."""
    if not Registry(load_plugins(environ={})).named("offloader", "cpu"):
        pytest.skip("lightx2v-offload is not installed")
    card = Device(kind="cuda", name="a card of 24 GB", capability=(8, 9), memory=24 * 2**30)
    monkeypatch.setattr(device, "probe", lambda _name: (card, "for this test"))
    monkeypatch.setattr(device, "host_memory", lambda: 128 * 2**30)
    path = Value(path=("model_path",), value=str(folder(CASES[name].folders[0])), origin="--model-path")
    plan = resolve(load_config(CONFIGS / f"{name}.json", [path]), load_plugins(environ={})).plan
    assert 5e9 < plan.memory.device_peak <= 24e9
    assert plan.warnings == ()


FLAT = Path(__file__).parent / "config" / "legacy_corpus"
#: a file in the flat vocabulary -> the ready configuration that says the same, and the folder
SAME: dict[str, tuple[str, str]] = {
    "wan21_t2v": ("wan/wan_t2v", T2V[0]),
    "wan21_i2v": ("wan/wan_i2v", I2V[0]),
    "wan21_flf2v": ("wan/wan_flf2v", "Wan2.1-FLF2V-14B-720P"),
    "wan22_moe_t2v": ("wan22/wan_moe_t2v", A14B_T[0]),
    "wan22_moe_i2v": ("wan22/wan_moe_i2v", A14B_I[0]),
    "wan22_moe_flf2v": ("wan22/wan_moe_flf2v", A14B_I[0]),
    "wan22_ti2v": ("wan22/wan_ti2v_t2v", TI2V[0]),
    "wan22_animate": ("wan22/wan_animate", ANIMATE[0]),
    "distill_i2v": ("distill/wan_i2v_distill_4step_cfg", "single"),
    "changing_resolution": ("changing_resolution/wan_t2v", T2V[0]),
    "changing_resolution_u": ("changing_resolution/wan_t2v_U", T2V[0]),
}


@pytest.mark.parametrize("flat", SAME)
def test_the_flat_vocabulary_asks_for_the_same_run(flat: str, folder: Folder) -> None:
    name, where = SAME[flat]
    ours = planned(name, folder(where))
    task = Value(path=("task",), value=ours.task, origin="--task")
    path = Value(path=("model_path",), value=ours.model_path, origin="--model-path")
    theirs = resolve(
        load_config(FLAT / f"{flat}.json", [task, path, *on_cpu()]), load_plugins(environ={})
    ).plan
    assert theirs.request == ours.request
    assert theirs.geometry == ours.geometry
    assert [part.files for part in theirs.components] == [part.files for part in ours.components]
    for one, other in zip(theirs.choices, ours.choices, strict=True):
        assert (one.kind, one.use, one.options) == (other.kind, other.use, other.options)


@pytest.mark.parametrize("name", CASES)
def test_editors_find_nothing_wrong(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    plugins = load_plugins(environ={})
    registry = Registry(plugins)
    if not {"wan2.1", "wan2.2-a14b"} <= {item.spec.name for item in registry.candidates("model")}:
        pytest.skip("the options of the models are known where their plugins are installed")
    data = jsonc.read(CONFIGS / f"{name}.json")
    for kind, use in CASES[name].choices.items():
        if not registry.named(kind, use):
            del data[kind]  # editors mark plugins that are not installed
    checker = jsonschema.Draft202012Validator(schema(plugins))
    assert [error.message for error in checker.iter_errors(data)] == []


EXAMPLES = REPOSITORY / "examples"
#: script -> the folder it is run with, and the variables of its inputs
SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run_wan_t2v": (T2V[0], ()),
    "run_wan_i2v": (I2V[1], ("IMAGE",)),
    "run_wan_flf2v": ("Wan2.1-FLF2V-14B-720P", ("IMAGE", "LAST_IMAGE")),
    "run_wan_vace": ("Wan2.1-VACE-1.3B", ("SRC_VIDEO", "SRC_MASK")),
    "run_wan_t2v_distill_4step_cfg": ("t2v_single", ()),
    "run_wan_i2v_distill_4step_cfg": ("single", ("IMAGE",)),
    "run_wan22_moe_t2v": (A14B_T[0], ()),
    "run_wan22_moe_i2v": (A14B_I[0], ("IMAGE",)),
    "run_wan22_moe_flf2v": (A14B_I[0], ("IMAGE", "LAST_IMAGE")),
    "run_wan22_moe_i2v_distill": ("pair", ("IMAGE",)),
    "run_wan22_moe_i2v_4090": (A14B_I[0], ("IMAGE",)),
    "run_wan22_ti2v_t2v": (TI2V[0], ()),
    "run_wan22_ti2v_i2v": (TI2V[0], ("IMAGE",)),
    "run_wan22_animate": (ANIMATE[0], ("POSE_VIDEO", "FACE_VIDEO", "REF_IMAGE")),
}


#: kind of input -> file, codec, frames and size; faces are cut out as squares
MEDIA: dict[str, tuple[str, str, int, tuple[int, int]]] = {
    "picture": ("picture.png", "png", 1, (320, 180)),
    "video": ("video.mp4", "libx264", 81, (320, 176)),
    "face": ("face.mp4", "libx264", 81, (512, 512)),
}


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An input of each kind."""
    av = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("media")
    for name, codec, count, (width, height) in MEDIA.values():
        with av.open(str(folder / name), "w", format="image2" if codec == "png" else None) as file:
            stream = file.add_stream(codec, rate=30)
            stream.width, stream.height = width, height
            stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
            for _ in range(count):
                for packet in stream.encode(av.VideoFrame(width, height, stream.pix_fmt)):
                    file.mux(packet)
            for packet in stream.encode(None):
                file.mux(packet)
    return {kind: str(folder / name) for kind, (name, *_) in MEDIA.items()}


def kind_of(variable: str) -> str:
    """The kind of input that a variable of a script holds."""
    return "face" if "FACE" in variable else "picture" if "IMAGE" in variable else "video"


def test_every_script_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.sh")} == set(SCRIPTS)
    listed = re.findall(r"\[(\w+)\.sh\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, folder: Folder, media: dict[str, str], tmp_path: Path) -> None:
    script = EXAMPLES / f"{name}.sh"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if shutil.which("lightx2v-core", path=path) is None:
        pytest.skip("the command lightx2v-core is not on the path")
    where, inputs = SCRIPTS[name]
    given = {key: media[kind_of(key)] for key in inputs}
    env = {**os.environ, **given, "PATH": path, "MODEL_PATH": str(folder(where))}
    line = ["bash", str(script), "--device", "cpu", "--dry-run", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120)
    if "_4090" in name and not Registry(load_plugins(environ={})).named("offloader", "cpu"):
        assert done.returncode == 2
        assert "unknown offloader 'cpu'" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    config = re.search(r"configs/([\w/]+)\.json", script.read_text(encoding="utf-8"))
    assert config is not None
    assert plan["request"]["steps"] == CASES[config[1]].steps
    assert plan["output"]["path"].endswith(".mp4")
    assert plan["request"]["prompt"]
    assert list(tmp_path.iterdir()) == []
