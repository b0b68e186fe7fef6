"""Plugins of earlier versions keep working: a wheel as it was published loads, runs and passes its contract suites.

``tests/compatibility`` holds the wheel of the example plugin of 0.1.0. It may use old names of the interface
(``lightx2v_core.spec.renamed``), and one line of warning says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lightx2v_core.spec.renamed import UNTIL

WHEEL = Path(__file__).with_name("compatibility") / "lightx2v_example-0.1.0-py3-none-any.whl"
SUITES = """
from lightx2v_core.testing.contracts import AttentionContract, ModelContract, SchedulerContract


class TestChunked(AttentionContract):
    use = "chunked"


class TestAdams2(SchedulerContract):
    use = "adams2"


class TestPebble(ModelContract):
    use = "pebble"
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin of 0.1.0 installed in it, as pip would."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return folder


def python(old: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(old), "LIGHTX2V_PLUGINS": "example"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, cwd=cwd)


def test_it_loads(old: Path) -> None:
    done = python(old, "-m", "lightx2v_core", "plugins", "--json")
    assert done.returncode == 0, done.stderr
    (example,) = (plugin for plugin in json.loads(done.stdout) if plugin["name"] == "example")
    assert example["state"] == "loaded"
    assert example["version"] == "0.1.0"


def test_it_runs_and_what_is_old_is_said(old: Path, tmp_path: Path) -> None:
    model, video = tmp_path / "pebble", tmp_path / "pebble.mp4"
    write = (
        "import pathlib, sys, lightx2v_example.tiny as tiny; tiny.write_tiny(pathlib.Path(sys.argv[1]), 0)"
    )
    written = python(old, "-c", write, str(model))
    assert written.returncode == 0, written.stderr
    done = python(
        old, "-m", "lightx2v_core", "run", "--model-path", str(model), "--prompt", "a pebble", "--size", "32x48",
        "--frames", "3", "--steps", "2", "--seed", "1", "--scheduler", "adams2", "--attention", "chunked",
        "--output", str(video),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert video.stat().st_size > 0
    assert (
        "warning: plugin example (lightx2v-example 0.1.0) uses ModelSpec.recognise, which is called recognize now "
        f"(the old name goes in lightx2v-core {UNTIL})"
    ) in done.stderr


def test_it_passes_its_contract_suites(old: Path, tmp_path: Path) -> None:
    """With warnings as errors, as its own configuration has them."""
    (tmp_path / "test_contracts.py").write_text(SUITES, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings =\n    error\n"
        "    ignore:Failed to initialize NumPy:UserWarning\n",
        encoding="utf-8",
    )
    done = python(old, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini"), str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


QUANTIZER = {
    "lightx2v_rows-0.1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: lightx2v-rows\nVersion: 0.1.0\n",
    "lightx2v_rows-0.1.0.dist-info/entry_points.txt": "[lightx2v_core.plugins]\nrows = lightx2v_rows.plugin\n",
    "lightx2v_rows/__init__.py": "",
    "lightx2v_rows/plugin.py": """
from lightx2v_core.api import NoOptions, QuantizerSpec, hookimpl


class Rows:
    def linear(self, plain, layer):
        from lightx2v_core.api import StoredLinear
        from torch.nn.functional import linear

        class RowLinear(StoredLinear):
            def forward(self, x):
                from lightx2v_core.api import decode_weight

                stored = {"weight": self.weight, "weight_scale": self.weight_scale}
                return linear(x, decode_weight(stored, self.format).to(self.dtype), self.bias)

        return RowLinear(plain, layer)

    def quantize(self, weight, format):
        from lightx2v_core.api import encode_weight

        if format != "int8-channel":
            raise ValueError(f"no {format}")
        return encode_weight(weight, format)

    def dequantize(self, stored, layer):
        from lightx2v_core.api import decode_weight

        return decode_weight(stored, layer.format)


@hookimpl
def lightx2v_quantizers():
    return [
        QuantizerSpec(
            name="rows", summary="int8 rows", formats=frozenset({"int8-channel"}), exact=True,
            makes=lambda _config: "int8-channel", build=lambda _config, _ctx: Rows(),
        )
    ]
""",
    "test_contracts.py": """
import pytest
from lightx2v_core.testing.contracts import QuantizerContract


class TestRows(QuantizerContract):
    use = "rows"


def test_elsewhere_an_old_name_is_what_the_configuration_of_warnings_says():
    from lightx2v_core import api

    with pytest.raises(DeprecationWarning, match="api.decode_weight, which is called dequantize_weight now"):
        api.decode_weight
    assert not hasattr(api, "encode_weights")
""",
    "pytest.ini": "[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings =\n    error\n"
    "    ignore:Failed to initialize NumPy:UserWarning\n",
}


def test_functions_under_old_names_work_where_a_plugin_imports_them_late(tmp_path: Path) -> None:
    """With warnings as errors: the suites tell of old names, and pass."""
    for name, text in QUANTIZER.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "LIGHTX2V_PLUGINS": "rows"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini"), str(tmp_path)],
        capture_output=True, text=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lightx2v_core.api.encode_weight, which is called quantize_weight now" in done.stdout
