"""Evidence that a network is not the Wan network its tensors suggest. Nothing here imports torch.

Networks derived from Wan by third parties keep its tensors and add some, or change the inputs. A network is recognized
by its inputs and outputs; in addition, its configuration may name an unknown network.
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

#: class names of ordinary Wan networks in the official code, diffusers and VideoX-Fun, letters and digits only
PLAIN_CLASS = r"(?:vace)?wan(?:21|22)?(?:vace)?(?:model|transformer(?:3d)?(?:model)?)"
#: parts of a ``model_type``: tasks, and words that do not change the meaning
_TASKS = frozenset({"t2v", "i2v", "ti2v", "flf2v", "vace", "animate", "t2i"})
_FILLERS = re.compile(
    r"wan|wan2|wan2[12]|a?\d+(?:b|p)?|moe|distill(?:ed)?|model|transformer|dit|diffusion|unet"
)
#: methods whose networks have Wan's tensors but additional inputs: word in the file name -> those inputs
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
#: a name with the version Wan2.1, which has no experts
_WAN21 = re.compile(r"(?i)wan[ ._-]?2[ ._-]?1(?!\d)")
#: keys of a file's metadata and of a config.json that name a network; then keys that only models of two experts have
_TITLES, _NAMED = ("modelspec.title", "general.name"), ("_name_or_path", "name", "expert")
_BOUNDARIES = ("boundary", "boundary_ratio")
_KEYS = "set both components.high_noise.path and components.low_noise.path"
_MOST_NAMES = 1000
#: mask channels of an image-to-video network, in addition to those of the noise and of the image latents
MASK_CHANNELS = 4


def config_doubts(config: Mapping[str, Any], classes: str = PLAIN_CLASS) -> tuple[str, ...]:
    """Return a message if a ``config.json`` names an unknown network; empty if not.

    ``classes`` is a regular expression of the known classes. The task in ``model_type`` is not trusted: a copy of VACE
    has ``t2v`` there.
    """
    unknown = []
    for key, ours in (("_class_name", lambda text: _is_class(text, classes)), ("model_type", _is_type)):
        value = config.get(key)
        if value is not None and not (isinstance(value, str) and ours(value)):
            unknown.append(f"{key} {_short(value)}")
    if not unknown:
        return ()
    return (f"its config.json has {' and '.join(unknown)}, an unknown type of network",)


def one_of_two(facts: CheckpointFacts) -> str:
    """Explain why a network is an expert of Wan2.2 A14B; empty if nothing suggests it.

    The experts have the tensors of Wan2.1: only names tell them apart.
    """
    file = _file(facts)
    if file.parent.name == "transformer" and (file.parent.parent / "transformer_2").is_dir():
        return "one of two experts of a Wan2.2 model: there is a folder 'transformer_2' next to it"
    name, expert = _claim(facts)
    if expert and ("noise" in name.lower() or _has_partner(file, expert)):
        return f"an expert of a Wan2.2 model, judging by the name {name!r}: {_KEYS}"
    return ""


def method_doubts(facts: CheckpointFacts, component: str = "dit") -> tuple[str, ...]:
    """Return a message if a network's file is named after a method with additional inputs; empty if not."""
    name = next(iter(facts.headers[component].tensors.values())).file.name
    match = _METHOD.search(name)
    if match is None:
        return ()
    return (
        f"the name {name!r} contains {match.group()}, whose networks have additional inputs: "
        f"{_METHODS[match.group().lower()]}",
    )


def says_wan21(name: str) -> bool:
    """Return whether a name contains the version Wan2.1, of which no model has experts."""
    return _WAN21.search(name) is not None


def expert_doubts(facts: CheckpointFacts) -> tuple[str, ...]:
    """Return a message if names, metadata or the configuration mark a network as an expert without its partner."""
    name, expert = _claim(facts)
    if expert:
        return (_marked(f"the name {name!r}", expert),)
    header = facts.headers["dit"]
    names = {key: header.metadata.get(key) for key in _TITLES} | {
        key: facts.config.get(key) for key in _NAMED
    }
    for key, text in names.items():
        if isinstance(text, str) and (expert := named_expert(text)):
            return (_marked(f"{key} {_short(text)}", expert),)
    if keys := [key for key in _BOUNDARIES if facts.config.get(key) is not None]:
        return (f"its config.json has {keys[0]!r}, so it is one of two experts of a Wan2.2 model: {_KEYS}",)
    return ()


def _marked(source: str, expert: str) -> str:
    return f"{source} marks it as the {expert.replace('_', '-')} expert of a Wan2.2 model: {_KEYS}"


def _claim(facts: CheckpointFacts) -> tuple[str, str | None]:
    """Return the name of the file or folder that claims an expert, and the expert."""
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
    # users name the model's folder freely: its name counts only with "noise" in it
    root = facts.name
    return (root, named_expert(root)) if "noise" in root.lower() else ("", None)


def _has_partner(file: Path, expert: str) -> bool:
    """Return whether another file of the folder, or a folder next to it, claims another expert."""
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
    parts = [part for part in re.split(r"[^a-z0-9]+", text.lower()) if part]
    return all(part in _TASKS or _FILLERS.fullmatch(part) for part in parts)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def output_channels(shapes: Shapes) -> int:
    """Return the number of output channels of a Wan transformer. ``ValueError`` as for ``axis``."""
    patch = shapes.get("patch_embedding.weight", ())[2:]
    return axis(shapes, "head.head.weight", 0, "a Wan transformer") // max(prod(patch), 1)


def taken(noise: int, *, image: bool) -> str:
    """Format the input channels that a network must have: ``36 (16 of noise, 4 of a mask, 16 of an image)``."""
    if not image:
        return f"{noise} (noise)"
    return f"{2 * noise + MASK_CHANNELS} ({noise} of noise, {MASK_CHANNELS} of a mask, {noise} of an image)"
