"""What speaks against a network being what its tensors look like. Nothing here imports torch.

Networks that other people derived from Wan keep its tensors and add some, or change what goes in. A network is known by
what goes in and comes out, and its configuration may say that it is none of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from lightx2v_wan21.shapes import Shapes, axis

#: what the classes of ordinary Wan networks are called, letters and digits alone: by the official code, diffusers and
#: VideoX-Fun
PLAIN_CLASS = r"(?:vace)?wan(?:21|22)?(?:vace)?(?:model|transformer(?:3d)?(?:model)?)"
#: parts of a ``model_type``: what a network does, and words that do not change what it is
_TASKS = frozenset({"t2v", "i2v", "ti2v", "flf2v", "vace", "animate", "t2i"})
_FILLERS = re.compile(
    r"wan|wan2|wan2[12]|a?\d+(?:b|p)?|moe|distill(?:ed)?|model|transformer|dit|diffusion|unet"
)
#: mask channels of an image-to-video network, beside the noise and the latents of the image
MASK_CHANNELS = 4


def config_doubts(config: Mapping[str, Any], classes: str = PLAIN_CLASS) -> tuple[str, ...]:
    """What a ``config.json`` says a network is, where that is nothing of ours: ``classes`` is a regular expression of
    the classes that are. ``model_type`` is not taken at its word: a copy of VACE says ``t2v``."""
    found = []
    for key, ours in (("_class_name", lambda text: _is_class(text, classes)), ("model_type", _is_type)):
        said = config.get(key)
        if said is not None and not (isinstance(said, str) and ours(said)):
            found.append(f"{key} {_short(said)}")
    if not found:
        return ()
    return (f"its config.json says {' and '.join(found)}, which is no network that is known here",)


def _is_class(text: str, classes: str) -> bool:
    return re.fullmatch(classes, re.sub(r"[^a-z0-9]", "", text.lower())) is not None


def _is_type(text: str) -> bool:
    words = [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]
    return all(word in _TASKS or _FILLERS.fullmatch(word) for word in words)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def output_channels(shapes: Shapes) -> int:
    """Channels of the latents that a Wan transformer makes. ``ValueError`` as for ``axis``."""
    patch = shapes.get("patch_embedding.weight", ())[2:]
    return axis(shapes, "head.head.weight", 0, "a Wan transformer") // max(prod(patch), 1)


def taken(noise: int, *, image: bool) -> str:
    """What a network is given, in words."""
    if not image:
        return f"{noise} (noise)"
    return f"{2 * noise + MASK_CHANNELS} ({noise} of noise, {MASK_CHANNELS} of a mask, {noise} of an image)"
