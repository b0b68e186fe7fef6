"""Images and videos from files and from memory."""

import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image, ImageOps

from lightx2v_core.api import RequestError
from lightx2v_wan21 import media
from lightx2v_wan21.media import at_rate, evenly, image_size, image_tensor, open_image, open_video, video_info

RED, WHITE = (255, 0, 0), (255, 255, 255)


def halves(mode="RGB", left=RED, right=WHITE, size=(8, 4)):
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def palette(**options):
    image = Image.new("P", (8, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 4))
    image.info.update(options)
    return image


def saved(tmp_path, image, suffix=".png", **options):
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return path


CASES = {
    "rgb": (halves(), RED, WHITE),
    "rgba": (halves("RGBA", (*RED, 255), (0, 0, 0, 0)), RED, WHITE),
    "half transparent": (halves("RGBA", (*RED, 128), (*RED, 255)), (255, 127, 127), RED),
    "gray with alpha": (halves("LA", (0, 255), (0, 0)), (0, 0, 0), WHITE),
    "palette": (palette(), RED, (0, 0, 255)),
    "palette with a transparent colour": (palette(transparency=1), RED, WHITE),
    "gray": (halves("L", 0, 200), (0, 0, 0), (200, 200, 200)),
    "one bit": (halves("1", 0, 1), (0, 0, 0), WHITE),
    "16 bit": (
        Image.fromarray(np.tile(np.uint16([0, 0, 0, 0, 32896, 32896, 65535, 65535]), (4, 1))),
        (0, 0, 0),
        (128, 128, 128),
    ),
}


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_any_kind_of_image_becomes_rgb(name, from_file, tmp_path):
    image, left, right = CASES[name]
    source = saved(tmp_path, image) if from_file else image
    assert image_size(source) == (8, 4)
    got = open_image(source)
    assert (got.mode, got.size) == ("RGB", (8, 4))
    for column, expected in ((0, left), (4, right)):
        assert np.abs(np.subtract(got.getpixel((column, 0)), expected)).max() <= 1


@pytest.mark.parametrize(("suffix", "options"), [(".webp", {"lossless": True}), (".jpg", {"quality": 100})])
def test_other_formats(suffix, options, tmp_path):
    got = open_image(str(saved(tmp_path, halves(size=(32, 16)), suffix, **options)))
    assert np.abs(np.subtract(got.getpixel((4, 4)), RED)).max() <= 4


def test_cmyk_jpeg(tmp_path):
    got = open_image(saved(tmp_path, halves().convert("CMYK"), ".jpg", quality=100))
    assert got.mode == "RGB"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, suffix, tmp_path):
    image = halves(size=(32, 16))
    image.paste((0, 0, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, image, suffix, exif=exif)
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    assert image_size(path) == expected.size == ((16, 32) if orientation > 4 else (32, 16))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(expected))


@pytest.mark.parametrize(
    "pixels",
    [
        np.asarray(halves()),
        torch.from_numpy(np.array(halves())).permute(2, 0, 1),
        torch.from_numpy(np.array(halves())).permute(2, 0, 1)[:, None],
        image_tensor(halves()),
        image_tensor(halves()).to(torch.float64),
        image_tensor(halves())[:, None].bfloat16(),
        np.asarray(halves()).astype(np.uint16) * 257,
        np.asarray(halves()).astype(np.int64),
    ],
    ids=["array", "tensor", "one frame", "float", "double", "half frame", "uint16", "int64"],
)
def test_pixels_in_memory(pixels):
    assert image_size(pixels) == (8, 4)
    assert np.array_equal(np.asarray(open_image(pixels)), np.asarray(halves()))


def test_gray_pixels_in_memory():
    for pixels in (np.full((4, 8), 7, np.uint8), torch.full((1, 4, 8), 7, dtype=torch.uint8)):
        assert open_image(pixels).getpixel((3, 3)) == (7, 7, 7)
    assert open_image(np.ones((4, 8), bool)).getpixel((0, 0)) == WHITE


def test_image_tensor_is_the_official_one():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    assert torch.equal(image_tensor(image), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 4, 5)), r"last_image is not an image: ndarray of shape \[2, 3, 4, 5\]"),
        (7, "last_image is not an image: int; expected a path"),
        (np.full((4, 8, 3), 3.0), r"last_image has floats from 3 to 3; expected floats in \[-1, 1\]"),
        (torch.tensor(float("nan")).expand(3, 4, 8), "last_image has floats from nan to nan"),
        (np.full((4, 8, 3), 999), r"last_image has integers outside 0..255"),
    ],
)
def test_wrong_pixels_are_named(source, message):
    with pytest.raises(RequestError, match=message):
        open_image(source, "last_image")


