"""Files of a result: exact, complete, and there as a whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from lightx2v_core.errors import OutputError
from lightx2v_core.runtime.video import open_writer, png_bytes, publication, to_uint8, write_bytes


def noise(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, frames, height, width, generator=generator) * 2.4 - 1.2  # some of it out of range


def smooth(frames: int, height: int, width: int) -> Tensor:
    """A picture that H.264 keeps well: slow gradients, brighter from frame to frame."""
    y, x = torch.meshgrid(torch.linspace(-0.8, 0.8, height), torch.linspace(-0.8, 0.8, width), indexing="ij")
    frame = torch.stack([x, y, (x + y) / 2])[:, None]
    return frame * torch.linspace(0.5, 1.0, frames)[None, :, None, None]


def official(frames: Tensor) -> Tensor:
    """The pixel rule of the official ``save_video``: scaled to [0, 1] as torchvision does it, times 255, truncated."""
    scaled = frames.clamp(-1, 1).sub(-1).div(2)
    return (scaled * 255).type(torch.uint8).permute(1, 2, 3, 0)


def pixels(path: Path) -> Tensor:
    """[n, H, W, 3] of an image or video file, without numpy."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.reformat(format="rgb24").planes[0]
            rows = torch.frombuffer(bytearray(plane), dtype=torch.uint8).view(frame.height, plane.line_size)
            found.append(rows[:, : frame.width * 3].reshape(frame.height, frame.width, 3))
    return torch.stack(found)


def write(
    path: Path, kind: str, frames: Tensor, *, fps: float = 16, comment: str = "", chunk: int = 4
) -> None:
    with open_writer(
        path, kind, fps=fps, width=frames.shape[3], height=frames.shape[2], crf=18, comment=comment
    ) as writer:
        for part in frames.split(chunk, dim=1):
            writer.write(part)


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_official_rule() -> None:
    ramp = torch.linspace(-1.1, 1.1, 3 * 5 * 16 * 16).view(3, 5, 16, 16)
    assert torch.equal(to_uint8(ramp), official(ramp))
    assert to_uint8(torch.tensor([[[[-1.0, 0.0, 0.999, 1.0]]]] * 3))[0, 0, :, 0].tolist() == [
        0,
        127,
        254,
        255,
    ]


def test_an_mp4_is_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = smooth(9, 48, 80)
    record = {"prompt": 'ein Fuchs 🦊 "quoted"; a=b\n#c', "seed": 1}
    write(path, "mp4", frames, fps=16, comment=json.dumps(record, ensure_ascii=False))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert container.format.name.startswith("mov,mp4")
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.codec_context.width, stream.codec_context.height) == (80, 48)
        assert stream.average_rate == 16
        assert stream.frames == 9
        assert float(stream.duration * stream.time_base) == pytest.approx(9 / 16)
        assert len(container.streams) == 1
        assert json.loads(container.metadata["comment"]) == record
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([i / 16 for i in range(9)])
    difference = (pixels(path).float() - official(frames).float()).abs()
    assert difference.mean() < 3
    assert leftovers(tmp_path) == ["a.mp4"]


