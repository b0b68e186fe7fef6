"""Matching files to the experts of a model. The experts have the same tensor names and shapes, so the name of the file
or of its folder has to tell them apart (``spec.file_names.named_expert``), as for LoRA files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.file_names import named_expert

#: folders in which files of any name are searched
_MOST = 200
#: occurrences of a word in a name that are considered
_MOST_WORDS = 8


def named_for(spec: ComponentSpec, pattern: str, file: Path, root: Path, beside: Collection[str]) -> bool:
    """Return whether a file that matched ``pattern`` may be the network ``spec``.

    Always true if only files of this network match the pattern; otherwise the name of the file or of its folder has to
    name the expert. ``root`` is the folder of the model, whose name counts only with the whole name of an expert;
    ``beside`` are the ``stems`` of the files in the folder.
    """
    if not spec.experts or not _tells_nothing(pattern):
        return True
    return claimed_by(file, spec.experts, root, beside) == spec.name


def stems(names: Iterable[str]) -> frozenset[str]:
    """Return the names of files without their suffixes, in lower case."""
    return frozenset(Path(name).stem.lower() for name in names)


def claimed_by(file: Path, experts: Sequence[str], root: Path, beside: Collection[str]) -> str | None:
    """Return the expert named by the folders of a file below ``root``, the nearest first, or by its own name."""
    folders = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else (file.parent.name,)
    for name in reversed(folders):
        if expert := named_expert(name, experts):
            return expert
    if expert := named_expert(file.stem, experts, _partners(file.stem, experts, beside)):
        return expert
    return named_expert(root.name, experts) if "noise" in root.name.lower() else None


def claims_other(spec: ComponentSpec, file: Path, beside: Collection[str]) -> str:
    """Name the file or folder name that identifies a file as another expert than ``spec``; empty if neither does."""
    for name, claimed in (
        (file.name, named_expert(file.stem, spec.experts, _partners(file.stem, spec.experts, beside))),
        (file.parent.name, named_expert(file.parent.name, spec.experts)),
    ):
        if claimed not in (None, spec.name):
            return f"the name {name!r} says {claimed}"
    return ""


def _partners(stem: str, experts: Sequence[str], beside: Collection[str]) -> list[str]:
    """Find the names next to a file that differ only in the word of an expert. Looks up candidate names, since a folder
    may contain very many files."""
    lower, prefixes = stem.lower(), [expert.partition("_")[0] for expert in experts]
    partners = set()
    for word in prefixes:
        for at in [match.start() for match in re.finditer(re.escape(word), lower)][:_MOST_WORDS]:
            partners |= {lower[:at] + other + lower[at + len(word) :] for other in prefixes if other != word}
    return [name for name in partners if name in beside]


def folders_for(spec: ComponentSpec, names: Sequence[str]) -> list[str]:
    """Select the folders in a place that are named after the expert ``spec``."""
    return [name for name in names[:_MOST] if named_expert(name, spec.experts) == spec.name]


def _tells_nothing(pattern: str) -> bool:
    """Return whether files of any network match a pattern."""
    return (
        re.fullmatch(r"(?:\*/)?(?:diffusion_pytorch_model|distill_model\.)?\*(?:\.\w+)?", pattern) is not None
    )
