"""Sizes of the Wan2.1 networks and the tensors an official checkpoint of that size holds.

Nothing here imports torch, so a plan can be checked against a file header before anything is built.
Shapes are tuples in checkpoint order: linear weights are ``(out, in)``, convolutions ``(out, in, *kernel)``.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Literal

from attrs import frozen

Shapes = Mapping[str, tuple[int, ...]]


@frozen(kw_only=True)
class DitArchitecture:
    """Sizes of the diffusion transformer, named as in the official config.json."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    out_dim: int
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6
    patch_size: tuple[int, int, int] = (1, 2, 2)

    def __attrs_post_init__(self) -> None:
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(
                f"dim {self.dim} must be num_heads {self.num_heads} times an even head size, "
                "because rotary embedding turns pairs of channels"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads


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


@frozen(kw_only=True)
class VaeArchitecture:
    """Sizes of the Wan2.1 VAE; everything but the three widths is the same in every released file."""

    dim: int
    dec_dim: int
    z_dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)


@frozen
class VaeLayer:
    """One entry of the VAE's ``encoder.downsamples`` or ``decoder.upsamples``."""

    kind: Literal["residual", "down", "up"]
    in_dim: int
    out_dim: int
    temporal: bool = False
    """Whether a resampling layer also halves or doubles the number of frames."""


def encoder_layers(arch: VaeArchitecture) -> Iterator[VaeLayer]:
    """The layers of ``encoder.downsamples`` in order."""
    widths = [arch.dim * m for m in (1, *arch.multipliers)]
    for stage, (width, out_width) in enumerate(pairwise(widths)):
        for block in range(arch.num_res_blocks):
            yield VaeLayer("residual", out_width if block else width, out_width)
        if stage < len(arch.temporal_downsample):
            yield VaeLayer("down", out_width, out_width, arch.temporal_downsample[stage])


def decoder_layers(arch: VaeArchitecture) -> Iterator[VaeLayer]:
    """The layers of ``decoder.upsamples`` in order; each upsampling layer halves the channels."""
    temporal_upsample = arch.temporal_downsample[::-1]
    width = arch.dec_dim * arch.multipliers[-1]
    for stage, multiplier in enumerate(reversed(arch.multipliers)):
        out_width = arch.dec_dim * multiplier
        for _ in range(arch.num_res_blocks + 1):
            yield VaeLayer("residual", width, out_width)
            width = out_width
        if stage < len(temporal_upsample):
            width = out_width // 2
            yield VaeLayer("up", out_width, width, temporal_upsample[stage])


