"""The configuration of a transformer: the official ``config.json``, that of diffusers, or none. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from lightx2v_wan21.shapes import Shapes, count_blocks

#: channels of an attention head in every released Wan model
HEAD_DIM = 128
#: fields of which a configuration of a transformer has at least one
_FIELDS = ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim")
#: diffusers' name of a field -> the official one
_DIFFUSERS = {
    "ffn_dim": "ffn_dim",
    "num_attention_heads": "num_heads",
    "num_layers": "num_layers",
    "in_channels": "in_dim",
    "out_channels": "out_dim",
    "freq_dim": "freq_dim",
    "text_dim": "text_dim",
    "eps": "eps",
    "patch_size": "patch_size",
    "vace_layers": "vace_layers",
}


def dit_config(config: Mapping[str, Any], shapes: Shapes) -> Mapping[str, Any]:
    """Return the official fields of a configuration.

    Configurations of diffusers are translated. Without a configuration (single files often come alone) the sizes are
    inferred from the tensors, except for the number of heads: it follows from the head size, 128 in every released
    model.

    Raises:
        ValueError: there is no configuration and the width is not a multiple of 128.
    """
    if "num_attention_heads" in config:
        settings = {ours: config[theirs] for theirs, ours in _DIFFUSERS.items() if theirs in config}
        heads, width = config["num_attention_heads"], config.get("attention_head_dim", HEAD_DIM)
        if isinstance(heads, int) and isinstance(width, int):
            settings["dim"] = heads * width
        return settings
    if any(name in config for name in _FIELDS):
        return config
    return {**_inferred(shapes), **config}


def _inferred(shapes: Shapes) -> dict[str, Any]:
    patch = shapes.get("patch_embedding.weight", ())
    head, ffn = shapes.get("head.head.weight", ()), shapes.get("blocks.0.ffn.0.weight", ())
    if len(patch) != 5 or len(head) != 2 or len(ffn) != 2:
        return {}
    dim = patch[0]
    if dim % HEAD_DIM:
        raise ValueError(
            f"there is no config.json, and the network's width {dim} is not a multiple of {HEAD_DIM}, the head size "
            "of every released Wan model; add a config.json with its sizes next to the network"
        )
    return {
        "dim": dim,
        "ffn_dim": ffn[0],
        "num_heads": dim // HEAD_DIM,
        "num_layers": count_blocks(shapes, "blocks"),
        "in_dim": patch[1],
        "out_dim": head[0] // max(prod(patch[2:]), 1),
        "patch_size": tuple(patch[2:]),
        "freq_dim": _axis(shapes, "time_embedding.0.weight", 256),
    }


def _axis(shapes: Shapes, name: str, default: int) -> int:
    shape = shapes.get(name, ())
    return shape[1] if len(shape) > 1 else default
