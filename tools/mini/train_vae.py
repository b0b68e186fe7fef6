"""Train the VAE on stills, moving crops and whole clips, then give its latents the official statistics.

    nice python tools/mini/train_vae.py --work mini-train [--minutes 60] [--steps 4500]

The loss is the mean absolute error, and a little of the divergence from normal latents, so that neighbouring latents
mean neighbouring videos. Crops of single frames come first, which cost a quarter of a crop of five frames and teach
all that is not about motion; then crops of five frames, then whole clips. What comes out is ``vae.state.safetensors``
and, for the next scripts, ``Wan2.1_VAE.pth`` in the official layout, its numbers stored in 16 bits.
"""

from __future__ import annotations

import argparse
import io
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import networks
from lightx2v_core.video import write_bytes
from lightx2v_wan21.api import WanVae
from loop import Run, Settings, arguments, generator, settings_from
from world import Look, render, sample, scenes

#: side of a crop in pixels
CROP = 32
#: until which share of the steps crops have how many frames
STAGES = ((0.45, 1), (0.8, 5))
#: after them, how many whole clips cost about as much as a batch of crops
WHOLE = 0.25
DIVERGENCE = 1e-4
#: clips that the statistics of the latents are taken from
MEASURED = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=4500, batch=8, rate=2e-3, matrix_rate=0.03)
    parser.add_argument(
        "--measured", type=int, default=MEASURED, help="clips that the statistics are taken from"
    )
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device, measured=args.measured)


def train(folder: Path, settings: Settings, *, device: str = "cpu", measured: int = MEASURED) -> None:
    """Train, or go on, and write what the next scripts take."""
    vae = networks.vae(settings.sizes.vae_architecture, settings.seed).to(device)
    run = Run("vae", folder, {"vae": vae}, settings)

    def loss_of(step: int) -> Tensor:
        video = _batch(settings, step).to(device)
        mean, log_variance = networks.encode(vae, video)
        log_variance = log_variance.clamp(-20, 10)
        noise = torch.randn(mean.shape, generator=generator(settings, step, 1)).to(device)
        seen = networks.decode(vae, mean + (log_variance / 2).exp() * noise)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
        return (seen - video).abs().mean() + DIVERGENCE * divergence

    run.train(loss_of)
    run.use_averages()
    with torch.no_grad():
        clips = islice(scenes(settings.seed, split="train"), measured)
        sizes = settings.sizes
        means = torch.cat(
            [
                networks.encode(vae, render(scene, side=sizes.side, frames=sizes.frames)[None].to(device))[
                    0
                ].cpu()
                for scene in clips
            ]
        )
        vae = vae.cpu()
        networks.normalise(vae, means.mean((0, 2, 3, 4)), means.std((0, 2, 3, 4)).clamp(min=1e-4))
    write(vae, folder / "Wan2.1_VAE.pth")


def write(vae: WanVae, path: Path) -> None:
    """The official file, in float16: half as large, and the error of rounding is far below that of the network."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().half().contiguous() for name, value in vae.state_dict().items()}, buffer)
    write_bytes(path, buffer.getvalue())


def _batch(settings: Settings, step: int) -> Tensor:
    """Clips ``[B, 3, F, H, W]``, some of them framed, so that the look of the LoRA is one that the VAE knows."""
    random, sizes = Random(f"vae {settings.seed} {step}"), settings.sizes
    frames = next((count for until, count in STAGES if step < until * settings.steps), None)
    clips = []
    for _ in range(settings.batch if frames else max(round(settings.batch * WHOLE), 1)):
        look: Look = "framed" if random.random() < 0.3 else "none"
        clip = render(sample(random, split="train"), side=sizes.side, frames=sizes.frames, look=look)
        if frames:
            row, column = (random.randrange(0, sizes.side - CROP + 1, 4) for _ in range(2))
            first = random.randrange(0, sizes.frames - frames + 1)
            clip = clip[:, first : first + frames, row : row + CROP, column : column + CROP]
        clips.append(clip)
    return torch.stack(clips)


if __name__ == "__main__":
    main()
