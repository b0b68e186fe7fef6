"""The contract suites can fail: each deliberately wrong implementation is caught by the check that is made for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.testing.contracts import WeightLoaderContract
from lightx2v_core.testing.fixtures import FakeDist

FOLDER = Path(__file__).parent
WRONG = sorted(FOLDER.glob("wrong_*.py"))


class Outcomes:
    """A pytest plugin that keeps what became of each test: class -> test -> outcome."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        _, name, test = report.nodeid.rsplit("::", 2)
        if report.when == "call" or report.outcome != "passed":
            self.found.setdefault(name, {})[test.partition("[")[0]] = report.outcome


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_each_mistake_is_caught(path: Path, tmp_path: Path) -> None:
    if path.stem in ("wrong_checkpoint", "wrong_model"):
        pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    cases = {name: value for name, value in vars(module(path)).items() if name.startswith("Test")}
    outcomes = Outcomes()
    pytest.main(
        [
            str(path), "-q", "--no-header", "--import-mode=importlib", "-p", "no:cacheprovider", "-c", "/dev/null",
            f"--rootdir={FOLDER}", f"--basetemp={tmp_path / 'inner'}", "-o", "python_files=*.py", "--tb=no",
        ],
        plugins=[outcomes],
    )  # fmt: skip
    assert set(outcomes.found) == set(cases)
    for name, case in cases.items():
        failed = {test for test, outcome in outcomes.found[name].items() if outcome == "failed"}
        if name == "TestRight":
            assert not failed, f"{name}: {failed}"
        else:
            assert case.caught_by in failed, (
                f"{name} is not caught by {case.caught_by}, only by {sorted(failed)}"
            )


def test_every_suite_has_wrong_ones() -> None:
    suites = {path.stem for path in (FOLDER.parents[1] / "lightx2v_core/testing/contracts").glob("*.py")}
    assert {path.stem.removeprefix("wrong_") for path in WRONG} == suites - {"__init__", "common"}


LATE = """
from lightx2v_core.api import Header, WeightLoaderSpec, hookimpl


def _header(path):
    import torch

    return Header(tensors={})


@hookimpl
def lightx2v_weight_loaders():
    return [WeightLoaderSpec(name="heavy", summary="a loader", suffixes=(".x",), read_header=_header, build=print)]
"""


@pytest.mark.parametrize(
    ("check", "source", "said"),
    [
        ("listing", f"import torch\n{LATE}", "import heavy_plugin imports torch"),
        ("header", LATE, "read_header imports"),
    ],
)
def test_heavy_imports_are_caught(
    check: str, source: str, said: str, fake_dist: FakeDist, tmp_path: Path
) -> None:
    """In a process of their own, which finds the plugin as this one does."""
    fake_dist("heavy-loader", modules={"heavy_plugin.py": source}, plugins={"heavy": "heavy_plugin"})
    contract = WeightLoaderContract()
    provided = Registry(load_plugins()).find("weight_loader", "heavy")
    with pytest.raises(AssertionError, match=said):
        if check == "listing":
            contract.test_listing_it_is_light(provided)
        else:
            contract.test_the_header_needs_no_torch(provided.spec, provided, tmp_path / "model.x", None)
