"""The sets of files that could be a component, and the choice between them.

Every set that fits is a candidate. Wishes (precision, distilled or not) leave some out; then the rules of ``choose``
decide. What they cannot decide is an error that lists the candidates: nothing is chosen silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from lightx2v_core.checkpoint.experts import folders_for, named_for, stems
from lightx2v_core.checkpoint.header_cache import Reader, ReadHeader, reader_of
from lightx2v_core.checkpoint.layouts import MappedHeader, recognize_layout
from lightx2v_core.checkpoint.places import CODED, DTYPE_NAMES, ORIGINAL, PLACES, Place, claimed_precision
from lightx2v_core.checkpoint.shards import Located
from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.file_names import distilled_by, says_distilled
from lightx2v_core.spec.tensors import Header


class Ambiguous(CheckpointError):
    """Several sets of files could be a component, and nothing says which is meant."""


class Pair(Ambiguous):
    """Two of them, which differ in nothing that a name or a tensor tells: they may be the two networks of one model."""


@frozen(kw_only=True)
class Wish:
    """What was asked of a component beside its path; ``key`` names the component in the configuration."""

    key: str = ""
    precision: str | None = None
    distilled: bool | None = None
    #: the folder of the network, which equals are preferred from
    near: Path | None = None


@frozen(kw_only=True)
class Candidate:
    """A set of files that could be the component."""

    located: Located
    place: Place
    #: number of the pattern that it was found by
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
        """How it is called in messages."""
        path = self.located.index or self.located.files[0]
        sub = f"{self.place.folder}/" if self.place.folder else ""
        if path.parent.name != self.place.folder.rpartition("/")[2]:
            sub += f"{path.parent.name}/" if self.place.folder else ""
        more = len(self.located.files) - 1
        return f"{sub}{path.name}" + (f" and {more} more" if more and self.located.index is None else "")

    @property
    def distilled(self) -> bool:
        """Whether a name says that the network is distilled, or what was merged into it."""
        if self.place.distilled is not None:
            return self.place.distilled
        metadata = self.mapped.header.metadata if self.mapped is not None else {}
        return any(says_distilled(path.name) for path in self.located.files) or bool(distilled_by(metadata))

    @property
    def dtype(self) -> str:
        """The dtype of most of its bytes."""
        return self.mapped.header.precision if self.mapped is not None else ""

    def described(self) -> str:
        """Name, precision and layout, for a message."""
        if self.problem:
            return f"{self.name} (cannot be used: {self.problem})"
        if self.mapped is None:
            return self.name
        words = [self.dtype if self.precision == ORIGINAL else self.precision]
        words += ["distilled"] if self.distilled else []
        words += [self.mapped.layout] if self.mapped.layout != "official" else []
        return f"{self.name} ({', '.join(words)})"


def precision_of(header: Header) -> str:
    """Read the precision off a header: ``original``, or the quantized precision most matrix bytes are in: ``fp8``,
    ``int8``, ``packed``, or the name of a format that packs values in blocks."""
    return header.once("coded precision", lambda: _precision_of(header))


def _precision_of(header: Header) -> str:
    sizes: dict[str, int] = {}
    for info in header.tensors.values():
        coded = info.dtype if info.block is not None else CODED.get(info.dtype)
        if coded is not None and len(info.shape) >= 2:
            sizes[coded] = sizes.get(coded, 0) + info.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else ORIGINAL


def false_claim(name: str, header: Header) -> str:
    """What is wrong with a file's name that says another precision than its tensors have; empty when nothing is."""
    held = {CODED.get(info.dtype, info.dtype) for info in header.tensors.values() if len(info.shape) >= 2}
    claim = claimed_precision(name)
    if not claim or claim in held:
        return ""
    return f"its name says {claim}, and its weights are {', '.join(sorted(held))}; the tensors decide"


def gathered(
    spec: ComponentSpec,
    folder: Path,
    patterns: Sequence[str],
    read: ReadHeader | None,
    wish: Wish,
    places: Sequence[Place] = PLACES,
) -> list[Candidate]:
    """Every set of files in ``folder`` that the patterns name and whose tensors are those of the component; sets that
    cannot be read are there too, with their problem. The spec's fallbacks are used only when nothing else is as
    wished: they may match any file, and looking into each takes time."""
    found: dict[tuple[Path | None, tuple[Path, ...]], Candidate] = {}
    reader = reader_of(read) if read is not None else Reader(_unasked)
    there = [place for place in places if os.path.isdir(folder / place.folder)]
    for fallback in (False, True):
        for place in there:
            for number, pattern in enumerate(patterns):
                if (pattern in spec.fallback) is not fallback:
                    continue
                for where in _folders(spec, folder / place.folder, pattern, reader):
                    for item in _tested(
                        spec, folder, where, place, number, pattern, reader, headers=read is not None
                    ):
                        found.setdefault((item.located.index, item.located.files), item)
        if any(not item.problem and _as_wished(spec, item, wish) for item in found.values()):
            break
    return list(found.values())


def _as_wished(spec: ComponentSpec, item: Candidate, wish: Wish) -> bool:
    return (wish.precision is None or item.mapped is None or fits(item, wish.precision)) and (
        wish.distilled is None or not spec.main or item.distilled == wish.distilled
    )


def _unasked(path: Path) -> Header:
    raise AssertionError(f"{path} is found by its name alone")


def _folders(spec: ComponentSpec, place: Path, pattern: str, reader: Reader) -> list[Path]:
    """The folders that a pattern leads to."""
    sub = pattern.rpartition("/")[0]
    if sub == "*":
        return [place / name for name in folders_for(spec, reader.listing(place).folders)]
    return [place / sub] if not sub or os.path.isdir(place / sub) else []