def test_no_comment_without_a_record(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", "mp4", smooth(1, 16, 16))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert "comment" not in container.metadata


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, Fraction(16)), (12.5, Fraction(25, 2)), (23.976, Fraction(2997, 125)), (24000 / 1001, Fraction(24000, 1001)),
     (0.5, Fraction(1, 2)), (120, Fraction(120))],
)  # fmt: skip
def test_frame_rates(tmp_path: Path, fps: float, rate: Fraction) -> None:
    write(tmp_path / "a.mp4", "mp4", smooth(5, 16, 16), fps=fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert len(list(container.decode(stream))) == 5


@pytest.mark.parametrize("lengths", [(1,) * 13, (1, 4, 4, 4), (4, 4, 4, 1), (2, 11)])
def test_chunks_of_any_length_make_the_same_video(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    frames = smooth(13, 128, 226)  # a size at which x264 once made another file every time
    for chunks in ((13,), lengths):
        for name, kind in (("a.mp4", "mp4"), ("f", "frames")):
            path = tmp_path / str(len(chunks)) / name
            with open_writer(path, kind, fps=16, width=226, height=128, crf=18) as writer:
                for chunk in frames.split(chunks, dim=1):
                    writer.write(chunk)
    whole, cut = tmp_path / "1", tmp_path / str(len(lengths))
    found = torch.cat([pixels(path) for path in sorted((cut / "f").iterdir())])
    assert torch.equal(found, official(frames))
    assert (cut / "a.mp4").read_bytes() == (whole / "a.mp4").read_bytes()
    shown = pixels(cut / "a.mp4")
    assert len(shown) == 13
    assert (shown.float() - official(frames).float()).abs().mean() < 3


@pytest.mark.parametrize("size", [(16, 16), (33, 31), (1, 1), (2, 130)])
def test_a_png_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = noise(1, *size)
    write(tmp_path / "a.png", "png", frames)
    assert torch.equal(pixels(tmp_path / "a.png"), official(frames))
    assert (tmp_path / "a.png").read_bytes() == png_bytes(to_uint8(frames)[0])


def test_a_folder_of_pngs_is_exact_and_complete(tmp_path: Path) -> None:
    folder, frames = tmp_path / "deep" / "frames", noise(13, 16, 18)
    write(folder, "frames", frames, chunk=5)
    assert leftovers(folder) == [f"{i:05d}.png" for i in range(13)]
    found = torch.cat([pixels(folder / f"{i:05d}.png") for i in range(13)])
    assert torch.equal(found, official(frames))
    assert leftovers(tmp_path / "deep") == ["frames", *(f"frames/{i:05d}.png" for i in range(13))]


def test_a_folder_that_is_there_is_left_alone_unless_it_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    folder.chmod(0o750)
    write(folder, "frames", noise(2, 16, 16))
    assert leftovers(folder) == ["00000.png", "00001.png"]
    assert folder.stat().st_mode & 0o777 == 0o750
    with pytest.raises(OutputError, match="not empty; nothing was left behind"):
        write(folder, "frames", noise(3, 16, 16))
    assert leftovers(tmp_path) == ["there", "there/00000.png", "there/00001.png"]


def test_a_link_to_an_empty_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("far")
    write(tmp_path / "near", "frames", noise(1, 16, 16))
    assert (tmp_path / "near").is_symlink()
    assert leftovers(tmp_path) == ["far", "far/00000.png", "near"]


def test_frames_with_gradients_or_in_half_precision(tmp_path: Path) -> None:
    frames = noise(1, 16, 16)
    write(tmp_path / "a.png", "png", frames.clone().requires_grad_())
    assert torch.equal(pixels(tmp_path / "a.png"), official(frames))


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "mp4"), ("a.png", "png"), ("a", "frames")])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_run_that_fails_leaves_nothing(
    tmp_path: Path, name: str, kind: str, failure: type[BaseException]
) -> None:
    path = tmp_path / "new" / "deep" / name

    def fail() -> None:
        with open_writer(path, kind, fps=16, width=16, height=16, crf=18) as writer:
            writer.write(noise(1, 16, 16))
            raise failure("mine")

    with pytest.raises(failure, match="mine"):
        fail()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "mp4"), ("a.png", "png")])
def test_an_existing_output_is_replaced_by_a_whole_one_only(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"before")

    def fail() -> None:
        with open_writer(path, kind, fps=16, width=16, height=16, crf=18) as writer:
            writer.write(noise(1, 16, 16))
            assert path.read_bytes() == b"before"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"before"
    write(path, kind, noise(1, 16, 16))
    assert len(pixels(path)) == 1
    assert leftovers(tmp_path) == [name]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    name = "ä" * 120 + ".mp4"
    write(tmp_path / name, "mp4", noise(1, 16, 16))
    assert leftovers(tmp_path) == [name]


