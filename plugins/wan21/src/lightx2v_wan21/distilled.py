"""How a distilled network is known: by names, for its tensors are those of the ordinary one. Nothing imports torch."""

from __future__ import annotations

import re

from lightx2v_core.api import CheckpointFacts

#: steps that a name does not number
DISTILLED_STEPS = 4
_STEPS = r"(?<!\d)([1-9])[ _-]?steps?(?![a-z])"
#: what the names of distilled networks hold
_WORDS = re.compile(rf"distill|{_STEPS}")
#: a maker of distilled networks, whose name is also that of programs: it counts in the names of files only
_FILE_WORDS = re.compile(rf"{_WORDS.pattern}|lightx2v")


def distilled_name(facts: CheckpointFacts, component: str) -> str:
    """The name of a file or folder that says that a network is distilled; empty when none does. Folders are those the
    files lie in, up to the model's own."""
    files = {info.file for info in facts.headers[component].tensors.values()}
    for name in sorted(file.name for file in files):
        if _FILE_WORDS.search(name.lower()):
            return name
    folders = {facts.folder.name}
    for file in files:
        inside = file.is_relative_to(facts.folder)
        folders |= set(file.relative_to(facts.folder).parts[:-1]) if inside else {file.parent.name}
    return next((name for name in sorted(folders) if _WORDS.search(name.lower())), "")


def distilled_steps(name: str) -> int:
    """The steps that a name says its network is distilled to; 4 when it does not say a number."""
    found = re.search(_STEPS, name.lower())
    return int(found[1]) if found else DISTILLED_STEPS


def distilled_note(name: str, ordinary: str) -> str:
    """What a plan says of a network that a name calls distilled, and the options of an ordinary one."""
    steps = distilled_steps(name)
    count = (
        ""
        if steps == DISTILLED_STEPS
        else f" to {steps} steps (its option denoising_steps lists others than 4)"
    )
    return (
        f"the name {name!r} says that the network is distilled{count}: the distill scheduler and no guidance by "
        f"default; if it is not, give {ordinary}"
    )
