"""The A14B pipeline: one network for high noise levels, one for low ones."""

from __future__ import annotations

from lightx2v_core.api import ModelParts, Step
from lightx2v_wan21.api import (
    ConditionedVideo,
    FirstAndLast,
    load_codec,
    load_prompt_encoder,
    load_transformer,
)
from lightx2v_wan22.a14b.variants import EXPERTS, IMAGE_BOUNDARY, LATENT_CHANNELS, TEXT_BOUNDARY
from lightx2v_wan22.options import A14bOptions


class TwoExperts(ConditionedVideo):
    """A loaded A14B model: Wan2.1 with an expert for each range of noise levels."""

    def __init__(self, options: A14bOptions, parts: ModelParts) -> None:
        """Build the networks on the meta device and load their weights."""
        prompts = load_prompt_encoder(parts, parts.architecture["dit"]["text_len"])
        experts = [load_transformer(parts, name) for name in EXPERTS]
        codec = load_codec(parts, options)
        self._takes_images = experts[0].network.arch.in_dim > LATENT_CHANNELS
        images = FirstAndLast(codec.encode, None, device=parts.device) if self._takes_images else None
        super().__init__(prompts, experts, codec, images, device=parts.device)
        self._options = options
        self._distilled = bool(parts.architecture["distilled"])

    def expert(self, step: Step) -> int:
        """Select the expert of a step: 0 (high noise) if its timestep is at or above the boundary, else 1.

        With ``boundary_step_index``, 0 for that many steps. Distilled experts share the steps evenly by default.
        """
        boundary, steps = self._options.boundary, self._options.boundary_step_index
        if steps is None and boundary is None and self._distilled:
            steps = step.count // 2
        if steps is not None:
            return int(step.index >= steps)
        if boundary is None:
            boundary = IMAGE_BOUNDARY if self._takes_images else TEXT_BOUNDARY
        return int(step.timestep < boundary * 1000)
