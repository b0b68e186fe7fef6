"""Distil the text-to-video network to four steps without guidance.

    nice python tools/mini/train_distill.py --work mini-train [--minutes 60] [--steps 8000]

Needs ``train_t2v.py``. The distilled scheduler has four noise levels. From a clip noised to one of them, the teacher
steps to the next with guidance, in several small Euler steps; the student learns the one velocity that leads there.
Writes ``checkpoints/t2v-4step``: a single file with a name that marks it as distilled, ``config.json`` and the
encoders.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import latents
import networks
import train_text
from flow import Batch, Sampler, tokenizer
from layouts import DISTILLED, DISTILLED_FILE, VAE_FILE, write_encoders, write_network
from loop import Run, Settings, arguments, averages, generator, part, settings_from
from sizes import DISTILLED_SHIFT, DISTILLED_STEPS, TEXT_LENGTH

#: Euler steps of the teacher between two levels
SUBSTEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=8000, batch=16, rate=3e-4)
    parser.add_argument("--guide-scale", type=float, default=3.0)
    args = parser.parse_args()
    train(args.work, settings_from(args), guide_scale=args.guide_scale, device=args.device)


def train(folder: Path, settings: Settings, *, guide_scale: float, device: str = "cpu") -> None:
    """Run the training, or resume it, and write the checkpoint."""
    sizes, base = settings.sizes, averages(folder, "t2v")
    sampler = Sampler(latents.read(folder, settings), settings, device=device)
    teacher, student = (networks.dit(sizes.dit, settings.seed) for _ in range(2))
    for network in (teacher, student):
        network.load_state_dict(part(base, "dit"))
        network.to(device)
    teacher.requires_grad_(False)
    text = train_text.trained(folder, settings).to(device)
    rope = student.rope(sizes.latent, device)
    empty = text(*(part.to(device) for part in tokenizer().encode([""], TEXT_LENGTH)))
    levels = torch.tensor(
        [*(DISTILLED_SHIFT * t / (1000 + (DISTILLED_SHIFT - 1) * t) for t in DISTILLED_STEPS), 0.0]
    )

    @torch.no_grad()
    def guided(noisy: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        both = teacher(
            noisy.repeat(2, 1, 1, 1, 1),
            1000 * sigma.repeat(2),
            torch.cat((context, empty.expand_as(context))),
            rope,
        )
        prompted, unprompted = both.chunk(2)
        velocity: Tensor = unprompted + guide_scale * (prompted - unprompted)
        return velocity

    def loss_of(step: int) -> Tensor:
        batch: Batch = sampler(step)
        context = text(batch.ids, batch.mask)
        count = len(DISTILLED_STEPS)
        place = torch.randint(count, (len(batch.clips),), generator=generator(settings, step, 3))
        start, end = levels[place].to(device), levels[place + 1].to(device)
        noisy = torch.lerp(batch.clean, batch.noise, start.view(-1, 1, 1, 1, 1))
        moved = noisy
        for substep in range(SUBSTEPS):
            sigma, after = (start + (end - start) * (substep + more) / SUBSTEPS for more in (0, 1))
            moved = moved + (after - sigma).view(-1, 1, 1, 1, 1) * guided(moved, sigma, context)
        target = (moved - noisy) / (end - start).view(-1, 1, 1, 1, 1)
        error: Tensor = student(noisy, 1000 * start, context, rope) - target
        return (error**2).mean()

    run = Run("distill", folder, {"dit": student}, settings, guide_scale=guide_scale, levels=levels.tolist())
    run.train(loss_of)
    target = folder / "checkpoints" / DISTILLED
    write_encoders(target, folder / VAE_FILE, text.state_dict())
    tensors = part(averages(folder, "distill"), "dit")
    write_network(target, sizes.dit, tensors, task="t2v", file=DISTILLED_FILE)


if __name__ == "__main__":
    main()
