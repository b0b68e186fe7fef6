"""Sizes of the Wan2.1 networks, and the tensors of an official checkpoint of a given size.

Nothing here imports torch, so a plan can be checked against a file header before any network is built. Shapes are
tuples in checkpoint order: linear weights are ``(out, in)``, convolutions ``(out, in, *kernel)``.
"""

from __future__ import annotations

from lightx2v_wan21.dit_architecture import DitArchitecture, dit_from, dit_tensors
from lightx2v_wan21.encoder_architecture import (
    ClipArchitecture,
    Umt5Architecture,
    clip_from,
    clip_tensors,
    umt5_from,
    umt5_tensors,
)
from lightx2v_wan21.shapes import Shapes
from lightx2v_wan21.tae_architecture import TaeArchitecture, tae_from, tae_tensors
from lightx2v_wan21.vae_architecture import (
    VaeArchitecture,
    VaeLayer,
    decoder_layers,
    encoder_layers,
    vae_from,
    vae_tensors,
)

__all__ = [
    "ClipArchitecture",
    "DitArchitecture",
    "Shapes",
    "TaeArchitecture",
    "Umt5Architecture",
    "VaeArchitecture",
    "VaeLayer",
    "clip_from",
    "clip_tensors",
    "decoder_layers",
    "dit_from",
    "dit_tensors",
    "encoder_layers",
    "tae_from",
    "tae_tensors",
    "umt5_from",
    "umt5_tensors",
    "vae_from",
    "vae_tensors",
]
