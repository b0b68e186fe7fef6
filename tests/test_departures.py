"""Where we differ from the official code on purpose, side by side. ``docs/departures.md`` says why and names the tests.

The official side is its rule, written out here; ``test_whole_pipelines.py`` has those that take its stored output.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from PIL import Image  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.runtime.pipeline import Pipeline  # noqa: E402
from lightx2v_wan21 import conditioners  # noqa: E402
from lightx2v_wan21.api import image_size, image_tensor, open_image  # noqa: E402
from lightx2v_wan21.tiny import write_tiny  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL: dict[str, Any] = {"prompt": "a red fox", "size": (32, 32), "frames": 1, "steps": 2}


@pytest.fixture(scope="module")
def t2v(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("t2v")
    write_tiny(folder)
    return load(folder, device="cpu", dtype="float32")


def official(path: Path) -> Any:
    """How the official pipelines open a picture."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_alpha(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    pixels[:, :2, 3], pixels[:, 2:4, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    ours, theirs = np.asarray(open_image(tmp_path / "cut.png")), official(tmp_path / "cut.png")
    assert (theirs == pixels[..., :3]).all()  # what was hidden comes to light
    assert (ours[:, :2] == 255).all()
    assert (ours[:, 2:4] == theirs[:, 2:4]).all()
    share = pixels[:, 4:, 3:].astype(float) / 255
    mixed = share * pixels[:, 4:, :3] + (1 - share) * 255
    assert np.abs(ours[:, 4:] - mixed).max() <= 1


@pytest.mark.parametrize(("turn", "undone"), [(3, 2), (6, -1), (8, 1)])
def test_orientation(turn: int, undone: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    theirs = official(tmp_path / "photo.png")
    assert (theirs == pixels).all()  # as it lies in the file
    assert (np.asarray(open_image(tmp_path / "photo.png")) == np.rot90(theirs, undone)).all()
    assert image_size(tmp_path / "photo.png") == ((8, 6) if turn == 3 else (6, 8))


def test_sixteen_bits(tmp_path: Path) -> None:
    steps = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(steps).save(tmp_path / "deep.png")
    ours, theirs = np.asarray(open_image(tmp_path / "deep.png")), official(tmp_path / "deep.png")
    assert (theirs[steps > 255] == 255).all()
    assert (ours[..., 0] == np.rint(steps / 257)).all()


def cropped(image: Any, size: tuple[int, int]) -> Any:
    """The official way with a last image of another size: ``center_crop(image, [width, height])``, which takes rows and
    columns; outside of the picture it is black."""
    rows, columns = size
    canvas = Image.new("RGB", (columns, rows))
    canvas.paste(image, ((columns - image.width) // 2, (rows - image.height) // 2))
    return canvas


@pytest.mark.parametrize("size", [(30, 20), (120, 90), (50, 50)])
def test_last_image(size: tuple[int, int]) -> None:
    rows, columns = 40, 60
    first = Image.new("RGB", (columns, rows))
    across = np.tile(np.linspace(40, 200, size[0]).astype(np.uint8), (size[1], 1))
    last = Image.fromarray(np.stack((across, across, across), axis=2))
    ours = conditioners._as_large_as(last, first)
    assert ours.size == first.size
    assert np.asarray(ours).min() >= 35  # the picture is everywhere
    theirs = cropped(last, first.size)  # (width, height), where rows and columns are meant
    assert theirs.size == (rows, columns)  # which turns it
    seen = np.asarray(theirs)
    assert (seen == 0).any() or seen.shape[1] < size[0]  # black around it, or the sides of it lost
    assert image_tensor(ours).shape == (3, rows, columns)


def test_an_empty_negative_prompt(t2v: Pipeline) -> None:
    """Officially it would be the default one."""
    empty = t2v.generate(**SMALL, negative_prompt="", guide_scale=(5.0,))
    default = t2v.generate(**SMALL, guide_scale=(5.0,))
    assert empty.plan.request.negative_prompt == ""
    assert default.plan.request.negative_prompt
    assert not torch.equal(empty.latents, default.latents)
    said = t2v.generate(**SMALL, negative_prompt=default.plan.request.negative_prompt, guide_scale=(5.0,))
    assert torch.equal(said.latents, default.latents)


def test_guidance_of_one(t2v: Pipeline) -> None:
    """One pass; the official two give the same, here at a scale that is as good as 1."""
    once = t2v.generate(**SMALL, guide_scale=(1.0,))
    twice = t2v.generate(**SMALL, guide_scale=(1.0 + 1e-7,))
    assert not once.plan.request.guided
    assert twice.plan.request.guided
    torch.testing.assert_close(once.latents, twice.latents, atol=1e-4, rtol=1e-4)


def test_the_page_names_tests_that_exist() -> None:
    page = (REPOSITORY / "docs" / "departures.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|plugins)/[\w/.]+)(?:::(\w+))?`", page)
    assert len(named) >= 12
    for path, test in named:
        assert (REPOSITORY / path).exists(), path
        if test:
            assert f"def {test}(" in (REPOSITORY / path).read_text(encoding="utf-8"), f"{path}::{test}"
    here = set(re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    assert here - {"test_the_page_names_tests_that_exist"} == {
        test for path, test in named if path == f"tests/{Path(__file__).name}"
    }
