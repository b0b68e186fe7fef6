"""Train the pair of experts of Wan2.2, each from the text-to-video network, on its own noise levels.

    nice python tools/mini/train_experts.py --work mini-train [--minutes 30] [--steps 5000]

Needs ``train_t2v.py``. The first expert is for noise levels at and above the boundary of Wan2.2 text-to-video, the
other for those below. Each gets half of ``--minutes``. Writes ``checkpoints/experts`` in the official layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attrs import evolve
from torch import Tensor

import latents
import networks
import train_text
from flow import Batch, Sampler, flow_loss
from layouts import EXPERTS, VAE_FILE, write_encoders, write_network
from loop import Run, Settings, arguments, averages, part, settings_from
from sizes import BOUNDARY

#: name -> part of the noise levels
SPANS = {"high_noise": (BOUNDARY, 1.0), "low_noise": (0.0, BOUNDARY)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=5000, batch=32, rate=3e-4)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the two trainings, or resume them, and write the checkpoint."""
    base = averages(folder, "t2v")
    for name, span in SPANS.items():
        _train_one(name, span, folder, evolve(settings, minutes=settings.minutes / 2), base, device)
    target = folder / "checkpoints" / EXPERTS
    write_encoders(target, folder / VAE_FILE, train_text.trained(folder, settings).state_dict())
    for name in SPANS:
        tensors = part(averages(folder, name), "dit")
        write_network(target / f"{name}_model", settings.sizes.dit, tensors, task="t2v")


def _train_one(
    name: str,
    span: tuple[float, float],
    folder: Path,
    settings: Settings,
    base: dict[str, Tensor],
    device: str,
) -> None:
    sizes = settings.sizes
    sampler = Sampler(latents.read(folder, settings), settings, span=span, device=device)
    dit = networks.dit(sizes.dit, settings.seed)
    dit.load_state_dict(part(base, "dit"))
    dit = dit.to(device)
    text = train_text.trained(folder, settings).to(device)
    rope = dit.rope(sizes.latent, device)

    def velocity(noisy: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
        flow: Tensor = dit(noisy, timesteps, text(batch.ids, batch.mask), rope)
        return flow

    run = Run(name, folder, {"dit": dit}, settings, span=list(span))
    run.train(lambda step: flow_loss(velocity, sampler(step)))


if __name__ == "__main__":
    main()
