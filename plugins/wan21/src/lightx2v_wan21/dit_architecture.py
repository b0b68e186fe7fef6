"""Sizes of the diffusion transformer of every Wan model, and the tensors of a checkpoint of a given size.

Nothing here imports torch. Names and shapes are those of the official files, see ``architecture.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from lightx2v_wan21.dit_config import dit_config
from lightx2v_wan21.shapes import Shapes, affine, count_blocks, is_size


def _three(value: Sequence[int]) -> tuple[int, int, int]:
    """Convert to a tuple: plain data has a list where the class has a tuple."""
    first, second, third = value
    return first, second, third


def _ints(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(value)


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
    patch_size: tuple[int, int, int] = field(default=(1, 2, 2), converter=_three)
    #: width of the image features for cross-attention (1280); 0 without an image branch
    image_dim: int = 0
    #: number of image tokens with a learned position (514: two images); 0 if there are none
    image_positions: int = 0
    #: indices of the main blocks that receive a VACE hint; empty without a VACE branch
    vace_layers: tuple[int, ...] = field(default=(), converter=_ints)
    #: channels of the VACE condition
    vace_in_dim: int = 96

    def __attrs_post_init__(self) -> None:
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(
                f"dim {self.dim} must be num_heads {self.num_heads} times an even head size, "
                "because rotary embedding turns pairs of channels"
            )
        layers = self.vace_layers
        if layers and (layers[0] != 0 or list(layers) != sorted({*layers}) or layers[-1] >= self.num_layers):
            raise ValueError(
                f"vace_layers {list(layers)} must rise from 0 and stay below num_layers {self.num_layers}"
            )

    @property
    def head_dim(self) -> int:
        """Return the number of channels of one attention head."""
        return self.dim // self.num_heads

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the prefixes of the blocks in execution order: a VACE block directly precedes its main block."""
        vace = {layer: f"vace_blocks.{index}" for index, layer in enumerate(self.vace_layers)}
        order = [(vace.get(layer), f"blocks.{layer}") for layer in range(self.num_layers)]
        return tuple(name for pair in order for name in pair if name is not None)


