"""The Wan pipelines: prompt (and images or videos) -> embeddings -> flow velocity -> frames.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, S text tokens, D text width,
F frames, H W frame rows and columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, LoadedComponent, ModelParts, Progress, Request, Segment, Step
from lightx2v_wan21.conditioners import Conditioner, FirstAndLast, Vace
from lightx2v_wan21.conditions import Extras
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.networks import (
    Codec,
    PromptEncoder,
    Transformer,
    load_codec,
    load_image_encoder,
    load_prompt_encoder,
    load_transformer,
)
from lightx2v_wan21.options import VaeOptions, Wan21Options
from lightx2v_wan21.rope import Rope
from lightx2v_wan21.sizes import SPATIAL_STRIDE, latent_frames
from lightx2v_wan21.tae import TinyVae
from lightx2v_wan21.vae import WanVae


def build(options: Wan21Options, parts: ModelParts) -> ConditionedVideo:
    """Build the networks on the meta device and load their weights."""
    task = parts.architecture["task"]
    prompts = load_prompt_encoder(parts, parts.architecture["dit"]["text_len"])
    transformer, codec = load_transformer(parts), load_codec(parts, options)
    conditioner: Conditioner | None = None
    if task == "vace":
        conditioner = Vace(codec.encode, scale=options.vace_scale, device=parts.device)
    elif task != "t2v":
        conditioner = FirstAndLast(codec.encode, load_image_encoder(parts), device=parts.device)
    return ConditionedVideo(prompts, [transformer], codec, conditioner, device=parts.device)


class WanPipeline(ABC):
    """Base class of all Wan pipelines (``VideoModel``): encoded prompts, one network in use, frames from the VAE."""

    def __init__(
        self, prompts: PromptEncoder, transformers: Sequence[Transformer], codec: Codec, *, device: str
    ) -> None:
        """Store the parts; ``transformers`` are indexed by ``expert``."""
        self._prompts = prompts
        self._transformers = transformers
        self._codec = codec
        self._device = device

    @abstractmethod
    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode the inputs and the prompts."""

    def encode_prompts(self, request: Request, *, guided: bool, emit: Emit) -> list[Tensor]:
        """Encode the prompt and, for guidance, the negative prompt: text embeddings [S, D]."""
        texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        contexts = []
        for text in texts:
            contexts.append(self._prompts(text))
            emit(Progress(phase="encode", done=len(contexts), total=len(texts)))
        return contexts

    def latent_shape(self, request: Request, frames: int, lead: int = 0) -> tuple[int, int, int, int]:
        """Return the shape [C, T, h, w] of ``frames`` frames, with ``lead`` additional latent frames in front."""
        channels, stride = self._transformers[0].network.arch.out_dim, self._codec.stride
        return channels, lead + latent_frames(frames), request.height // stride, request.width // stride

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the latents unchanged: conditions have channels of their own."""
        return latents

    def expert(self, step: Step) -> int:
        """Select the transformer of a step; here always the first."""
        return 0

    @abstractmethod
    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Any], shared: Any
    ) -> Sequence[Tensor]:
        """Predict the flow velocities [C, T, h, w] of the latents under each condition, in one batch."""

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Decode to chunks of frames [3, n, H, W]: the first alone, then four at a time."""
        return self._codec.decode(latents)


@frozen(kw_only=True)
class Shared:
    """Constants of a request that every step uses."""

    rope: Rope
    extras: Extras = field(factory=Extras)


class ConditionedVideo(WanPipeline):
    """Text to video, with further conditions from an optional conditioner."""

    def __init__(
        self,
        prompts: PromptEncoder,
        transformers: Sequence[Transformer],
        codec: Codec,
        conditioner: Conditioner | None = None,
        *,
        device: str,
    ) -> None:
        super().__init__(prompts, transformers, codec, device=device)
        self._conditioner = conditioner

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode the inputs, then the prompts."""
        extras = Extras() if self._conditioner is None else self._conditioner(request, inputs)
        return self.encode_with(extras, request, guided=guided, emit=emit)

    def encode_with(self, extras: Extras, request: Request, *, guided: bool, emit: Emit) -> Conditions:
        """Encode the prompts and combine them with ``extras``, the other conditions."""
        contexts = self.encode_prompts(request, guided=guided, emit=emit)
        shape = self.latent_shape(request, request.frames, extras.references)
        rope = self._transformers[0].network.rope(shape, self._device)
        return Conditions(
            latent_shape=shape,
            positive=contexts[0],
            negative=contexts[1] if guided else None,
            shared=Shared(rope=rope, extras=extras),
            lead=extras.references,
        )

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Shared
    ) -> Sequence[Tensor]:
        """Predict the flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        count, extras = len(conditions), shared.extras
        timesteps = self.timesteps(latents, step, count, extras)
        if extras.channels is not None:
            latents = torch.cat((latents, extras.channels))
        flow = self._transformers[self.expert(step)](
            latents.expand(count, *latents.shape),
            timesteps,
            stacked(conditions),
            shared.rope,
            image_MSD=None if extras.image is None else extras.image.repeat(count, 1, 1),
            vace_BCTHW=None if extras.vace is None else extras.vace.expand(count, *extras.vace.shape),
            vace_scale=extras.vace_scale,
        )
        return flow.unbind()

    def timesteps(self, latents: Tensor, step: Step, count: int, extras: Extras) -> Tensor:
        """Return the timesteps of ``count`` passes: one for each, [B]."""
        return torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)


class TextToVideo(ConditionedVideo):
    """Text to video with one network, assembled from its parts; for plugins."""

    def __init__(
        self,
        prompts: PromptEncoder,
        network: WanDiT,
        dit: LoadedComponent,
        autoencoder: WanVae | TinyVae,
        vae: LoadedComponent,
        options: VaeOptions,
        *,
        device: str,
    ) -> None:
        """Assemble the pipeline; ``autoencoder`` is the network of the component ``vae``."""
        full, tiny = (None, autoencoder) if isinstance(autoencoder, TinyVae) else (autoencoder, None)
        components = {"vae": vae, "tiny_vae": vae}
        codec = Codec(components, options, vae=full, tiny=tiny, stride=SPATIAL_STRIDE)
        super().__init__(prompts, [Transformer(network, dit)], codec, device=device)


def stacked(conditions: Sequence[Tensor]) -> Tensor:
    """Stack the conditions to one batch [B, ...]; a single one is not copied."""
    return torch.stack(list(conditions)) if len(conditions) > 1 else conditions[0][None]
