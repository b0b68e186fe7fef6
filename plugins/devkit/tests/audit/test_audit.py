"""``lightx2v-core plugins check``: each thing that can be wrong with a plugin is found and said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core import __version__
from lightx2v_core.api import load_plugins
from lightx2v_core.testing.fixtures import FakeDist
from lightx2v_devkit.audit.hook_checks import hook_findings
from lightx2v_devkit.audit.metadata_checks import packaging_findings
from lightx2v_devkit.audit.report import audit
from lightx2v_devkit.audit.spec_checks import spec_findings

from .zeta import ABOUT, HEAD, RIGHT, Look, only


def test_there_is_nothing_to_say_of_a_plugin_that_is_right(look: Look) -> None:
    assert look() == []


def test_every_plugin_that_is_installed_here_is_right() -> None:
    assert audit(load_plugins(environ={})) == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"requires": []}, "it does not require lightx2v-core: write"),
        ({"requires": ["lightx2v-core"]}, "'lightx2v-core' has no lower and no upper limit"),
        ({"requires": ["lightx2v-core>=0.1; python_version >= '3'"]}, "has no upper limit"),
        ({"requires": ["lightx2v-core<9"]}, "has no lower limit"),
        ({"about": {"License-Expression": "MIT"}}, "no summary: set description"),
        ({"about": {"Summary": "a plugin"}}, "has no license: set license"),
    ],
)
def test_metadata(look: Look, parts: dict[str, Any], words: str) -> None:
    only(look(part=packaging_findings, **parts), "warning", words)


@pytest.mark.parametrize(
    "need", ["lightx2v-core~=0.1", f"lightx2v-core=={__version__}", "Lightx2v_Core>=0.1,<0.9"]
)
def test_other_spellings_of_a_range_are_fine(look: Look, need: str) -> None:
    assert look(requires=[need], part=packaging_findings) == []


def test_names_that_do_not_agree(look: Look) -> None:
    found = look(plugins={"Eta": "lightx2v_zeta.plugin"}, name="Eta")
    assert [finding.level for finding in found] == ["warning", "warning"]
    assert "hard to type" in found[0].text
    assert "its distribution is lightx2v-zeta, but it has no entry point 'zeta'" in found[1].text


def test_an_entry_point_that_outlived_its_package(look: Look) -> None:
    loader, ours = look(modules={"lightx2v_zeta/__init__.py": ""})
    assert loader.text.startswith(
        "plugin zeta (lightx2v-zeta 1.0) is broken and was skipped: ModuleNotFoundError"
    )
    assert "names the missing module 'lightx2v_zeta.plugin'" in ours.text
    assert "pip uninstall lightx2v-zeta" in ours.text


def editable(folder: Path, project: str) -> str:
    """The metadata of an editable installation of a folder with this ``[project]``."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(f"[project]\n{project}", encoding="utf-8")
    return json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})


SAME = """
name = "lightx2v-zeta"
version = "1.0"
[project.entry-points."lightx2v_core.plugins"]
zeta = "lightx2v_zeta.plugin"
"""


@pytest.mark.parametrize(
    ("project", "words"),
    [
        (SAME, ""),
        (SAME.replace("1.0", "1.1"), "has version 1.0, its pyproject.toml 1.1; pip install -e"),
        (
            SAME.replace("zeta =", "eta ="),
            "its entry points are {'zeta': 'lightx2v_zeta.plugin'}, but {'eta': 'lightx2v_zeta.plugin'} in its",
        ),
        (
            SAME.replace('"lightx2v-zeta"', '"lightx2v-eta"'),
            "is 'lightx2v-eta' now, not 'lightx2v-zeta'; pip",
        ),
    ],
)
def test_an_editable_folder_that_went_on(look: Look, tmp_path: Path, project: str, words: str) -> None:
    pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    origin = {"lightx2v_zeta-1.0.dist-info/direct_url.json": editable(tmp_path / "a folder", project)}
    modules = {"lightx2v_zeta/__init__.py": "", "lightx2v_zeta/plugin.py": HEAD + RIGHT, **origin}
    found = look(modules=modules, part=packaging_findings)
    if words:
        only(found, "warning", words)
    else:
        assert found == []


