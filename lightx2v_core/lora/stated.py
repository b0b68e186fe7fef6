"""What is stated beside the tensors of a LoRA file of how strong its changes are: the configuration that PEFT had when
they were trained. diffusers keeps it in the metadata of the file, for each of its networks; PEFT in a file beside it.

The scale is ``lora_alpha / r``, with rsLoRA ``lora_alpha / sqrt(r)`` (https://arxiv.org/abs/2312.03732);
``alpha_pattern`` and ``rank_pattern`` say it for some modules (https://huggingface.co/docs/peft, ``LoraConfig``). What
is said, would change what the tensors mean and is not understood is a doubt, which an alpha of the user's settles.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

from lightx2v_core.lora.recognition import LoraContents, LoraModule, dotted_names, flat_name, of_text_encoder

#: the file that PEFT writes beside ``adapter_model.safetensors``
SIDECAR = "adapter_config.json"
#: file metadata in which diffusers, and finetrainers, keep what PEFT had
_METADATA = ("lora_adapter_metadata", "lora_config")
#: numbers that some programs put into the metadata by themselves
_PLAIN = ("lora_alpha", "alpha", "network_alpha", "lora_scale", "scaling", "scale", "use_rslora")

#: what is read here
_READ = frozenset(
    "r lora_alpha alpha use_rslora alpha_pattern rank_pattern use_dora peft_type init_lora_weights init_weights".split()
)
#: what has no effect on weights that are trained
_WITHOUT_EFFECT = frozenset(
    "bias lora_bias rank qalora_group_size rank_dropout rank_dropout_scale decompose_both decompose_factor "
    "lora_dropout loftq_config eva_config lora_ga_config megatron_config runtime_config".split()
)
#: names of what may change what tensors mean; of other unknown names nothing is to be feared
_MODIFIER = re.compile(r"^use_|_config$|alpha|scal|rank|lora|init|replicat|transpos|fan_in|norm|decompos")
#: beginnings of the matrices that leave the weights as they are; a file of another one is relative to other weights
_BEGINNINGS = ("true", "false", "none", "gaussian", "orthogonal", "eva")
#: types of adapters whose scale is an alpha by a rank
_TYPES = ("LORA", "LOHA", "LOKR")
#: values that say nothing
_NOTHING: tuple[object, ...] = (None, False, "", [], {})
#: letters of the name of a module that expressions are tried on
_LONGEST = 300
#: a pattern that is no more than the end of a name, as diffusers and PEFT write them
_NAME = re.compile(r"[\w.-]*")
#: expressions that take long on no name: few repetitions, and none of a group
_HARMLESS = re.compile(r"(?!.*\)[*+?{])(?!(?:.*[*+?{]){3})[\w.\\|^()\[\]*+?$-]{1,200}")


@frozen(kw_only=True)
class Strength:
    """An alpha, and whether the rank's root divides it."""

    alpha: float
    root: bool = False
    #: the rank that is said, for changes whose matrices have none: LoKr of two whole factors
    rank: float | None = None

    def over(self, rank: int | None) -> float:
        """Return the scale of a change of this rank."""
        divisor = self.rank if rank is None else rank
        return self.alpha / (math.sqrt(divisor) if self.root else divisor) if divisor else 1.0


@frozen(kw_only=True)
class StatedStrengths:
    """What is said of the changes of a file."""

    #: name of a stored tensor -> the strength of the change that it is a part of
    strengths: Mapping[str, Strength] = field(factory=dict)
    #: who says it, such as ``adapter_config.json``; empty when nobody does
    where: str = ""
    #: what is said and not understood, or contradicts the tensors; empty when all is clear
    doubt: str = ""

    def is_one(self, ranks: Mapping[str, int | None]) -> bool:
        """Tell whether all scales are 1, so that it does not matter whether it is said of this file."""
        return not self.doubt and all(
            strength.over(ranks[name]) == 1 for name, strength in self.strengths.items() if name in ranks
        )

    def shown(self) -> str:
        """Return the alphas in words, as a plan shows them; empty when none is stated."""
        if not self.strengths:
            return ""
        kinds = sorted({(strength.alpha, strength.root) for strength in self.strengths.values()})
        return ", ".join(f"{alpha:g}" for alpha, _ in kinds[:3]) + (", ..." if len(kinds) > 3 else "")

    @property
    def over(self) -> str:
        """Who says them, and what divides them, in words."""
        root = any(strength.root for strength in self.strengths.values())
        return f"of {self.where} / {'the root of the rank' if root else 'rank'}"


