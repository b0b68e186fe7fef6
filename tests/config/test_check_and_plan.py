"""``config check`` and ``plan`` agree on a configuration: a valid one plans, a refused one is refused by both.

``words_of_lightx2v.json`` has the keys and values of LightX2V's configurations for these models, as data: pairs, and
which of them stand together in a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

wan21 = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
wan22 = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")

from lightx2v_core.cli.config import check_names  # noqa: E402
from lightx2v_core.config.layers import Value  # noqa: E402
from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.errors import LightX2VError  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402
from lightx2v_core.testing.profiles import examples  # noqa: E402

VALUES = json.loads(Path(__file__).with_name("words_of_lightx2v.json").read_text(encoding="utf-8"))
PAIRS: list[tuple[str, Any]] = [(key, value) for key, value in VALUES["pairs"]]
FILES: list[tuple[str, list[int]]] = [(family, keys) for family, *keys in VALUES["files"]]
#: family -> model class, task, and what writes a tiny one
FAMILIES: Mapping[str, tuple[str, str, Callable[[Path, int], None]]] = {
    "wan21": ("wan2.1", "t2v", wan21.write_tiny),
    "a14b": ("wan2.2_moe", "t2v", wan22.write_tiny_a14b),
    "ti2v": ("wan2.2", "t2v", wan22.write_tiny_ti2v),
    "animate": ("wan2.2_animate", "animate", wan22.write_tiny_animate),
}
#: a file that is named is not in a tiny folder
MISSING = re.compile(r"does not exist|it contains|found:|(is|are) missing")
PLUGINS = load_plugins()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    found = {}
    for family, (_, _, write) in FAMILIES.items():
        found[family] = tmp_path_factory.mktemp(family) / "model"
        write(found[family], 0)
    return found


def refusals(folder: Path, family: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Why ``config check`` refuses data, and why ``plan`` does; empty when they do not."""
    _, task, _ = FAMILIES[family]
    try:
        check_names(load_config(data), PLUGINS)
        checked = ""
    except LightX2VError as exc:
        checked = str(exc)
    over = [Value(path=("model_path",), value=str(folder), origin="--model-path"),
            Value(path=("task",), value=task, origin="--task"),
            Value(path=("device",), value="cpu", origin="--device")]  # fmt: skip
    try:
        resolve(load_config(data, over), PLUGINS)
        planned = ""
    except LightX2VError as exc:
        planned = "" if MISSING.search(str(exc)) else str(exc)
    return checked, planned


def test_the_words_are_many() -> None:
    assert len(FILES) > 150
    assert len(PAIRS) > 250
    assert {family for family, _ in FILES} == set(FAMILIES)


@pytest.mark.parametrize("number", range(len(FILES)))
def test_they_say_the_same_of_each_file(folders: Mapping[str, Path], number: int) -> None:
    family, keys = FILES[number]
    checked, planned = refusals(folders[family], family, dict(PAIRS[key] for key in keys))
    assert bool(checked) == bool(planned), (checked, planned)


def test_most_files_are_accepted(folders: Mapping[str, Path]) -> None:
    """Those that are not ask for several devices, sparse attention, caching, or another network."""
    refused = [
        checked
        for family, keys in FILES
        if (checked := refusals(folders[family], family, dict(PAIRS[key] for key in keys))[0])
    ]
    assert len(FILES) - len(refused) >= 70
    named = re.compile(
        r"one device|sparse attention|caching is not|audio-driven|causal attention|Animate 2|interpolation is not"
        r"|other servers|guidance as an input|autoregressive|nothing here can run|super-resolution|ask for one"
        r"|unknown key"
    )
    assert [text for text in refused if not named.search(text)] == []


#: some keys of a file under a class, with values of other files of its family
mixed = st.sampled_from(FILES).flatmap(
    lambda file: st.tuples(
        st.just(file[0]),
        st.lists(st.sampled_from(file[1]), max_size=8),
        st.lists(
            st.sampled_from([key for family, keys in FILES if family == file[0] for key in keys]), max_size=3
        ),
        st.booleans(),
    )
)


@given(drawn=mixed)
@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
def test_they_say_the_same_of_any_keys(
    folders: Mapping[str, Path], drawn: tuple[str, list[int], list[int], bool]
) -> None:
    family, some, others, distilled = drawn
    name, _, _ = FAMILIES[family]
    data = {"model_cls": f"{name}_distill" if distilled and family in ("wan21", "a14b") else name}
    data |= dict(PAIRS[key] for key in (*some, *others))
    checked, planned = refusals(folders[family], family, data)
    assert bool(checked) == bool(planned), (data, checked, planned)