def test_an_editable_folder_that_is_gone(look: Look, tmp_path: Path) -> None:
    origin = editable(tmp_path / "gone", SAME)
    (tmp_path / "gone" / "pyproject.toml").unlink()
    modules = {
        "lightx2v_zeta/__init__.py": "",
        "lightx2v_zeta/plugin.py": HEAD + RIGHT,
        "lightx2v_zeta-1.0.dist-info/direct_url.json": origin,
    }
    only(
        look(modules=modules),
        "error",
        f"was installed from {tmp_path / 'gone'}, which is no longer a project",
    )


def test_metadata_of_two_versions_in_one_folder(look: Look) -> None:
    modules = {
        "lightx2v_zeta/__init__.py": "",
        "lightx2v_zeta/plugin.py": HEAD + RIGHT,
        "lightx2v_zeta-0.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: lightx2v-zeta\nVersion: 0.9\n",
        "~ightx2v_zeta-0.8.dist-info/METADATA": "Metadata-Version: 2.1\nName: lightx2v-zeta\nVersion: 0.8\n",
    }
    left, two = look(modules=modules)
    assert (left.level, two.level) == ("warning", "error")
    assert "~ightx2v_zeta-0.8.dist-info was left behind by an interrupted pip; remove it" in left.text
    assert "has metadata of lightx2v-zeta 0.9 and 1.0; repeat pip uninstall lightx2v-zeta" in two.text


def test_the_same_distribution_in_two_places(look: Look, fake_dist: FakeDist) -> None:
    fake_dist("lightx2v-zeta", modules={}, plugins={"zeta": "lightx2v_zeta.plugin"}, about=ABOUT)
    only(look(), "error", "lightx2v-zeta is found 2 times on the path")


def test_heavy_imports(look: Look) -> None:
    found = look("import numpy\n" + RIGHT)
    only(
        found, "error", "importing lightx2v_zeta.plugin imports numpy", "import it inside build and unusable"
    )


def test_slow_imports(look: Look) -> None:
    slow = "import time\nwhile time.process_time() < 0.6:\n    pass\n"
    only(look(slow + RIGHT), "warning", "s of CPU time in every command that lists plugins", "importtime")


@pytest.mark.parametrize(
    ("body", "level", "words"),
    [
        (RIGHT + "\ndef lightx2v_schedulers():\n    return []\n", "warning",
         "lightx2v_schedulers is not marked with @hookimpl, so it is never called"),
        (RIGHT + "\ndef lightx2v_sheduler():\n    return []\n", "warning", "did you mean 'lightx2v_schedulers'?"),
        (RIGHT + "\n@hookimpl(optionalhook=True)\ndef lightx2v_servers():\n    return []\n", "", ""),
    ],
)  # fmt: skip
def test_functions_that_are_no_hooks(look: Look, body: str, level: str, words: str) -> None:
    found = look(body, part=hook_findings)
    if level:
        only(found, level, words)
    else:
        assert found == []


def test_every_hook_that_is_wrong_is_named(look: Look) -> None:
    """The loader stops at the first."""
    body = RIGHT.replace("backends()", "backends(ctx, *more)") + (
        "\n@hookimpl\ndef lightx2v_models(registry):\n    return []\n"
        "\n@hookimpl\ndef lightx2v_sheduler():\n    return []\n"
    )
    loader, *found = look(body)
    assert "is broken and was skipped" in loader.text
    texts = [finding.text for finding in found]
    assert len(texts) == 3, texts
    assert "lightx2v_attention_backends(ctx, *more): hooks take no arguments" in texts[0]
    assert "write def lightx2v_attention_backends() -> list[AttentionSpec[...]]" in texts[0]
    assert "lightx2v_models(registry): hooks take no arguments" in texts[1]
    assert "there is no hook 'lightx2v_sheduler'; did you mean 'lightx2v_schedulers'?" in texts[2]


