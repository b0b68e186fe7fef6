"""What a LoRA file holds, read off its header: whether it is one, its families of names, ranks, alphas and kinds."""

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
#: how the reason begins that outweighs what names say
_KEYS = "its keys start with"
#: what is in every name that is part of a change
_TELLING = ("lora", "hada_", "lokr_", ".diff", ".alpha", ".dora_scale")
_LOKR_FIRST, _LOKR_SECOND = ({"w1"}, {"w1_a", "w1_b"}), ({"w2"}, {"w2_a", "w2_b"})


@frozen(kw_only=True)
class LoraModule:
    """What a file holds for one module: its name as stored, without what says the part, and the parts by role."""

    base: str
    family: str
    tensors: Mapping[str, TensorInfo]
    adapter: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it does: ``low-rank``, ``low-rank with mid``, ``loha``, ``lokr``, ``diff``, ``diff_b``, ``diff_m``."""
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
        """The rank of its matrices; ``None`` when it has none."""
        for role in ("down", "w1_b", "w2_b"):
            if role in self.tensors and self.tensors[role].shape:
                return self.tensors[role].shape[0]
        return None


@frozen(kw_only=True)
class LoraContents:
    """A header taken apart."""

    header: Header
    targets: tuple[LoraModule, ...]
    #: names that are no part of a change
    unknown: tuple[str, ...]


@frozen(kw_only=True)
class LoraDescription:
    """What a LoRA file is."""

    #: the family that most of its changes are named by
    family: str
    families: tuple[str, ...]
    #: different ranks, rising
    ranks: tuple[int, ...]
    #: different alphas, rising; empty when it has none, or when only its loader could read them
    alphas: tuple[float, ...]
    #: changes that have an alpha, of all that could
    with_alpha: int
    scalable: int
    #: kind of change -> how many
    kinds: Mapping[str, int]
    #: module without the number of its block (``blocks.N.self_attn.q``) -> how many changes
    targets: Mapping[str, int]
    #: the expert that it says it is for, and what says so
    expert: str | None
    expert_why: str
    #: names that are no part of a change
    unknown: tuple[str, ...] = field(default=())
    parameters: int

    @property
    def magnitudes(self) -> int:
        """How many of its changes are of DoRA."""
        return self.kinds.get("magnitude", 0)


def is_lora(header: Header) -> bool:
    """Tell whether a file is a LoRA: most of its tensors are parts of changes, and one of these is complete."""
    file = parsed(header)
    return 2 * len(file.unknown) < len(header) and any(target.kinds for target in file.targets)


def parsed(header: Header) -> LoraContents:
    """Parse the changes of a file. Parts of one module belong together; those of different families are changes of
    their own, and what a module has beside them (alpha, magnitude) is part of each."""
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
    """Describe a LoRA file by what it says of itself. ``experts`` are the names that a hint of the expert can mean,
    ``beside`` the names of the files in its folder."""
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
    """Return the name of a module without the prefixes in front of it."""
    if flat := flat_name(base):
        return flat[-1]
    return dotted_names(base)[-1]


def dotted_names(base: str) -> list[str]:
    """Return a dotted name with ever more of its prefixes left out; the first is the name as it is."""
    parts = base.split(".")
    names = [base]
    while len(parts) > 1 and parts[0] in naming.PREFIXES:
        parts = parts[1:]
        names.append(".".join(parts))
    return names


def flat_name(base: str) -> list[str]:
    """Return a name whose dots are underscores with ever more of its prefixes left out; empty when it is not of that
    kind."""
    rest = _after_prefix(base)
    if not rest:
        return []
    names = [rest.replace(".", "_")]
    while nested := next((text for text in naming.FLAT_NESTED if names[-1].startswith(text)), None):
        names.append(names[-1].removeprefix(nested).lstrip("_"))
    return [name for name in names if name]


def _after_prefix(base: str) -> str:
    """Say what follows the prefix of a name whose dots are underscores; empty when it has none."""
    prefix = next((text for text in naming.FLAT_PREFIXES if base.startswith(text)), None)
    return "" if prefix is None else base.removeprefix(prefix).lstrip("_")


def of_network(base: str) -> int | None:
    """Tell which network of a pipeline that has two a name is of: 0 for the first, 1 for the second; ``None`` when it
    says none of them."""
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
    """Tell whether a name is of the second network of a pipeline that has two."""
    return of_network(base) == 1


def of_text_encoder(base: str) -> bool:
    """Tell whether a name is of a text encoder, which no LoRA of a video network has to have."""
    first = next((part for part in base.split(".") if part not in naming.PREFIXES), "")
    return first in naming.TEXT_ENCODERS or bool(re.match(naming.FLAT_TEXT_ENCODERS, base))


def expert_hint(
    header: Header, experts: Sequence[str], beside: Collection[str] = ()
) -> tuple[str | None, str]:
    """Return the one of several networks that a file says it is for, and what says so: its keys, else all that names
    say. ``None`` when nothing says it, or when names contradict each other; the reason is how they do then."""
    claims = expert_claims(header, experts, beside)
    said = set(claims.values())
    if claims and (len(said) == 1 or next(iter(claims)).startswith(_KEYS)):
        what, expert = next(iter(claims.items()))
        return expert, what
    return None, " and ".join(f"{what} says {expert}" for what, expert in claims.items())


def expert_claims(header: Header, experts: Sequence[str], beside: Collection[str] = ()) -> dict[str, str]:
    """Return what says that a file is for one of several networks -> which: its keys, its metadata, its name, its
    folder. ``beside`` are the names of the files in its folder, of which one may be the other of a pair."""
    claims: dict[str, str] = {}
    if len(experts) < 2:
        return claims
    keyed = {of_network(name) for name in header if not of_text_encoder(name)}
    if len(keyed) == 1 and (number := keyed.pop()) is not None:
        prefixes = naming.SECOND if number else naming.FIRST
        prefix = next((part for part in next(iter(header)).split(".") if part in prefixes), "a prefix of it")
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
