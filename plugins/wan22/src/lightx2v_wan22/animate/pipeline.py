"""The Animate pipeline: a person in an image moves like the person in a video, or replaces that person.

Pose, face, background and mask videos come from preprocessing. A long video is generated in segments, each of which
continues from the last frames of the previous one.

Shape legend: B conditions, C latent channels, T h w latent frames (the reference first), rows and columns, S text
tokens, D width, F frames, H W frame rows and columns, R motion tokens of a latent frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, ModelParts, Request, Segment, Step
from lightx2v_wan21.api import (
    Rope,
    Transformer,
    WanPipeline,
    load_codec,
    load_image_encoder,
    load_prompt_encoder,
    stacked,
)
from lightx2v_wan22.animate.architecture import AnimateArchitecture
from lightx2v_wan22.animate.dit import AnimateDiT
from lightx2v_wan22.animate.segment import Span, faces, known_channels, pose_latents, reference
from lightx2v_wan22.animate.variants import REFERENCE_FRAMES
from lightx2v_wan22.options import AnimateOptions


@frozen(kw_only=True)
class Guide:
    """The conditions that differ between the passes with and without guidance."""

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
    #: mask and latents of the known frames, the reference image first, [20, T, h, w]
    known: Tensor
    #: latents of the pose video [16, T - 1, h, w]
    pose: Tensor


class Animate(WanPipeline):
    """A loaded Animate model."""

    def __init__(self, options: AnimateOptions, parts: ModelParts) -> None:
        """Build the networks on the meta device and load their weights."""
        component = parts.components["dit"]
        with torch.device("meta"):
            arch = AnimateArchitecture(**parts.architecture["dit"])
            self._network = AnimateDiT(arch, attention=parts.attention, dtype=parts.dtype)
        prompts = load_prompt_encoder(parts, arch.dit.text_len)
        component.load(self._network, arch.blocks)
        self._dit = Transformer(self._network, component)
        self._features = load_image_encoder(parts)
        self._options = options
        super().__init__(prompts, [self._dit], load_codec(parts, options), device=parts.device)

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
        contexts = self.encode_prompts(request, guided=guided, emit=emit)
        span = self._span(before)
        size, device, encode = (request.height, request.width), self._device, self._codec.encode
        person = reference(inputs, size, encode, self._features, device)
        tail = before.frames if before is not None else None
        known = known_channels(inputs, span, tail, size, encode, device)
        shape = self.latent_shape(request, span.frames, REFERENCE_FRAMES)
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

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Guide], shared: Shared
    ) -> Sequence[Tensor]:
        """Predict the flow velocities [C, T, h, w] of the latents under each condition, in one batch."""
        count = len(conditions)
        timesteps = torch.full((count,), step.timestep, dtype=torch.float32, device=latents.device)
        noisy = torch.cat((latents, shared.known))
        flow = self._dit(
            noisy.expand(count, *noisy.shape),
            timesteps,
            stacked([guide.context for guide in conditions]),
            shared.rope,
            image_MSD=shared.features.expand(count, -1, -1),
            pose_BCTHW=shared.pose.expand(count, *shared.pose.shape),
            motion_BTRD=stacked([guide.motion for guide in conditions]),
        )
        return flow.unbind()

    def _span(self, before: Segment | None) -> Span:
        frames, overlap = self._options.segment_frames, self._options.overlap_frames
        if before is None:
            return Span(start=0, frames=frames, known=0)
        return Span(start=(before.index + 1) * (frames - overlap), frames=frames, known=overlap)

    def _guides(self, contexts: Sequence[Tensor], seen: Tensor) -> list[Guide]:
        """Build a guide for each text; the one without guidance has a black face, so no expression."""
        expressions = (seen, torch.full_like(seen, -1.0))
        with self._dit.active():
            return [
                Guide(context=context, motion=self._network.motion(face)[0])
                for context, face in zip(contexts, expressions, strict=False)
            ]
