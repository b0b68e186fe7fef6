"""Recognition of LoRA files from their headers: naming families, ranks, alphas, kinds of changes, and the expert."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from lightx2v_core.lora import naming
from lightx2v_core.lora.scalars import read_scalars
from lightx2v_core.spec.file_names import EXPERTS, named_expert
from lightx2v_core.spec.tensors import Header, TensorInfo

_SUFFIXES = tuple(
    (family.name, role, re.compile(f"(?P<base>.+){suffix}"))
    for family in naming.FAMILIES
    for role, suffix in family.suffixes.items()
)
_SHARED = tuple((role, re.compile(f"(?P<base>.+?)(?:{suffix})")) for role, suffix in naming.SHARED.items())
#: beginning of the reason that takes precedence over metadata and file names
_KEYS = "key prefix"
#: substrings of names; each part of a change has one of them
_TELLING = ("lora", "hada_", "lokr_", ".diff", ".alpha", ".dora_scale")
_LOKR_FIRST, _LOKR_SECOND = ({"w1"}, {"w1_a", "w1_b"}), ({"w2"}, {"w2_a", "w2_b"})


@frozen(kw_only=True)
class LoraModule:
    """The tensors of a file for one module, by role; ``base`` is its stored name without the suffix of the role."""

    base: str
    family: str
    tensors: Mapping[str, TensorInfo]
    adapter: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of its complete changes: ``low-rank``, ``low-rank with mid``, ``loha``, ``lokr``, ``diff``,
        ``diff_b``, ``diff_m``."""
        roles, kinds = set(self.tensors), []
        if {"down", "up"} <= roles:
            kinds.append("low-rank with mid" if "mid" in roles else "low-rank")
        if self.family == "loha" and {"w1_a", "w1_b", "w2_a", "w2_b"} <= roles:
            kinds.append("loha")
        if (
            self.family == "lokr"
            and any(part <= roles for part in _LOKR_FIRST)
            and any(part <= roles for part in _LOKR_SECOND)
        ):
            kinds.append("lokr")
        return (*kinds, *(role for role in ("diff", "diff_b", "diff_m") if role in roles))

    @property
    def rank(self) -> int | None:
        """Return the rank of its matrices; ``None`` if it has none."""
        for role in ("down", "w1_b", "w2_b"):
            if role in self.tensors and self.tensors[role].shape:
                return self.tensors[role].shape[0]
        return None


@frozen(kw_only=True)
class LoraContents:
    """A parsed header of a LoRA file."""

    header: Header
    targets: tuple[LoraModule, ...]
    #: names that are not part of a change
    unknown: tuple[str, ...]


@frozen(kw_only=True)
class LoraDescription:
    """A summary of a LoRA file."""

    #: naming family of most of its changes
    family: str
    families: tuple[str, ...]
    #: distinct ranks, ascending
    ranks: tuple[int, ...]
    #: distinct alphas, ascending; empty if it has none, or if only its loader can read them
    alphas: tuple[float, ...]
    #: number of changes with an alpha, and of all changes that could have one
    with_alpha: int
    scalable: int
    #: kind of change -> count
    kinds: Mapping[str, int]
    #: module without the number of its block (``blocks.N.self_attn.q``) -> number of changes
    targets: Mapping[str, int]
    #: the expert that the file is for, and the name or metadata that states it
    expert: str | None
    expert_why: str
    #: names that are not part of a change
    unknown: tuple[str, ...] = field(default=())
    parameters: int

    @property
    def magnitudes(self) -> int:
        """Return the number of its DoRA changes."""
        return self.kinds.get("magnitude", 0)


def is_lora(header: Header) -> bool:
    """Return whether a file is a LoRA: most of its tensors are parts of changes, and at least one change is
    complete."""
    file = parsed(header)
    return 2 * len(file.unknown) < len(header) and any(target.kinds for target in file.targets)


def parsed(header: Header) -> LoraContents:
    """Parse the changes of a file. Tensors of one module and one family form a change; shared tensors of the module
    (alpha, magnitude) belong to each of its changes."""
    return header.once("changes", lambda: _parsed(header))


def _parsed(header: Header) -> LoraContents:
    parts: dict[tuple[str, str, str], dict[str, TensorInfo]] = {}
    shared: dict[str, dict[tuple[str, str], TensorInfo]] = {}
    unknown = []
    for name, info in header.tensors.items():
        if not any(word in name for word in _TELLING):
            unknown.append(name)
            continue
        for family, role, pattern in _SUFFIXES:
            if match := pattern.fullmatch(name):
                adapter = match.groupdict().get("adapter") or ""
                parts.setdefault((match["base"], family, adapter), {})[role] = info
                break
        else:
            for role, pattern in _SHARED:
                if match := pattern.fullmatch(name):
                    adapter = match.groupdict().get("adapter") or ""
                    shared.setdefault(match["base"], {})[role, adapter] = info
                    break
            else:
                unknown.append(name)
    targets = []
    for (base, family, adapter), tensors in parts.items():
        if family != "difference":
            for (role, of), info in shared.get(base, {}).items():
                if of in ("", adapter):
                    tensors[role] = info
        targets.append(LoraModule(base=base, family=family, tensors=tensors, adapter=adapter))
    used = {info.name for target in targets for info in target.tensors.values()}
    alone = [info.name for by_role in shared.values() for info in by_role.values() if info.name not in used]
    return LoraContents(header=header, targets=tuple(targets), unknown=(*unknown, *alone))


