"""The projection of latents to colours: its fit, its cache file, and its updates by finished videos."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="previews are made with Pillow")

from lightx2v_gradio.previews import (  # noqa: E402
    Previewer,
    Sums,
    png,
    previewer,
    project,
    sample_frames,
    space,
    synthetic,
    thumbnail,
)


def known(channels: int = 16) -> torch.Tensor:
    return torch.randn(channels + 1, 3, generator=torch.Generator().manual_seed(3)) * 0.2


def colours(latents_NC: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    return latents_NC @ projection[:-1] + projection[-1]


@pytest.mark.parametrize("channels", [16, 48])
def test_a_linear_space_is_found_again(channels: int) -> None:
    truth, sums = known(channels), Sums.empty(channels)
    latents = torch.randn(4000, channels, generator=torch.Generator().manual_seed(0))
    sums.add(latents, colours(latents, truth))
    assert torch.allclose(sums.fit(), truth, atol=5e-3)


def test_nothing_is_made_of_what_was_never_seen() -> None:
    sums = Sums.empty(4)
    sums.add(torch.zeros(10, 4), torch.full((10, 3), 0.25))
    fitted = sums.fit()
    assert torch.allclose(fitted[-1], torch.tensor(0.25))
    assert fitted[:-1].abs().max() < 1e-6


def test_a_fit_is_data(tmp_path: Path) -> None:
    sums = Sums.empty(4)
    sums.add(torch.randn(50, 4), torch.randn(50, 3))
    again = Sums.from_json(json.loads(json.dumps(sums.to_json())))
    assert torch.equal(again.gram, sums.gram)
    assert torch.equal(again.fit(), sums.fit())


@pytest.mark.parametrize("data", [None, {}, {"format": 2}, {"format": 1, "gram": [[1.0]], "target": [[1, 2]]},
                                  {"format": 1, "gram": [[1.0, 2.0]], "target": [[1, 2, 3]]}])  # fmt: skip
def test_what_is_no_fit_is_refused(data: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Sums.from_json(data)


def test_synthetic_latents_have_the_spread_of_latents() -> None:
    latents = list(synthetic(16))
    assert {tuple(latent.shape) for latent in latents} == {(16, 1, 12, 12)}
    spread = torch.cat([latent.flatten() for latent in latents]).std()
    assert 0.5 < spread < 1.5
    assert torch.equal(latents[2], list(synthetic(16))[2])


def test_pictures() -> None:
    from PIL import Image

    latents = torch.randn(16, 5, 8, 12)
    shown = project(latents, known())
    assert shown.shape == (3, 8, 12)
    assert shown.abs().max() <= 1
    image = Image.open(io.BytesIO(png(shown)))
    assert (image.format, image.size) == ("PNG", (192, 128))
    assert Image.open(io.BytesIO(png(torch.zeros(3, 400, 600)))).size == (600, 400)


def test_a_model_is_fitted_once_and_learns(model: Path, tmp_path: Path) -> None:
    """The fit comes from decoding, is kept for the VAE, and a finished video of the same VAE makes it better."""
    from lightx2v_core.api import StepDone, load

    pipeline = load(model, dtype="float32")
    first = previewer(pipeline, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stem == space(pipeline.plan)
    before = file.read_bytes()
    assert torch.equal(previewer(pipeline, tmp_path / "cache").sums.gram, first.sums.gram)
    last = []
    path = pipeline.write(
        tmp_path / "fox.mp4", prompt="a fox", size=(64, 64), frames=9, steps=2, scheduler="euler", guide_scale=1,
        on_event=lambda event: last.append(event.clean()) if isinstance(event, StepDone) and event.clean else None,
    )  # fmt: skip
    frames = sample_frames(path)
    assert [place for place, _ in frames] == [0.0, 0.5, 1.0]
    assert frames[0][1].shape == (3, 64, 64)

    def wrong(sums: Sums) -> float:
        at = last[-1][:, -1].flatten(1).T
        small = torch.nn.functional.adaptive_avg_pool2d(frames[-1][1], (8, 8)).flatten(1).T
        return float((colours(at, sums.fit()) - small).square().mean())

    worse = wrong(first.sums)
    first.learn(last[-1], frames)
    assert wrong(first.sums) < worse
    assert file.read_bytes() != before
    assert first.png(last[-1]) is not None
    assert first.png(torch.zeros(4, 1, 2, 2)) is None
    pipeline.close()


def test_a_broken_cache_is_made_anew(model: Path, tmp_path: Path) -> None:
    from lightx2v_core.api import load

    with load(model, dtype="float32") as pipeline:
        file = tmp_path / f"{space(pipeline.plan)}.json"
        file.write_text('{"format": 1, "gram"')
        fitted = previewer(pipeline, tmp_path)
        assert fitted.sums.channels == 16
        assert json.loads(file.read_text())["format"] == 1


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    empty = Previewer(sums=Sums.empty(4), file=tmp_path / "file" / "fit.json")
    empty.learn(torch.randn(4, 1, 4, 4), [(0.0, torch.zeros(3, 32, 32))])
    assert empty.sums.gram[-1, -1] == 16
    empty.learn(torch.full((4, 1, 4, 4), float("nan")), [(0.0, torch.zeros(3, 32, 32))])
    assert empty.sums.gram.isfinite().all()


def test_an_image_is_its_own_frame_and_has_a_small_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (640, 320), (255, 0, 0)).save(tmp_path / "one.png")
    ((place, frame),) = sample_frames(tmp_path / "one.png")
    assert (place, frame.shape) == (0.0, (3, 320, 640))
    small = Image.open(io.BytesIO(thumbnail(frame)))
    assert (small.format, small.size) == ("JPEG", (160, 80))
    red, green, blue = small.getpixel((80, 40))
    assert red > 240 > 20 > max(green, blue)
    assert Image.open(io.BytesIO(thumbnail(torch.zeros(3, 1, 4000)))).size == (160, 1)