@pytest.mark.parametrize("read", [open_image, image_size])
def test_unreadable_images_are_named(read, tmp_path):
    with pytest.raises(RequestError, match="image '.*nothing.png' does not exist"):
        read(tmp_path / "nothing.png")
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(RequestError, match="image '.*text.png' is not a readable image"):
        read(text)
    with pytest.raises(RequestError, match="cannot be read"):
        read(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path, noise)
    path.write_bytes(path.read_bytes()[:4000])
    assert image_size(path) == (64, 64)  # the header is whole
    with pytest.raises(RequestError, match="image '.*' cannot be read: "):
        open_image(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """20 frames of 48x32 at 10 fps; frame i has the gray level 12 * i."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 12 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(clip):
    return [round(frame.float().mean().item() / 12) for frame in clip.frames]


def test_a_video_file(video):
    info = video_info(video)
    assert (info.width, info.height, info.frames, info.fps) == (48, 32, 20, 10)
    clip = open_video(str(video))
    assert (clip.frames.shape, clip.frames.dtype, clip.fps) == ((20, 32, 48, 3), torch.uint8, 10)
    assert levels(clip) == list(range(20))
    assert clip.tensor().shape == (3, 20, 32, 48)
    assert -1 <= clip.tensor().min() < clip.tensor().max() <= 1


def test_frames_are_picked_while_reading(video):
    assert levels(open_video(video, pick=lambda times: at_rate(times, 5))) == list(range(0, 20, 2))
    assert levels(open_video(video, pick=lambda times: at_rate(times, 20))) == [i // 2 for i in range(40)]
    assert levels(open_video(video, pick=lambda times: evenly(times, 5))) == [0, 4, 9, 14, 19]
    assert levels(open_video(video, pick=lambda _: [3, 1, 3, 99])) == [3, 1, 3, 19]


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (-90, (1, 0)), (90, (0, 2)), (180, (1, 2))])
def test_a_turned_video_is_shown_upright(rotation, corner):
    """Players rotate frames counter-clockwise by the display matrix; -90 is a phone held upright."""
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[corner] = 255  # will be top left

    class Frame:
        def to_ndarray(self, format):
            return pixels

    Frame.rotation = rotation
    got = media._pixels(Frame())
    assert got.shape == ((3, 2, 3) if rotation in (90, -90) else (2, 3, 3))
    assert got[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("count", [1, 5, 9, 81])
def test_as_many_frames_as_there_are_stay_as_they_are(count):
    times = [(i / 16, (i + 1) / 16) for i in range(count)]
    assert evenly(times, count) == list(range(count))
    assert at_rate(times, 16) == list(range(count))


def test_evenly_is_the_official_choice():
    """The first frame whose interval contains each of the evenly spaced moments; intervals are closed."""
    times = np.array([(i / 30, (i + 1) / 30) for i in range(150)], dtype=np.float32)
    moments = np.linspace(0.0, times[-1].mean(), 81)
    inside = (moments[:, None] >= times[None, :, 0]) & (moments[:, None] <= times[None, :, 1])
    assert evenly([tuple(pair) for pair in times.tolist()], 81) == np.argmax(inside, axis=1).tolist()


@pytest.mark.parametrize("layout", ["FHWC", "CFHW", "FCHW", "list"])
def test_frames_in_memory(layout):
    frames = torch.randint(0, 256, (6, 16, 24, 3), dtype=torch.uint8)
    orders = {"FHWC": (0, 1, 2, 3), "CFHW": (3, 0, 1, 2), "FCHW": (0, 3, 1, 2)}
    given = [frame.numpy() for frame in frames] if layout == "list" else frames.permute(orders[layout])
    info = video_info(given)
    assert (info.width, info.height, info.frames, info.fps) == (24, 16, 6, 0)
    clip = open_video(given, pick=lambda times: evenly(times, 5))
    assert torch.equal(clip.frames, frames[[0, 1, 2, 4, 5]])


def test_floats_in_memory_are_not_rounded():
    video = torch.rand(3, 5, 16, 24) * 2 - 1
    assert torch.equal(open_video(video).tensor(), video)
    mask = torch.rand(1, 5, 16, 24)
    for given in (mask, mask[0], mask[0].numpy()):
        torch.testing.assert_close((open_video(given, floats=(0, 1)).tensor() + 1) / 2, mask)
    with pytest.raises(RequestError, match=r"src_mask has floats from .* expected floats in \[0, 1\]"):
        open_video(video, "src_mask", floats=(0, 1))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 2)), r"src_video is not a video: ndarray of shape \[2, 2\]"),
        ([], "src_video is an empty list"),
        ([halves(), halves(size=(4, 4))], "src_video: all images of a list must have the same size"),
    ],
)
def test_wrong_frames_are_named(source, message):
    with pytest.raises(RequestError, match=message):
        open_video(source, "src_video")


@pytest.mark.parametrize("read", [open_video, video_info])
def test_unreadable_videos_are_named(read, tmp_path):
    with pytest.raises(RequestError, match="video '.*nothing.mp4' does not exist"):
        read(tmp_path / "nothing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(RequestError, match="video '.*text.mp4' is not a readable video: "):
        read(text)
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(RequestError, match="video '.*sound.wav' has no video stream"):
        read(sound)


def test_an_image_is_a_video_of_one_frame(tmp_path):
    path = saved(tmp_path, halves())
    assert video_info(path).frames == 1
    assert open_video(path).frames.shape == (1, 4, 8, 3)


def test_sizes_do_not_import_torch():
    code = "import sys, lightx2v_wan21.media_size, lightx2v_wan21.variants; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def picture(colour, size=(64, 48)):
    image = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), colour, np.uint8), format="rgb24")
    return image.reformat(format="yuvj420p")


def streams(path, *kinds, sound=True):
    """Write a file with a stream for each of ``kinds``: a ``cover``, or a ``video`` of some frames and a colour."""
    with av.open(str(path), "w", format={".m4a": "mp4"}.get(path.suffix)) as out:
        audio = out.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=44100) if sound else None
        made = []
        for what, frames, colour, default in kinds:
            stream = out.add_stream("mjpeg" if what == "cover" else "libx264", rate=8)
            stream.width, stream.height = (64, 48) if what == "cover" else (32, 32)
            stream.pix_fmt = "yuvj420p" if what == "cover" else "yuv420p"
            stream.disposition = Disposition.attached_pic if what == "cover" else Disposition(default)
            made.append((stream, frames, colour))
        if audio is not None:
            for _ in range(20):
                quiet = av.AudioFrame.from_ndarray(
                    np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
                )
                quiet.sample_rate = 44100
                out.mux(audio.encode(quiet))
            out.mux(audio.encode(None))
        for stream, frames, colour in made:
            for _ in range(frames):
                size = (stream.width, stream.height)
                out.mux(stream.encode(picture(colour, size)))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".mov", ".mp3"])
@pytest.mark.parametrize("read", [open_video, video_info])
def test_cover_art_is_no_video(read, suffix, tmp_path):
    path = streams(tmp_path / f"song{suffix}", ("cover", 1, (0, 0, 255), 0))
    with pytest.raises(RequestError, match=r"src_video '.*' has no video stream"):
        read(path, "src_video")


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_video_beside_its_cover_is_taken(suffix, tmp_path):
    kinds = ("cover", 1, (0, 0, 255), 0), ("video", 6, (255, 0, 0), 1)
    path = streams(tmp_path / f"clip{suffix}", *kinds)
    assert (video_info(path).width, video_info(path).frames) == (32, 6)
    clip = open_video(path)
    assert tuple(clip.frames.shape) == (6, 32, 32, 3)
    assert clip.frames[..., 0].float().mean() > 200
    assert clip.frames[..., 2].float().mean() < 60


@pytest.mark.parametrize(("first", "second", "frames"), [(0, 1, 7), (1, 0, 3), (0, 0, 3), (1, 1, 3)])
def test_of_several_videos_the_default_one_is_taken(first, second, frames, tmp_path):
    kinds = ("video", 3, (255, 0, 0), first), ("video", 7, (0, 0, 255), second)
    path = streams(tmp_path / "two.mkv", *kinds, sound=False)
    assert len(open_video(path).frames) == frames


@pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("full", [False, True])
def test_a_video_is_read_by_the_colours_that_it_says_it_has(matrix, full, tmp_path):
    """The same numbers are different colours with other matrices and ranges, as defined in H.273."""
    red_weight, blue_weight = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}.get(
        matrix, (0.299, 0.114)
    )
    path, numbers = tmp_path / "tagged.mkv", (150, 90, 160)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1 + full
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane, value in zip(frame.planes, numbers, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, 1 + full
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    y, cb, cr = (numbers[0], *(value - 128 for value in numbers[1:]))
    y, cb, cr = (y / 255, cb / 255, cr / 255) if full else ((y - 16) / 219, cb / 224, cr / 224)
    red, blue = y + 2 * (1 - red_weight) * cr, y + 2 * (1 - blue_weight) * cb
    green = (y - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    pixel = open_video(path).frames[0, 16, 16]
    for found, wanted in zip(pixel.tolist(), (red, green, blue), strict=True):
        assert abs(found - wanted * 255) <= 3, (pixel.tolist(), [255 * c for c in (red, green, blue)])


def test_a_video_that_says_nothing_is_read_as_before(tmp_path):
    path = tmp_path / "untagged.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        frame = av.VideoFrame(1280, 720, "yuv420p")
        for plane, value in zip(frame.planes, (145, 54, 34), strict=True):  # green by BT.601
            plane.update(bytes([value]) * plane.buffer_size)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert open_video(path).frames[0, 360, 640].tolist() == pytest.approx([0, 255, 0], abs=3)
