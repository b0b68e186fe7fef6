"""The command blocks of the documentation, executed unchanged against a local hub."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

pytest.importorskip("torch")
pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
pytest.importorskip("lightx2v_wan22", reason="needs the Wan2.2 plugin")

from safetensors.torch import load_file

from lightx2v_core.testing import environment as variables
from lightx2v_core.testing import write_dist
from lightx2v_core.testing.hub import Hub, serve_hub
from lightx2v_wan21.tiny import write_tiny

from .pages import REPOSITORY, Block, Reader, blocks, matches, mistakes
from .wan import write_repositories

PAGES = ("docs/formats.md", "docs/models.md")
#: pages that are executed as a whole, in order, with real runs of small videos
WHOLE = (
    "README.md",
    "docs/commands.md",
    "docs/install.md",
    *sorted(str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs" / "guides").glob("*.md")),
)
#: ``lightx2v-core`` for the blocks; runs are only planned, since tiny networks at full size take hours
_PROGRAM = """#!/bin/sh
if [ "$1" = run ]; then shift; set -- plan "$@"; fi
exec "{python}" -m lightx2v_core "$@"
"""


#: unchanged, for commands that fail before anything is loaded
_AS_IT_IS = """#!/bin/sh
exec "{python}" -m lightx2v_core "$@"
"""
TROUBLE = "docs/troubleshooting.md"


#: of each row of the table of forecasts: model, options, offloader, device and host memory
FORECASTS = re.findall(
    r"(?m)^\| (Wan[\w.-]+) \| `(.+?)` \| `(\w+)` \| ([\d.]+ GiB) \| ([\d.]+ GiB) \|$",
    (REPOSITORY / "docs" / "guides" / "low-memory.md").read_text(encoding="utf-8"),
)


@frozen(kw_only=True)
class Section:
    """The command blocks below one heading, in order."""

    page: str
    heading: str
    blocks: tuple[str, ...]


def sections() -> list[Section]:
    every = []
    for page in PAGES:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        for part in re.split(r"(?m)^(?=#{2,3} )", text):
            marked = re.findall(r"((?:<!-- [\w-]+ -->\n)?)```sh\n(.*?)```", part, re.DOTALL)
            # marked blocks have their own tests, and installation commands are not executed
            blocks = tuple(re.sub(r"(?m)^pip .*\n", "", block) for mark, block in marked if not mark)
            if blocks:
                every.append(Section(page=page, heading=part.splitlines()[0].lstrip("# "), blocks=blocks))
    return every


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve_hub(write_repositories(tmp_path_factory.mktemp("repositories"))) as hub:
        yield hub


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Input files of the commands: an image and videos."""
    from fractions import Fraction

    import av
    from PIL import Image

    folder = tmp_path_factory.mktemp("inputs")
    files = {"png": folder / "image.png", "mp4": folder / "video.mp4", "face": folder / "face.mp4"}
    Image.new("RGB", (128, 96), "red").save(files["png"])
    for name, (width, height) in {
        "mp4": (128, 96),
        "face": (32, 32),
    }.items():  # the size of the tiny face encoder
        with av.open(str(files[name]), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(16))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(9):
                container.mux(stream.encode(av.VideoFrame(width, height, "rgb24")))
            container.mux(stream.encode(None))
    return files


def place_inputs(block: str, folder: Path, inputs: dict[str, Path]) -> None:
    """Create the input files that options of a block name."""
    for option, name in re.findall(r"--([\w-]+) (\S+\.(?:png|mp4))", block):
        if option != "output":
            kind = "face" if option == "face-video" else name.rpartition(".")[2]
            (folder / name).write_bytes(inputs[kind].read_bytes())


def test_there_is_something_to_execute() -> None:
    assert {section.page for section in sections()} == set(PAGES)
    assert sum(len(section.blocks) for section in sections()) > 20


