"""What the distributions of this repository say about themselves and each other, and what the tools know of them.

A new plugin folder that is missing from an extra or from a list that tools/distributions.py writes fails here.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import distributions  # noqa: E402

PLUGINS = sorted(file.parent.name for file in (REPOSITORY / "plugins").glob("*/pyproject.toml"))
CORE: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MINOR = tuple(int(part) for part in CORE["version"].split(".")[:2])
PIN = f">={MINOR[0]}.{MINOR[1]},<{MINOR[0]}.{MINOR[1] + 1}"

#: where a module is not called like its distribution
DISTRIBUTION_OF = {"PIL": "pillow"}

every_plugin = pytest.mark.parametrize("plugin", PLUGINS)


def project(plugin: str) -> dict[str, Any]:
    text = (REPOSITORY / "plugins" / plugin / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


def extra(plugin: str) -> str:
    """The extra of a plugin's folder, which is also its entry point and its tox environment."""
    return plugin.replace("_", "-")


def requirement(requirements: list[str], name: str) -> str:
    """The version limits of one requirement."""
    (found,) = (need for need in requirements if re.match(rf"{name}(?![\w-])", need))
    return re.sub(rf"^{name}(\[[^\]]*\])?", "", found)


def version_in(module: Path) -> str | None:
    """``__version__`` of a module if it has one, without importing the module."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            version: str = ast.literal_eval(node.value)
            return version
    return None


def imported(package: Path) -> set[str]:
    """The distributions that the modules of a package import, wherever in a module. Type checkers bring
    ``typing_extensions`` themselves: what only they read of it needs no distribution."""
    roots = set()
    for file in package.rglob("*.py"):
        # the sources of other distributions, which say themselves what they need
        if "template" in file.parts:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for_checkers = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for statement in block.body
            for node in ast.walk(statement)
            if isinstance(node, ast.ImportFrom) and node.module == "typing_extensions"
        }
        for node in set(ast.walk(tree)) - for_checkers:
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                roots.add(str(node.module).partition(".")[0])
    modules = roots - set(sys.stdlib_module_names) - {package.name}
    return {DISTRIBUTION_OF.get(module, module.replace("_", "-")).lower() for module in modules}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", need)[0].replace("_", "-").lower() for need in requirements}


def listed(file: str, section: str, option: str) -> list[str]:
    """The values of an option of an ini file, one a line or separated by commas."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / file, encoding="utf-8")
    return [value.strip() for value in re.split(r"[,\n]", parser[section][option]) if value.strip()]


