"""Documentation pages as programs: their blocks in order, and the execution of each.

A fenced block is a command block (``sh``), a Python block, a file (``json``, ``jsonc`` or ``toml`` below ``<!-- file:
NAME -->``), or the output (``text``) of the block before it. Comments that readers do not see steer the execution:

- ``<!-- sh`` ... ``-->``: commands that prepare what the reader has;
- ``<!-- not run: REASON -->``: the next block is not executed, and why;
- ``<!-- real size: NAME ... -->``: the next block runs with the header-only folders of these models, on a machine with
  an RTX 4090 and 64 GiB of memory (both pretended), so that forecasts are those of a reader;
- ``<!-- demo-line -->``, ``<!-- test-line -->``: commands with tests of their own.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

REPOSITORY = Path(__file__).resolve().parents[3]
LANGUAGES = ("sh", "python", "text", "json", "jsonc", "toml")
MARKS = ("demo-line", "test-line", "not run", "real size", "file")
#: words of a reason; fewer do not explain anything
_SHORTEST_REASON = 3
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z][a-z -]*?)(?:: (?P<value>[^\n]+?))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$"
    r"|^<!-- sh\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)

#: ``lightx2v-core`` for the blocks: runs are real, with small videos unless the model is small
_PROGRAM = """#!/bin/sh
case "$*" in
*--dry-run*|*"--model-path mini"*|*configs/mini*) ;;
run\\ *) set -- "$@" --size 64x64 --frames 5 ;;
esac
exec "{python}" -m lightx2v_core "$@"
"""

#: the same, on a machine with a pretended RTX 4090
_PRETENDED = """#!/bin/sh
exec "{python}" -c '
from lightx2v_core.plan import device
from lightx2v_core.spec.context import Device
rtx = Device(kind="cuda", index=0, name="NVIDIA GeForce RTX 4090", capability=(8, 9), memory=25_250_000_000)
device.cuda_device = lambda index: rtx
device.host_memory = lambda: 64 << 30
from lightx2v_core.cli import main
main()
' "$@"
"""

#: prelude of every Python block: pipelines generate small videos, unless the model is small
_PRELUDE = """
import functools
import lightx2v_core as _core
import lightx2v_core.runtime.pipeline as _module
_small = dict(size=(64, 64), frames=5, steps=2)
_load = _module.load
def _shrunk(method):
    @functools.wraps(method)
    def call(self, *path, **request):
        return method(self, *path, **{**request, **(_small if self._shrink else {})})
    return call
def load(path, **given):
    mini = str(path).startswith("mini")
    pipeline = _load(path, **{**given, **({} if mini else _small)})
    pipeline._shrink = not mini
    return pipeline
