"""The judge against clips whose content is known: at least 99 of 100 right, also blurred, noisy and compressed."""

from collections import Counter
from itertools import islice

import pytest
import torch
from attrs import evolve
from torch.nn import functional as F

from judge import agreement, judge
from lightx2v_core.runtime.video import open_writer
from world import COLOURS, DIRECTIONS, SHAPES, render, scenes


def clean(clip, tmp_path, seed):
    return clip


def blurred(clip, tmp_path, seed):
    """A mild blur (deviation of one pixel) and noise, as a small VAE leaves them."""
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = (line[:, None] * line).expand(3, 1, 5, 5)
    frames = F.conv2d(F.pad(clip.transpose(0, 1), (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
    return frames.transpose(0, 1) + 0.1 * noise


def compressed(clip, tmp_path, seed):
    """Through an MP4 file as the command line writes it."""
    import av

    file = tmp_path / f"{seed}.mp4"
    with open_writer(file, "mp4", fps=16, width=clip.shape[3], height=clip.shape[2], crf=23) as writer:
        writer.write(clip)
    with av.open(str(file)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).permute(3, 0, 1, 2) / 127.5 - 1


def tinted(clip, tmp_path, seed):
    """Colours, contrast and brightness a little off, as an undertrained network leaves them."""
    generator = torch.Generator().manual_seed(seed)
    gain = 1 + 0.08 * torch.randn(3, 1, 1, 1, generator=generator)
    return clip * 0.92 * gain + 0.04 * torch.randn(3, 1, 1, 1, generator=generator)


@pytest.mark.parametrize("spoil", [clean, blurred, compressed, tinted])
@pytest.mark.parametrize(
    ("side", "frames", "count"),
    [(48, 9, 40), pytest.param(48, 9, 260, marks=pytest.mark.slow), pytest.param(64, 17, 130, marks=pytest.mark.slow)],
)  # fmt: skip
def test_ground_truth_is_recognized(side, frames, count, spoil, tmp_path):
    wrong = Counter()
    for seed, scene in enumerate(islice(scenes(11), count)):
        look = "framed" if seed % 2 else "none"
        clip = spoil(render(scene, side=side, frames=frames, look=look), tmp_path, seed)
        wrong.update(name for name, right in agreement(scene, judge(clip), look=look).items() if not right)
    assert not {name: times for name, times in wrong.items() if times > 0.01 * count}


def test_noise_and_an_empty_background_show_nothing():
    noise = torch.rand(3, 9, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert judge(noise).look == "none"
    empty = judge(torch.full((3, 9, 48, 48), -0.9))
    assert (empty.ground, empty.first, empty.second) == ("black", None, None)


@pytest.mark.parametrize("seed", range(4))
def test_what_differs_is_told_apart(seed):
    """A verdict agrees with its own scene only, so accuracy cannot come from an agreeable judge."""
    scene = next(scenes(seed, two=0.0))
    verdict = judge(render(scene, side=48, frames=9))
    for name, values in (("colour", COLOURS), ("shape", SHAPES), ("direction", DIRECTIONS)):
        for value in values:
            if value == getattr(scene, name) or value == scene.ground:
                continue
            assert not agreement(evolve(scene, **{name: value}), verdict)[name]


def test_played_backwards_it_moves_the_other_way():
    scene = evolve(next(scenes(8, two=0.0)), direction="right", speed="fast", start=(0.3, 0.5))
    clip = render(scene, side=48, frames=9)
    assert judge(clip).first.direction == "right"
    assert judge(clip.flip(1)).first.direction == "left"
    assert judge(clip.transpose(2, 3)).first.direction == "down"


def test_permuted_channels_change_the_colour():
    scene = evolve(next(scenes(8, two=0.0)), colour="red", ground="black", kind="plain")
    clip = render(scene, side=48, frames=9)
    assert judge(clip).first.colour == "red"
    assert judge(clip[[2, 1, 0]]).first.colour == "blue"


def test_a_clip_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected"):
        judge(torch.zeros(9, 3, 48, 48))
