"""Work that grows with a file, and no faster: twice as much of anything takes at most about twice as long.

A child process looks at a folder as ``inspect`` and ``plan`` do, so that its processor time and memory are its own.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.discovery.plugins import load_plugins

pytest.importorskip("lightx2v_wan21")
pytest.importorskip("lightx2v_wan22")

#: processor seconds of what does not depend on the size, which a quotient is not formed of
FLOOR = 0.5
#: for inspect and plan together, of which each has 10 seconds on a machine that does nothing else
SECONDS, MEGABYTES = 40, 1000
#: looks at a folder, and prints processor seconds, peak memory in MB, and the longest error
CHILD = """
import json, re, sys, time
from lightx2v_core.cli.show_inspection import inspection_text
from lightx2v_core.errors import LightX2VError
from lightx2v_core.inspection.inspect import inspect
from lightx2v_core.plan.planner import plan_run
from lightx2v_core.discovery.plugins import load_plugins
plugins = load_plugins()
start, errors = time.process_time(), [""]
found = inspect(sys.argv[1], plugins)
text = inspection_text(found)
try:
    plan_run(sys.argv[1], plugins=plugins)
except LightX2VError as exc:
    errors.append(str(exc))
print(json.dumps({
    "seconds": time.process_time() - start,
    # of this program alone: what rusage says begins with the memory of the process that started it
    "megabytes": int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024,
    "lines": max(item.count(chr(10)) + 1 for item in [*errors, *found.problems, *found.obstacles]),
    "problems": len(found.problems),
    "report": text.count(chr(10)) + 1,
}))
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
Add = Callable[[Path, int], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (item,) = [item for item in load_plugins().provided("model") if item.spec.name == "wan2.1"]
    item.spec.write_tiny(folder, 0)
    return folder


def save(path: Path, header: Mapping[str, Any], data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(at: int = 0, dtype: str = "F32", shape: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [at, at]}


def beside_a_network(
    tensors: Callable[[int], Mapping[str, Mapping[str, Any]]], metadata: Callable[[int], Any] | None = None
) -> Add:
    """Empty tensors more in the first shard of the network, and its metadata."""

    def add(folder: Path, count: int) -> None:
        (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
        for number, shard in enumerate(sorted(folder.glob("diffusion_pytorch_model-*"))):
            raw = shard.read_bytes()
            length = struct.unpack("<Q", raw[:8])[0]
            header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
            if not number:
                header |= {
                    name: {**item, "data_offsets": [len(data), len(data)]}
                    for name, item in tensors(count).items()
                }
                header |= {"__metadata__": metadata(count)} if metadata else {}
            save(shard, header, data)

    return add


def marks_apart(count: int) -> dict[str, str]:
    layers = {f"x.spare.{i}.q": {"format": "float8_e4m3fn"} for i in range(count)}
    return {"_quantization_metadata": json.dumps({"layers": layers})}


def configured(folder: Path, count: int) -> None:
    file = folder / "config.json"
    said = json.loads(file.read_text()) | {f"k{i}": [i] for i in range(count)}
    file.write_text(json.dumps(said))


def files(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.txt").touch()


def folders(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}").mkdir()


def lora(folder: Path, count: int) -> None:
    names = (f"diffusion_model.blocks.{i // 2}.self_attn.q.lora_{'AB'[i % 2]}.weight" for i in range(count))
    save(folder / "lora.safetensors", {name: entry(shape=(0, 4)) for name in names})


def shards(folder: Path, count: int) -> None:
    for number in range(1, count // 10 + 1):
        save(folder / f"more-{number:05d}-of-{count // 10:05d}.safetensors", {f"t{number}": entry()})


def candidates(folder: Path, count: int) -> None:
    for number in range(count // 10):
        save(folder / f"more{number}.safetensors", {"a": entry()})


def named_files(folder: Path, count: int) -> None:
    said = {f"t{number}": f"f{number}.safetensors" for number in range(count)}
    (folder / "more.safetensors.index.json").write_text(json.dumps({"weight_map": said}))


def pickled(folder: Path, count: int) -> None:
    import torch

    file = next(folder.glob("models_t5*.pth"))
    state = torch.load(file, weights_only=True)
    empty = torch.zeros(0)
    torch.save(state | {f"spare.{number}": empty for number in range(count)}, file)


KINDS: Mapping[str, Add] = {
    "names of no layout": beside_a_network(lambda n: {f"x{i}": entry() for i in range(n)}),
    "names of the official layout": beside_a_network(
        lambda n: {f"blocks.{i + 99}.self_attn.q.weight": entry() for i in range(n)}
    ),
    "names of diffusers": beside_a_network(
        lambda n: {f"blocks.{i + 99}.attn1.to_q.weight": entry() for i in range(n)}
    ),
    "marks of no layer": beside_a_network(
        lambda n: {f"spare.{i}.q.comfy_quant": entry(dtype="U8") for i in range(n)}
    ),
    "marks under other names": beside_a_network(
        lambda n: {f"spare.{i}.q.weight": entry(dtype="F8_E4M3", shape=(0, 4)) for i in range(n)}, marks_apart
    ),
    "metadata": beside_a_network(lambda n: {}, lambda n: {f"k{i}": "v" for i in range(n)}),
    "keys of config.json": configured,
    "files": files,
    "folders": folders,
    "changes of a LoRA": lora,
    "shards": shards,
    "sets of files": candidates,
    "files of an index": named_files,
    "tensors of a pickle": pickled,
}


#: the kinds that are tried on a busy machine too: one of names, one of files
BUSY = ("names of no layout", "sets of files")


def looked_at(base: Path, folder: Path, kind: str, count: int) -> dict[str, float]:
    shutil.copytree(base, folder)
    KINDS[kind](folder, count)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=True, timeout=300
    )
    shutil.rmtree(folder)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.load if kind in BUSY else ()) for kind in KINDS]
)
def test_twice_as_much_takes_twice_as_long(base: Path, tmp_path: Path, kind: str) -> None:
    once, twice = (looked_at(base, tmp_path / str(count), kind, count) for count in (10_000, 20_000))
    assert twice["seconds"] < 3 * max(once["seconds"], FLOOR)
    # 100,000 of them are five times as many
    assert 5 * twice["seconds"] < SECONDS
    assert 5 * twice["megabytes"] < MEGABYTES
    assert twice["lines"] <= 20
    assert twice["report"] <= 60
