"""Sphinx configuration: Markdown pages as they are in the repository, and the API reference from the docstrings.

tox -e docs                             builds into .tox/docs/html; every warning is an error
sphinx-build -W docs OUTPUT             the same by hand, where sphinx, myst-parser and furo are installed

Pages link to each other, to headings and to files of the repository with relative paths, so that they also read on a
code host. A link that leads nowhere fails the build: MyST checks pages and headings, this file checks other files.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from lightx2v_core import __version__

ROOT = Path(__file__).resolve().parent.parent
logger = logging.getLogger(__name__)

project = "lightx2v-core"
author = "the lightx2v-core developers"
project_copyright = f"2026, {author}"
release = version = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lightx2v-core {release}"
html_show_sphinx = False
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
# JSON with comments has no lexer of its own
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
#: where the sources are read; relative links to files that are not pages of this site lead there
repository = "https://github.com/lightx2v/lightx2v-core/blob/main"

#: page -> the public module that it documents, its stub and the line under the title
FACES = {
    "core": (
        "lightx2v_core.api",
        "lightx2v_core/api.pyi",
        "The Python interface of the core, for programs and plugins.",
    ),
    "weights": (
        "lightx2v_core.weights",
        "lightx2v_core/weights.pyi",
        "Checkpoints: finding, reading and writing them.",
    ),
    "wan21": (
        "lightx2v_wan21.api",
        "plugins/wan21/src/lightx2v_wan21/api.pyi",
        "The networks of Wan2.1, for plugins that build on them.",
    ),
}
#: folders of the core in the order in which a reader meets their names; others follow by name
_ORDER = (
    "runtime",
    "plan",
    "inspection",
    "errors",
    "events",
    "spec",
    "discovery",
    "quant",
    "lora",
    "checkpoint",
)


def reference(module: str, stub: Path, summary: str, seen: set[tuple[str, str]]) -> str:
    """Render one page of the API reference: the names of a public face, by the modules they come from."""
    title = f"``{module}``"
    out = [title, "=" * len(title), "", summary, ""]
    imports = [
        node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
    ]
    homes: dict[str, list[str]] = {}
    for node in imports:
        homes.setdefault(str(node.module), []).extend(alias.name for alias in node.names)

    def rank(home: str) -> tuple[int, str]:
        folder = home.split(".")[1]
        return (_ORDER.index(folder) if folder in _ORDER else len(_ORDER), home)

    for home in sorted(homes, key=rank):
        heading = f"``{home.partition('.')[2]}``"
        out += [heading, "-" * len(heading), ""]
        for name in homes[home]:
            # data has no docstring of its own: the comment above it is read from where it stands
            kind = "data" if name.isupper() else "class" if name[0].isupper() else "function"
            out += [f".. auto{kind}:: {home if kind == 'data' else module}.{name}"]
            # a name of two faces is indexed on the page that comes first
            out += [*["   :no-index:"] * ((home, name) in seen), ""]
            seen.add((home, name))
    return "\n".join(out)


def write_reference(app: Sphinx) -> None:
    """Write the pages of the API reference below ``api/``; git ignores them."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    seen: set[tuple[str, str]] = set()
    for page, (module, stub, summary) in FACES.items():
        target, text = folder / f"{page}.rst", reference(module, ROOT / stub, summary, seen)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def link_to_repository(app: Sphinx, page: str, content: list[str]) -> None:
    """Point links to files outside of ``docs/`` to the repository, and warn of files that do not exist.

    The page ``changelog`` is CHANGELOG.md, whose links start one folder higher.
    """
    source = Path(app.env.doc2path(page)).resolve()

    def replaced(match: re.Match[str]) -> str:
        path = (source.parent / match["path"]).resolve()
        if path.is_relative_to(source.parents[len(Path(page).parents) - 1]):
            return match[0]
        if not path.exists():
            logger.warning("no such file: %s", match["path"], location=page)
        return f"]({repository}/{path.relative_to(ROOT).as_posix()}{match['anchor'] or ''})"

    if page == "changelog":
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        content[0] = re.sub(r"\]\((?!https?:)", "](../", text).replace("](../docs/", "](")
    content[0] = re.sub(r"\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", replaced, content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this file adds to Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", link_to_repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
