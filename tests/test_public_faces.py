"""The stubs of the public faces say what the modules give: every name, once, from where it is defined."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from lightx2v_core.spec.lazy import lazy_names

FACES = ("lightx2v_core", "lightx2v_core.api", "lightx2v_core.weights")


def stub_of(face: ModuleType) -> Path:
    assert face.__file__ is not None
    return Path(face.__file__).with_suffix(".pyi")


def listed(face: ModuleType) -> list[tuple[str, str, str]]:
    """(module, name there, name here) of every import of a stub, read as Python."""
    body = ast.parse(stub_of(face).read_text(encoding="utf-8")).body
    return [
        (str(node.module), alias.name, alias.asname or alias.name)
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(request.param)


def test_every_name_of_the_stub_is_there_and_no_other(face: ModuleType) -> None:
    names = [name for _, _, name in listed(face)]
    assert len(names) == len(set(names))
    assert sorted(names) == face.__all__
    for module, original, name in listed(face):
        assert getattr(face, name) is getattr(import_module(module), original), name
    assert set(names) <= set(dir(face))


def test_a_stub_holds_nothing_but_imports(face: ModuleType) -> None:
    """Type checkers see exactly the imported names: only they would see any other statement."""
    document, *body = ast.parse(stub_of(face).read_text(encoding="utf-8")).body
    assert isinstance(document, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) and len(node.names) == 1 for node in body)


def test_classes_and_functions_come_from_where_they_are_defined(face: ModuleType) -> None:
    for module, _, name in listed(face):
        value = getattr(face, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(
            "lightx2v_core"
        ):
            assert value.__module__ == module, name


def test_an_unknown_name_is_an_attribute_error(face: ModuleType) -> None:
    with pytest.raises(
        AttributeError, match=re.escape(f"module {face.__name__!r} has no attribute 'no_such'")
    ):
        _ = face.no_such


def test_a_line_that_no_stub_may_have_is_seen(tmp_path: Path) -> None:
    """Only imports in the one form are read; anything else would be missing, and the comparison above says so."""
    (tmp_path / "face.pyi").write_text(
        "from a import B as B\nfrom c import D\nfrom e import (\n    F as F,\n)\n", encoding="utf-8"
    )
    _, _, names = lazy_names("face", str(tmp_path / "face.py"))
    assert names == ["B"]