def stated(
    file: LoraContents, sidecar: Mapping[str, object] | None = None, doubt: str = ""
) -> StatedStrengths:
    """Read what the metadata of a file, else ``sidecar``, the content of the file beside it, say of its changes.
    ``doubt`` is what is wrong with the file beside it."""
    scalable = [target for target in file.targets if target.rank is not None or "lokr" in target.kinds]
    if not scalable:
        return StatedStrengths()
    if name := _unread_scalar(file, scalable):
        return StatedStrengths(where="a tensor", doubt=f"its tensor {name} may be a scale, and is not known")
    metadata = file.header.metadata
    for key in _METADATA:
        if key in metadata and (key == _METADATA[0] or "alpha" in metadata[key]):
            return _read(scalable, _sections(metadata[key]), f"metadata {key}")
    alphas = all("alpha" in target.tensors for target in scalable)
    if (sidecar is not None or doubt) and not alphas:
        return _read(scalable, None if sidecar is None else {"": sidecar}, SIDECAR, doubt)
    said = {key: metadata[key] for key in _PLAIN if key in metadata}
    if said and not alphas and not _is_one(said, scalable):
        text = ", ".join(f"{key} {value}" for key, value in said.items())
        return StatedStrengths(
            where="metadata", doubt=f"its metadata say {text[:100]}, and not of which tensors"
        )
    return StatedStrengths()


def _unread_scalar(file: LoraContents, targets: Sequence[LoraModule]) -> str:
    """Return the name of a single number that is stored beside a pair, or for all of them, and has no meaning here;
    empty when there is none. An alpha without a pair is left of one that somebody took out."""
    bases = {target.base for target in targets}
    for name in file.unknown:
        if file.header.tensors[name].elements != 1 or not re.search("alpha|scal", name):
            continue
        parts = name.split(".")
        if len(parts) == 1 or any(".".join(parts[:at]) in bases for at in range(1, len(parts))):
            return _short(name)
    return ""


