"""What other plugins may build on: the Wan networks, their sizes, and the prompt encoder."""

from __future__ import annotations

from lightx2v_wan21.architecture import (
    DitArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    dit_from,
    dit_tensors,
    umt5_from,
    umt5_tensors,
    vae_from,
    vae_tensors,
)
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.pipeline import PromptEncoder, TextToVideo, block_names
from lightx2v_wan21.prompts import NEGATIVE
from lightx2v_wan21.tokenizer import Tokenizer
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import WanVae

__all__ = [
    "NEGATIVE",
    "DitArchitecture",
    "PromptEncoder",
    "TextToVideo",
    "Tokenizer",
    "Umt5Architecture",
    "Umt5Encoder",
    "VaeArchitecture",
    "Wan21Options",
    "WanDiT",
    "WanVae",
    "block_names",
    "dit_from",
    "dit_tensors",
    "umt5_from",
    "umt5_tensors",
    "vae_from",
    "vae_tensors",
]
