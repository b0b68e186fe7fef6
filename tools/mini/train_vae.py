"""Train the VAE on stills and moving clips, sharpen it, then give its latents the official statistics.

    nice python tools/mini/train_vae.py --work mini-train [--minutes 60] [--steps 4500] [--sharpen 3000]

The loss is the mean absolute error, plus a small divergence from normal latents, so that neighbouring latents are
neighbouring videos. Crops of single frames come first: they cost a quarter of a crop of five frames and teach
everything but motion; then crops of five frames, then whole clips. Most of a clip is background, so small shapes are
still round blots at that point: a second run continues from the first and increases the weight of errors where the clip
has edges and moves. The results are ``vae.state.safetensors``, ``sharp.state.safetensors`` and, for the next scripts,
``Wan2.1_VAE.pth`` in the official layout, stored in 16 bits.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn.functional import max_pool2d

import networks
from lightx2v_core.runtime.video import write_bytes
from lightx2v_wan21.api import WanVae
from loop import Run, Settings, arguments, generator, settings_from
from world import Look, render, sample, scenes

#: side of a crop in pixels
CROP = 32


@frozen(kw_only=True)
class Stage:
    """The data of batches, up to a share of the steps."""

    until: float
    #: frames of a crop; 0: whole clips
    frames: int
    #: number of clips as a share of the batch size, so that all stages except stills cost about the same
    share: float = 1.0


STAGES = (Stage(until=0.45, frames=1), Stage(until=0.8, frames=5), Stage(until=1.0, frames=0, share=0.25))
SHARPENING = (
    Stage(until=0.35, frames=5),
    Stage(until=0.85, frames=9, share=0.5),
    Stage(until=1.0, frames=0, share=0.25),
)
#: maximum additional weight of an error where pixels differ from their neighbours and from the previous frame
EDGES = 10.0
DIVERGENCE = 1e-4
#: number of clips for the statistics of the latents
MEASURED = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=4500, batch=8, rate=2e-3, matrix_rate=0.03)
    parser.add_argument("--measured", type=int, default=MEASURED, help="number of clips for the statistics")
    parser.add_argument("--sharpen", type=int, default=3000, help="steps of the second run")
    args = parser.parse_args()
    train(args.work, settings_from(args), sharpen=args.sharpen, device=args.device, measured=args.measured)


def train(
    folder: Path, settings: Settings, *, sharpen: int, device: str = "cpu", measured: int = MEASURED
) -> None:
    """Run the training, or resume it, and write the input of the next scripts."""
    vae = networks.vae(settings.sizes.vae_architecture, settings.seed).to(device)
    run = Run("vae", folder, {"vae": vae}, settings)
    run.train(lambda step: _loss(vae, settings, step, STAGES, 0.0, device))
    if run.step < settings.steps:
        return  # the time limit was reached
    run.use_averages()
    second = evolve(settings, steps=sharpen, matrix_rate=settings.matrix_rate / 2)
    run = Run("sharp", folder, {"vae": vae}, second)
    run.train(lambda step: _loss(vae, second, step, SHARPENING, EDGES, device))
    run.use_averages()
    with torch.no_grad():
        drawn = islice(scenes(settings.seed, split="train"), measured)
        sizes = settings.sizes
        clips = (render(scene, side=sizes.side, frames=sizes.frames)[None] for scene in drawn)
        means = torch.cat([networks.encode(vae, clip.to(device))[0].cpu() for clip in clips])
        vae = vae.cpu()
        networks.normalize(vae, means.mean((0, 2, 3, 4)), means.std((0, 2, 3, 4)).clamp(min=1e-4))
    write(vae, folder / "Wan2.1_VAE.pth")


def _loss(
    vae: WanVae, settings: Settings, step: int, stages: Sequence[Stage], edges: float, device: str
) -> Tensor:
    video = _batch(settings, step, stages).to(device)
    mean, log_variance = networks.encode(vae, video)
    log_variance = log_variance.clamp(-20, 10)
    noise = torch.randn(mean.shape, generator=generator(settings, step, 1)).to(device)
    seen = networks.decode(vae, mean + (log_variance / 2).exp() * noise)
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    error = (seen - video).abs()
    if edges:
        weight = 1 + edges * detail(video)
        error = error * weight / weight.mean()
    return error.mean() + DIVERGENCE * divergence


def detail(video_BCFHW: Tensor) -> Tensor:
    """Compute where a video has edges or moves, in [0, 1], ``[B, 1, F, H, W]``.

    The value is the largest difference in any colour to a neighbouring pixel or to the previous frame, spread by one
    pixel.
    """
    found = []
    for channel in video_BCFHW.unbind(1):
        high = max_pool2d(channel, 3, 1, 1) + max_pool2d(-channel, 3, 1, 1)
        moved = torch.zeros_like(channel)
        moved[:, 1:] = (channel[:, 1:] - channel[:, :-1]).abs()
        found.append(torch.maximum(high, moved))
    largest = torch.stack(found).amax(0) / 2
    return max_pool2d(largest, 3, 1, 1)[:, None]


def write(vae: WanVae, path: Path) -> None:
    """Write the official file, in float16: half as large, with a rounding error far below the network's error."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().half().contiguous() for name, value in vae.state_dict().items()}, buffer)
    write_bytes(path, buffer.getvalue())


def _batch(settings: Settings, step: int, stages: Sequence[Stage]) -> Tensor:
    """Render clips ``[B, 3, F, H, W]``, some of them framed, so that the VAE learns the look of the LoRA."""
    random, sizes = Random(f"vae {settings.seed} {step}"), settings.sizes
    stage = next((stage for stage in stages if step < stage.until * settings.steps), stages[-1])
    clips = []
    for _ in range(max(round(settings.batch * stage.share), 1)):
        look: Look = "framed" if random.random() < 0.3 else "none"
        clip = render(sample(random, split="train"), side=sizes.side, frames=sizes.frames, look=look)
        if stage.frames:
            row, column = (random.randrange(0, sizes.side - CROP + 1, 4) for _ in range(2))
            frames = min(stage.frames, sizes.frames)
            first = random.randrange(0, sizes.frames - frames + 1)
            clip = clip[:, first : first + frames, row : row + CROP, column : column + CROP]
        clips.append(clip)
    return torch.stack(clips)


if __name__ == "__main__":
    main()
