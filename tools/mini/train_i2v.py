"""Train the image-to-video network and its small CLIP, from the text-to-video network.

    nice python tools/mini/train_i2v.py --work mini-train [--minutes 60] [--steps 10000]

Needs ``train_t2v.py`` and ``latents.py --first-frames``. The new input channels and the new branch are initialized to
zero, so that step 0 is text-to-video. The text encoder is not changed. Writes ``checkpoints/i2v`` in the official
layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from attrs import evolve
from torch import Tensor

import latents
import networks
import train_text
from flow import Batch, Sampler, flow_loss
from layouts import I2V, VAE_FILE, write_clip, write_encoders, write_network
from lightx2v_wan21.api import WanDiT
from loop import Run, Settings, arguments, averages, part, settings_from
from world import render


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=10000, batch=32, rate=5e-4)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the training, or resume it, and write the checkpoint."""
    sizes, base = settings.sizes, averages(folder, "t2v")
    known = latents.read(folder, settings)
    firsts = latents.first_frames(folder)
    known = evolve(known, scenes=known.scenes[: len(firsts)], clips=known.clips[: len(firsts)])
    sampler = Sampler(known, settings, device=device)
    dit = networks.dit(sizes.dit_i2v, settings.seed)
    widen(dit, part(base, "dit"))
    dit = dit.to(device)
    text = train_text.trained(folder, settings).to(device)
    clip = networks.clip(sizes.clip, settings.seed).to(device)
    rope = dit.rope(sizes.latent, device)

    def velocity(noisy: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
        images = torch.stack(
            [render(known.scenes[index], side=sizes.side, frames=1)[:, 0] for index in batch.clips]
        )
        first = firsts[batch.clips].float().to(device)
        flow: Tensor = dit(
            torch.cat((noisy, first), 1),
            timesteps,
            text(batch.ids, batch.mask),
            rope,
            image_MSD=networks.features(clip, images.to(device)),
        )
        return flow

    run = Run("i2v", folder, {"dit": dit, "clip": clip}, settings)
    run.train(lambda step: flow_loss(velocity, sampler(step)))
    trained, target = averages(folder, "i2v"), folder / "checkpoints" / I2V
    write_encoders(target, folder / VAE_FILE, text.state_dict())
    unused = networks.clip(evolve(sizes.clip, num_layers=sizes.clip.num_layers + 1), settings.seed)
    write_clip(target, part(trained, "clip"), unused.state_dict())
    write_network(target, sizes.dit_i2v, part(trained, "dit"), task="i2v")


@torch.no_grad()
def widen(dit: WanDiT, base: dict[str, Tensor]) -> None:
    """Initialize an image-to-video network with the tensors of a text-to-video one, so that both compute the same."""
    weight = dit.patch_embedding.weight
    weight.zero_()
    weight[:, : base["patch_embedding.weight"].shape[1]] = base["patch_embedding.weight"]
    rest = {name: tensor for name, tensor in base.items() if name != "patch_embedding.weight"}
    missing, unexpected = dit.load_state_dict(rest, strict=False)
    new = [name for name in missing if "img" not in name and name != "patch_embedding.weight"]
    if unexpected or new:
        raise ValueError(f"the networks have different tensors: {unexpected or new}")


if __name__ == "__main__":
    main()