def dit_tensors(arch: DitArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official text-to-video checkpoint of this size."""
    dim = arch.dim
    patch = arch.patch_size[0] * arch.patch_size[1] * arch.patch_size[2]
    tensors: dict[str, tuple[int, ...]] = {
        **_affine("patch_embedding", dim, arch.in_dim, *arch.patch_size),
        **_affine("text_embedding.0", dim, arch.text_dim),
        **_affine("text_embedding.2", dim, dim),
        **_affine("time_embedding.0", dim, arch.freq_dim),
        **_affine("time_embedding.2", dim, dim),
        **_affine("time_projection.1", 6 * dim, dim),
        **_affine("head.head", patch * arch.out_dim, dim),
        "head.modulation": (1, 2, dim),
    }
    for index in range(arch.num_layers):
        tensors |= _dit_block(f"blocks.{index}", arch)
    return tensors


def umt5_tensors(arch: Umt5Architecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official umT5 encoder checkpoint of this size."""
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


def vae_tensors(arch: VaeArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official Wan2.1 VAE checkpoint of this size."""
    encoder_top = arch.dim * arch.multipliers[-1]
    decoder_top = arch.dec_dim * arch.multipliers[-1]
    tensors: dict[str, tuple[int, ...]] = {
        **_affine("encoder.conv1", arch.dim, 3, 3, 3, 3),
        **_vae_middle("encoder.middle", encoder_top),
        "encoder.head.0.gamma": (encoder_top, 1, 1, 1),
        **_affine("encoder.head.2", 2 * arch.z_dim, encoder_top, 3, 3, 3),
        **_affine("conv1", 2 * arch.z_dim, 2 * arch.z_dim, 1, 1, 1),
        **_affine("conv2", arch.z_dim, arch.z_dim, 1, 1, 1),
        **_affine("decoder.conv1", decoder_top, arch.z_dim, 3, 3, 3),
        **_vae_middle("decoder.middle", decoder_top),
        "decoder.head.0.gamma": (arch.dec_dim, 1, 1, 1),
        **_affine("decoder.head.2", 3, arch.dec_dim, 3, 3, 3),
    }
    for index, layer in enumerate(encoder_layers(arch)):
        tensors |= _vae_layer(f"encoder.downsamples.{index}", layer)
    for index, layer in enumerate(decoder_layers(arch)):
        tensors |= _vae_layer(f"decoder.upsamples.{index}", layer)
    return tensors


def dit_from(config: Mapping[str, object], shapes: Shapes) -> DitArchitecture:
    """The architecture a config.json describes.

    Official files leave out ``text_dim`` and ``patch_size``; the first is then read from
    ``text_embedding.0.weight`` in ``shapes``. The remaining shapes only make error messages concrete.

    Raises:
        ValueError: a field is missing or is not a positive integer.
    """
    held = _dit_sizes_held(shapes)

    def size(field: str, default: int | None = None) -> int:
        value = config.get(field, default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        says = f"config.json says {field} = {value!r}" if field in config else f"config.json has no {field!r}"
        holds = f"the checkpoint holds {held[field]}" if field in held else "the checkpoint does not tell it"
        raise ValueError(f"{says}, {holds}; set {field!r} in config.json to a positive integer")

    patch_size = config.get("patch_size", (1, 2, 2))
    if not isinstance(patch_size, list | tuple) or len(patch_size) != 3 or not all(map(_is_size, patch_size)):
        raise ValueError(f"config.json says patch_size = {patch_size!r}; expected three positive integers")
    eps = config.get("eps", 1e-6)
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise ValueError(f"config.json says eps = {eps!r}; expected a number such as 1e-06")
    text_shape = shapes.get("text_embedding.0.weight", ())
    return DitArchitecture(
        dim=size("dim"),
        ffn_dim=size("ffn_dim"),
        num_heads=size("num_heads"),
        num_layers=size("num_layers"),
        in_dim=size("in_dim"),
        out_dim=size("out_dim"),
        freq_dim=size("freq_dim", 256),
        text_dim=size("text_dim", text_shape[1] if len(text_shape) == 2 else 4096),
        text_len=size("text_len", 512),
        eps=float(eps),
        patch_size=(patch_size[0], patch_size[1], patch_size[2]),
    )


def umt5_from(shapes: Shapes) -> Umt5Architecture:
    """The encoder size that the tensor shapes of a checkpoint imply.

    Raises:
        ValueError: a tensor every umT5 encoder has is missing.
    """
    where = "a umT5 encoder checkpoint"
    return Umt5Architecture(
        vocab_size=_axis(shapes, "token_embedding.weight", 0, where),
        dim=_axis(shapes, "token_embedding.weight", 1, where),
        dim_attn=_axis(shapes, "blocks.0.attn.q.weight", 0, where),
        dim_ffn=_axis(shapes, "blocks.0.ffn.fc1.weight", 0, where),
        num_heads=_axis(shapes, "blocks.0.pos_embedding.embedding.weight", 1, where),
        num_layers=_count_blocks(shapes),
        num_buckets=_axis(shapes, "blocks.0.pos_embedding.embedding.weight", 0, where),
    )


def vae_from(shapes: Shapes) -> VaeArchitecture:
    """The VAE size that the tensor shapes of a checkpoint imply.

    Raises:
        ValueError: a tensor every Wan2.1 VAE has is missing.
    """
    where = "a Wan2.1 VAE checkpoint"
    return VaeArchitecture(
        dim=_axis(shapes, "encoder.conv1.weight", 0, where),
        dec_dim=_axis(shapes, "decoder.head.0.gamma", 0, where),
        z_dim=_axis(shapes, "conv2.weight", 0, where),
    )


def _affine(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def _dit_block(block: str, arch: DitArchitecture) -> dict[str, tuple[int, ...]]:
    dim = arch.dim
    tensors: dict[str, tuple[int, ...]] = {
        f"{block}.modulation": (1, 6, dim),
        **_affine(f"{block}.norm3", dim),
        **_affine(f"{block}.ffn.0", arch.ffn_dim, dim),
        **_affine(f"{block}.ffn.2", dim, arch.ffn_dim),
    }
    for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
        for linear in "qkvo":
            tensors |= _affine(f"{attention}.{linear}", dim, dim)
        tensors |= {f"{attention}.norm_q.weight": (dim,), f"{attention}.norm_k.weight": (dim,)}
    return tensors


def _vae_layer(name: str, layer: VaeLayer) -> dict[str, tuple[int, ...]]:
    if layer.kind == "residual":
        return _vae_residual(name, layer.in_dim, layer.out_dim)
    tensors = _affine(f"{name}.resample.1", layer.out_dim, layer.in_dim, 3, 3)
    if layer.temporal:
        doubled = 2 if layer.kind == "up" else 1
        tensors |= _affine(f"{name}.time_conv", doubled * layer.in_dim, layer.in_dim, 3, 1, 1)
    return tensors


def _vae_residual(name: str, in_dim: int, out_dim: int) -> dict[str, tuple[int, ...]]:
    tensors: dict[str, tuple[int, ...]] = {
        f"{name}.residual.0.gamma": (in_dim, 1, 1, 1),
        **_affine(f"{name}.residual.2", out_dim, in_dim, 3, 3, 3),
        f"{name}.residual.3.gamma": (out_dim, 1, 1, 1),
        **_affine(f"{name}.residual.6", out_dim, out_dim, 3, 3, 3),
    }
    if in_dim != out_dim:
        tensors |= _affine(f"{name}.shortcut", out_dim, in_dim, 1, 1, 1)
    return tensors


def _vae_middle(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        **_vae_residual(f"{name}.0", dim, dim),
        f"{name}.1.norm.gamma": (dim, 1, 1),
        **_affine(f"{name}.1.to_qkv", 3 * dim, dim, 1, 1),
        **_affine(f"{name}.1.proj", dim, dim, 1, 1),
        **_vae_residual(f"{name}.2", dim, dim),
    }


def _dit_sizes_held(shapes: Shapes) -> dict[str, str]:
    """What a checkpoint tells about each config field, as text for an error message."""
    keys = {
        "dim": "patch_embedding.weight",
        "in_dim": "patch_embedding.weight",
        "ffn_dim": "blocks.0.ffn.0.weight",
        "out_dim": "head.head.weight",
        "freq_dim": "time_embedding.0.weight",
        "text_dim": "text_embedding.0.weight",
    }
    held = {field: f"{key} {list(shapes[key])}" for field, key in keys.items() if key in shapes}
    if blocks := _count_blocks(shapes):
        held["num_layers"] = f"{blocks} blocks"
    return held


def _count_blocks(shapes: Shapes) -> int:
    return len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _axis(shapes: Shapes, key: str, axis: int, where: str) -> int:
    if key not in shapes:
        raise ValueError(f"not {where}: {key!r} is missing ({len(shapes)} tensors in the file)")
    if len(shapes[key]) <= axis:
        raise ValueError(f"not {where}: {key!r} has shape {list(shapes[key])}")
    return shapes[key][axis]