def covered_by_tox() -> str:
    """The folders and commands of the environments that tox runs unasked."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "tox.ini", encoding="utf-8")
    sections = [parser[f"testenv:{name}"] for name in listed("tox.ini", "tox", "env_list")]
    return "\n".join(section.get(key, "") for section in sections for key in ("change_dir", "commands"))


def tox_sections() -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "tox.ini", encoding="utf-8")
    return parser.sections()


def test_there_are_plugins() -> None:
    assert "wan21" in PLUGINS


@every_plugin
def test_plugin_is_an_extra_of_the_core(plugin: str) -> None:
    assert requirement(CORE["optional-dependencies"][extra(plugin)], f"lightx2v-{extra(plugin)}") == PIN


def test_extras_name_plugins() -> None:
    assert set(CORE["optional-dependencies"]) - {"test", "all"} <= {extra(plugin) for plugin in PLUGINS}


@every_plugin
def test_plugin_names(plugin: str) -> None:
    about = project(plugin)
    assert about["name"] == f"lightx2v-{extra(plugin)}"
    assert about["entry-points"] == {"lightx2v_core.plugins": {extra(plugin): f"lightx2v_{plugin}.plugin"}}
    package = REPOSITORY / "plugins" / plugin / "src" / f"lightx2v_{plugin}"
    assert (package / "plugin.py").is_file()
    assert [folder.name for folder in package.parent.iterdir() if folder.name.isidentifier()] == [
        package.name
    ]


@every_plugin
def test_versions_go_together(plugin: str) -> None:
    about = project(plugin)
    assert tuple(int(part) for part in about["version"].split(".")[:2]) == MINOR
    assert requirement(about["dependencies"], "lightx2v-core") == PIN
    for need in about["dependencies"]:
        if need.startswith("lightx2v-"):
            assert need.endswith(PIN)


@every_plugin
def test_same_terms_as_the_core(plugin: str) -> None:
    about = project(plugin)
    for key in ("license", "license-files", "readme", "requires-python"):
        assert about[key] == CORE[key], key
    folder = REPOSITORY / "plugins" / plugin
    assert (folder / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert (folder / "src" / f"lightx2v_{plugin}" / "py.typed").is_file()


@every_plugin
def test_same_limits_as_the_core(plugin: str) -> None:
    """A library that both need has one lower limit in this repository."""
    core = {re.split(r"[^\w-]", need)[0]: need for need in CORE["dependencies"]}
    for need in project(plugin)["dependencies"]:
        assert core.get(re.split(r"[^\w-]", need)[0], need) == need


def test_core_declares_what_it_imports() -> None:
    testing = {"hypothesis", "pytest"}  # for those who test with lightx2v_core.testing
    assert imported(REPOSITORY / "lightx2v_core") - declared(CORE["dependencies"]) <= testing


@every_plugin
def test_plugin_declares_what_it_imports(plugin: str) -> None:
    package = REPOSITORY / "plugins" / plugin / "src" / f"lightx2v_{plugin}"
    about = project(plugin)
    extras = [need for needs in about.get("optional-dependencies", {}).values() for need in needs]
    testing = {"pytest"}  # what tells the contract suites more is imported by them
    assert imported(package) - testing <= declared([*about["dependencies"], *extras])


def test_version_of_the_core() -> None:
    assert version_in(REPOSITORY / "lightx2v_core" / "spec" / "version.py") == CORE["version"]
    assert (REPOSITORY / "lightx2v_core" / "py.typed").is_file()


@every_plugin
def test_version_of_the_plugin(plugin: str) -> None:
    module = REPOSITORY / "plugins" / plugin / "src" / f"lightx2v_{plugin}" / "__init__.py"
    assert version_in(module) in (None, project(plugin)["version"])


def test_the_lists_of_distributions_are_current() -> None:
    assert not distributions.outdated(), "run: python tools/distributions.py write"


@every_plugin
def test_tools_know_the_plugin(plugin: str) -> None:
    """The lists are made from the folders; the environments of tox take them, or run one plugin."""
    package = f"lightx2v_{plugin}"
    assert f"-e plugins/{plugin}" in (REPOSITORY / "requirements-all.txt").read_text().splitlines()
    assert "-r {tox_root}/requirements-all.txt" in listed("tox.ini", "testenv:all", "deps")
    own = f"plugins/{plugin}" in covered_by_tox()
    assert own != (f"testenv:{extra(plugin)}" not in tox_sections())
    for section, option in (
        ("importlinter", "root_packages"),
        ("importlinter:contract:core-without-plugins", "forbidden_modules"),
        ("importlinter:contract:public-face", "source_modules"),
    ):
        assert package in listed(".importlinter", section, option)
    assert f"{package}.plugin" in listed(".importlinter", "importlinter:contract:light", "source_modules")


@pytest.mark.parametrize(
    ("environment", "tool"), [("lint", "ruff"), ("types", "mypy"), ("imports", "import-linter")]
)
def test_developers_have_the_tools_that_tox_has(environment: str, tool: str) -> None:
    (pinned,) = (
        need for need in listed("tox.ini", f"testenv:{environment}", "deps") if need.startswith(tool)
    )
    assert pinned in (REPOSITORY / "requirements-dev.txt").read_text().splitlines()


def test_everything_installs_through_the_constraints() -> None:
    assert "PIP_CONSTRAINT = {tox_root}/constraints.txt" in listed("tox.ini", "testenv", "set_env")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "tox.ini", encoding="utf-8")
    for section in parser.sections():
        if section != "testenv" and "set_env" in parser[section]:
            assert "{[testenv]set_env}" in parser[section]["set_env"], section


def test_the_newest_torch_is_the_one_thing_without_a_limit_in_tox_newest() -> None:
    constrained = [
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line[:1] != "#"
    ]
    assert [line.split("==")[0] for line in constrained] == ["torch", "-c constraints-tests.txt"]
    assert "torch==" not in (REPOSITORY / "constraints-tests.txt").read_text()
    variables = listed("tox.ini", "testenv:newest", "set_env")
    assert variables[-1] == "PIP_CONSTRAINT = {tox_root}/constraints-tests.txt"
    assert "newest" not in listed("tox.ini", "tox", "env_list")


def test_ci_runs_what_the_readme_says() -> None:
    lines = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    marked = re.search(r"<!-- test-line -->\s*```\w*\n(.+?)\n```", readme, re.DOTALL)
    assert marked is not None
    assert lines[-1] == marked.group(1)
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o100, ".ci/run must be executable"


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 900


@every_plugin
def test_the_plugin_is_in_the_table_of_extras(plugin: str) -> None:
    """Its row names its distribution, and installs what its extra brings from the folders of this repository."""
    text = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    row = re.search(rf"(?m)^\| `{extra(plugin)}` \| `(.+?)` \| \[`(.+?)`\]\((.+?)\) \|", text)
    assert row is not None
    line, name, page = row.groups()
    assert name == project(plugin)["name"]
    assert (REPOSITORY / "docs" / page).resolve() == REPOSITORY / "plugins" / plugin / "README.md"
    folders = {re.split(r"[\[\"]", part)[0] for part in re.findall(r'-e "?plugins/(\S+)', line)}
    assert folders == local_needs(plugin)


def local_needs(plugin: str) -> set[str]:
    """The folders of a plugin, of those that its extra brings, and of all that these need."""
    needs = list(CORE["optional-dependencies"][extra(plugin)])
    found: set[str] = set()
    while needs:
        match = re.match(r"lightx2v-([\w-]+)", needs.pop())
        if match is not None and match[1] != "core":
            folder = match[1].replace("-", "_")
            if folder not in found:
                found.add(folder)
                needs += project(folder)["dependencies"]
    return found


PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/guides/*.md",
        "plugins/*/README.md",
        "examples/*.md",
        "examples/plugins/*/*.md",
    )
    for page in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_install_lines_work_from_a_checkout(page: Path) -> None:
    """Nothing is published yet: a page installs from this repository, or states that it waits for that."""
    for text in page.read_text(encoding="utf-8").split("\n\n"):
        for line in re.findall(r"pip install [^`\n]+", text):
            if re.search(r"""["' ]lightx2v-""", line.partition(" # ")[0]):
                assert "published" in text, line
            local = "CONTRIBUTING" not in page.name and "writing-a-plugin" not in page.name
            for place in re.findall(r"""-e ["']?([\w./-]+(?:\[\w,]+\])?)""", line) if local else ():
                # messages name the folder of the checkout, which pages shorten
                folder, _, extras = place.removeprefix(".../").rstrip("]").partition("[")
                text_there = (REPOSITORY / folder / "pyproject.toml").read_text(encoding="utf-8")
                assert all(
                    re.search(rf"^{extra} = \[", text_there, re.MULTILINE)
                    for extra in extras.split(",")
                    if extra
                )
