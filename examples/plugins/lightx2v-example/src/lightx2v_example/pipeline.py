"""The pipeline: prompt -> embeddings -> flow velocity -> frames.

Shape legend: C latent channels, T h w latent frames, rows and columns, S text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightx2v_core.api import Conditions, Emit, ModelParts, Progress, Request, Segment, Step
from lightx2v_example.architecture import STRIDE, PebbleArchitecture
from lightx2v_example.codec import Codec
from lightx2v_example.denoiser import Denoiser
from lightx2v_example.options import PebbleOptions
from lightx2v_example.text import TextEncoder


def build(options: PebbleOptions, parts: ModelParts) -> Pebble:
    """Build the networks on the meta device and have them filled."""
    arch = PebbleArchitecture(**parts.architecture)
    with torch.device("meta"):
        denoiser = Denoiser(arch, attention=parts.attention, dtype=parts.dtype)
        text, codec = TextEncoder(arch, dtype=parts.dtype), Codec(arch)
    parts.components["text"].load(text, ())
    parts.components["denoiser"].load(denoiser, arch.blocks)
    parts.components["codec"].load(codec, ())
    return Pebble(options, parts, arch, text=text, denoiser=denoiser, codec=codec)


class Pebble:
    """A loaded Pebble model (``VideoModel``)."""

    def __init__(
        self,
        options: PebbleOptions,
        parts: ModelParts,
        arch: PebbleArchitecture,
        *,
        text: TextEncoder,
        denoiser: Denoiser,
        codec: Codec,
    ) -> None:
        self._options, self._parts, self._arch = options, parts, arch
        self._text, self._denoiser, self._codec = text, denoiser, codec

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode the prompts."""
        texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        with self._parts.components["text"].offloader.active("text"):
            encoded = [self._text(text, self._parts.device) for text in texts]
        emit(Progress(phase="encode", done=len(texts), total=len(texts)))
        return Conditions(
            latent_shape=(
                self._arch.channels, request.frames, request.height // STRIDE, request.width // STRIDE,
            ),
            positive=encoded[0],
            negative=encoded[1] if guided else None,
        )  # fmt: skip

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """A text fixes no latents."""
        return latents

    def expert(self, step: Step) -> int:
        """There is one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Any
    ) -> Sequence[Tensor]:
        """Flow velocities [C, T, h, w] under each text. Texts differ in length, so each has a pass of its own."""
        timestep = torch.full((1,), step.timestep, dtype=torch.float32, device=latents.device)
        with self._parts.components["denoiser"].offloader.active("denoiser"):
            return [self._denoiser(latents[None], timestep, text[None])[0] for text in conditions]

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Frames in chunks [3, n, X, Y]."""
        with self._parts.components["codec"].offloader.active("codec"):
            yield from self._codec.decode(latents, self._options.decode_frames)
