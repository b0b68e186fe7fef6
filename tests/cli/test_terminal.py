"""Text of strangers on its way to a terminal: names in files, names of files, prompts, what plugins say."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lightx2v_core.cli import main
from lightx2v_core.cli.terminal import Guarded, cursor_stream, escaped, guarded, json_text, message, say
from lightx2v_core.testing.dists import environment, write_dist
from lightx2v_core.testing.profiles import examples

#: cursor movement, change of direction, invisible characters, and lone surrogates
BAD = "\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\x9d\xad\u061c\u200b\u200e\u2028\u2029\u202e\u2066\ufeff\ud800\udc80\udfff"
UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
#: a title, a cleared screen, a colour, a line that poses as one of ours
HOSTILE = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mX\rproblem: forged\nerror: forged\n  warning: forged\x9b2J\u202e"
TEXT = st.text(st.sampled_from(BAD) | st.characters(), max_size=40)


@given(TEXT)
@example(HOSTILE)
def test_a_line_is_one_line_and_nothing_in_it_moves_a_cursor(text: str) -> None:
    found = escaped(text)
    assert not UNSEEN.search(found)
    assert "\n" not in found
    assert escaped(found) == found
    found.encode()


@given(st.text(st.characters(min_codepoint=32, blacklist_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
@example("狐, ёж, fox\u00a0and\u3000more, \U0001f98a\u200d\U0001f525")
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text
    assert message(f"a: {text}.\n  b") == f"a: {text}.\n  b"


@given(TEXT, TEXT)
@example(HOSTILE, HOSTILE)
def test_a_message_has_the_lines_that_are_ours(first: str, second: str) -> None:
    found = message(f"error: {first};\n  {second}.")
    assert not UNSEEN.search(found)
    assert found.startswith("error: ")
    assert all(line.startswith("  ") for line in found.split("\n")[1:]), "a forged line"


@given(TEXT)
@example(HOSTILE)
def test_json_loses_nothing(text: str) -> None:
    for plain in (False, True):
        written = json_text({"name": text}, plain=plain)
        assert "\n" not in written
        assert not UNSEEN.search(written)
        assert json.loads(written) == {"name": text}
        assert json.loads(json_text([text], indent=2, plain=plain)) == [text]
    assert json_text([text], plain=True).isascii()


@pytest.mark.parametrize(
    "encoding",
    ["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "cp437", "koi8-r", "cp932", "gb2312", "iso2022_jp"],
)
@given(text=TEXT)
@settings(deadline=None)
def test_no_console_is_too_narrow(encoding: str, text: str) -> None:
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    stream = Guarded(raw)
    assert stream.write(f"{text}\n") == len(text) + 1
    stream.flush()
    assert not UNSEEN.search(raw.buffer.getvalue().decode(encoding).removeprefix("\ufeff"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "koi8-r"])
def test_bars_are_shown_on_any_console(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files stand in bars, which move the cursor themselves."""
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stderr", raw)
    with guarded():
        cursor_stream().write("\r\x1b[Aload 色调.safetensors\r")
        assert cursor_stream() is cursor_stream()
        cursor_stream().flush()
    written = raw.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert written == "\r\x1b[Aload \\u8272\\u8c03.safetensors\r"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "cp437", "cp932"])
