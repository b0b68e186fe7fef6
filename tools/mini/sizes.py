"""The sizes of the mini checkpoints: the official architectures, only smaller.

The defaults give transformers of 1.8 to 2.0 million parameters (five of them, 3.6 to 4 MB each in bfloat16), a VAE of
2.0 million (8.2 MB in float32) and encoders of 0.4 million (0.7 MB): below 30 MB if the VAE is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen
from attrs import validators as v

from lightx2v_wan21.api import ClipArchitecture, DitArchitecture, Umt5Architecture, VaeArchitecture

#: tokens of a prompt; the longest that ``prompts.py`` writes has 29
TEXT_LENGTH = 32
#: shift of the noise levels, drawn evenly before: the same in training and in use
SHIFT = 3.0
#: boundary between the experts, as in Wan2.2 text-to-video
BOUNDARY = 0.875
#: timesteps of the distilled network
DISTILLED_STEPS = (1000, 750, 500, 250)
DISTILLED_SHIFT = 5.0
LORA_RANK = 8


@frozen(kw_only=True)
class Sizes:
    """Pixels and frames of a clip, and the widths of the networks."""

    side: int = field(default=48, validator=v.in_((32, 48, 64)))
    frames: int = field(default=9, validator=v.in_((5, 9, 17)))
    vae: int = field(default=16, validator=v.ge(4))
    dim: int = field(default=128, validator=v.ge(32))
    layers: int = field(default=6, validator=v.ge(1))
    text: int = field(default=96, validator=v.ge(16))

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """Return the shape of a clip's latents, ``[C, T, h, w]``."""
        return 16, (self.frames - 1) // 4 + 1, self.side // 8, self.side // 8

    @property
    def vae_architecture(self) -> VaeArchitecture:
        return VaeArchitecture(dim=self.vae, dec_dim=self.vae)

    @property
    def dit(self) -> DitArchitecture:
        """Return the architecture of text-to-video; heads are 32 channels wide."""
        return DitArchitecture(
            dim=self.dim,
            ffn_dim=4 * self.dim,
            num_heads=self.dim // 32,
            num_layers=self.layers,
            in_dim=16,
            out_dim=16,
            freq_dim=128,
            text_dim=self.text,
            text_len=TEXT_LENGTH,
        )

    @property
    def dit_i2v(self) -> DitArchitecture:
        """Return the architecture of image-to-video.

        It adds the channels of a known frame (mask and latents) and an image branch.
        """
        return evolve(self.dit, in_dim=36, image_dim=self.clip.dim)

    @property
    def clip(self) -> ClipArchitecture:
        """Return the architecture of CLIP: 36 patches of 8x8 pixels, where the official one has 256 of 14x14."""
        return ClipArchitecture(dim=80, dim_mlp=160, num_layers=2, patch_size=8, num_tokens=37)

    def umt5(self, vocabulary: int) -> Umt5Architecture:
        return Umt5Architecture(
            vocab_size=vocabulary,
            dim=self.text,
            dim_attn=self.text,
            dim_ffn=2 * self.text,
            num_heads=4,
            num_layers=2,
        )


def sizes_from(values: Mapping[str, Any]) -> Sizes:
    """Select the sizes from settings."""
    return Sizes(**{name: values[name] for name in ("side", "frames", "vae", "dim", "layers", "text")})
