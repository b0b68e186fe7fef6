"""The visual tower of CLIP ViT-H/14 up to its second-to-last block: the image encoder of Wan2.1.

Parameter names are those of the official checkpoint, whose text tower, last block and head are not needed.

Shape legend: B images, L tokens (a class token, then the patches row by row), D width, N heads, K head size.

Precision: linears run in ``dtype``, LayerNorms in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.encoder_architecture import ClipArchitecture

# Channel statistics of CLIP's training images, in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nn.Module):
    """Image features for ``img_emb`` of the transformer.

    Parameters are uninitialized: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: ClipArchitecture, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.arch = arch
        self.visual = VisionTower(arch, dtype)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Encode images ``[B, 3, H, W]`` of any size, values in [-1, 1], to features, float32 ``[B, L, D]``."""
        features: Tensor = self.visual(preprocess(image.float(), self.arch.side * self.arch.patch_size))
        return features.float()


class VisionTower(nn.Module):
    """Patch embedding, position embedding and pre-norm blocks, without the last block and the final norm."""

    def __init__(self, arch: ClipArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        dim, patch = arch.dim, arch.patch_size
        self.cls_embedding = nn.Parameter(torch.empty(1, 1, dim, dtype=dtype))
        self.pos_embedding = nn.Parameter(torch.empty(1, arch.num_tokens, dim, dtype=dtype))
        self.patch_embedding = nn.Conv2d(3, dim, patch, stride=patch, bias=False, dtype=dtype)
        self.pre_norm = nn.LayerNorm(dim, dtype=torch.float32)
        self.transformer = nn.ModuleList(VisionBlock(arch, dtype) for _ in range(arch.num_layers))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Encode normalized square images to ``[B, L, D]``."""
        patches = self.patch_embedding(image_BCHW.to(self.dtype)).flatten(2).transpose(1, 2)
        tokens = (
            torch.cat((self.cls_embedding.expand(len(patches), -1, -1), patches), dim=1) + self.pos_embedding
        )
        x: Tensor = self.pre_norm(tokens.float()).to(self.dtype)
        for block in self.transformer:
            x = block(x)
        return x


class VisionBlock(nn.Module):
    """Self-attention and a two-layer MLP, each with a LayerNorm before it and a residual connection."""

    def __init__(self, arch: ClipArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.norm1 = nn.LayerNorm(arch.dim, dtype=torch.float32)
        self.attn = VisionAttention(arch, dtype)
        self.norm2 = nn.LayerNorm(arch.dim, dtype=torch.float32)
        self.mlp = nn.Sequential(
            nn.Linear(arch.dim, arch.dim_mlp, dtype=dtype),
            nn.GELU(),
            nn.Linear(arch.dim_mlp, arch.dim, dtype=dtype),
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Apply the block to tokens ``[B, L, D]``; the shape is unchanged."""
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD.float()).to(self.dtype))
        out: Tensor = x_BLD + self.mlp(self.norm2(x_BLD.float()).to(self.dtype))
        return out


class VisionAttention(nn.Module):
    """Self-attention over all tokens of an image."""

    def __init__(self, arch: ClipArchitecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = (arch.dim // arch.head_dim, arch.head_dim)
        self.to_qkv = nn.Linear(arch.dim, 3 * arch.dim, dtype=dtype)
        self.proj = nn.Linear(arch.dim, arch.dim, dtype=dtype)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Attend over tokens ``[B, L, D]``; the shape is unchanged."""
        qkv = self.to_qkv(x_BLD).unflatten(2, (3, *self.heads)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(*qkv.unbind())
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected


def preprocess(image_BCHW: Tensor, side: int) -> Tensor:
    """Prepare images for CLIP: resize to a square (bicubic, no antialiasing, as in the official code) and normalize."""
    square = F.interpolate(image_BCHW, size=(side, side), mode="bicubic", align_corners=False)
    mean = torch.tensor(MEAN, device=square.device).view(3, 1, 1)
    std = torch.tensor(STD, device=square.device).view(3, 1, 1)
    return (square * 0.5 + 0.5 - mean) / std