def test_a_plan_on_a_console_of_another_encoding(tiny: Path, encoding: str) -> None:
    """Every plan of a Wan model shows the official negative prompt, which is Chinese."""
    line = [
        sys.executable,
        "-m",
        "lightx2v_core",
        "plan",
        "--model-path",
        str(tiny),
        "--prompt",
        "ein Füchslein 🦊",
    ]
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(line, capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "\\U0001f98a" in text
    assert ("\\u8272" if encoding != "cp932" else "色") in text


def test_bytes_that_are_no_text_are_shown_as_bytes() -> None:
    assert escaped(os.fsdecode(b"a\xff\x1b.safetensors")) == r"a\xff\x1b.safetensors"


def test_whoever_prints_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger, a warning, a print, a traceback."""
    import logging
    import traceback
    import warnings

    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with guarded():
        sys.stdout.writelines(["\x1b[2Jprint\n"])
        say("\x1b[2Jsay")
        logging.getLogger("stranger").addHandler(handler := logging.StreamHandler())
        logging.getLogger("stranger").error("\x1b[2Jlog")
        logging.getLogger("stranger").removeHandler(handler)
        sys.stderr.write(warnings.formatwarning("\x1b[2Jwarn", UserWarning, "file", 1))
        text = "\x1b[2Jraise"
        try:
            raise ValueError(text)
        except ValueError:
            traceback.print_exc()
    assert (sys.stdout, sys.stderr) == (out, err)
    assert out.getvalue().count("\\x1b[2J") == 2
    assert err.getvalue().count("\\x1b[2J") == 3
    assert "\x1b" not in out.getvalue() + err.getvalue()


def checkpoint(folder: Path, name: str) -> None:
    """A LoRA file of one module, and a file that is broken; both with a name of a stranger."""
    folder.mkdir(exist_ok=True)
    tensor = {"dtype": "F32", "shape": [1, 1]}
    header = {
        f"blocks.0.{name}.lora_A.weight": {**tensor, "data_offsets": [0, 4]},
        f"blocks.0.{name}.lora_B.weight": {**tensor, "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    for file, data in (("lora.safetensors", bytes(8)), ("short.safetensors", bytes(1))):
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data)
    index = {"weight_map": {name: f"{name}.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A terminal in the place of both streams; what was written there is in the list in the end."""
    master, slave = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                return
            if not chunk:
                return
            chunks.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    with open(slave, "w", encoding="utf-8", errors="strict") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield chunks
        stream.flush()
    thread.join()
    os.close(master)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *line: str | Path) -> tuple[int, str]:
    """Status and text of a command at a terminal."""
    with terminal(monkeypatch) as chunks, pytest.raises(SystemExit) as ended:
        main([str(part) for part in line])
    return int(ended.value.code or 0), b"".join(chunks).decode().replace("\r\n", "\n")


def check(text: str, status: int, wanted: Sequence[int]) -> None:
    assert status in wanted, text
    assert not UNSEEN.search(text), ascii(text)
    assert "Traceback" not in text
    assert "error: unexpected" not in text, text
    for line in text.split("\n"):
        assert not re.match("(problem|error|warning): forged", line), text


