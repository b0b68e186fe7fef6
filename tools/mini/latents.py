"""Latents of the training clips, encoded once: what every transformer is trained on.

    nice python tools/mini/latents.py --work mini-train [--clips 20000] [--look framed]

Clip n of a seed is scene n of ``world.scenes``. Beside the latents of each clip are those of its first frame with grey
after it, which is what image-to-video is told. Goes on where it was interrupted, in pieces of 250 clips.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import load_file, save
from torch import Tensor

from lightx2v_core.video import write_bytes
from lightx2v_wan21.api import WanVae, known_frames
from loop import Settings, arguments, settings_from
from networks import vae as new_vae
from world import Look, Scene, render, scenes

PIECE = 250


@frozen(kw_only=True)
class Latents:
    """What the clips are."""

    scenes: list[Scene]
    #: float16 ``[N, 16, T, h, w]``
    clips: Tensor
    #: the channels of a known first frame, ``[N, 20, T, h, w]``
    first_frames: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=1, batch=1, rate=1e-3)
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument("--look", choices=("none", "framed"), default="none")
    args = parser.parse_args()
    encode(args.work, settings_from(args), args.clips, args.look, device=args.device)


def encode(folder: Path, settings: Settings, count: int, look: Look = "none", *, device: str = "cpu") -> None:
    """Write the pieces that are missing."""
    vae = load_vae(folder, settings).to(device)
    target = folder / "latents" / look
    for index, start in enumerate(range(0, count, PIECE)):
        path = target / f"{index:04d}.safetensors"
        number = min(PIECE, count - start)
        if path.exists():
            continue
        drawn = islice(scenes(settings.seed, split="train"), start, start + number)
        clips, firsts = zip(*(_encoded(vae, scene, settings, look, device) for scene in drawn), strict=True)
        tensors = {"clips": torch.stack(clips).half(), "first_frames": torch.stack(firsts).half()}
        write_bytes(path, save(tensors, {"settings": json.dumps(_key(settings, number))}))
        print(f"{path.name}: {start + number} of {count} clips", flush=True)


def read(folder: Path, settings: Settings, look: Look = "none") -> Latents:
    """All pieces. ``FileNotFoundError`` when there are none, ``ValueError`` when they are of another size."""
    paths = sorted((folder / "latents" / look).glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(
            f"no latents in {folder / 'latents' / look}: run latents.py --look {look} first"
        )
    pieces = [load_file(path) for path in paths]
    clips = torch.cat([piece["clips"] for piece in pieces])
    if tuple(clips.shape[1:]) != settings.sizes.latent:
        raise ValueError(f"latents of {tuple(clips.shape[1:])}, and these sizes have {settings.sizes.latent}")
    return Latents(
        scenes=list(islice(scenes(settings.seed, split="train"), len(clips))),
        clips=clips,
        first_frames=torch.cat([piece["first_frames"] for piece in pieces]),
    )


def load_vae(folder: Path, settings: Settings) -> WanVae:
    """The trained VAE. ``FileNotFoundError`` when there is none."""
    path = folder / "Wan2.1_VAE.pth"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run train_vae.py first, with the same --work")
    vae = new_vae(settings.sizes.vae_architecture, 0)
    vae.load_state_dict(torch.load(path, weights_only=True))
    return vae


def _encoded(vae: WanVae, scene: Scene, settings: Settings, look: Look, device: str) -> tuple[Tensor, Tensor]:
    side, frames = settings.sizes.side, settings.sizes.frames
    clip = render(scene, side=side, frames=frames, look=look).to(device)
    return vae.encode(clip).cpu(), known_frames(clip[:, 0], None, frames, side, side, vae.encode).cpu()


def _key(settings: Settings, number: int) -> dict[str, int]:
    return {
        "seed": settings.seed,
        "side": settings.sizes.side,
        "frames": settings.sizes.frames,
        "clips": number,
    }


if __name__ == "__main__":
    main()