def _sections(text: str) -> dict[str, dict[str, object]] | None:
    """Read the configurations of several networks by their prefix; ``None`` when they cannot be read."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    sections: dict[str, dict[str, object]] = {}
    for key, value in data.items():
        prefix, _, name = key.rpartition(".")
        if not prefix and isinstance(value, dict) and ("r" in value or "lora_alpha" in value):
            sections.setdefault(key, {}).update(value)  # an object for each network
        else:
            sections.setdefault(prefix, {})[name] = value
    return sections


def _is_one(said: Mapping[str, str], targets: Sequence[LoraModule]) -> bool:
    """Tell whether what is said comes to a scale of 1, so that it does not matter of what it is said."""
    ranks = {target.rank for target in targets}
    for key, text in said.items():
        value = _number(text)
        if key == "use_rslora":
            if text.lower() not in ("false", "none", "0", ""):
                return False
        elif value is None or (ranks != {value} if "alpha" in key else value != 1):
            return False
    return True


def _read(
    targets: Sequence[LoraModule],
    stored: Mapping[str, Mapping[str, object]] | None,
    where: str,
    doubt: str = "",
) -> StatedStrengths:
    if stored is None:
        return StatedStrengths(where=where, doubt=doubt or f"{where} cannot be read")
    sections = {prefix: _Section(said) for prefix, said in stored.items()}
    general = _general(sections)
    strengths: dict[str, Strength] = {}
    for target in targets:
        if of_text_encoder(target.base):
            continue
        section = sections.get(target.base.partition(".")[0]) or general
        if section is None:
            doubt = (
                doubt or f"{where} is for {_short(', '.join(sections))}, and says nothing of {target.base}"
            )
            continue
        if problem := next(iter(section.problems), "") or section.against(target):
            doubt = doubt or f"{where} says {problem}"
        elif "alpha" not in target.tensors and (strength := section.strength(target)):
            strengths |= {info.name: strength for info in target.tensors.values()}
    return StatedStrengths(strengths={} if doubt else strengths, where=where, doubt=doubt)


def _general(sections: Mapping[str, _Section]) -> _Section | None:
    """Choose what is said of names without a prefix: by the configuration that has none, or by all alike."""
    if "" in sections:
        return sections[""]
    of_networks = [section for prefix, section in sections.items() if not of_text_encoder(prefix)]
    same = all(section.said == of_networks[0].said for section in of_networks)
    return of_networks[0] if of_networks and same else None


class _Section:
    """The configuration of one network."""

    def __init__(self, said: Mapping[str, object]) -> None:
        self.said = said
        self._alphas, self._ranks = _Values(said.get("alpha_pattern")), _Values(said.get("rank_pattern"))
        self.problems = list(self._problems())

    def strength(self, target: LoraModule) -> Strength | None:
        """Return the strength of a change; an alpha of 0 is none, as where these files come from."""
        alpha = self._alphas.of(target, _number(self.said.get("lora_alpha", self.said.get("alpha"))))
        rank = self._ranks.of(target, _number(self.said.get("r")))
        return Strength(alpha=alpha, root=self.said.get("use_rslora") is True, rank=rank) if alpha else None

    def against(self, target: LoraModule) -> str:
        """Say what speaks against the tensors of a change; empty when nothing is."""
        rank = self._ranks.of(target, _number(self.said.get("r")))
        if rank not in (None, target.rank) and target.family != "lokr":
            return f"rank {rank:g} of {target.base}, which has rank {target.rank}"
        if self.said.get("use_dora") is True and "magnitude" not in target.tensors:
            return f"use_dora, and {target.base} has no magnitude"
        if self.said.get("use_rslora") is True and "alpha" in target.tensors:
            return f"use_rslora, and {target.base} has an alpha of its own"
        return ""

    def _problems(self) -> Iterator[str]:
        """List what is said and not understood."""
        said = self.said
        kind = str(said.get("peft_type") or "LORA").rpartition(".")[2].upper()
        if kind not in _TYPES:
            yield f"peft_type {_short(kind)}"
        beginning = said.get("init_lora_weights", said.get("init_weights", True))
        if str(beginning).lower() not in _BEGINNINGS:
            yield f"init_lora_weights {_short(beginning)}: such a file is relative to other weights"
        for key in ("r", "lora_alpha", "alpha"):
            if said.get(key) is not None and ((value := _number(said[key])) is None or value < 0):
                yield f"{key} {_short(said[key])}"
        if said.get("use_rslora") is True and said.get("lora_alpha") is None:
            yield "use_rslora and no lora_alpha"
        for key in ("use_rslora", "use_dora"):
            if not isinstance(said.get(key), bool | None):
                yield f"{key} {_short(said[key])}"
        for key, values in (("alpha_pattern", self._alphas), ("rank_pattern", self._ranks)):
            if values.unclear:
                yield f"{key} {_short(values.unclear)}"
        for key, content in said.items():
            if key not in _READ | _WITHOUT_EFFECT and _MODIFIER.search(key) and content not in _NOTHING:
                yield f"{key} {_short(content)}, which is not known here"


class _Values:
    """Numbers for the modules whose names end in a pattern; of several the first, as PEFT has it."""

    def __init__(self, stored: object) -> None:
        self.unclear = ""
        self._ends: dict[str, tuple[int, float]] = {}
        self._expressions: list[tuple[int, re.Pattern[str], float]] = []
        if stored is not None and not isinstance(stored, Mapping):
            self.unclear = str(stored)
            return
        for number, (pattern, value) in enumerate((stored or {}).items()):
            amount = _number(value)
            if amount is None or amount < 0:
                self.unclear = f"{pattern}: {value}"
            elif _NAME.fullmatch(pattern):
                self._ends[pattern] = (number, amount)
            elif _HARMLESS.fullmatch(pattern) and (compiled := _compiled(pattern)) is not None:
                self._expressions.append((number, compiled, amount))
            else:
                self.unclear = pattern

    def of(self, target: LoraModule, otherwise: float | None) -> float | None:
        """Return the number for the module of a change."""
        if not self._ends and not self._expressions:
            return otherwise
        matches = []
        for name in flat_name(target.base) or dotted_names(target.base):
            ends = (name[at:] for at in (0, *(dot + 1 for dot, char in enumerate(name) if char == ".")))
            matches += [self._ends[end] for end in ends if end in self._ends]
            if len(name) <= _LONGEST:
                matches += [
                    (number, value) for number, pattern, value in self._expressions if pattern.match(name)
                ]
        return min(matches)[1] if matches else otherwise


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except (re.error, RecursionError, OverflowError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
