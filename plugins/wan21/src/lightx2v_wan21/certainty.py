"""What speaks against a network being what its tensors look like. Nothing here imports torch.

Networks that other people derived from Wan keep its tensors and add some, or change what goes in. A network is known by
what goes in and comes out, and its configuration may say that it is none of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lightx2v_core.api import CheckpointFacts, named_expert
from lightx2v_wan21.shapes import Shapes, axis

#: what the classes of ordinary Wan networks are called, letters and digits alone: by the official code, diffusers and
#: VideoX-Fun
PLAIN_CLASS = r"(?:vace)?wan(?:21|22)?(?:vace)?(?:model|transformer(?:3d)?(?:model)?)"
#: parts of a ``model_type``: what a network does, and words that do not change what it is
_TASKS = frozenset({"t2v", "i2v", "ti2v", "flf2v", "vace", "animate", "t2i"})
_FILLERS = re.compile(
    r"wan|wan2|wan2[12]|a?\d+(?:b|p)?|moe|distill(?:ed)?|model|transformer|dit|diffusion|unet"
)
#: methods whose networks have Wan's tensors and are given something else, by the word in the names of their files
_METHODS = {
    "phantom": "reference images among the frames",
    "echoshot": "several shots with a prompt each",
    "multitalk": "speech",
    "infinitetalk": "speech",
    "s2v": "speech",
    "humo": "speech and reference images",
    "recammaster": "another video and a camera",
}
_METHOD = re.compile(rf"(?i)(?<![a-z])(?:{'|'.join(_METHODS)})(?![a-z])")
#: what a name holds that says it itself: Wan2.1 has no experts
_WAN21 = re.compile(r"(?i)wan[ ._-]?2[ ._-]?1(?!\d)")
#: keys of a file's metadata and of a config.json that name a network, and what only those of two experts say
_TITLES, _NAMED = ("modelspec.title", "general.name"), ("_name_or_path", "name", "expert")
_BOUNDARIES = ("boundary", "boundary_ratio")
_KEYS = "give both with components.high_noise.path and components.low_noise.path"
_MOST_NAMES = 1000
#: mask channels of an image-to-video network, beside the noise and the latents of the image
MASK_CHANNELS = 4


def config_doubts(config: Mapping[str, Any], classes: str = PLAIN_CLASS) -> tuple[str, ...]:
    """What a ``config.json`` says a network is, where that is nothing of ours: ``classes`` is a regular expression of
    the classes that are. ``model_type`` is not taken at its word: a copy of VACE says ``t2v``."""
    unknown = []
    for key, ours in (("_class_name", lambda text: _is_class(text, classes)), ("model_type", _is_type)):
        said = config.get(key)
        if said is not None and not (isinstance(said, str) and ours(said)):
            unknown.append(f"{key} {_short(said)}")
    if not unknown:
        return ()
    return (f"its config.json says {' and '.join(unknown)}, which is no network that is known here",)


def one_of_two(facts: CheckpointFacts) -> str:
    """Why a network is an expert of Wan2.2 A14B, which has the tensors of Wan2.1: only names tell them apart."""
    file = _file(facts)
    if file.parent.name == "transformer" and (file.parent.parent / "transformer_2").is_dir():
        return "one of two experts of a Wan2.2 model: there is 'transformer_2' beside it"
    name, expert = _claim(facts)
    if expert and ("noise" in name.lower() or _has_partner(file, expert)):
        return f"an expert of a Wan2.2 model, by the name {name!r}: {_KEYS}"
    return ""


def method_doubts(facts: CheckpointFacts, component: str = "dit") -> tuple[str, ...]:
    """What the name of a file says that its network is given beside what ours are."""
    name = next(iter(facts.headers[component].tensors.values())).file.name
    match = _METHOD.search(name)
    if match is None:
        return ()
    return (
        f"the name {name!r} says {match.group()}, whose networks are given {_METHODS[match.group().lower()]}",
    )


def says_wan21(name: str) -> bool:
    """Whether a name says that a network is of Wan2.1, where no model has experts."""
    return _WAN21.search(name) is not None


def expert_doubts(facts: CheckpointFacts) -> tuple[str, ...]:
    """What says that a network is an expert, where the other one is not to be seen."""
    name, expert = _claim(facts)
    if expert:
        return (_said(f"the name {name!r}", expert),)
    header = facts.headers["dit"]
    said = {key: header.metadata.get(key) for key in _TITLES} | {key: facts.config.get(key) for key in _NAMED}
    for key, text in said.items():
        if isinstance(text, str) and (expert := named_expert(text)):
            return (_said(f"{key} {_short(text)}", expert),)
    if keys := [key for key in _BOUNDARIES if facts.config.get(key) is not None]:
        return (f"its config.json has {keys[0]!r}, so it is one of two experts of a Wan2.2 model: {_KEYS}",)
    return ()


def _said(what: str, expert: str) -> str:
    return f"{what} says that it is the {expert.replace('_', '-')} expert of a Wan2.2 model: {_KEYS}"


def _claim(facts: CheckpointFacts) -> tuple[str, str | None]:
    """The name of the file or folder that claims an expert, and the expert."""
    file = _file(facts)
    inside = (
        file.relative_to(facts.folder).parts[:-1]
        if file.is_relative_to(facts.folder)
        else (file.parent.name,)
    )
    for name in reversed(inside):
        if expert := named_expert(name):
            return name, expert
    beside = _files(file.parent)
    if not says_wan21(file.stem) and (
        expert := named_expert(file.stem, beside=[Path(n).stem for n in beside])
    ):
        return file.name, expert
    # a folder of a user's may be called anything
    root = facts.name
    return (root, named_expert(root)) if "noise" in root.lower() else ("", None)


def _has_partner(file: Path, expert: str) -> bool:
    """Whether another file in a folder, or a folder beside it, claims another expert."""
    names = [Path(name).stem for name in _files(file.parent)] + _folders(file.parent.parent)
    return any(named_expert(name) not in (None, expert) for name in names)


def _file(facts: CheckpointFacts) -> Path:
    return facts.headers["dit"].tensors["head.modulation"].file


def _files(folder: Path) -> list[str]:
    return _names(folder, files=True)


def _folders(folder: Path) -> list[str]:
    return _names(folder, files=False)


def _names(folder: Path, *, files: bool) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file() is files][:_MOST_NAMES]
    except OSError:
        return []


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