def dit_tensors(arch: DitArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of an official checkpoint of this size."""
    dim, image = arch.dim, arch.image_dim
    patch = arch.patch_size[0] * arch.patch_size[1] * arch.patch_size[2]
    tensors: dict[str, tuple[int, ...]] = {
        **affine("patch_embedding", dim, arch.in_dim, *arch.patch_size),
        **affine("text_embedding.0", dim, arch.text_dim),
        **affine("text_embedding.2", dim, dim),
        **affine("time_embedding.0", dim, arch.freq_dim),
        **affine("time_embedding.2", dim, dim),
        **affine("time_projection.1", 6 * dim, dim),
        **affine("head.head", patch * arch.out_dim, dim),
        "head.modulation": (1, 2, dim),
    }
    if image:
        tensors |= {
            **affine("img_emb.proj.0", image),
            **affine("img_emb.proj.1", image, image),
            **affine("img_emb.proj.3", dim, image),
            **affine("img_emb.proj.4", dim),
        }
    if arch.image_positions:
        tensors["img_emb.emb_pos"] = (1, arch.image_positions, image)
    for index in range(arch.num_layers):
        tensors |= _block(f"blocks.{index}", arch, image=bool(image))
    if arch.vace_layers:
        tensors |= affine("vace_patch_embedding", dim, arch.vace_in_dim, *arch.patch_size)
        tensors |= affine("vace_blocks.0.before_proj", dim, dim)
    for index in range(len(arch.vace_layers)):
        tensors |= _block(f"vace_blocks.{index}", arch, image=False)
        tensors |= affine(f"vace_blocks.{index}.after_proj", dim, dim)
    return tensors


def dit_from(config: Mapping[str, object], shapes: Shapes) -> DitArchitecture:
    """Build the architecture described by a config.json of the official code or of diffusers.

    Without a configuration, see ``dit_config``. Official files leave out ``text_dim`` and ``patch_size``. ``text_dim``
    is read from ``text_embedding.0.weight`` in ``shapes``, and so are the sizes of the image branch and of the VACE
    condition, which no file names. The remaining shapes only make error messages concrete.

    Raises:
        ValueError: a field is missing or is not a positive integer, or contradicts the number of blocks.
    """
    held, config = _sizes_held(shapes), dit_config(config, shapes)

    def size(name: str, default: int | None = None) -> int:
        value = config.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        stated = f"config.json has {name} = {value!r}" if name in config else f"config.json has no {name!r}"
        stored = (
            f"the checkpoint has {held[name]}" if name in held else "the checkpoint does not determine it"
        )
        raise ValueError(f"{stated}, {stored}; set {name!r} in config.json to a positive integer")

    def length(key: str, axis: int, default: int) -> int:
        shape = shapes.get(key, ())
        return shape[axis] if len(shape) > axis and shape[axis] else default

    patch_size = config.get("patch_size", (1, 2, 2))
    if not isinstance(patch_size, list | tuple) or len(patch_size) != 3 or not all(map(is_size, patch_size)):
        raise ValueError(f"config.json has patch_size = {patch_size!r}; expected three positive integers")
    eps = config.get("eps", 1e-6)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        raise ValueError(f"config.json has eps = {eps!r}; expected a number such as 1e-06")
    num_layers, blocks = size("num_layers"), count_blocks(shapes, "blocks")
    if blocks and num_layers != blocks:
        raise ValueError(
            f"config.json has num_layers = {num_layers}, but the checkpoint has {blocks} blocks; one of them belongs "
            "to another model, or files are missing"
        )
    return DitArchitecture(
        dim=size("dim"),
        ffn_dim=size("ffn_dim"),
        num_heads=size("num_heads"),
        num_layers=num_layers,
        in_dim=size("in_dim"),
        out_dim=size("out_dim"),
        freq_dim=size("freq_dim", 256),
        text_dim=size("text_dim", length("text_embedding.0.weight", 1, 4096)),
        text_len=size("text_len", 512),
        eps=float(eps),
        patch_size=(patch_size[0], patch_size[1], patch_size[2]),
        image_dim=length("img_emb.proj.1.weight", 1, 0),
        image_positions=length("img_emb.emb_pos", 1, 0),
        vace_layers=_vace_layers(config, shapes, num_layers),
        vace_in_dim=length("vace_patch_embedding.weight", 1, 96),
    )


def _vace_layers(config: Mapping[str, object], shapes: Shapes, num_layers: int) -> tuple[int, ...]:
    """Return the indices of the main blocks that the VACE blocks of a checkpoint act on.

    Those of the configuration, else spread evenly as in the official models (every second block of 30, every fifth of
    40).
    """
    count = count_blocks(shapes, "vace_blocks")
    if not count:
        return ()
    layers = config.get("vace_layers")
    if layers is None:
        return tuple(range(0, num_layers, max(num_layers // count, 1)))[:count]
    if not isinstance(layers, list | tuple) or not all(index == 0 or is_size(index) for index in layers):
        raise ValueError(f"config.json has vace_layers = {layers!r}; expected a list of block numbers")
    if len(layers) != count:
        raise ValueError(
            f"config.json has vace_layers = {list(layers)}, but the checkpoint has {count} vace_blocks; "
            "list one block number for each"
        )
    return tuple(layers)


def _block(block: str, arch: DitArchitecture, *, image: bool) -> dict[str, tuple[int, ...]]:
    dim = arch.dim
    tensors: dict[str, tuple[int, ...]] = {
        f"{block}.modulation": (1, 6, dim),
        **affine(f"{block}.norm3", dim),
        **affine(f"{block}.ffn.0", arch.ffn_dim, dim),
        **affine(f"{block}.ffn.2", dim, arch.ffn_dim),
    }
    for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
        for linear in "qkvo":
            tensors |= affine(f"{attention}.{linear}", dim, dim)
        tensors |= {f"{attention}.norm_q.weight": (dim,), f"{attention}.norm_k.weight": (dim,)}
    if image:
        tensors |= affine(f"{block}.cross_attn.k_img", dim, dim)
        tensors |= affine(f"{block}.cross_attn.v_img", dim, dim)
        tensors[f"{block}.cross_attn.norm_k_img.weight"] = (dim,)
    return tensors


def _sizes_held(shapes: Shapes) -> dict[str, str]:
    """Describe the sizes that a checkpoint implies for the config fields, as text for an error message."""
    keys = {
        "dim": "patch_embedding.weight",
        "in_dim": "patch_embedding.weight",
        "ffn_dim": "blocks.0.ffn.0.weight",
        "out_dim": "head.head.weight",
        "freq_dim": "time_embedding.0.weight",
        "text_dim": "text_embedding.0.weight",
    }
    held = {name: f"{key} {list(shapes[key])}" for name, key in keys.items() if key in shapes}
    if blocks := count_blocks(shapes, "blocks"):
        held["num_layers"] = f"{blocks} blocks"
    return held
