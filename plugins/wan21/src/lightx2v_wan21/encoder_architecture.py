"""Sizes of the text encoder and of the image encoder, and the tensors of a checkpoint of a given size.

Nothing here imports torch. Official files have no configuration: all sizes follow from tensor shapes.
"""

from __future__ import annotations

from math import isqrt

from attrs import frozen

from lightx2v_wan21.shapes import Shapes, affine, axis, count_blocks


@frozen(kw_only=True)
class Umt5Architecture:
    """Sizes of the umT5 text encoder."""

    vocab_size: int
    dim: int
    dim_attn: int
    dim_ffn: int
    num_heads: int
    num_layers: int
    num_buckets: int = 32

    def __attrs_post_init__(self) -> None:
        if self.dim_attn % self.num_heads:
            raise ValueError(f"dim_attn {self.dim_attn} is not a multiple of num_heads {self.num_heads}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the prefixes of the blocks in execution order."""
        return tuple(f"blocks.{index}" for index in range(self.num_layers))


def umt5_tensors(arch: Umt5Architecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of an official umT5 encoder checkpoint of this size."""
    tensors: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (arch.vocab_size, arch.dim),
        "norm.weight": (arch.dim,),
    }
    for index in range(arch.num_layers):
        block = f"blocks.{index}"
        tensors |= {
            f"{block}.norm1.weight": (arch.dim,),
            f"{block}.attn.q.weight": (arch.dim_attn, arch.dim),
            f"{block}.attn.k.weight": (arch.dim_attn, arch.dim),
            f"{block}.attn.v.weight": (arch.dim_attn, arch.dim),
            f"{block}.attn.o.weight": (arch.dim, arch.dim_attn),
            f"{block}.norm2.weight": (arch.dim,),
            f"{block}.ffn.gate.0.weight": (arch.dim_ffn, arch.dim),
            f"{block}.ffn.fc1.weight": (arch.dim_ffn, arch.dim),
            f"{block}.ffn.fc2.weight": (arch.dim, arch.dim_ffn),
            f"{block}.pos_embedding.embedding.weight": (arch.num_buckets, arch.num_heads),
        }
    return tensors


def umt5_from(shapes: Shapes) -> Umt5Architecture:
    """Infer the encoder size from the tensor shapes of a checkpoint.

    Raises:
        ValueError: a tensor that every umT5 encoder has is missing.
    """
    where = "a umT5 encoder checkpoint"
    return Umt5Architecture(
        vocab_size=axis(shapes, "token_embedding.weight", 0, where),
        dim=axis(shapes, "token_embedding.weight", 1, where),
        dim_attn=axis(shapes, "blocks.0.attn.q.weight", 0, where),
        dim_ffn=axis(shapes, "blocks.0.ffn.fc1.weight", 0, where),
        num_heads=axis(shapes, "blocks.0.pos_embedding.embedding.weight", 1, where),
        num_layers=count_blocks(shapes, "blocks"),
        num_buckets=axis(shapes, "blocks.0.pos_embedding.embedding.weight", 0, where),
    )


@frozen(kw_only=True)
class ClipArchitecture:
    """Sizes of the visual tower of CLIP ViT-H/14; heads are 80 channels wide, as in the official model."""

    dim: int
    dim_mlp: int
    num_layers: int
    patch_size: int = 14
    #: number of tokens, including the class token in front: 257
    num_tokens: int = 257
    head_dim: int = 80

    def __attrs_post_init__(self) -> None:
        if self.dim % self.head_dim:
            raise ValueError(f"dim {self.dim} is not a multiple of the head size {self.head_dim}")
        if self.side**2 + 1 != self.num_tokens:
            raise ValueError(f"{self.num_tokens} tokens are not a class token and a square of patches")

    @property
    def side(self) -> int:
        """Return the number of patches along one side of the image."""
        return isqrt(self.num_tokens - 1)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the prefixes of the blocks in execution order."""
        return tuple(f"visual.transformer.{index}" for index in range(self.num_layers))


def clip_tensors(arch: ClipArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of the tensors used for image features: the visual tower without its last block."""
    dim, patch = arch.dim, arch.patch_size
    tensors: dict[str, tuple[int, ...]] = {
        "visual.cls_embedding": (1, 1, dim),
        "visual.pos_embedding": (1, arch.num_tokens, dim),
        "visual.patch_embedding.weight": (dim, 3, patch, patch),
        **affine("visual.pre_norm", dim),
    }
    for index in range(arch.num_layers):
        block = f"visual.transformer.{index}"
        tensors |= {
            **affine(f"{block}.norm1", dim),
            **affine(f"{block}.attn.to_qkv", 3 * dim, dim),
            **affine(f"{block}.attn.proj", dim, dim),
            **affine(f"{block}.norm2", dim),
            **affine(f"{block}.mlp.0", arch.dim_mlp, dim),
            **affine(f"{block}.mlp.2", dim, arch.dim_mlp),
        }
    return tensors


def clip_from(shapes: Shapes) -> ClipArchitecture:
    """Infer the size of the visual tower from the tensor shapes of a checkpoint.

    ``num_layers`` excludes the last block: image features are its input.

    Raises:
        ValueError: a tensor that every CLIP checkpoint has is missing, or the shapes do not fit a ViT with heads of 80.
    """
    where = "a CLIP image encoder checkpoint"
    return ClipArchitecture(
        dim=axis(shapes, "visual.patch_embedding.weight", 0, where),
        dim_mlp=axis(shapes, "visual.transformer.0.mlp.0.weight", 0, where),
        num_layers=count_blocks(shapes, "visual.transformer") - 1,
        patch_size=axis(shapes, "visual.patch_embedding.weight", 2, where),
        # some files leave out the leading axis of length one of the official file
        num_tokens=axis(
            shapes, "visual.pos_embedding", len(shapes.get("visual.pos_embedding", ())) - 2, where
        ),
    )
