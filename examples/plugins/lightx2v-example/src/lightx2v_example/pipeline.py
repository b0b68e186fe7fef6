"""The loaded model: prompt -> embeddings -> flow velocity -> frames. It keeps no state between requests.

Shape legend: C latent channels, T h w latent frames, rows and columns, S text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightx2v_core.api import Conditions, Emit, ModelParts, Progress, Request, Segment, Step
from torch import Tensor

from lightx2v_example.network import Decoder, Denoiser, TextEncoder
from lightx2v_example.shapes import STRIDE, Sizes

if TYPE_CHECKING:
    from lightx2v_example.plugin import ModelOptions


class Pipeline:
    """A ``VideoModel``. Every use of a component is inside ``offloader.active``."""

    def __init__(self, options: ModelOptions, parts: ModelParts) -> None:
        """Build the networks on the meta device and load their weights."""
        self._options, self._parts = options, parts
        self._sizes = Sizes(**parts.architecture)
        with torch.device("meta"):
            self._text_encoder = TextEncoder(self._sizes, dtype=parts.dtype)
            self._denoiser = Denoiser(self._sizes, attention=parts.attention, dtype=parts.dtype)
            self._decoder = Decoder(self._sizes)
        parts.components["text_encoder"].load(self._text_encoder, ())
        parts.components["denoiser"].load(self._denoiser, self._sizes.blocks)
        parts.components["decoder"].load(self._decoder, ())

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode the prompt and, for guidance, the negative prompt to embeddings [S, X]."""
        texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        with self._parts.components["text_encoder"].offloader.active("text_encoder"):
            encoded = [self._text_encoder(text, self._parts.device) for text in texts]
        emit(Progress(phase="encode", done=len(texts), total=len(texts)))
        rows, columns = request.height // STRIDE, request.width // STRIDE
        return Conditions(
            latent_shape=(self._sizes.channels, request.frames, rows, columns),
            positive=encoded[0],
            negative=encoded[1] if guided else None,
        )

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the latents unchanged; an image-to-video model would write its first frame here."""
        return latents

    def expert(self, step: Step) -> int:
        """Return 0: there is only one network."""
        return 0

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Tensor], shared: Any
    ) -> Sequence[Tensor]:
        """Predict flow velocities [C, T, h, w], in one pass per text because texts differ in length."""
        with self._parts.components["denoiser"].offloader.active("denoiser"):
            return [self._denoiser(latents, step.timestep, text) for text in conditions]

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Yield frames in chunks [3, n, H, W]."""
        with self._parts.components["decoder"].offloader.active("decoder"):
            yield from self._decoder.decode(latents, self._options.decode_frames)
