"""Loaded networks, the parts of Wan pipelines: prompt encoder, transformer, VAEs, image encoder.

Each is built on the meta device, filled by its component, and moved to the device by the offloader around each use.

Shape legend: C latent channels, T h w latent frames, rows and columns, F frames, H W frame rows and columns, S text
tokens, D text width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from lightx2v_core.api import CheckpointError, LoadedComponent, ModelParts
from lightx2v_wan21.architecture import (
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
)
from lightx2v_wan21.clip import ClipVision
from lightx2v_wan21.conditioners import ImageEncoder, VaeEncoder
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.options import VaeOptions
from lightx2v_wan21.tae import TinyVae
from lightx2v_wan21.tokenizer import Tokenizer
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import SPACE, WanVae
from lightx2v_wan21.video_vae import LatentSpace, VideoVae


class BuildVae(Protocol):
    """The class of a video VAE."""

    def __call__(self, arch: VaeArchitecture, *, dtype: torch.dtype) -> VideoVae: ...


class PromptEncoder:
    """Encoder of prompts to text embeddings. The embeddings of the last prompts are cached."""

    remembered = 16

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: Umt5Encoder,
        component: LoadedComponent,
        *,
        length: int,
        device: str,
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._component = component
        self._length = length
        self._device = device
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompt: str) -> Tensor:
        """Return the embeddings [S, D], zero beyond the end of the text: the network attends to the padding."""
        if prompt not in self._known:
            ids, mask = self._tokenizer.encode([prompt], self._length)
            with self._component.offloader.active(self._component.name):
                self._known[prompt] = self._encoder(ids.to(self._device), mask.to(self._device))[0]
            if len(self._known) > self.remembered:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


class Transformer:
    """A loaded diffusion transformer."""

    def __init__(self, network: WanDiT, component: LoadedComponent) -> None:
        self.network = network
        self._component = component

    def active(self) -> AbstractContextManager[None]:
        """Keep the network on the device, for use of its parts."""
        return self._component.offloader.active(self._component.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call ``forward`` of the network."""
        with self.active():
            flow: Tensor = self.network(*args, **kwargs)
        return flow


class Codec:
    """Encoder of videos to latents and decoder of latents: the full VAE, a tiny one for decoding, or both."""

    def __init__(
        self,
        components: Mapping[str, LoadedComponent],
        options: VaeOptions,
        *,
        vae: VideoVae | None,
        tiny: TinyVae | None,
        stride: int,
    ) -> None:
        """Store the networks; ``stride`` is the pixels per latent pixel, in rows and columns."""
        self.stride = stride
        self._components = components
        self._vae, self._tiny = vae, tiny
        self._tile = options.vae_tile // stride
        self._overlap = options.vae_tile_overlap // stride

    def encode(self, video: Tensor) -> Tensor:
        """Encode a video [3, F, H, W] in [-1, 1] to latents [C, T, h, w]."""
        assert self._vae is not None
        return VaeEncoder(self._vae, self._components["vae"])(video)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode latents [C, T, h, w] to chunks of frames [3, n, H, W]: the first alone, then four at a time."""
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
        component = self._components[name]
        return component.offloader.active(component.name)


def block_names(network: Umt5Encoder | WanDiT) -> tuple[str, ...]:
    """Return the prefixes of the blocks, in execution order."""
    return network.arch.blocks


def load_prompt_encoder(parts: ModelParts, length: int) -> PromptEncoder:
    """Load the umT5 encoder for up to ``length`` tokens. ``CheckpointError`` if its tokenizer cannot be read."""
    component, sizes = parts.components["text_encoder"], parts.architecture["text_encoder"]
    try:
        tokenizer = Tokenizer(component.assets["tokenizer"].parent, sizes["vocab_size"])
    except OSError as exc:
        raise CheckpointError(str(exc)) from None
    with torch.device("meta"):
        encoder = Umt5Encoder(Umt5Architecture(**sizes), dtype=parts.dtype)
    component.load(encoder, block_names(encoder))
    return PromptEncoder(tokenizer, encoder, component, length=length, device=parts.device)


def load_transformer(parts: ModelParts, name: str = "dit") -> Transformer:
    """Load the transformer of component ``name``; its sizes are those of ``dit``."""
    with torch.device("meta"):
        arch = DitArchitecture(**parts.architecture["dit"])
        network = WanDiT(arch, attention=parts.attention, dtype=parts.dtype)
    parts.components[name].load(network, block_names(network))
    return Transformer(network, parts.components[name])


def load_codec(
    parts: ModelParts, options: VaeOptions, vae: BuildVae = WanVae, space: LatentSpace = SPACE
) -> Codec:
    """Load the available VAEs. ``vae`` is the class of the full one, ``space`` the latents of both."""
    full, tiny = None, None
    if "vae" in parts.components:
        with torch.device("meta"):
            sizes, dtype = parts.architecture["vae"], getattr(torch, options.vae_dtype)
            full = vae(VaeArchitecture(**sizes), dtype=dtype)
        parts.components["vae"].load(full, ())
    if "tiny_vae" in parts.components:
        tiny = _load_tiny_vae(parts, options, space)
    return Codec(parts.components, options, vae=full, tiny=tiny, stride=space.stride)


def _load_tiny_vae(parts: ModelParts, options: VaeOptions, space: LatentSpace) -> TinyVae:
    component, scaled = parts.components["tiny_vae"], options.tiny_vae_scaled
    if scaled is None:
        source = component.source
        scaled = "light" in source.info(source.names()[0]).file.name.lower()
    with torch.device("meta"):
        arch = TaeArchitecture(**parts.architecture["tiny_vae"])
        statistics = (space.mean, space.deviation) if scaled else None
        tiny = TinyVae(arch, dtype=parts.dtype, statistics=statistics)
    component.load(tiny, ())
    return tiny


def load_image_encoder(parts: ModelParts) -> ImageEncoder:
    """Load the visual tower of CLIP."""
    component = parts.components["image_encoder"]
    with torch.device("meta"):
        network = ClipVision(ClipArchitecture(**parts.architecture["image_encoder"]), dtype=parts.dtype)
    component.load(network, network.arch.blocks)
    return ImageEncoder(network, component)
