"""What the pipelines of all Wan2.2 models are put together from: prompts, transformer and VAE, each with its component.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, F frames, X Y frame rows and
columns, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.api import CheckpointError, Emit, LoadedComponent, ModelParts, Progress, Request
from lightx2v_wan21.api import (
    STATISTICS,
    DitArchitecture,
    PromptEncoder,
    TaeArchitecture,
    TinyVae,
    Tokenizer,
    Umt5Architecture,
    Umt5Encoder,
    VaeArchitecture,
    WanDiT,
    WanVae,
    block_names,
    latent_frames,
)
from lightx2v_wan22.options import VaeOptions
from lightx2v_wan22.ti2v.vae import STATISTICS as STATISTICS22
from lightx2v_wan22.ti2v.vae import Wan22Vae

#: mean and deviation of each latent channel
Statistics = tuple[Sequence[float], Sequence[float]]


class Transformer:
    """A loaded transformer; the offloader brings it in around each use."""

    def __init__(self, network: WanDiT, component: LoadedComponent) -> None:
        self.network = network
        self._component = component

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        with self._component.offloader.active(self._component.name):
            flow: Tensor = self.network(*args, **kwargs)
        return flow


class Codec:
    """The loaded VAEs: the full one, a tiny one to decode with, or both. The offloader brings them in around each
    use."""

    def __init__(
        self,
        parts: ModelParts,
        options: VaeOptions,
        *,
        vae: WanVae | Wan22Vae | None,
        tiny: TinyVae | None,
        stride: int,
    ) -> None:
        self._components = parts.components
        self._vae, self._tiny = vae, tiny
        self._tile = options.vae_tile // stride
        self._overlap = options.vae_tile_overlap // stride

    def encode(self, video: Tensor) -> Tensor:
        """Video [3, F, X, Y] in [-1, 1] to latents [C, T, h, w]."""
        assert self._vae is not None
        with self._active("vae"):
            return self._vae.encode(video)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Latents [C, T, h, w] to chunks of frames [3, n, X, Y]: the first alone, then four at a time."""
        if self._tiny is not None:
            with self._active("tiny_vae"):
                yield from self._tiny.decode(latents)
            return
        assert self._vae is not None
        with self._active("vae"):
            if self._tile:
                tile = (self._tile, self._tile)
                yield from self._vae.decode_tiled(latents, tile=tile, overlap=self._overlap)
            else:
                yield from self._vae.decode(latents)

    def _active(self, name: str) -> AbstractContextManager[None]:
        return self._components[name].offloader.active(name)


def load_transformer(parts: ModelParts, name: str) -> Transformer:
    """The transformer that is component ``name``."""
    with torch.device("meta"):
        arch = DitArchitecture(**parts.architecture["dit"])
        network = WanDiT(arch, attention=parts.attention, dtype=parts.dtype)
    parts.components[name].load(network, block_names(network))
    return Transformer(network, parts.components[name])


def load_prompts(parts: ModelParts, length: int) -> PromptEncoder:
    """The prompt encoder, for texts of up to ``length`` tokens."""
    component = parts.components["text_encoder"]
    sizes = parts.architecture["text_encoder"]
    try:
        tokenizer = Tokenizer(component.assets["tokenizer"].parent, sizes["vocab_size"])
    except OSError as exc:
        raise CheckpointError(str(exc)) from None
    with torch.device("meta"):
        encoder = Umt5Encoder(Umt5Architecture(**sizes), dtype=parts.dtype)
    component.load(encoder, block_names(encoder))
    return PromptEncoder(tokenizer, encoder, component, length=length, device=parts.device)


def load_vae21(parts: ModelParts, options: VaeOptions) -> Codec:
    """The Wan2.1 VAE, 8x8 pixels to a latent of 16 channels, and its tiny one, as far as they are components."""
    vae = None
    if "vae" in parts.components:
        with torch.device("meta"):
            dtype = getattr(torch, options.vae_dtype)
            vae = WanVae(VaeArchitecture(**parts.architecture["vae"]), dtype=dtype)
        parts.components["vae"].load(vae, ())
    return Codec(parts, options, vae=vae, tiny=_tiny_vae(parts, options, STATISTICS), stride=8)


def load_vae22(parts: ModelParts, options: VaeOptions) -> Codec:
    """The Wan2.2 VAE, 16x16 pixels to a latent of 48 channels, and its tiny one, if it is a component."""
    with torch.device("meta"):
        dtype = getattr(torch, options.vae_dtype)
        vae = Wan22Vae(VaeArchitecture(**parts.architecture["vae"]), dtype=dtype)
    parts.components["vae"].load(vae, ())
    return Codec(parts, options, vae=vae, tiny=_tiny_vae(parts, options, STATISTICS22), stride=16)


def _tiny_vae(parts: ModelParts, options: VaeOptions, statistics: Statistics) -> TinyVae | None:
    if "tiny_vae" not in parts.components:
        return None
    component, scaled = parts.components["tiny_vae"], options.tiny_vae_scaled
    if scaled is None:
        source = component.source
        scaled = "light" in source.info(source.names()[0]).file.name.lower()
    with torch.device("meta"):
        arch = TaeArchitecture(**parts.architecture["tiny_vae"])
        tiny = TinyVae(arch, dtype=parts.dtype, statistics=statistics if scaled else None)
    component.load(tiny, ())
    return tiny


def encoded_prompts(prompts: PromptEncoder, request: Request, *, guided: bool, emit: Emit) -> list[Tensor]:
    """Text embeddings [S, D] of the prompt and, for guidance, of the negative prompt."""
    texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
    contexts = []
    for text in texts:
        contexts.append(prompts(text))
        emit(Progress(phase="encode", done=len(contexts), total=len(texts)))
    return contexts


def stacked(conditions: Sequence[Tensor]) -> Tensor:
    """Conditions as one batch [B, ...]; a single one is not copied."""
    return torch.stack(list(conditions)) if len(conditions) > 1 else conditions[0][None]


def latent_shape(request: Request, channels: int, stride: int) -> tuple[int, int, int, int]:
    """[C, T, h, w] of a request."""
    return channels, latent_frames(request.frames), request.height // stride, request.width // stride
