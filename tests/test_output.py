"""Output paths: everything that cannot work is reported before the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightx2v_core.checkpoint.staging import make_parents
from lightx2v_core.config.model import OutputConfig
from lightx2v_core.errors import RequestError
from lightx2v_core.plan.output import check_writable, planned_output, record_path
from lightx2v_core.spec.request import Request


def request(frames: int = 5, width: int = 32, height: int = 32, fps: float = 16, seed: int = 7) -> Request:
    return Request(
        prompt="x", negative_prompt="", width=width, height=height, frames=frames, fps=fps, steps=2, shift=5.0,
        guide_scale=(5.0,), scheduler="unipc", seed=seed, task="t2v",
    )  # fmt: skip


def kind(path: str | Path | None, asked: Request | None = None, record: bool = True) -> str:
    text = None if path is None else str(path)
    return planned_output(OutputConfig(path=text, record=record), "wan", asked or request()).kind


def refusal(path: str | Path, asked: Request | None = None, record: bool = True) -> str:
    with pytest.raises(RequestError) as caught:
        kind(path, asked, record)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Path):
    yield
    assert not [path for path in tmp_path.rglob("*") if "part-" in path.name or path.name.startswith("tmp")]


def test_kinds(tmp_path: Path) -> None:
    assert kind(tmp_path / "a.mp4") == "mp4"
    assert kind(tmp_path / "a.MP4") == "mp4"
    assert kind(tmp_path / "new" / "deep" / "a.mp4") == "mp4"
    assert kind(tmp_path / "a.png", request(frames=1)) == "png"
    assert kind(f"{tmp_path}/frames/") == "frames"
    assert kind(tmp_path) == "frames"
    assert kind(tmp_path, request(frames=1)) == "frames"
    assert list(tmp_path.iterdir()) == []  # planning makes no folders


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a", "has no suffix"),
        (".mp4", "has no suffix"),
        ("a.avi", "unknown suffix '.avi'"),
        ("a.mp4.txt", "unknown suffix '.txt'"),
        ("a.png", "is a single image, but the request has 5 frames"),
        ("a." + "x" * 400, "unknown suffix"),
        ("x" * 400 + ".mp4", "too long"),
        ("ä" * 130 + ".mp4", "too long"),
        ("/".join(["x" * 200] * 30) + "/a.mp4", "cannot be written"),
    ],
)
def test_names_that_cannot_work(tmp_path: Path, name: str, words: str) -> None:
    assert words in refusal(tmp_path / name)


def test_an_unknown_user() -> None:
    assert "no such user" in refusal("~no_such_user_here/a.mp4")


def test_the_longest_name_that_is_admitted(tmp_path: Path) -> None:
    assert kind(tmp_path / ("x" * 246 + ".mp4")) == "mp4"


def test_an_even_size_for_video_and_any_size_for_images(tmp_path: Path) -> None:
    assert "even width and height, not 33x32" in refusal(tmp_path / "a.mp4", request(width=33))
    assert "even width and height, not 32x31" in refusal(tmp_path / "a.mp4", request(height=31))
    assert kind(f"{tmp_path}/f/", request(width=33, height=31)) == "frames"


def test_a_frame_rate_that_no_video_has(tmp_path: Path) -> None:
    assert "0.0001 frames per second" in refusal(tmp_path / "a.mp4", request(fps=0.0001))
    assert kind(tmp_path / "a.mp4", request(fps=0.001)) == "mp4"
    assert kind(f"{tmp_path}/f/", request(fps=0.0001)) == "frames"


def test_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert "is not a folder" in refusal(tmp_path / "file" / "a.mp4")
    assert "is not a folder" in refusal(tmp_path / "file" / "b" / "a.mp4")
    assert "is not a folder" in refusal(tmp_path / "nowhere" / "a.mp4")
    assert "is a file; a folder is required" in refusal(f"{tmp_path}/file/")
    assert kind(tmp_path / "folder.mp4") == "frames"
    with pytest.raises(RequestError, match="is a folder; a file is required"):
        check_writable(tmp_path / "folder.mp4")


def test_a_folder_that_holds_frames(tmp_path: Path) -> None:
    """Frames come as a whole, in a folder of their own."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep")
    assert kind(tmp_path / "deep") == "frames"
    assert kind(tmp_path / "link") == "frames"
    (tmp_path / "deep" / "notes.txt").write_text("x")
    for name in ("deep", "link"):
        assert "already contains 'notes.txt'; choose an empty or a new folder, such as" in refusal(
            tmp_path / name
        )
    (tmp_path / "deep" / "00003.png").write_text("x")
    assert "already contains frames" in refusal(tmp_path / "deep")


def test_a_folder_that_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path("."), Path("./")):
        assert "cannot be replaced: it is a mount point or the working directory" in refusal(path)
    (tmp_path / "frames").mkdir()
    assert kind(Path("frames")) == "frames"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "no permission" in refusal(tmp_path / "a.mp4")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("path", ["/proc/a.mp4", "/proc/self/a.mp4", "/proc/new/a.mp4", "/proc/new/"])
def test_a_place_where_nobody_can_write(path: str) -> None:
    message = refusal(path)
    assert "no file can be created in '/proc" in message or "no permission" in message


def test_a_record_never_replaces_another_file(tmp_path: Path) -> None:
    (tmp_path / "fox.json").write_text('{"sampling": {"steps": 20}}')
    message = refusal(tmp_path / "fox.mp4")
    assert "would replace" in message
    assert "fox.json" in message
    assert "--no-record" in message
    assert kind(tmp_path / "fox.mp4", record=False) == "mp4"
    (tmp_path / "fox.json").write_text('{\n  "lightx2v_record": 1,\n  "seed": 42}')
    assert kind(tmp_path / "fox.mp4") == "mp4"
    (tmp_path / "wolf.json").mkdir()
    assert "would replace" in refusal(tmp_path / "wolf.mp4")
    (tmp_path / "bear.json").symlink_to("nowhere")
    assert "would replace" in refusal(tmp_path / "bear.mp4")


def test_where_a_record_lies() -> None:
    assert record_path(Path("a/fox.mp4"), "mp4") == Path("a/fox.json")
    assert record_path(Path("a/fox.png"), "png") == Path("a/fox.json")
    assert record_path(Path("a/fox.v2"), "frames") == Path("a/fox.v2/record.json")


def test_a_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("wan_seed7.mp4", "wan_seed7_2.mp4", "wan_seed7_3.mp4"):
        planned = planned_output(OutputConfig(), "wan", request())
        assert planned.path == expected
        Path(planned.path).write_text("x")
    assert planned_output(OutputConfig(), "wan", request(frames=1)).path == "wan_seed7.png"


def test_a_free_name_whose_record_is_free_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wan_seed7.json").write_text("{}")
    assert planned_output(OutputConfig(), "wan", request()).path == "wan_seed7_2.mp4"


def test_parents_that_were_made(tmp_path: Path) -> None:
    assert make_parents(tmp_path / "a" / "b" / "c.mp4") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert make_parents(tmp_path / "a" / "b" / "c.mp4") == []
