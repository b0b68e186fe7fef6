"""``doctor`` and ``plugins show`` have kernels prove themselves in a process of its own, which may end in any way."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.runtime.proof.trial import trials
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.testing import environment, heavy_imports
from lightx2v_core.testing.fixtures import FakeDist

UNRULY = """
import os
import sys
import threading
import time

from lightx2v_core.api import AttentionSpec, hookimpl


def right(q, k, v, *, scale=None):
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=scale).transpose(1, 2)


def noisy(q, k, v, *, scale=None):
    print("{\\"index\\": 0, \\"state\\": \\"proved\\", \\"text\\": \\"\\"}")
    os.write(1, b"not even json\\n")
    return right(q, k, v, scale=scale)


def killed(q, k, v, *, scale=None):
    import ctypes

    ctypes.string_at(0)


def gone(q, k, v, *, scale=None):
    sys.stderr.write("the driver is too old\\n")
    sys.stderr.flush()
    os._exit(4)


def endless(q, k, v, *, scale=None):
    time.sleep(3600)


def threaded(q, k, v, *, scale=None):
    threading.Thread(target=endless, args=(q, k, v)).start()
    return right(q, k, v, scale=scale)


@hookimpl
def lightx2v_attention_backends():
    functions = (killed, noisy, gone, endless, threaded)
    return [
        AttentionSpec(name=f.__name__, summary="attention", priority=-n, build=lambda _o, _c, f=f: f)
        for n, f in enumerate(functions)
    ]
"""


def core(folder: Path, mark: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *arguments],
        env=environment(folder, FAULTY_MARK=str(mark)), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_doctor_tells_of_each_kernel(faulty: Path, tmp_path: Path) -> None:
    done = core(faulty, tmp_path / "mark", "doctor", "--only-plugins", "faulty", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["proofs"]
    states = {name: said["state"] for kind in found.values() for name, said in kind.items()}
    assert states == {
        "core/dequant": "proved", "core/fp8-torch": "proved", "core/int8-torch": "proved",
        "faulty/fast-int8": "wrong", "faulty/sound-int8": "proved", "faulty/killed": "wrong",
        "faulty/exact-int8": "wrong", "core/sdpa": "proved", "faulty/fast": "wrong", "faulty/sound": "proved",
        "faulty/leaves": "wrong", "core/merge": "proved", "core/dynamic": "proved", "faulty/fast-lora": "wrong",
        "faulty/sound-lora": "proved",
    }  # fmt: skip
    assert found["quantizer"]["faulty/killed"]["text"] == "its proof ended its process with SIGILL"
    assert "differs from softmax(q k^T * scale) v by" in found["attention"]["faulty/fast"]["text"]
    assert found["quantizer"]["faulty/sound-int8"]["text"] == "int8-channel"


def test_show_tells_of_each_kernel(faulty: Path, tmp_path: Path) -> None:
    done = core(faulty, tmp_path / "mark", "plugins", "show", "faulty")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    said = {line.split()[1].rstrip(":"): after for line, after in pairwise(lines)
            if line.startswith(("attention ", "quantizer ", "lora_applier "))}  # fmt: skip
    assert said["sound"] == "usable here, verified"
    assert said["sound-int8"] == "usable here, verified (int8-channel)"
    assert said["fast"].startswith("not used, wrong on this machine: attention in float32")
    assert said["killed"] == "not used, wrong on this machine: its proof ended its process with SIGILL"
    shown = json.loads(core(faulty, tmp_path / "mark", "plugins", "show", "faulty", "--json").stdout)
    proofs = {item["name"]: item["proof"] for item in shown["provides"]}
    assert proofs["sound"] == {"state": "proved", "text": ""}
    assert proofs["fast-lora"]["state"] == "wrong"


@pytest.mark.parametrize("arguments", [("doctor",), ("plugins", "show", "core")], ids=" ".join)
def test_the_commands_themselves_import_no_torch(arguments: tuple[str, ...]) -> None:
    code = "from lightx2v_core.cli import main; main()"
    forbidden = ("torch", "numpy", "av", "vllm", "torchao")
    assert heavy_imports(code, forbidden=forbidden, arguments=arguments, env=environment()) == []


@pytest.mark.load
def test_whatever_a_kernel_does_the_others_are_tried(fake_dist: FakeDist) -> None:
    fake_dist("unruly", modules={"unruly_plugin.py": UNRULY}, plugins={"unruly": "unruly_plugin"})
    plugins = load_plugins(only=["unruly"])
    items = [item for item in plugins.provided("attention") if item.plugin == "unruly"]
    items += plugins.provided("scheduler")
    found: dict[str, Any] = {
        item.spec.name: said for item, said in trials(plugins, items, BuildContext(), seconds=20).items()
    }
    assert {name: said.state for name, said in found.items()} == {
        "killed": "wrong", "noisy": "proved", "gone": "wrong", "endless": "wrong", "threaded": "proved",
    }  # fmt: skip
    assert found["killed"].text == "its proof ended its process with SIGSEGV"
    assert found["gone"].text == "its proof ended its process with status 4: the driver is too old"
    assert found["endless"].text == "its proof gave no answer in 20 s"