_module.Pipeline.generate = _shrunk(_module.Pipeline.generate)
_module.Pipeline.write = _shrunk(_module.Pipeline.write)
_core.load = _module.load = load
"""


@frozen(kw_only=True)
class Block:
    """A block of a page, with the comment above it and the output below it."""

    page: str
    language: str
    text: str
    mark: str = ""
    value: str = ""
    output: str = ""
    hidden: bool = False


def blocks(page: str) -> tuple[Block, ...]:
    """Read the blocks of a page in order; outputs belong to the blocks before them."""
    found: list[Block] = []
    end = 0
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        if match["hidden"] is not None:
            found.append(Block(page=page, language="sh", text=match["hidden"], hidden=True))
        elif match["language"] == "text" and not match["mark"]:
            assert found, f"{page}: an output without a block before it"
            found[-1] = Block(**{**_fields(found[-1]), "output": match["text"]})
        else:
            found.append(
                Block(
                    page=page, language=match["language"], text=match["text"],
                    mark=match["mark"] or "", value=match["value"] or "",
                )
            )  # fmt: skip
        end = match.end()
    assert "```" not in text[end:], f"{page}: a block that does not end"
    return tuple(found)


def _fields(block: Block) -> dict[str, object]:
    names = ("page", "language", "text", "mark", "value", "output", "hidden")
    return {name: getattr(block, name) for name in names}


def mistakes(page: str) -> list[str]:
    """List the blocks of a page that would not be executed without a reason."""
    wrong = []
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    outside = re.sub(r"(?ms)^```.*?^```$|^<!-- sh\n.*?^-->$", "", text)
    commands = r"(?m)^(?: {4,}|\t)(?:\$ )?(?:lightx2v-core|pip|python3?|hf|huggingface-cli|bash|cd)\b.*"
    wrong += [f"an indented command: {line.strip()}" for line in re.findall(commands, outside)]
    for block in blocks(page):
        if block.language not in LANGUAGES:
            wrong.append(f"a block in {block.language or 'no language'}: {block.text[:60]!r}")
        if block.mark and block.mark not in MARKS:
            wrong.append(f"an unknown mark {block.mark!r}")
        if block.mark == "not run" and len(block.value.split()) < _SHORTEST_REASON:
            wrong.append(f"no reason why a block is not run: {block.text[:60]!r}")
        if block.language in ("json", "jsonc", "toml") and block.mark not in ("file", "not run"):
            wrong.append(f"a {block.language} block without <!-- file: NAME -->: {block.text[:60]!r}")
    return wrong


def matches(output: str, printed: str) -> bool:
    """Return whether the lines of ``output`` are consecutive lines of ``printed``. ``...`` within a line matches
    anything; a line of only ``...`` matches any number of lines."""
    pattern = ""
    for line in output.rstrip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(piece) for piece in line.rstrip().split("...")) + r"[ ]*\n"
    return re.search(rf"(?m)^{pattern}", printed.rstrip("\n") + "\n") is not None


@frozen(kw_only=True)
class Reader:
    """A reader who runs the commands of a page in a folder of their own."""

    folder: Path
    env: Mapping[str, str]
    inputs: Mapping[str, Path]
    #: model -> folder with headers of the real size
    real: Mapping[str, Path] = field(factory=dict)

    def write_program(self, source: str) -> None:
        """Install ``lightx2v-core`` for the next block."""
        file = self.folder.parent / "bin" / "lightx2v-core"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def execute(self, block: Block) -> None:
        """Execute a block, and check its status and quoted output."""
        if block.mark in ("demo-line", "test-line", "not run"):
            return
        if block.mark == "file":
            (self.folder / block.value).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.value).write_text(block.text, encoding="utf-8")
            if block.language in ("json", "jsonc"):
                self.run(
                    Block(page=block.page, language="sh", text=f"lightx2v-core config check {block.value}")
                )
            return
        if block.mark != "real size":
            self.run(block)
            return
        models = self.folder / "models"
        aside = self.folder / "tiny-models"
        models.mkdir(exist_ok=True)
        models.rename(aside)
        models.mkdir()
        for name in block.value.split():
            (models / name).symlink_to(self.real[name])
        try:
            self.run(block)
        finally:
            shutil.rmtree(models)
            aside.rename(models)

    def run(self, block: Block) -> None:
        """Run a command or Python block in the folder."""
        self.write_program(_PRETENDED if block.mark == "real size" else _PROGRAM)
        if block.language == "python":
            command = [sys.executable, "-c", _PRELUDE + block.text]
        else:
            self.place_inputs(block.text)
            # installation commands are not executed here: other tests check these lines
            lines = re.sub(r"(?m)^(?:pip |python3? -m venv |\. \.venv).*\n", "", block.text)
            command = ["bash", "-e", "-c", lines]
        done = subprocess.run(
            command, cwd=self.folder, env=dict(self.env), capture_output=True, text=True, timeout=300
        )
        told = f"{block.page}\n{block.text}\n--- stdout\n{done.stdout[-6000:]}\n--- stderr\n{done.stderr[-6000:]}"
        assert "Traceback" not in done.stderr, told
        fails = block.output.startswith("error:") or "\nerror:" in block.output
        assert done.returncode in ((1, 2) if fails else (0,)), told
        if block.output:
            printed = (done.stdout, done.stderr)
            assert any(matches(block.output, text) for text in printed), f"{told}\n--- is not\n{block.output}"

    def place_inputs(self, text: str) -> None:
        """Create the input files that options name."""
        for option, name in re.findall(r"--([\w-]+) (\S+\.(?:png|jpg|mp4))", text):
            path = self.folder / name
            if option not in ("output", "save_result_path", "save_file") and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                kind = {"face-video": "face"}.get(option, "mp4" if name.endswith("mp4") else "png")
                shutil.copy(self.inputs[kind], path)
