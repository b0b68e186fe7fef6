"""Train the VAE's decoder further, on latents that its encoder computed once.

    nice python tools/mini/train_decoder.py --work mini-train [--minutes 30] [--steps 3000]

Needs ``train_vae.py`` and ``latents.py`` (both looks, if available). The encoder is not changed, so encoded latents and
networks trained on them stay valid, and this can run at any time. A little noise is added to the latents: generated
ones are not exact either. Rewrites ``Wan2.1_VAE.pth``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import latents
import networks
from lightx2v_wan21.api import STATISTICS
from loop import Run, Settings, arguments, generator, settings_from
from train_vae import write
from world import Look, Scene, render

#: deviation of the noise; that of the latents is about one
NOISE = 0.1
#: share of batches with the look of the LoRA
FRAMED = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=3000, batch=2, rate=1e-3, matrix_rate=0.01)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the training, or resume it, and write the VAE."""
    vae = latents.load_vae(folder, settings).to(device)
    for name, parameter in vae.named_parameters():
        parameter.requires_grad_(name.startswith(("decoder.", "conv2.")))
    looks: tuple[Look, ...] = ("none", "framed")
    known = {
        look: latents.read(folder, settings, look) for look in looks if (folder / "latents" / look).is_dir()
    }
    if not known:
        raise FileNotFoundError(f"no latents in {folder / 'latents'}: run latents.py first")
    mean, deviation = (torch.tensor(values).view(-1, 1, 1, 1).to(device) for values in STATISTICS)

    def loss_of(step: int) -> Tensor:
        random = Random(f"decoder {settings.seed} {step}")
        look: Look = "framed" if "framed" in known and random.random() < FRAMED else "none"
        picked = [random.randrange(len(known[look].scenes)) for _ in range(settings.batch)]
        clips = torch.stack([_clip(known[look].scenes[index], settings, look) for index in picked]).to(device)
        exact = known[look].clips[picked].float()
        noisy = exact + NOISE * torch.randn(exact.shape, generator=generator(settings, step, 4))
        seen = networks.decode(vae, noisy.to(device) * deviation + mean)
        return (seen - clips).abs().mean()

    run = Run("decoder", folder, {"vae": vae}, settings)
    run.train(loss_of)
    run.use_averages()
    write(vae.cpu(), folder / "Wan2.1_VAE.pth")


def _clip(scene: Scene, settings: Settings, look: Look) -> Tensor:
    return render(scene, side=settings.sizes.side, frames=settings.sizes.frames, look=look)


if __name__ == "__main__":
    main()
