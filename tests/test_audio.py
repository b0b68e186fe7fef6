"""The audio of a source video is kept in the result."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import av  # noqa: E402

from lightx2v_core.runtime.video import publication  # noqa: E402


def source(path: Path, codec: str, container: str, seconds: float = 2.0) -> Path:
    """A file with a tone."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=44100)
        for start in range(0, int(44100 * seconds), 1024):
            t = torch.arange(start, start + 1024) / 44100
            frame = av.AudioFrame.from_ndarray(
                (0.3 * torch.sin(2 * torch.pi * 440 * t)).numpy()[None], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            resampled = av.AudioResampler(format=stream.codec_context.format, layout="mono").resample(frame)
            for piece in resampled:
                out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def written(path: Path, audio: Path | None, frames: int = 16) -> Path:
    with publication() as files:
        writer = files.video(path, "mp4", fps=16, width=32, height=32, crf=18, audio=audio)
        writer.write(torch.zeros(3, frames, 32, 32))
    return path


@pytest.mark.parametrize(("codec", "container", "kept"), [("aac", "mp4", "aac"), ("pcm_s16le", "wav", "aac")])
def test_sound_is_carried_for_as_long_as_there_are_frames(
    codec: str, container: str, kept: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "out.mp4", source(tmp_path / f"in.{container}", codec, container))
    with av.open(str(path)) as result:
        (stream,) = result.streams.audio
        assert stream.codec_context.name == kept
        assert sum(1 for _ in result.decode(video=0)) == 16
    with av.open(str(path)) as result:
        samples = torch.cat([torch.from_numpy(frame.to_ndarray())[0] for frame in result.decode(audio=0)])
    assert 0.9 <= len(samples) / 44100 <= 1.2
    assert samples.abs().max() > 0.2


def test_a_source_without_sound_gives_a_silent_video(tmp_path: Path) -> None:
    silent = written(tmp_path / "silent.mp4", None)
    with av.open(str(written(tmp_path / "out.mp4", silent))) as result:
        assert not result.streams.audio
