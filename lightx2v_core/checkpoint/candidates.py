"""The sets of files that could be a component, and the choice between them.

Every set that matches is a candidate. A requested precision or distillation rules some out; ``choose_candidate``
decides between the rest. If its rules cannot decide, it raises an error that lists the candidates: nothing is chosen
silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from lightx2v_core.checkpoint.experts import folders_for, named_for, stems
from lightx2v_core.checkpoint.header_cache import Reader, ReadHeader, reader_of
from lightx2v_core.checkpoint.layouts import MappedHeader, recognize_layout
from lightx2v_core.checkpoint.places import (
    CODED,
    DTYPE_NAMES,
    ORIGINAL,
    SEARCH_FOLDERS,
    SearchFolder,
    claimed_precision,
)
from lightx2v_core.checkpoint.shards import FileSet
from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.file_names import distilled_by, says_distilled
from lightx2v_core.spec.tensors import Header


class Ambiguous(CheckpointError):
    """Several sets of files could be a component, and the configuration does not select one."""


class Pair(Ambiguous):
    """Two candidates with the same precision and distillation: they may be the two networks of one model."""


@frozen(kw_only=True)
class Wish:
    """The settings of a component other than its path; ``key`` names the component in the configuration."""

    key: str = ""
    precision: str | None = None
    distilled: bool | None = None
    #: the folder of the network; of equal candidates the one in it is preferred
    near: Path | None = None


@frozen(kw_only=True)
class Candidate:
    """A set of files that could be the component."""

    located: FileSet
    place: SearchFolder
    #: number of the pattern that found it
    pattern: int
    #: None when no header was read
    mapped: MappedHeader | None = None
    #: why it cannot be read
    problem: str = ""
    precision: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        header = self.mapped.header if self.mapped is not None else None
        object.__setattr__(self, "precision", "" if header is None else precision_of(header))

    @property
    def folder(self) -> Path:
        return self.located.files[0].parent

    @property
    def name(self) -> str:
        """Return the name that messages use."""
        path = self.located.index or self.located.files[0]
        sub = f"{self.place.folder}/" if self.place.folder else ""
        if path.parent.name != self.place.folder.rpartition("/")[2]:
            sub += f"{path.parent.name}/" if self.place.folder else ""
        more = len(self.located.files) - 1
        return f"{sub}{path.name}" + (f" and {more} more" if more and self.located.index is None else "")

    @property
    def distilled(self) -> bool:
        """Return whether a file or folder name, or the metadata of merged LoRAs, marks the network as distilled."""
        if self.place.distilled is not None:
            return self.place.distilled
        metadata = self.mapped.header.metadata if self.mapped is not None else {}
        return any(says_distilled(path.name) for path in self.located.files) or bool(distilled_by(metadata))

    @property
    def dtype(self) -> str:
        """Return the dtype of most of its bytes."""
        return self.mapped.header.precision if self.mapped is not None else ""

    def description(self) -> str:
        """Describe name, precision and layout, for a message."""
        if self.problem:
            return f"{self.name} (cannot be used: {self.problem})"
        if self.mapped is None:
            return self.name
        words = [self.dtype if self.precision == ORIGINAL else self.precision]
        words += ["distilled"] if self.distilled else []
        words += [self.mapped.layout] if self.mapped.layout != "official" else []
        return f"{self.name} ({', '.join(words)})"


def precision_of(header: Header) -> str:
    """Determine the precision from a header: ``original``, or the quantized precision of most matrix bytes: ``fp8``,
    ``int8``, ``packed``, or the name of a block format."""
    return header.once("coded precision", lambda: _precision_of(header))


def _precision_of(header: Header) -> str:
    sizes: dict[str, int] = {}
    for info in header.tensors.values():
        coded = info.dtype if info.block is not None else CODED.get(info.dtype)
        if coded is not None and len(info.shape) >= 2:
            sizes[coded] = sizes.get(coded, 0) + info.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ORIGINAL


def false_claim(name: str, header: Header) -> str:
    """Return a message if a file's name states another precision than its tensors have; empty otherwise."""
    held = {CODED.get(info.dtype, info.dtype) for info in header.tensors.values() if len(info.shape) >= 2}
    claim = claimed_precision(name)
    if not claim or claim in held:
        return ""
    return f"the file name says {claim}, but its weights are {', '.join(sorted(held))}; the tensors decide"