def describe(
    header: Header, experts: Sequence[str] = EXPERTS, beside: Collection[str] = ()
) -> LoraDescription:
    """Describe a LoRA file from its header. ``experts`` are the possible experts, ``beside`` the names of the files in
    its folder."""
    file = parsed(header)
    families = Counter(_family(target) for target in file.targets)
    kinds: Counter[str] = Counter(kind for target in file.targets for kind in target.kinds)
    magnitudes = sum("magnitude" in target.tensors for target in file.targets)
    if magnitudes:
        kinds["magnitude"] = magnitudes
    scalable = [target for target in file.targets if target.rank is not None]
    alphas = [target.tensors["alpha"] for target in scalable if "alpha" in target.tensors]
    expert, why = expert_hint(header, experts, beside)
    return LoraDescription(
        family=families.most_common(1)[0][0] if families else "none",
        families=tuple(name for name, _ in families.most_common()),
        ranks=tuple(sorted({target.rank for target in scalable if target.rank is not None})),
        alphas=tuple(sorted(set(read_scalars(alphas).values()))),
        with_alpha=len(alphas),
        scalable=len(scalable),
        kinds=dict(kinds),
        targets=dict(Counter(_group(target.base) for target in file.targets)),
        expert=expert,
        expert_why=why,
        unknown=file.unknown,
        parameters=header.parameters,
    )


def module_name(base: str) -> str:
    """Return the name of a module without its prefixes."""
    if flat := flat_name(base):
        return flat[-1]
    return dotted_names(base)[-1]


def dotted_names(base: str) -> list[str]:
    """Return the forms of a dotted name: unchanged, then with one more of its prefixes removed each time."""
    parts = base.split(".")
    names = [base]
    while len(parts) > 1 and parts[0] in naming.PREFIXES:
        parts = parts[1:]
        names.append(".".join(parts))
    return names


def flat_name(base: str) -> list[str]:
    """Return the forms of a flat name, whose dots are underscores, with one more of its prefixes removed each time;
    empty if the name is not flat."""
    rest = _after_prefix(base)
    if not rest:
        return []
    names = [rest.replace(".", "_")]
    while nested := next((text for text in naming.FLAT_NESTED if names[-1].startswith(text)), None):
        names.append(names[-1].removeprefix(nested).lstrip("_"))
    return [name for name in names if name]


def _after_prefix(base: str) -> str:
    """Return the rest of a flat name after its prefix; empty if it has none."""
    prefix = next((text for text in naming.FLAT_PREFIXES if base.startswith(text)), None)
    return "" if prefix is None else base.removeprefix(prefix).lstrip("_")


def of_network(base: str) -> int | None:
    """Return the network, of the two in a pipeline, whose prefix a name has: 0 for the first, 1 for the second,
    ``None`` if it has neither prefix."""
    for part in base.split("."):
        if part in naming.FIRST:
            return 0
        if part in naming.SECOND:
            return 1
        if part not in naming.PREFIXES:
            break
    rest = _after_prefix(base)
    if rest.startswith(naming.FLAT_SECOND):
        return 1
    return 0 if rest.startswith(naming.FLAT_FIRST) else None


def second(base: str) -> bool:
    """Return whether a name has a prefix of the second network of a pipeline that has two."""
    return of_network(base) == 1


def of_text_encoder(base: str) -> bool:
    """Return whether a name is of a text encoder, which a LoRA for a video network may omit."""
    first = next((part for part in base.split(".") if part not in naming.PREFIXES), "")
    return first in naming.TEXT_ENCODERS or bool(re.match(naming.FLAT_TEXT_ENCODERS, base))


def expert_hint(
    header: Header, experts: Sequence[str], beside: Collection[str] = ()
) -> tuple[str | None, str]:
    """Return the expert that a file is for, and the source: its keys take precedence, else metadata and names, which
    have to agree. ``None`` if there is no source, or if they contradict each other; the reason lists them then."""
    claims = expert_claims(header, experts, beside)
    claimed = set(claims.values())
    if claims and (len(claimed) == 1 or next(iter(claims)).startswith(_KEYS)):
        what, expert = next(iter(claims.items()))
        return expert, what
    return None, " and ".join(f"{what} says {expert}" for what, expert in claims.items())


def expert_claims(header: Header, experts: Sequence[str], beside: Collection[str] = ()) -> dict[str, str]:
    """Return source -> expert for each source that names one of several experts: the keys, the metadata, the name and
    the folder of a file. ``beside`` are the names of the files in its folder; one may be the other of a pair."""
    claims: dict[str, str] = {}
    if len(experts) < 2:
        return claims
    keyed = {of_network(name) for name in header if not of_text_encoder(name)}
    if len(keyed) == 1 and (number := keyed.pop()) is not None:
        prefixes = naming.SECOND if number else naming.FIRST
        prefix = next((part for part in next(iter(header)).split(".") if part in prefixes), "of flat names")
        claims[f"{_KEYS} {prefix}"] = experts[number]
    for key in ("ss_output_name", "modelspec.title"):
        if expert := named_expert(header.metadata.get(key, ""), experts):
            claims[f"metadata {key}"] = expert
    stems = {Path(name).stem for name in beside}
    for file in {info.file for info in header.tensors.values()}:
        if expert := named_expert(file.stem, experts, stems):
            claims[f"file {file.name}"] = expert
        if expert := named_expert(file.parent.name, experts):
            claims[f"folder {file.parent.name}"] = expert
    return claims


def _group(base: str) -> str:
    return re.sub(r"(?<=[._])\d+(?=[._])", "N", module_name(base), count=1)


def _family(target: LoraModule) -> str:
    return f"{target.family}, flat names" if flat_name(target.base) else target.family