@pytest.mark.parametrize(
    ("before", "after", "level", "words"),
    [
        ("tile: int = 64", "tile: int", "error", "cannot be selected without options, since Options() fails"),
        ("tile: int = 64", 'tile: int = "64"', "error", "the defaults of Options are invalid"),
        ("tile: int = 64", "tile: object = print", "error", "Options cannot be read from a file"),
        ("tile: int = 64", 'tile: "Nothing" = 64', "error", "Options cannot be read from a file"),
        ("@frozen(kw_only=True)", "@attrs.define(kw_only=True)", "warning", "Options is mutable; use attrs.frozen"),
        ("#:", "#", "warning", "no help for tile; write a comment that starts with #:"),
        ('summary="a kernel"', 'summary="a\\nkernel"', "warning", "its summary must be one line of at most 120"),
        ('summary="a kernel"', 'summary="a kernel" * 20', "warning", "its summary must be one line of at most 120"),
        ("build=build", 'build=build, devices=frozenset({"gpu"})', "error", "unknown devices gpu"),
        ("build=build", 'build=build, extra="kernels"', "error", "lightx2v-zeta has no extra 'kernels'"),
        ('AttentionSpec(name="zeta-kernel"', 'QuantizerSpec(formats=frozenset({"int8-channel"}), name="zeta-kernel"',
         "warning", "Options has no keep and no only; see QuantizerOptions"),
    ],
)  # fmt: skip
def test_specs(look: Look, before: str, after: str, level: str, words: str) -> None:
    assert before in RIGHT
    body = RIGHT.replace(before, after)
    if "QuantizerSpec" in after:
        body = body.replace("lightx2v_attention_backends", "lightx2v_quantizers")
    only(look(body, part=spec_findings), level, words)


MODEL = """
from lightx2v_core.api import ComponentSpec, Repository, TaskSpec

def none(*_arguments):
    raise AssertionError

def repositories():
    one = Repository(name="a", repo="b/c", summary="d", kind="official", tasks=(), files=())
    return [one, one]

@hookimpl
def lightx2v_models():
    return [ModelSpec(name="zeta-model", summary="a model", tasks={"t2v": TaskSpec()}, components=(), recognize=none,
                      defaults=none, geometry=none, memory=none, build=none, repositories=REPOSITORIES)]
"""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("repositories", "duplicate repository names: a"),
        ("none", "its repositories cannot be listed: Assert"),
    ],
)
def test_repositories(look: Look, function: str, words: str) -> None:
    only(look(MODEL.replace("REPOSITORIES", function), part=spec_findings), "error", words)


def test_clashes_are_told_to_both(look: Look, fake_dist: FakeDist) -> None:
    fake_dist(
        "lightx2v-eta", modules={"eta.py": HEAD + RIGHT}, plugins={"eta": "eta"}, requires=["lightx2v-core>=0.1,<9"],
        about=ABOUT,
    )  # fmt: skip
    (finding,) = look()
    assert finding.text.startswith(
        "attention 'zeta-kernel' comes from more than one plugin: eta/zeta-kernel, zeta/"
    )
    assert set(finding.plugins) == {"eta", "zeta"}
    assert finding in audit(load_plugins(), name="eta")


def test_names_of_plugins_that_are_not_installed(look: Look) -> None:
    if any(plugin.name == "flash-attn" for plugin in load_plugins().plugins):
        pytest.skip("with lightx2v-flash-attn installed the two clash, which is an error")
    found = look(RIGHT.replace("zeta-kernel", "sage2"))
    only(found, "warning", "attention 'sage2' is also provided by lightx2v-flash-attn")
