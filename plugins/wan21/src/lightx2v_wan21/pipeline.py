"""The Wan2.1 pipelines: prompt (and images or videos) -> embeddings -> flow velocity -> frames.

Shape legend: B conditions, C latent channels, T h w latent frames, rows and columns, S text tokens, D text width,
F frames, X Y frame rows and columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from lightx2v_core.api import (
    CheckpointError,
    Conditions,
    Emit,
    LoadedComponent,
    ModelParts,
    Progress,
    Request,
    Segment,
    Step,
)
from lightx2v_wan21.architecture import (
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
)
from lightx2v_wan21.clip import ClipVision
from lightx2v_wan21.conditioners import Conditioner, FirstAndLast, ImageEncoder, Vace, VaeEncoder
from lightx2v_wan21.conditions import Extras
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.rope import Rope
from lightx2v_wan21.sizes import SPATIAL_STRIDE, latent_frames
from lightx2v_wan21.tae import TinyVae
from lightx2v_wan21.tokenizer import Tokenizer
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import STATISTICS, WanVae


def build(options: Wan21Options, parts: ModelParts) -> TextToVideo | ConditionedVideo:
    """Build the networks on the meta device and have them filled."""
    sizes, components = parts.architecture, parts.components
    text, dit = components["text_encoder"], components["dit"]
    try:
        tokenizer = Tokenizer(text.assets["tokenizer"].parent, sizes["text_encoder"]["vocab_size"])
    except OSError as exc:
        raise CheckpointError(str(exc)) from None
    with torch.device("meta"):
        encoder = Umt5Encoder(Umt5Architecture(**sizes["text_encoder"]), dtype=parts.dtype)
        network = WanDiT(DitArchitecture(**sizes["dit"]), attention=parts.attention, dtype=parts.dtype)
    text.load(encoder, block_names(encoder))
    dit.load(network, block_names(network))
    vae = _vae(options, parts) if "vae" in components else None
    tiny = _tiny_vae(options, parts) if "tiny_vae" in components else None
    decoder, by = (tiny, components["tiny_vae"]) if tiny is not None else (vae, components["vae"])
    assert decoder is not None
    prompts = PromptEncoder(tokenizer, encoder, text, length=network.arch.text_len, device=parts.device)
    video = TextToVideo(prompts, network, dit, decoder, by, options, device=parts.device)
    if sizes["task"] == "t2v":
        return video
    assert vae is not None
    encode = VaeEncoder(vae, components["vae"])
    if sizes["task"] == "vace":
        return ConditionedVideo(video, Vace(encode, scale=options.vace_scale, device=parts.device))
    return ConditionedVideo(video, FirstAndLast(encode, _clip(parts), device=parts.device))


def block_names(network: Umt5Encoder | WanDiT) -> tuple[str, ...]:
    """Prefixes of the blocks, in running order."""
    return network.arch.blocks


def _vae(options: Wan21Options, parts: ModelParts) -> WanVae:
    with torch.device("meta"):
        dtype = getattr(torch, options.vae_dtype)
        vae = WanVae(VaeArchitecture(**parts.architecture["vae"]), dtype=dtype)
    parts.components["vae"].load(vae, ())
    return vae


def _tiny_vae(options: Wan21Options, parts: ModelParts) -> TinyVae:
    component = parts.components["tiny_vae"]
    scaled = options.tiny_vae_scaled
    if scaled is None:
        source = component.source
        scaled = "light" in source.info(source.names()[0]).file.name.lower()
    with torch.device("meta"):
        vae = TinyVae(
            TaeArchitecture(**parts.architecture["tiny_vae"]),
            dtype=parts.dtype,
            statistics=STATISTICS if scaled else None,
        )
    component.load(vae, ())
    return vae


def _clip(parts: ModelParts) -> ImageEncoder:
    component = parts.components["image_encoder"]
    with torch.device("meta"):
        network = ClipVision(ClipArchitecture(**parts.architecture["image_encoder"]), dtype=parts.dtype)
    component.load(network, network.arch.blocks)
    return ImageEncoder(network, component)


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


@frozen(kw_only=True)
class Shared:
    """Constants of a request that every step takes."""

    rope: Rope
    extras: Extras = field(factory=Extras)


class TextToVideo:
    """A loaded Wan2.1 text-to-video model (``VideoModel``)."""

    def __init__(
        self,
        prompts: PromptEncoder,
        network: WanDiT,
        dit: LoadedComponent,
        autoencoder: WanVae | TinyVae,
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

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode the prompt and, for guidance, the negative prompt."""
        return self.encode_with(Extras(), request, guided=guided, emit=emit)

    def encode_with(self, extras: Extras, request: Request, *, guided: bool, emit: Emit) -> Conditions:
        """Encode the prompts; ``extras`` is what comes on top of them."""
        texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        contexts = []
        for text in texts:
            contexts.append(self._prompts(text))
            emit(Progress(phase="encode", done=len(contexts), total=len(texts)))
        shape = (
            self._network.arch.out_dim,
            extras.references + latent_frames(request.frames),
            request.height // SPATIAL_STRIDE,
            request.width // SPATIAL_STRIDE,
        )
        return Conditions(
            latent_shape=shape,
            positive=contexts[0],
            negative=contexts[1] if guided else None,
            shared=Shared(rope=self._network.rope(shape, self._device), extras=extras),
            lead=extras.references,
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Nothing is fixed in the latents."""
        return latents

    def expert(self, step: Step) -> int:
        """There is one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Shared
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        count, extras = len(conditions), shared.extras
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        if extras.channels is not None:
            latents = torch.cat((latents, extras.channels))
        batch = latents.expand(count, *latents.shape)
        context = torch.stack(list(conditions)) if count > 1 else conditions[0][None]
        with self._dit.offloader.active(self._dit.name):
            flow: Tensor = self._network(
                batch,
                timesteps,
                context,
                shared.rope,
                image_MSD=None if extras.image is None else extras.image.repeat(count, 1, 1),
                vace_BCTHW=None if extras.vace is None else extras.vace.expand(count, *extras.vace.shape),
                vace_scale=extras.vace_scale,
            )
        return flow.unbind()

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]: the first alone, then four at a time."""
        with self._vae.offloader.active(self._vae.name):
            yield from self._chunks(latents)

    def _chunks(self, latents: Tensor) -> Iterator[Tensor]:
        tile = self._options.vae_tile // SPATIAL_STRIDE
        if isinstance(self._autoencoder, TinyVae) or not tile:
            return self._autoencoder.decode(latents)
        overlap = self._options.vae_tile_overlap // SPATIAL_STRIDE
        return self._autoencoder.decode_tiled(latents, tile=(tile, tile), overlap=overlap)


class ConditionedVideo:
    """A loaded model for i2v, flf2v or vace (``VideoModel``): text-to-video, and what comes on top of text."""

    def __init__(self, video: TextToVideo, conditioner: Conditioner) -> None:
        self._video = video
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
        extras = self._conditioner(request, inputs)
        return self._video.encode_with(extras, request, guided=guided, emit=emit)

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Nothing is fixed in the latents: images come in as channels of their own."""
        return self._video.constrain(latents, conditions)

    def expert(self, step: Step) -> int:
        """There is one network."""
        return self._video.expert(step)

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Shared
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each text, in one batch."""
        return self._video.predict(latents, step, conditions, shared)

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]."""
        return self._video.decode(latents, request)
