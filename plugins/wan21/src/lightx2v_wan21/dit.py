"""The Wan diffusion transformer: text-to-video, image branch and VACE branch.

Parameter names are those of the official checkpoints, so a file loads without renaming.

Shape legend:
    B batch, C latent channels, T frames, H W latent rows and columns
    L video tokens (T/pt * H/ph * W/pw), S text or image tokens, D model width
    U distinct timesteps (B when each video has one)

Precision follows the official runtime: the linears of the blocks, the text and the patch embedding run
in ``dtype``; the residual stream, norms, modulation, timestep embedding and head are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightx2v_wan21.dit_architecture import DitArchitecture
from lightx2v_wan21.dit_blocks import Attention, DitBlock, Head, ImageEmbedding, VaceBlock
from lightx2v_wan21.rope import Rope, rope_table


class WanDiT(nn.Module):
    """The diffusion transformer: predicts the flow of a noisy latent video at a timestep.

    Further inputs are text and, depending on the variant, image features or a VACE condition.

    Parameters are uninitialized: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.arch = arch
        self.dtype = dtype
        dim = arch.dim
        self.patch_embedding = _patches(arch.in_dim, arch, dtype)
        self.text_embedding = nn.Sequential(
            nn.Linear(arch.text_dim, dim, dtype=dtype),
            nn.GELU(approximate="tanh"),
            nn.Linear(dim, dim, dtype=dtype),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(arch.freq_dim, dim, dtype=torch.float32),
            nn.SiLU(),
            nn.Linear(dim, dim, dtype=torch.float32),
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim, dtype=torch.float32))
        image = bool(arch.image_dim)
        self.img_emb = ImageEmbedding(arch, dtype=dtype) if image else None
        self.blocks = nn.ModuleList(
            DitBlock(arch, attention=attention, dtype=dtype, image=image) for _ in range(arch.num_layers)
        )
        vace = bool(arch.vace_layers)
        self.vace_patch_embedding = _patches(arch.vace_in_dim, arch, dtype) if vace else None
        self.vace_blocks = nn.ModuleList(
            VaceBlock(arch, attention=attention, dtype=dtype, first=layer == 0) for layer in arch.vace_layers
        )
        self.head = Head(arch)

    def rope(self, latent_shape: Sequence[int], device: torch.device | str) -> Rope:
        """Build the rotary table for a latent of shape ``[C, T, H, W]``; the same for every step of a request."""
        return rope_table(self.grid(latent_shape[1:]), self.arch.head_dim, device)

    def forward(
        self,
        latents_BCTHW: Tensor,
        timesteps: Tensor,
        context_BSD: Tensor,
        rope: Rope,
        *,
        image_MSD: Tensor | None = None,
        vace_BCTHW: Tensor | None = None,
        vace_scale: float = 1.0,
    ) -> Tensor:
        """Predict the flow, float32 ``[B, out_dim, T, H, W]``.

        Args:
            latents_BCTHW: noisy latents with ``in_dim`` channels, any float dtype; channels of a condition follow the
                16 channels of the latent.
            timesteps: integer or fractional timesteps, 0..1000: ``[B]``, or ``[B, L]`` with one for each token.
            context_BSD: text embeddings ``[B, text_len, text_dim]``, zero-padded: the padding is attended.
            rope: table of ``self.rope`` for this latent size.
            image_MSD: image features ``[B, 257, image_dim]``, or ``[2B, 257, image_dim]`` with the first and the last
                image of each video in turn; for networks with an image branch.
            vace_BCTHW: VACE condition ``[B, vace_in_dim, T, H, W]``, for networks with a VACE branch.
            vace_scale: strength of the VACE condition.
        """
        x_BLD = self.embed(latents_BCTHW)
        time_UD, modulation_U6D, rows_BL = self.time(timesteps)
        context_BSD = self.text(context_BSD)
        image_BSD = self.image(image_MSD)
        condition_BLD = self._vace_condition(vace_BCTHW)
        vace_of = dict(zip(self.arch.vace_layers, self.vace_blocks, strict=True))
        for index, block in enumerate(self.blocks):
            hint_BLD = None
            if index in vace_of:
                # The VACE branch depends on the main one only through the embedded latents, at its first block.
                # Interleaving the two keeps only one hint in memory at a time.
                condition_BLD, hint_BLD = vace_of[index](
                    condition_BLD, x_BLD, modulation_U6D, context_BSD, rope, rows_BL
                )
            x_BLD = block(x_BLD, modulation_U6D, context_BSD, rope, rows_BL, image_BSD)
            if hint_BLD is not None:
                x_BLD = torch.add(x_BLD, hint_BLD, alpha=vace_scale)
        return self.finish(x_BLD, time_UD, self.grid(latents_BCTHW.shape[2:]), rows_BL)

    def embed(self, latents_BCTHW: Tensor) -> Tensor:
        """Embed latents as video tokens, float32 ``[B, L, D]``."""
        return _tokens(self.patch_embedding, latents_BCTHW.to(self.dtype))

    def time(self, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embed the distinct timesteps.

        Returns their embedding ``[U, D]``, their block modulation ``[U, 6, D]``, and the row of each token (``None``
        when each video has one timestep).
        """
        rows_BL = None
        if timesteps.ndim == 2:
            timesteps, rows_BL = torch.unique(timesteps, return_inverse=True)
        time_UD: Tensor = self.time_embedding(timestep_features(timesteps, self.arch.freq_dim))
        return time_UD, self.time_projection(time_UD).unflatten(1, (6, -1)), rows_BL

    def text(self, context_BSD: Tensor) -> Tensor:
        """Project the text embeddings to the model width: ``[B, S, D]`` in the dtype of the linears."""
        embedded: Tensor = self.text_embedding(context_BSD.to(self.dtype))
        return embedded

    def image(self, image_MSD: Tensor | None) -> Tensor | None:
        """Project the image features to the model width: ``[B, S, D]``, or ``None`` without an image branch."""
        if self.img_emb is None:
            return None
        if image_MSD is None:
            raise ValueError("this network needs image features: image_MSD is missing")
        embedded: Tensor = self.img_emb(image_MSD)
        return embedded

    def finish(
        self, x_BLD: Tensor, time_UD: Tensor, grid: tuple[int, int, int], rows_BL: Tensor | None = None
    ) -> Tensor:
        """Convert the residual stream after the last block to the predicted flow."""
        # Head channels are (pt, ph, pw, C) with C fastest.
        x = self.head(x_BLD, time_UD, rows_BL).view(-1, *grid, *self.arch.patch_size, self.arch.out_dim)
        flow: Tensor = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return flow

    def grid(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Return the number of tokens along each axis of a (T, H, W) latent."""
        frames, rows, columns = size
        pt, ph, pw = self.arch.patch_size
        if frames % pt or rows % ph or columns % pw:
            raise ValueError(
                f"latent size (T, H, W) = {tuple(size)} is not divisible by patch size {self.arch.patch_size}"
            )
        return frames // pt, rows // ph, columns // pw

    def _vace_condition(self, vace_BCTHW: Tensor | None) -> Tensor | None:
        """Embed the VACE condition as tokens, float32 ``[B, L, D]``."""
        if self.vace_patch_embedding is None:
            return None
        if vace_BCTHW is None:
            raise ValueError("this network needs a VACE condition: vace_BCTHW is missing")
        return _tokens(self.vace_patch_embedding, vace_BCTHW.to(self.dtype))


def timestep_features(timesteps_U: Tensor, dim: int) -> Tensor:
    """Compute sinusoidal features, cosines first: in float64, returned as float32 ``[U, dim]``."""
    half = dim // 2
    powers = torch.arange(half, dtype=torch.float64, device=timesteps_U.device) / half
    angles = torch.outer(timesteps_U.double(), 10000.0**-powers)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()


def _patches(channels: int, arch: DitArchitecture, dtype: torch.dtype) -> nn.Conv3d:
    size = arch.patch_size
    return nn.Conv3d(channels, arch.dim, kernel_size=size, stride=size, dtype=dtype)


def _tokens(embedding: nn.Conv3d, x_BCTHW: Tensor) -> Tensor:
    tokens: Tensor = embedding(x_BCTHW).flatten(2).transpose(1, 2).float()
    return tokens
