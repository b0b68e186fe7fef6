"""The Wan2.1 text-to-video pipeline: prompt -> text embeddings -> flow velocity -> frames.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, S text tokens, D text width,
F frames, X Y frame rows and columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, LoadedComponent, ModelParts, Progress, Request, Step
from lightx2v_wan21.architecture import DitArchitecture, Umt5Architecture, VaeArchitecture
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.rope import Rope
from lightx2v_wan21.tokenizer import Tokenizer
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import SPATIAL_STRIDE, TEMPORAL_STRIDE, WanVae


def build(options: Wan21Options, parts: ModelParts) -> TextToVideo:
    """Build the networks on the meta device and have them filled."""
    text, dit, vae = (parts.components[name] for name in ("text_encoder", "dit", "vae"))
    sizes = parts.architecture
    with torch.device("meta"):
        encoder = Umt5Encoder(Umt5Architecture(**sizes["text_encoder"]), dtype=parts.dtype)
        network = WanDiT(DitArchitecture(**sizes["dit"]), attention=parts.attention, dtype=parts.dtype)
        autoencoder = WanVae(VaeArchitecture(**sizes["vae"]), dtype=getattr(torch, options.vae_dtype))
    tokenizer = Tokenizer(text.assets["tokenizer"].parent)
    text.load(encoder, block_names(encoder))
    dit.load(network, block_names(network))
    vae.load(autoencoder, ())
    prompts = PromptEncoder(tokenizer, encoder, text, length=network.arch.text_len, device=parts.device)
    return TextToVideo(prompts, network, dit, autoencoder, vae, options, device=parts.device)


def block_names(network: Umt5Encoder | WanDiT) -> list[str]:
    """Prefixes of the uniform blocks, in running order."""
    return [f"blocks.{i}" for i in range(len(network.blocks))]


class PromptEncoder:
    """Text embeddings of prompts. A prompt that was encoded before is not encoded again."""

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
        """The embeddings [S, D], zero beyond the end of the text: the network attends to the padding."""
        if prompt not in self._known:
            ids, mask = self._tokenizer.encode([prompt], self._length)
            with self._component.offloader.active(self._component.name):
                self._known[prompt] = self._encoder(ids.to(self._device), mask.to(self._device))[0]
            if len(self._known) > self.remembered:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


class TextToVideo:
    """A loaded Wan2.1 text-to-video model (``VideoModel``)."""

    def __init__(
        self,
        prompts: PromptEncoder,
        network: WanDiT,
        dit: LoadedComponent,
        autoencoder: WanVae,
        vae: LoadedComponent,
        options: Wan21Options,
        *,
        device: str,
    ) -> None:
        self._prompts = prompts
        self._network = network
        self._dit = dit
        self._autoencoder = autoencoder
        self._vae = vae
        self._options = options
        self._device = device

    def encode(self, request: Request, inputs: Mapping[str, Any], *, guided: bool, emit: Emit) -> Conditions:
        """Encode the prompt and, for guidance, the negative prompt."""
        texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        contexts = []
        for text in texts:
            contexts.append(self._prompts(text))
            emit(Progress(phase="encode", done=len(contexts), total=len(texts)))
        shape = (
            self._network.arch.in_dim,
            (request.frames - 1) // TEMPORAL_STRIDE + 1,
            request.height // SPATIAL_STRIDE,
            request.width // SPATIAL_STRIDE,
        )
        return Conditions(
            latent_shape=shape,
            positive=contexts[0],
            negative=contexts[1] if guided else None,
            shared=self._network.rope(shape, self._device),
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Text alone fixes no part of the latents."""
        return latents

    def expert(self, step: Step) -> int:
        """There is one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Rope
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        count = len(conditions)
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        batch = latents.expand(count, *latents.shape)
        context = torch.stack(list(conditions)) if count > 1 else conditions[0][None]
        with self._dit.offloader.active(self._dit.name):
            flow: Tensor = self._network(batch, timesteps, context, shared)
        return flow.unbind()

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]: the first alone, then four at a time."""
        with self._vae.offloader.active(self._vae.name):
            yield from self._chunks(latents)

    def _chunks(self, latents: Tensor) -> Iterator[Tensor]:
        tile = self._options.vae_tile // SPATIAL_STRIDE
        if not tile:
            return self._autoencoder.decode(latents)
        overlap = self._options.vae_tile_overlap // SPATIAL_STRIDE
        return self._autoencoder.decode_tiled(latents, tile=(tile, tile), overlap=overlap)