def test_what_an_encoder_refuses_is_said_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="'.*a.mp4' could not be written"),
        open_writer(tmp_path / "a.mp4", "mp4", fps=16, width=17, height=16, crf=18) as writer,
    ):
        writer.write(noise(1, 16, 17))
    assert leftovers(tmp_path) == []


def test_parents_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot create folder"):
        write(tmp_path / "file" / "b" / "a.mp4", "mp4", noise(1, 16, 16))
    assert leftovers(tmp_path) == ["file"]


def test_small_files(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a.json", b"one")
    write_bytes(tmp_path / "new" / "a.json", b"two")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"two"
    assert leftovers(tmp_path) == ["new", "new/a.json"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="could not be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert leftovers(tmp_path) == ["folder", "new", "new/a.json"]


def test_results_that_belong_together_appear_together(tmp_path: Path) -> None:
    with publication() as files:
        writer = files.video(tmp_path / "a.mp4", "mp4", fps=16, width=16, height=16, crf=18)
        writer.write(noise(2, 16, 16))
        files.bytes(tmp_path / "dump" / "a.safetensors", b"d")
        files.bytes(tmp_path / "a.json", b"r")
        assert not (tmp_path / "a.json").exists()
    assert leftovers(tmp_path) == ["a.json", "a.mp4", "dump", "dump/a.safetensors"]


def test_results_that_belong_together_vanish_together(tmp_path: Path) -> None:
    def fail() -> None:
        with publication() as files:
            files.bytes(tmp_path / "dump" / "a.safetensors", b"d")
            writer = files.video(tmp_path / "a.mp4", "mp4", fps=16, width=17, height=16, crf=18)
            files.bytes(tmp_path / "a.json", b"r")
            writer.write(noise(1, 16, 17))

    with pytest.raises(OutputError, match=r"a\.mp4' could not be written"):
        fail()
    assert leftovers(tmp_path) == []


def test_a_record_inside_of_a_folder_of_frames(tmp_path: Path) -> None:
    with publication() as files:
        writer = files.video(tmp_path / "f", "frames", fps=16, width=16, height=16, crf=18)
        files.bytes(tmp_path / "f" / "record.json", b"r")
        writer.write(noise(2, 16, 16))
    assert leftovers(tmp_path) == ["f", "f/00000.png", "f/00001.png", "f/record.json"]


@pytest.mark.load
def test_two_writers_of_one_name(tmp_path: Path) -> None:
    """Whoever ends last wins, with a whole file."""
    done = threading.Event()

    def other() -> None:
        subprocess.run(
            [sys.executable, "-c", f"open({str(tmp_path / 'a.png')!r}, 'wb').write(b'x')"], check=True
        )
        done.set()

    with open_writer(tmp_path / "a.png", "png", fps=16, width=16, height=16, crf=18) as writer:
        writer.write(noise(1, 16, 16))
        threading.Thread(target=other).start()
        assert done.wait(60)
    assert len(pixels(tmp_path / "a.png")) == 1
    assert leftovers(tmp_path) == ["a.png"]


@pytest.mark.load
def test_an_interrupt_inside_of_the_encoder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Wherever a signal arrives, the run ends with it, and PyAV prints nothing about it."""

    class Interrupted:
        def write(self, data: bytes) -> int:
            raise KeyboardInterrupt

        def seek(self, *place: int) -> int:
            return 0

        def close(self) -> None:
            pass

    too_late = []

    def fail() -> None:
        with open_writer(tmp_path / "a.mp4", "mp4", fps=16, width=64, height=64, crf=18) as writer:
            writer._writer._sink._file.close()
            writer._writer._sink._file = Interrupted()
            writer.write(noise(100, 64, 64))
            too_late.append("it should have ended inside of write")

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert leftovers(tmp_path) == []
    assert not too_late
    assert "PyAV" not in capfd.readouterr().err


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from lightx2v_core.errors import OutputError
from lightx2v_core.runtime.video import publication, write_bytes

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, kind, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
frames = torch.rand(3, 30, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if kind == "bytes":
        write_bytes(path, bytes(100_000))
    else:
        with publication() as files:
            writer = files.video(path, kind, fps=16, width=64, height=64, crf=18, comment="c" * 2000)
            for chunk in frames.split(4, dim=1):
                writer.write(chunk)
except OutputError as exc:
    print(exc)
else:
    print("written")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of file sizes")
@pytest.mark.parametrize(
    ("name", "kind", "limit"),
    # at once, in the middle of the frames, and at the very end of the file
    [("a.mp4", "mp4", 10), ("a.mp4", "mp4", 60_000), ("a.mp4", "mp4", None), ("a", "frames", 5_000),
     ("a.png", "png", 5_000), ("a.json", "bytes", 50_000)],
)  # fmt: skip
def test_a_full_disk(tmp_path: Path, name: str, kind: str, limit: int | None) -> None:
    if limit is None:
        reference = tmp_path / "b.mp4"
        subprocess.run([sys.executable, "-c", FULL_DISK, str(reference), kind, "1000000000"], check=True)
        limit = reference.stat().st_size - 200
        reference.unlink()
    path = tmp_path / name
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), kind, str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{str(path)!r} could not be written: File too large; nothing was left behind" in done.stdout
    assert leftovers(tmp_path) == []


def atoms(path: Path) -> list[str]:
    """The boxes at the top of an MP4 file, in their order."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode("ascii")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        found.append(name)
        at += size
    return found


@pytest.mark.parametrize("frames", [1, 9, 60])
def test_the_index_is_in_front(tmp_path: Path, frames: int) -> None:
    """A player that reads over a network shows the first frame without the last byte."""
    pictures = noise(frames, 48, 80)
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, "mp4", pictures, comment="x" * 5000)
    found = atoms(tmp_path / "a.mp4")
    assert found.index("moov") < found.index("mdat")
    assert len(pixels(tmp_path / "a.mp4")) == frames
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


#: red, green and blue weights of the luma, by the number of the matrix in H.273
LUMA = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114)}
COLOURS = [(0, 255, 0), (255, 0, 0), (0, 0, 255), (224, 172, 105), (255, 255, 255), (0, 0, 0), (90, 90, 90)]


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(1280, 720, 1), (720, 1280, 1), (960, 960, 1), (1280, 704, 6), (832, 480, 6), (32, 32, 6), (32, 720, 1)],
)
def test_colours_are_those_that_the_file_says_it_has(
    tmp_path: Path, width: int, height: int, matrix: int
) -> None:
    """Decoded as tagged, by the definition of the matrix, every channel is what was written."""
    path = tmp_path / "a.mp4"
    wanted = torch.tensor(COLOURS, dtype=torch.float32)
    frames = (wanted / 127.5 - 1).T[:, :, None, None].expand(3, len(COLOURS), height, width)
    write(path, "mp4", frames, chunk=2)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        tags = (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
        assert tuple(map(int, tags)) == (matrix, 1, 1, 1)
        seen = []
        for frame in container.decode(stream):
            planes = [
                bytes(plane)[plane.line_size * (plane.height // 2) + plane.width // 2]
                for plane in frame.planes
            ]
            assert (int(frame.colorspace), int(frame.color_range)) == (matrix, 1)
            seen.append(planes)
    y, cb, cr = torch.tensor(seen, dtype=torch.float32).unbind(1)
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red_weight, green_weight, blue_weight = LUMA[matrix]
    red, blue = y + 2 * (1 - red_weight) * cr, y + 2 * (1 - blue_weight) * cb
    green = (y - red_weight * red - blue_weight * blue) / green_weight
    found = torch.stack([red, green, blue], dim=1).clamp(0, 1) * 255
    assert (found - wanted).abs().max() <= 3, (found - wanted).abs().max()
