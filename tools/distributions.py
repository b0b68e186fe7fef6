"""The distributions of this repository, discovered from their folders.

python tools/distributions.py write            update the lists that tools cannot compute themselves
python tools/distributions.py imports ...      run a command with all sources on the path
python tools/distributions.py build DIR        build all distributions into a folder
python tools/distributions.py install DIR      install the distributions built there, through the extras of the core
python tools/distributions.py uninstall        uninstall all of them from this environment
python tools/distributions.py test             run the test suites of plugins without a tox environment of their own

A new plugin is a folder in ``plugins/``; ``tests/test_packaging.py`` fails until ``write`` has updated all lists.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_MARK = "written by tools/distributions.py"


def plugins() -> list[Path]:
    """Return the folders of the plugins, sorted by name."""
    return sorted(file.parent for file in (ROOT / "plugins").glob("*/pyproject.toml"))


def examples() -> list[Path]:
    """Return the folders of the example distributions."""
    return sorted(file.parent for file in (ROOT / "examples" / "plugins").glob("*/pyproject.toml"))


def extra(plugin: Path) -> str:
    """Return the name of a plugin's extra of the core; also the name of its entry point and of its tox environment."""
    return plugin.name.replace("_", "-")


def packages() -> list[str]:
    """Return the import names of all plugins and examples."""
    folders = [*plugins(), *examples()]
    return sorted(package.name for folder in folders for package in (folder / "src").glob("lightx2v_*"))


def _lines(names: Sequence[str]) -> str:
    return "\n".join(f"    {name}" for name in names)


def requirements() -> str:
    """Build the list of all distributions, in one pip call, so that local folders satisfy each other's requirements."""
    folders = [str(folder.relative_to(ROOT)) for folder in (*plugins(), *examples())]
    return "\n".join((f"# {_MARK}", "-e .[test]", *(f"-e {folder}" for folder in folders), ""))


def import_contracts(text: str) -> str:
    """Update the lists of plugin packages in the text of ``.importlinter``."""
    names = packages()
    lists = {
        "root packages": ["lightx2v_core", *names],
        "all plugins": names,
        "modules of hooks": [f"{name}.plugin" for name in names],
    }
    for title, values in lists.items():
        block = re.compile(rf"(    # {title}: {_MARK}\n)(?:    [\w.]+\n)*")
        if not block.search(text):
            raise SystemExit(f".importlinter has no line '    # {title}: {_MARK}'")
        text = block.sub(rf"\g<1>{_lines(values)}\n", text)
    return text


def extras(text: str) -> str:
    """Update the extra ``all`` in the text of the core's ``pyproject.toml``."""
    names = ", ".join(f"{extra(folder)}" for folder in plugins())
    line = f'all = ["lightx2v-core[{names}]"]  # {_MARK}'
    return re.sub(rf"^all = \[.*\]  # {_MARK}$", lambda _: line, text, flags=re.MULTILINE)


#: file -> function from its current text to the expected one
LISTS: Mapping[str, Callable[[str], str]] = {
    "requirements-all.txt": lambda _text: requirements(),
    ".importlinter": import_contracts,
    "pyproject.toml": extras,
}


def outdated() -> list[str]:
    """Return the files whose lists do not match the folders."""
    return [name for name, made in LISTS.items() if (text := _read(name)) != made(text)]


def write() -> None:
    for name in outdated():
        (ROOT / name).write_text(LISTS[name](_read(name)), encoding="utf-8")
        print(name)


def with_sources(command: Sequence[str]) -> int:
    sources = [ROOT, *(folder / "src" for folder in (*plugins(), *examples()))]
    return subprocess.call(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))})


def build(target: str) -> int:
    for folder in (ROOT, *plugins()):
        if status := subprocess.call([sys.executable, "-m", "build", "--outdir", target, str(folder)]):
            return status
    return 0


def install(source: str) -> int:
    """Install every plugin through its extra; for gradio only the plugin, without the UI libraries."""
    names = ",".join(extra(folder) for folder in plugins() if folder.name != "gradio")
    targets = ["lightx2v-gradio", f"lightx2v-core[{names}]"]
    pip = [sys.executable, "-I", "-m", "pip", "install", "-q", "--no-compile", "--find-links", source]
    return subprocess.call([*pip, *targets])


def uninstall() -> int:
    names = ["lightx2v-core", *(f"lightx2v-{extra(folder)}" for folder in plugins())]
    return subprocess.call([sys.executable, "-I", "-m", "pip", "uninstall", "-q", "-y", *names])


def test(options: Sequence[str]) -> int:
    """Run the test suites one after the other, also after a failure."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    failed = []
    for folder in (*plugins(), *examples()):
        if f"testenv:{extra(folder)}" in tox:
            continue
        print(f"\n{folder.relative_to(ROOT)}", flush=True)
        command = [sys.executable, "-m", "pytest", "-c", str(folder / "pyproject.toml"), *options]
        if subprocess.call([*command, str(folder / "tests")], cwd=ROOT):
            failed.append(folder.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _read(name: str) -> str:
    file = ROOT / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["write"]:
            write()
            return 0
        case ["imports", *command]:
            return with_sources(command)
        case ["build", target]:
            return build(target)
        case ["install", source]:
            return install(source)
        case ["uninstall"]:
            return uninstall()
        case ["test", *options]:
            return test(options)
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