def gathered(
    spec: ComponentSpec,
    folder: Path,
    patterns: Sequence[str],
    read: ReadHeader | None,
    wish: Wish,
    places: Sequence[SearchFolder] = SEARCH_FOLDERS,
) -> list[Candidate]:
    """Collect the sets of files in ``folder`` that match the patterns and have the tensors of the component.

    Unreadable sets are included, with their problem. The spec's fallback patterns are tried only if no other candidate
    meets ``wish``: they may match any file, and reading the header of each takes time.
    """
    candidates: dict[tuple[Path | None, tuple[Path, ...]], Candidate] = {}
    reader = reader_of(read) if read is not None else Reader(_unasked)
    there = [place for place in places if os.path.isdir(folder / place.folder)]
    for fallback in (False, True):
        for place in there:
            for number, pattern in enumerate(patterns):
                if (pattern in spec.fallback) is not fallback:
                    continue
                for where in _folders(spec, folder / place.folder, pattern, reader):
                    for candidate in _tested(
                        spec, folder, where, place, number, pattern, reader, headers=read is not None
                    ):
                        candidates.setdefault((candidate.located.index, candidate.located.files), candidate)
        if any(
            not candidate.problem and _as_wished(spec, candidate, wish) for candidate in candidates.values()
        ):
            break
    return list(candidates.values())


def _as_wished(spec: ComponentSpec, candidate: Candidate, wish: Wish) -> bool:
    return (wish.precision is None or _may_be_in(candidate, wish.precision)) and (
        wish.distilled is None or not spec.main or candidate.distilled == wish.distilled
    )


def _unasked(path: Path) -> Header:
    raise AssertionError(f"{path} is matched by name only, without reading its header")


def _folders(spec: ComponentSpec, place: Path, pattern: str, reader: Reader) -> list[Path]:
    """List the folders that a pattern matches."""
    sub = pattern.rpartition("/")[0]
    if sub == "*":
        return [place / name for name in folders_for(spec, reader.listing(place).folders)]
    return [place / sub] if not sub or os.path.isdir(place / sub) else []


def _tested(
    spec: ComponentSpec,
    root: Path,
    where: Path,
    place: SearchFolder,
    number: int,
    pattern: str,
    reader: Reader,
    *,
    headers: bool,
) -> Iterator[Candidate]:
    sets, broken = reader.sets(where, pattern.rpartition("/")[2], spec.summary)
    if spec.experts:
        beside = stems(reader.listing(where).files)

        def meant(located: FileSet) -> bool:
            return named_for(spec, pattern, located.files[0], root, beside)

        sets = [located for located in sets if meant(located)]
        broken = [(located, problem) for located, problem in broken if meant(located)]
    for located in sets:
        mapped, problem = None, ""
        if headers:
            try:
                mapped = recognize_layout(spec, reader.whole(located.files))
            except CheckpointError as exc:
                problem = str(exc)
            if mapped is None and not problem:
                continue  # another component
        yield Candidate(located=located, place=place, pattern=number, mapped=mapped, problem=problem)
    for located, problem in broken:
        yield Candidate(located=located, place=place, pattern=number, problem=problem)


def choose_candidate(
    spec: ComponentSpec, folder: Path, candidates: Sequence[Candidate], wish: Wish
) -> Candidate | None:
    """Choose the candidate to load; ``None`` if there are no candidates.

    Raises ``CheckpointError`` if none meets ``wish``, if the only ones are broken, or if several remain.
    """
    if not candidates:
        return None
    matching = _wished(spec, folder, candidates, wish)
    usable = [candidate for candidate in matching if not candidate.problem]
    if not usable:
        raise CheckpointError(matching[0].problem)
    if not spec.main:
        return _choose_part(spec, folder, usable, wish)
    # an unreadable file that only a general pattern matched may be of any component
    broken = [candidate for candidate in matching if candidate.problem and candidate.pattern == 0]
    return _choose_network(spec, folder, [*usable, *broken], wish)


def _choose_network(
    spec: ComponentSpec, folder: Path, candidates: Sequence[Candidate], wish: Wish
) -> Candidate:
    """Choose the network if there is only one; raise ``Ambiguous`` if there are several, which the user has to select
    from."""
    left = candidates if wish.precision is not None else _of_one_place(candidates)
    if len(left) > 1:
        kinds = {(candidate.precision, candidate.distilled, candidate.problem) for candidate in left}
        error = Pair if len(kinds) == 1 and len(left) == 2 else Ambiguous
        raise error(_ambiguous(spec, folder, left, wish))
    if left[0].problem:
        raise CheckpointError(left[0].problem)
    return left[0]


def _choose_part(spec: ComponentSpec, folder: Path, candidates: Sequence[Candidate], wish: Wish) -> Candidate:
    """Choose the first candidate by ``_rank``: of the unquantized ones, or of all if each is quantized."""
    plain = [candidate for candidate in candidates if candidate.precision in ("", ORIGINAL)]
    if not plain and wish.precision is None and len({candidate.precision for candidate in candidates}) > 1:
        raise Ambiguous(_ambiguous(spec, folder, candidates, wish))
    left = plain or candidates
    least = min(_rank(candidate, wish) for candidate in left)
    first = [candidate for candidate in left if _rank(candidate, wish) == least]
    if len(first) > 1:
        raise Ambiguous(_ambiguous(spec, folder, first, wish))
    return first[0]