NAMES = TEXT.filter(lambda text: "/" not in text) | st.just(HOSTILE)
QUICK = settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(name=NAMES)
@example(name=HOSTILE)
def test_inspect_shows_what_is_in_files(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    checkpoint(folder, name)
    for line in (["inspect", folder], ["inspect", folder, "--json"]):
        status, text = at_a_terminal(monkeypatch, *line)
        check(text, status, [0, 2])
    status, text = at_a_terminal(monkeypatch, "inspect", folder / "lora.safetensors")
    check(text, status, [0, 2])
    if status == 0 and "LoRA: " in text:
        assert text.count("\n  targets ") == 1


def file_name(text: str) -> bytes:
    """A name for a file: any bytes but those that no name has."""
    return text.replace("\x00", "").encode("utf-8", "surrogatepass")[:80]


@QUICK
@given(name=NAMES.map(file_name))
@example(name=file_name(HOSTILE) + b"\xff")
def test_names_of_files_and_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    folder = tmp_path_factory.mktemp("named") / os.fsdecode(b"n" + name)
    checkpoint(folder, "q")
    (folder / os.fsdecode(b"n" + name + b".safetensors")).write_bytes(b"no header")
    for line, wanted in (
        (["inspect", folder], [0, 2]),
        (["inspect", folder, "--json"], [0, 2]),
        (["plan", "--model-path", folder, "--prompt", "a fox"], [2]),
        (["run", "--model-path", folder, "--prompt", "a fox", "--output", folder / "x.mp4"], [2]),
        (["run", "--model-path", folder, "--prompt", "a fox", "--json"], [2]),
        (["config", "check", folder / "lora.safetensors"], [2]),
        (["inspect", folder / "absent"], [2]),
        (["inspect", folder, folder], [2]),
    ):
        status, text = at_a_terminal(monkeypatch, *line)
        check(text, status, wanted)


@QUICK
@given(prompt=TEXT.map(lambda text: text.replace("\x00", "")))
@example(prompt=HOSTILE)
def test_prompts_and_where_values_come_from(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    size = ("--size", "32x32", "--frames", "5")
    line = ("plan", "--model-path", tiny, *size, "--prompt", f"x{prompt}")
    status, text = at_a_terminal(monkeypatch, *line)
    check(text, status, [0, 2])
    if status == 0:
        plain = at_a_terminal(monkeypatch, *line[:-1], "x")[1]
        assert text.count("\n") == plain.count("\n"), "a prompt makes no lines"
    for more in (["--set", f"sampling.steps{prompt}=x"], ["--lora", f"x{prompt}"], [f"--x{prompt}"]):
        status, text = at_a_terminal(monkeypatch, *line, *more)
        check(text, status, [0, 2])


#: a plugin that calls itself names, and one that cannot be imported
SOURCE = """
from lightx2v_core.api import AttentionSpec, hookimpl

@hookimpl
def lightx2v_attentions():
    return [AttentionSpec(name="hostile", summary={text!r}, build=None, unusable=lambda ctx: [{text!r}])]
"""
BROKEN = "raise ImportError({text!r})\n"


def in_a_process(tmp_path: Path, *line: str | Path, tty: bool) -> tuple[int, str]:
    """A command of its own process: at a terminal, or with both streams in a file."""
    env = environment(tmp_path / "plugins", *(Path(part) for part in sys.path if part))
    command = [sys.executable, "-m", "lightx2v_core", *map(str, line)]
    if not tty:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, check=False)
        return done.returncode, done.stdout.decode()
    with pytest.MonkeyPatch.context() as patch, terminal(patch) as chunks:
        done = subprocess.run(
            command, stdout=sys.stdout, stderr=sys.stderr, stdin=subprocess.DEVNULL, env=env, check=False
        )
    return done.returncode, b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("source", [SOURCE, BROKEN], ids=["says", "raises"])
def test_what_plugins_say(tmp_path: Path, tty: bool, source: str) -> None:
    write_dist(
        tmp_path / "plugins",
        "lightx2v-hostile",
        modules={"lightx2v_hostile.py": source.format(text=HOSTILE)},
        plugins={"hostile": "lightx2v_hostile"},
    )
    for line in (
        ["plugins"],
        ["plugins", "show", "hostile"],
        ["plugins", "show", "hostile", "--json"],
        ["doctor"],
    ):
        status, text = in_a_process(tmp_path, *line, tty=tty)
        check(text.replace("Traceback", ""), status, [0, 1, 2])
        assert "hostile" in text


@pytest.mark.parametrize("tty", [True, False])
def test_a_run_with_its_bars(tiny: Path, tmp_path: Path, tty: bool) -> None:
    """A bar moves its own cursor; nothing else does."""
    output = tmp_path / "out\x1b]0;PWNED\x07\nerror: forged.mp4"
    status, text = in_a_process(
        tmp_path, "run", "--model-path", tiny, "--size", "32x32", "--frames", "5", "--steps", "2",
        "--prompt", HOSTILE, "--output", output, tty=tty,
    )  # fmt: skip
    assert status == 0, text
    assert "saved " in text
    check(re.sub(r"\r|\x1b\[[ABK]|\x1b\[[0-9]*m", "", text), status, [0])
    assert "\x1b]" not in text
    if not tty:
        assert "\r" not in text
        assert "\x1b" not in text


def test_a_traceback_that_was_asked_for(tmp_path: Path) -> None:
    status, text = in_a_process(tmp_path, "inspect", tmp_path / "a\x1b[2Jb\x9b", "--debug", tty=True)
    assert status == 1
    assert "Traceback" in text
    assert not UNSEEN.search(text)
