"""Train the text-to-video network.

    nice python tools/mini/train_t2v.py --work mini-train [--minutes 120] [--steps 16000]

Needs ``train_vae.py``, ``latents.py`` and ``train_text.py``. Writes ``checkpoints/t2v`` in the official layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

import latents
import networks
import train_text
from flow import Batch, Sampler, flow_loss
from layouts import T2V, VAE_FILE, write_encoders, write_network
from loop import Run, Settings, arguments, averages, part, settings_from


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=16000, batch=32, rate=1e-3)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the training, or resume it, and write the checkpoint."""
    sizes = settings.sizes
    sampler = Sampler(latents.read(folder, settings), settings, device=device)
    dit = networks.dit(sizes.dit, settings.seed).to(device)
    text = train_text.trained(folder, settings).to(device)
    rope = dit.rope(sizes.latent, device)

    def velocity(noisy: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
        flow: Tensor = dit(noisy, timesteps, text(batch.ids, batch.mask), rope)
        return flow

    run = Run("t2v", folder, {"dit": dit}, settings)
    run.train(lambda step: flow_loss(velocity, sampler(step)))
    trained = averages(folder, "t2v")
    write_encoders(folder / "checkpoints" / T2V, folder / VAE_FILE, text.state_dict())
    write_network(folder / "checkpoints" / T2V, sizes.dit, part(trained, "dit"), task="t2v")


if __name__ == "__main__":
    main()