def environment(folder: Path, hub: Hub, program: str = "", plugins: str = "") -> dict[str, str]:
    """Build an environment with the program and the hub, without settings of the user."""
    file = folder / "bin" / "lightx2v-core"
    file.parent.mkdir()
    if program:
        file.write_text(program.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LIGHTX2V_"))}
    path = os.pathsep.join([str(file.parent), str(Path(sys.executable).parent), kept["PATH"]])
    # plugins that a reader has; others may be installed here
    mine = {
        "LIGHTX2V_PLUGINS": f"core,hub,wan21,wan22{plugins}",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
    }
    return {**kept, "PATH": path, **mine}


@pytest.mark.slow
@pytest.mark.parametrize("section", sections(), ids=lambda section: f"{section.page}-{section.heading}")
def test_the_commands_of_a_section_work(
    section: Section, hub: Hub, inputs: dict[str, Path], tmp_path: Path
) -> None:
    env = environment(tmp_path, hub, _PROGRAM)
    folder = tmp_path / "work"
    folder.mkdir()
    for block in section.blocks:
        place_inputs(block, folder, inputs)
        done = subprocess.run(
            ["bash", "-e", "-c", block], cwd=folder, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the models named on the pages, with headers of the real sizes."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from real_headers import has_no_holes, write_model

    root = tmp_path_factory.mktemp("real")
    wanted = {name for page in WHOLE for block in blocks(page) if block.mark == "real size"
              for name in block.value.split()} | {model for model, *_ in FORECASTS}  # fmt: skip
    for name in wanted:
        (root / name).mkdir()
        write_model(root / name, name)
        if has_no_holes(root / name):
            pytest.skip("needs a file system with sparse files")
    return {name: root / name for name in wanted}


@pytest.mark.parametrize("page", WHOLE)
def test_every_block_of_a_page_is_executed_or_has_a_reason(page: str) -> None:
    assert not mistakes(page)
    assert any(block.language == "sh" and not block.mark for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", WHOLE)
def test_the_blocks_of_a_page_work_in_order(
    page: str, hub: Hub, inputs: dict[str, Path], real: dict[str, Path], tmp_path: Path
) -> None:
    for plugin in ("mini", "offload", "convert"):
        pytest.importorskip(f"lightx2v_{plugin}", reason="the pages use its commands")
    reader = Reader(
        folder=tmp_path / "work",
        env=environment(tmp_path, hub, plugins=",mini,offload,convert"),
        inputs=inputs,
        real=real,
    )
    reader.folder.mkdir()
    for name in ("configs", "examples"):
        (reader.folder / name).symlink_to(REPOSITORY / name)
    for block in blocks(page):
        reader.execute(block)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options", "offloader", "device", "host"), FORECASTS)
def test_the_table_of_forecasts(
    model: str, options: str, offloader: str, device: str, host: str,
    hub: Hub, inputs: dict[str, Path], real: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    pytest.importorskip("lightx2v_offload", reason="its offloaders are forecast")
    reader = Reader(
        folder=tmp_path / "work", env=environment(tmp_path, hub, plugins=",offload"), inputs=inputs, real=real
    )
    reader.folder.mkdir()
    command = f"lightx2v-core plan --model-path models/{model} --prompt x --offloader auto {options}\n"
    lines = (f"  offloader offload/{offloader} (auto: ...", "...", f"  device    peak {device} (weights ...")
    output = "\n".join([*lines, f"  host      {host}", ""])
    text = command.replace("model.options.*", "'model.options.*").replace("=256", "=256'")
    reader.execute(
        Block(page="low-memory.md", language="sh", text=text, mark="real size", value=model, output=output)
    )


def test_there_are_forecasts() -> None:
    assert len(FORECASTS) > 5


@pytest.mark.slow
def test_the_plugin_of_the_readme_computes_attention(hub: Hub, tmp_path: Path) -> None:
    module, project = (block for block in blocks("README.md") if block.mark == "file")
    entry = re.search(
        r'(?m)^\[project\.entry-points\."lightx2v_core\.plugins"\]\nacme = "(\w+)"$', project.text
    )
    assert entry is not None
    assert f"{entry[1]}.py" == module.value
    assert len([line for line in module.text.splitlines() if line.strip()]) <= 10  # as its heading says
    folder = write_dist(
        tmp_path / "acme", "lightx2v-acme", modules={module.value: module.text}, plugins={"acme": entry[1]}
    )
    line = [sys.executable, "-m", "lightx2v_core", "run", "--model-path", "Wan2.1-T2V-1.3B", "--attention", "acme",
            "--size", "64x64", "--frames", "5", "--steps", "2", "--prompt", "a fox"]  # fmt: skip
    write_tiny(tmp_path / "Wan2.1-T2V-1.3B")
    videos = {}
    for name in ("acme", "sdpa"):
        line[line.index("--attention") + 1] = name
        done = subprocess.run(
            [*line, "--output", f"{name}.mp4", "--dump-tensors", f"{name}.safetensors"],
            cwd=tmp_path, env=variables(folder), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"attention {'acme/acme' if name == 'acme' else 'core/sdpa'}" in done.stderr
        videos[name] = load_file(tmp_path / f"{name}.safetensors")["video"]
    assert videos["acme"].allclose(videos["sdpa"], atol=1e-4)


def test_outputs_are_compared_line_by_line() -> None:
    assert matches("a ... c\n...\nf", "x\na b c\nd\ne\nf\n")
    assert not matches("a ... c\nf", "a b c\nd\nf\n")
    assert not matches("a", "ab\n")


def troubles() -> list[tuple[str, list[tuple[str, str]]]]:
    """List the commands of each section of the page, in order, each with its expected message, if any."""
    text = (REPOSITORY / TROUBLE).read_text(encoding="utf-8")
    every = []
    for part in re.split(r"(?m)^(?=#{2,3} )", text):
        blocks = re.findall(r"(?:<!-- sh\n(.*?)-->|```sh\n(.*?)```(?:\n```text\n(.*?)```)?)", part, re.DOTALL)
        if blocks:
            commands = [(hidden or shown, message) for hidden, shown, message in blocks]
            every.append((part.splitlines()[0].lstrip("# "), commands))
    return every


def test_every_message_of_the_page_is_checked() -> None:
    text = (REPOSITORY / TROUBLE).read_text(encoding="utf-8")
    checked = [message for _, commands in troubles() for _, message in commands if message]
    assert len(checked) == text.count("```text") > 12
    assert matches("error: a ... c\n  d", "x\nerror: a b c\n  d\n")
    assert not matches("error: a ... c\n  d", "error: a b\n  d\n")


@pytest.mark.slow
def test_the_messages_of_the_page_are_those_of_the_program(
    hub: Hub, inputs: dict[str, Path], tmp_path: Path
) -> None:
    hub.repos["owner/gated-model"] = {"model.safetensors": b"secret"}
    hub.gated["owner/gated-model"] = "a token that nobody here has"
    env = environment(tmp_path, hub, _AS_IT_IS)
    folder = tmp_path / "work"
    folder.mkdir()
    for heading, commands in troubles():
        for block, message in commands:
            place_inputs(block, folder, inputs)
            done = subprocess.run(
                ["bash", "-e", "-c", block], cwd=folder, env=env, capture_output=True, text=True, timeout=120
            )
            told = f"{heading}\n{block}\n{done.stdout[-1000:]}\n{done.stderr}"
            assert "Traceback" not in done.stderr, told
            if message:
                assert done.returncode in (1, 2), told
                assert matches(message, done.stderr), f"{told}\nis not\n{message}"
            else:
                assert done.returncode == 0, told