def not_taken(candidates: Sequence[Candidate], chosen: Candidate) -> tuple[str, ...]:
    """Describe the candidates that were not chosen."""
    return tuple(candidate.description() for candidate in candidates if candidate is not chosen)


def _wished(
    spec: ComponentSpec, folder: Path, candidates: Sequence[Candidate], wish: Wish
) -> Sequence[Candidate]:
    """Drop the candidates that do not meet ``wish``; broken ones, whose precision is unknown, stay."""
    matching = candidates
    if wish.precision is not None:
        _check_precision(candidates, wish.precision, wish.key)
        matching = [candidate for candidate in matching if _may_be_in(candidate, wish.precision)]
    if wish.distilled is not None and spec.main:
        matching = _of_distillation(matching, wish.distilled)
    if all(candidate.problem for candidate in matching) and not all(
        candidate.problem for candidate in candidates
    ):
        requested = wish.precision or ("distilled" if wish.distilled else "not distilled")
        lines = "\n".join(f"  {candidate.description()}" for candidate in candidates)
        raise CheckpointError(f"{wish.key}: no {spec.summary} in {folder} is {requested}; found:\n{lines}")
    return matching


def _check_precision(candidates: Sequence[Candidate], precision: str, key: str) -> None:
    """Raise ``CheckpointError`` for an unknown precision that no candidate has."""
    known = {*DTYPE_NAMES, *CODED.values(), ORIGINAL, *(candidate.precision for candidate in candidates)} - {
        ""
    }
    gguf = precision.partition("-")[0] == "gguf"  # known even if no file has this format
    if (
        precision not in known
        and not gguf
        and not any(fits(candidate, precision) for candidate in candidates)
    ):
        raise CheckpointError(
            f"{key}.precision: unknown precision {precision!r}{suggestion(precision, known)}; choose from "
            f"{', '.join(sorted(known))}"
        )


def _may_be_in(candidate: Candidate, precision: str) -> bool:
    """Return whether a candidate has a precision; True if its header was not read."""
    return candidate.mapped is None or fits(candidate, precision)


def _of_distillation(candidates: Sequence[Candidate], distilled: bool) -> Sequence[Candidate]:
    """Select the distilled networks, or the others. If none is marked as distilled, those outside of folders for
    undistilled networks count as distilled."""
    marked = [candidate for candidate in candidates if candidate.distilled == distilled]
    unmarked = [candidate for candidate in candidates if distilled and candidate.place.distilled is not False]
    return marked or unmarked


def fits(candidate: Candidate, precision: str) -> bool:
    """Return whether a candidate has a precision, as a configuration names it: ``fp8``, ``bf16``, ``gguf-q8_0``, or
    the family ``gguf``."""
    if precision in DTYPE_NAMES:
        return candidate.precision == ORIGINAL and candidate.dtype == DTYPE_NAMES[precision]
    return candidate.precision == precision or candidate.precision.startswith(f"{precision}-")


def _of_one_place(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the networks in the original precision, if any, where each precision has a folder of its own: a quantized
    network has to be requested. Of networks in one folder all stay, and the user has to select one."""
    plain = [candidate for candidate in candidates if candidate.precision == ORIGINAL]
    places = {candidate.place.folder for candidate in plain}
    quantized = [candidate for candidate in candidates if candidate.precision != ORIGINAL]
    if plain and not any(candidate.place.folder in places for candidate in quantized):
        return plain
    return list(candidates)


def _rank(candidate: Candidate, wish: Wish) -> tuple[bool, int, int]:
    """Build the sort key: candidates in the network's folder first, then by the order of the patterns and places."""
    place = SEARCH_FOLDERS.index(candidate.place) if candidate.place in SEARCH_FOLDERS else 0
    return candidate.folder != wish.near, candidate.pattern, place


def _ambiguous(spec: ComponentSpec, folder: Path, candidates: Sequence[Candidate], wish: Wish) -> str:
    lines = "\n".join(f"  {candidate.description()}" for candidate in candidates)
    key = wish.key or f"components.{spec.name}"
    ways = [f"{key}.path"]
    usable = [candidate for candidate in candidates if not candidate.problem]
    precisions = sorted({candidate.precision for candidate in usable} - {""})
    if len(precisions) > 1:
        ways.append(f"{key}.precision ({', '.join(precisions)})")
    if len({candidate.distilled for candidate in usable}) > 1:
        ways.append(f"{key}.distilled (true or false)")
    return f"{folder} contains more than one {spec.summary}; select one with {' or '.join(ways)}:\n{lines}"