def _tested(
    spec: ComponentSpec,
    root: Path,
    where: Path,
    place: Place,
    number: int,
    pattern: str,
    reader: Reader,
    *,
    headers: bool,
) -> Iterator[Candidate]:
    sets, broken = reader.sets(where, pattern.rpartition("/")[2], spec.summary)
    if spec.experts:
        beside = stems(reader.listing(where).files)

        def meant(located: Located) -> bool:
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
                continue  # something else
        yield Candidate(located=located, place=place, pattern=number, mapped=mapped, problem=problem)
    for located, problem in broken:
        yield Candidate(located=located, place=place, pattern=number, problem=problem)


def choose(spec: ComponentSpec, folder: Path, found: Sequence[Candidate], wish: Wish) -> Candidate | None:
    """The candidate that is meant; ``None`` when there is none.

    ``CheckpointError`` when none is as wished, when the only ones are broken, or when several are meant.
    """
    if not found:
        return None
    meant = _wished(spec, folder, found, wish)
    usable = [item for item in meant if not item.problem]
    if not usable:
        raise CheckpointError(meant[0].problem)
    if spec.main:
        # an unreadable file that only a general pattern matched may be anything
        usable += [item for item in meant if item.problem and item.pattern == 0]
        usable = _of_one_place(usable) if wish.precision is None else usable
        if len(usable) > 1:
            alike = len({(item.precision, item.distilled, item.problem) for item in usable}) == 1
            kind = Pair if alike and len(usable) == 2 else Ambiguous
            raise kind(_ambiguous(spec, folder, usable, wish))
        if usable[0].problem:
            raise CheckpointError(usable[0].problem)
        return usable[0]
    plain = [item for item in usable if item.precision in ("", ORIGINAL)]
    if not plain and wish.precision is None and len({item.precision for item in usable}) > 1:
        raise Ambiguous(_ambiguous(spec, folder, usable, wish))
    order = sorted(plain or usable, key=lambda item: _rank(item, wish))
    first = [item for item in order if _rank(item, wish) == _rank(order[0], wish)]
    if len(first) > 1:
        raise Ambiguous(_ambiguous(spec, folder, first, wish))
    return first[0]


def passed_over(found: Sequence[Candidate], chosen: Candidate) -> tuple[str, ...]:
    """The candidates that were not taken, in words."""
    return tuple(item.described() for item in found if item is not chosen)


def _wished(spec: ComponentSpec, folder: Path, found: Sequence[Candidate], wish: Wish) -> Sequence[Candidate]:
    """Those that are as wished; broken ones, of which nothing is known, stay."""
    meant = list(found)
    if wish.precision is not None:
        known = {*DTYPE_NAMES, *CODED.values(), ORIGINAL, *(item.precision for item in found)} - {""}
        gguf = wish.precision.partition("-")[0] == "gguf"  # a format that can be meant where no file is in it
        if wish.precision not in known and not gguf and not any(fits(item, wish.precision) for item in found):
            raise CheckpointError(
                f"{wish.key}.precision: unknown precision {wish.precision!r}"
                f"{suggestion(wish.precision, known)}; known are {', '.join(sorted(known))}"
            )
        meant = [item for item in meant if item.mapped is None or fits(item, wish.precision)]
    if wish.distilled is not None and spec.main:
        # without a word about it, a network counts as whatever is asked for
        told = [item for item in meant if item.distilled == wish.distilled]
        meant = told or [item for item in meant if wish.distilled and not _says_ordinary(item)]
    if all(item.problem for item in meant) and not all(item.problem for item in found):
        asked = wish.precision or ("distilled" if wish.distilled else "not distilled")
        lines = "\n".join(f"  {item.described()}" for item in found)
        raise CheckpointError(f"{wish.key}: no {spec.summary} in {folder} is {asked}; there are:\n{lines}")
    return meant


def _says_ordinary(item: Candidate) -> bool:
    """Whether the place of a candidate says that its network is not distilled."""
    return item.place.distilled is False


def fits(item: Candidate, precision: str) -> bool:
    """Whether a candidate is in a precision, as a configuration names it: ``fp8``, ``bf16``, ``gguf-q8_0``, or the
    family ``gguf``."""
    if precision in DTYPE_NAMES:
        return item.precision == ORIGINAL and item.dtype == DTYPE_NAMES[precision]
    return item.precision == precision or item.precision.startswith(f"{precision}-")


def _of_one_place(usable: Sequence[Candidate]) -> list[Candidate]:
    """Of networks in folders by precision those in the original precision, when there are any: what is quantized has
    to be asked for. Side by side in one folder all stay, and have to be told apart."""
    plain = [item for item in usable if item.precision == ORIGINAL]
    places = {item.place.folder for item in plain}
    if plain and not any(item.place.folder in places for item in usable if item.precision != ORIGINAL):
        return plain
    return list(usable)


def _rank(item: Candidate, wish: Wish) -> tuple[bool, int, int]:
    """Nearest to the network first, then in the order of the patterns and of the places."""
    return item.folder != wish.near, item.pattern, PLACES.index(item.place) if item.place in PLACES else 0


def _ambiguous(spec: ComponentSpec, folder: Path, found: Sequence[Candidate], wish: Wish) -> str:
    lines = "\n".join(f"  {item.described()}" for item in found)
    key = wish.key or f"components.{spec.name}"
    ways = [f"{key}.path"]
    usable = [item for item in found if not item.problem]
    precisions = sorted({item.precision for item in usable} - {""})
    if len(precisions) > 1:
        ways.append(f"{key}.precision ({', '.join(precisions)})")
    if len({item.distilled for item in usable}) > 1:
        ways.append(f"{key}.distilled (true or false)")
    return f"{folder} holds more than one {spec.summary}; say which with {' or '.join(ways)}:\n{lines}"
