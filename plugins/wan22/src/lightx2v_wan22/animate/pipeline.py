"""The Animate pipeline: a person in an image moves like the one in a video, or takes that one's place.

Pose, face, background and mask videos come from preprocessing. A long video is made in segments, each of which goes on
from the last frames of the one before.

Shape legend: B conditions, C latent channels, T h w latent frames (the reference first), rows and columns, S text
tokens, D width, F frames, X Y frame rows and columns, R motion tokens of a latent frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, LoadedComponent, ModelParts, Request, Segment, Step
from lightx2v_wan21.api import (
    ClipArchitecture,
    ClipVision,
    ImageEncoder,
    PromptEncoder,
    Rope,
    latent_frames,
)
from lightx2v_wan22.animate.architecture import AnimateArchitecture
from lightx2v_wan22.animate.dit import AnimateDiT
from lightx2v_wan22.animate.segment import (
    Span,
    faces,
    known_channels,
    pose_latents,
    reference,
)
from lightx2v_wan22.animate.variants import LATENT_CHANNELS, REFERENCE_FRAMES, STRIDE
from lightx2v_wan22.options import AnimateOptions
from lightx2v_wan22.parts import Codec, encoded_prompts, load_prompts, load_vae21, stacked


def build(options: AnimateOptions, parts: ModelParts) -> Animate:
    """Build the networks on the meta device and have them filled."""
    sizes, components = parts.architecture, parts.components
    with torch.device("meta"):
        arch = AnimateArchitecture(**sizes["dit"])
        network = AnimateDiT(arch, attention=parts.attention, dtype=parts.dtype)
        clip = ClipVision(ClipArchitecture(**sizes["image_encoder"]), dtype=parts.dtype)
    prompts = load_prompts(parts, arch.dit.text_len)
    components["dit"].load(network, arch.blocks)
    components["image_encoder"].load(clip, clip.arch.blocks)
    return Animate(
        prompts,
        network,
        components["dit"],
        ImageEncoder(clip, components["image_encoder"]),
        load_vae21(parts, options),
        options,
        device=parts.device,
    )


@frozen(kw_only=True)
class Guide:
    """What differs between the passes with and without guidance."""

    #: text embeddings [S, D]
    context: Tensor
    #: motion tokens [T, R, D]
    motion: Tensor


@frozen(kw_only=True)
class Shared:
    """Constants of a segment."""

    rope: Rope
    #: CLIP features of the reference image [1, 257, width]
    features: Tensor
    #: mask and latents of what is there, the reference image first, [20, T, h, w]
    known: Tensor
    #: latents of the pose video [16, T - 1, h, w]
    pose: Tensor


class Animate:
    """A loaded Animate model (``VideoModel``)."""

    def __init__(
        self,
        prompts: PromptEncoder,
        network: AnimateDiT,
        dit: LoadedComponent,
        features: ImageEncoder,
        codec: Codec,
        options: AnimateOptions,
        *,
        device: str,
    ) -> None:
        self._prompts = prompts
        self._network = network
        self._dit = dit
        self._features = features
        self._codec = codec
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
        """Encode the prompts, the reference image, and the other inputs of one segment."""
        contexts = encoded_prompts(self._prompts, request, guided=guided, emit=emit)
        span = self._span(before)
        size, device, encode = (request.height, request.width), self._device, self._codec.encode
        person = reference(inputs, size, encode, self._features, device)
        tail = before.frames if before is not None else None
        known = known_channels(inputs, span, tail, size, encode, device)
        shape = (
            LATENT_CHANNELS,
            REFERENCE_FRAMES + latent_frames(span.frames),
            request.height // STRIDE,
            request.width // STRIDE,
        )
        guides = self._guides(contexts, faces(inputs, span, device)[None])
        complete = span.start + span.frames >= request.frames
        return Conditions(
            latent_shape=shape,
            positive=guides[0],
            negative=guides[1] if guided else None,
            shared=Shared(
                rope=self._network.rope(shape, device),
                features=person.features,
                known=torch.cat((person.channels, known), dim=1),
                pose=pose_latents(inputs, span, encode, device),
            ),
            lead=REFERENCE_FRAMES,
            overlap=span.known,
            carry=0 if complete else self._options.overlap_frames,
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Nothing is written into the latents: what is known comes in as channels of its own."""
        return latents

    def expert(self, step: Step) -> int:
        """There is one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Guide], shared: Shared
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] of the latents under each condition, in one batch."""
        count = len(conditions)
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        noisy = torch.cat((latents, shared.known))
        with self._dit.offloader.active(self._dit.name):
            flow: Tensor = self._network(
                noisy.expand(count, *noisy.shape),
                timesteps,
                stacked([guide.context for guide in conditions]),
                shared.rope,
                image_MSD=shared.features.expand(count, -1, -1),
                pose_BCTHW=shared.pose.expand(count, *shared.pose.shape),
                motion_BTRD=stacked([guide.motion for guide in conditions]),
            )
        return flow.unbind()

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames of a segment in chunks [3, n, X, Y]: the first alone, then four at a time."""
        return self._codec.decode(latents)

    def _span(self, before: Segment | None) -> Span:
        frames, overlap = self._options.segment_frames, self._options.overlap_frames
        if before is None:
            return Span(start=0, frames=frames, known=0)
        return Span(start=(before.index + 1) * (frames - overlap), frames=frames, known=overlap)

    def _guides(self, contexts: Sequence[Tensor], seen: Tensor) -> list[Guide]:
        """A guide for each text; without guidance there is no expression, and the face is black."""
        expressions = (seen, torch.full_like(seen, -1.0))
        with self._dit.offloader.active(self._dit.name):
            return [
                Guide(context=context, motion=self._network.motion(face)[0])
                for context, face in zip(contexts, expressions, strict=False)
            ]
