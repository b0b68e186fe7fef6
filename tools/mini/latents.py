"""Encode the training clips once: latents for the training of every transformer.

    nice python tools/mini/latents.py --work mini-train [--clips 8000] [--look framed | --first-frames]

Clip n of a seed is scene n of ``world.scenes``. With ``--first-frames`` the encoded clips have only the first frame,
followed by grey: the condition of image-to-video. An interrupted run resumes, in pieces of 250 clips.
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

from lightx2v_core.runtime.video import write_bytes
from lightx2v_wan21.api import WanVae, known_frames
from loop import Settings, arguments, settings_from
from networks import vae as new_vae
from world import Look, Scene, render, scenes

PIECE = 250
#: batch size of the encoder
BATCH = 10
#: folder of the conditions of image-to-video; the other folders are named after looks
FIRST_FRAMES = "first-frames"


@frozen(kw_only=True)
class Latents:
    """The training clips."""

    scenes: list[Scene]
    #: float16 ``[N, 16, T, h, w]``
    clips: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=1, batch=1, rate=1e-3)
    parser.add_argument("--clips", type=int, default=8000)
    parser.add_argument("--look", choices=("none", "framed"), default="none")
    parser.add_argument("--first-frames", action="store_true", help="encode the conditions of image-to-video")
    args = parser.parse_args()
    kind = FIRST_FRAMES if args.first_frames else args.look
    encode(args.work, settings_from(args), args.clips, kind, device=args.device)


def encode(folder: Path, settings: Settings, count: int, kind: str = "none", *, device: str = "cpu") -> None:
    """Write the missing pieces. ``kind`` is a look, or ``FIRST_FRAMES``."""
    vae = load_vae(folder, settings).to(device)
    target = folder / "latents" / kind
    for index, start in enumerate(range(0, count, PIECE)):
        path = target / f"{index:04d}.safetensors"
        number = min(PIECE, count - start)
        if path.exists():
            continue
        drawn = list(islice(scenes(settings.seed, split="train"), start, start + number))
        batches = [drawn[first : first + BATCH] for first in range(0, number, BATCH)]
        encoded = torch.cat([_encoded(vae, batch, settings, kind, device) for batch in batches])
        write_bytes(path, save({"latents": encoded.half()}, {"settings": json.dumps(_key(settings, number))}))
        print(f"{path.name}: {start + number} of {count} clips", flush=True)


def read(folder: Path, settings: Settings, look: Look = "none") -> Latents:
    """Read all pieces. ``FileNotFoundError`` if there are none, ``ValueError`` if they are of another size."""
    clips = _pieces(folder, look)
    if tuple(clips.shape[1:]) != settings.sizes.latent:
        raise ValueError(f"latents are {tuple(clips.shape[1:])}, but the sizes need {settings.sizes.latent}")
    return Latents(scenes=list(islice(scenes(settings.seed, split="train"), len(clips))), clips=clips)


def first_frames(folder: Path) -> Tensor:
    """Read the channels of a known first frame of the first clips, float16 ``[N, 20, T, h, w]``.

    ``FileNotFoundError`` if there are none.
    """
    return _pieces(folder, FIRST_FRAMES)


def _pieces(folder: Path, kind: str) -> Tensor:
    paths = sorted((folder / "latents" / kind).glob("*.safetensors"))
    if not paths:
        option = "--first-frames" if kind == FIRST_FRAMES else f"--look {kind}"
        raise FileNotFoundError(f"no latents in {folder / 'latents' / kind}: run latents.py {option} first")
    return torch.cat([load_file(path)["latents"] for path in paths])


def load_vae(folder: Path, settings: Settings) -> WanVae:
    """Load the trained VAE. ``FileNotFoundError`` if there is none."""
    path = folder / "Wan2.1_VAE.pth"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run train_vae.py first, with the same --work")
    vae = new_vae(settings.sizes.vae_architecture, 0)
    vae.load_state_dict(torch.load(path, weights_only=True))
    return vae


def _encoded(vae: WanVae, batch: list[Scene], settings: Settings, kind: str, device: str) -> Tensor:
    side, frames = settings.sizes.side, settings.sizes.frames
    if kind == FIRST_FRAMES:
        stills = [render(scene, side=side, frames=1)[:, 0].to(device) for scene in batch]
        known = [known_frames(still, None, frames, side, side, vae.encode) for still in stills]
        return torch.stack(known).cpu()
    look: Look = "framed" if kind == "framed" else "none"
    clips = torch.stack([render(scene, side=side, frames=frames, look=look) for scene in batch])
    return vae.encode(clips.to(device)).cpu()


def _key(settings: Settings, number: int) -> dict[str, int]:
    return {
        "seed": settings.seed,
        "side": settings.sizes.side,
        "frames": settings.sizes.frames,
        "clips": number,
    }


if __name__ == "__main__":
    main()
