"""The scale of LoRA changes that is stated outside their tensors: the PEFT configuration of their training. diffusers
stores it in the metadata of the file, for each of its networks; PEFT in a separate file in the same folder.

The scale is ``lora_alpha / r``, with rsLoRA ``lora_alpha / sqrt(r)`` (https://arxiv.org/abs/2312.03732);
``alpha_pattern`` and ``rank_pattern`` set it for some modules (https://huggingface.co/docs/peft, ``LoraConfig``). An
unsupported setting that would change the meaning of the tensors is a doubt; the user resolves it by giving an alpha.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

from lightx2v_core.lora.recognition import LoraContents, LoraModule, dotted_names, flat_name, of_text_encoder

#: the file that PEFT writes next to ``adapter_model.safetensors``
SIDECAR = "adapter_config.json"
#: keys of the file metadata in which diffusers, and finetrainers, store the PEFT configuration
_METADATA = ("lora_adapter_metadata", "lora_config")
#: keys of single numbers in the metadata, as some programs write them
_PLAIN = ("lora_alpha", "alpha", "network_alpha", "lora_scale", "scaling", "scale", "use_rslora")

#: settings that are evaluated
_READ = frozenset(
    "r lora_alpha alpha use_rslora alpha_pattern rank_pattern use_dora peft_type init_lora_weights init_weights".split()
)
#: settings without effect on trained weights
_WITHOUT_EFFECT = frozenset(
    "bias lora_bias rank qalora_group_size rank_dropout rank_dropout_scale decompose_both decompose_factor "
    "lora_dropout loftq_config eva_config lora_ga_config megatron_config runtime_config".split()
)
#: names of unknown settings that may change the meaning of tensors; others are harmless
_MODIFIER = re.compile(r"^use_|_config$|alpha|scal|rank|lora|init|replicat|transpos|fan_in|norm|decompos")
#: initializations that leave the base weights unchanged; a file with another one is relative to changed base weights
_BEGINNINGS = ("true", "false", "none", "gaussian", "orthogonal", "eva")
#: types of adapters whose scale is alpha / rank
_TYPES = ("LORA", "LOHA", "LOKR")
#: values without meaning
_NOTHING: tuple[object, ...] = (None, False, "", [], {})
#: longest name of a module, in characters, that expressions are matched against
_LONGEST = 300
#: a pattern that is a plain end of a name, as diffusers and PEFT write them
_NAME = re.compile(r"[\w.-]*")
#: expressions that match fast on any name: few repetitions, and no repeated group
_HARMLESS = re.compile(r"(?!.*\)[*+?{])(?!(?:.*[*+?{]){3})[\w.\\|^()\[\]*+?$-]{1,200}")


@frozen(kw_only=True)
class Strength:
    """An alpha, and whether it is divided by the square root of the rank."""

    alpha: float
    root: bool = False
    #: the stated rank, for changes whose matrices have none: LoKr of two undecomposed factors
    rank: float | None = None

    def over(self, rank: int | None) -> float:
        """Return the scale of a change with this rank."""
        divisor = self.rank if rank is None else rank
        return self.alpha / (math.sqrt(divisor) if self.root else divisor) if divisor else 1.0


@frozen(kw_only=True)
class StatedStrengths:
    """The stated strengths of the changes of a file."""

    #: name of a stored tensor -> the strength of its change
    strengths: Mapping[str, Strength] = field(factory=dict)
    #: their source, such as ``adapter_config.json``; empty if there is none
    where: str = ""
    #: a setting that is unsupported or contradicts the tensors; empty if all is clear
    doubt: str = ""

    def is_one(self, ranks: Mapping[str, int | None]) -> bool:
        """Return whether all scales are 1, so that it does not matter whether they are meant for this file."""
        return not self.doubt and all(
            strength.over(ranks[name]) == 1 for name, strength in self.strengths.items() if name in ranks
        )

    def shown(self) -> str:
        """Format the alphas for a plan; empty if none is stated."""
        if not self.strengths:
            return ""
        kinds = sorted({(strength.alpha, strength.root) for strength in self.strengths.values()})
        return ", ".join(f"{alpha:g}" for alpha, _ in kinds[:3]) + (", ..." if len(kinds) > 3 else "")

    @property
    def over(self) -> str:
        """Return their source and divisor, for a plan: ``of adapter_config.json / rank``."""
        root = any(strength.root for strength in self.strengths.values())
        return f"of {self.where} / {'sqrt(rank)' if root else 'rank'}"


def stated(
    file: LoraContents, sidecar: Mapping[str, object] | None = None, doubt: str = ""
) -> StatedStrengths:
    """Read the stated strengths from the metadata of a file, else from ``sidecar``, the content of the file next to it.
    ``doubt`` is the problem of a sidecar that cannot be read."""
    scalable = [target for target in file.targets if target.rank is not None or "lokr" in target.kinds]
    if not scalable:
        return StatedStrengths()
    if name := _unread_scalar(file, scalable):
        return StatedStrengths(where="a tensor", doubt=f"its unknown tensor {name} may be a scale")
    metadata = file.header.metadata
    for key in _METADATA:
        if key in metadata and (key == _METADATA[0] or "alpha" in metadata[key]):
            return _read(scalable, _sections(metadata[key]), f"metadata {key}")
    alphas = all("alpha" in target.tensors for target in scalable)
    if (sidecar is not None or doubt) and not alphas:
        return _read(scalable, None if sidecar is None else {"": sidecar}, SIDECAR, doubt)
    numbers = {key: metadata[key] for key in _PLAIN if key in metadata}
    if numbers and not alphas and not _is_one(numbers, scalable):
        text = ", ".join(f"{key} {value}" for key, value in numbers.items())
        return StatedStrengths(
            where="metadata", doubt=f"its metadata has {text[:100]}, without naming the tensors"
        )
    return StatedStrengths()


def _unread_scalar(file: LoraContents, targets: Sequence[LoraModule]) -> str:
    """Return the name of an unknown scalar stored for a pair, or for all pairs; empty if there is none. An alpha
    without a pair is harmless: its pair was removed from the file."""
    bases = {target.base for target in targets}
    for name in file.unknown:
        if file.header.tensors[name].elements != 1 or not re.search("alpha|scal", name):
            continue
        parts = name.split(".")
        if len(parts) == 1 or any(".".join(parts[:at]) in bases for at in range(1, len(parts))):
            return _short(name)
    return ""


def _sections(text: str) -> dict[str, dict[str, object]] | None:
    """Parse the configurations of several networks by prefix; ``None`` if they cannot be parsed."""
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


def _is_one(numbers: Mapping[str, str], targets: Sequence[LoraModule]) -> bool:
    """Return whether the stated numbers are a scale of 1, so that it does not matter which tensors they are for."""
    ranks = {target.rank for target in targets}
    for key, text in numbers.items():
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
    sections = {prefix: _Section(settings) for prefix, settings in stored.items()}
    general = _general(sections)
    strengths: dict[str, Strength] = {}
    for target in targets:
        if of_text_encoder(target.base):
            continue
        section = sections.get(target.base.partition(".")[0]) or general
        if section is None:
            doubt = doubt or f"{where} is for {_short(', '.join(sections))}, not for {target.base}"
            continue
        if problem := next(iter(section.problems), "") or section.against(target):
            doubt = doubt or f"{where} has {problem}"
        elif "alpha" not in target.tensors and (strength := section.strength(target)):
            strengths |= {info.name: strength for info in target.tensors.values()}
    return StatedStrengths(strengths={} if doubt else strengths, where=where, doubt=doubt)


def _general(sections: Mapping[str, _Section]) -> _Section | None:
    """Return the configuration for names without a prefix: the one without a prefix, or the common one if all are
    equal."""
    if "" in sections:
        return sections[""]
    of_networks = [section for prefix, section in sections.items() if not of_text_encoder(prefix)]
    same = all(section.settings == of_networks[0].settings for section in of_networks)
    return of_networks[0] if of_networks and same else None


class _Section:
    """The configuration of one network."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings
        self._alphas, self._ranks = (
            _Values(settings.get("alpha_pattern")),
            _Values(settings.get("rank_pattern")),
        )
        self.problems = list(self._problems())

    def strength(self, target: LoraModule) -> Strength | None:
        """Return the strength of a change; an alpha of 0 means none, as in the programs that write these files."""
        alpha = self._alphas.of(target, _number(self.settings.get("lora_alpha", self.settings.get("alpha"))))
        rank = self._ranks.of(target, _number(self.settings.get("r")))
        return (
            Strength(alpha=alpha, root=self.settings.get("use_rslora") is True, rank=rank) if alpha else None
        )

    def against(self, target: LoraModule) -> str:
        """Describe a contradiction between the configuration and the tensors of a change; empty if there is none."""
        rank = self._ranks.of(target, _number(self.settings.get("r")))
        if rank not in (None, target.rank) and target.family != "lokr":
            return f"rank {rank:g} for {target.base}, which has rank {target.rank}"
        if self.settings.get("use_dora") is True and "magnitude" not in target.tensors:
            return f"use_dora, but {target.base} has no magnitude"
        if self.settings.get("use_rslora") is True and "alpha" in target.tensors:
            return f"use_rslora, but {target.base} has an alpha of its own"
        return ""

    def _problems(self) -> Iterator[str]:
        """Yield the unsupported settings."""
        settings = self.settings
        kind = str(settings.get("peft_type") or "LORA").rpartition(".")[2].upper()
        if kind not in _TYPES:
            yield f"peft_type {_short(kind)}"
        beginning = settings.get("init_lora_weights", settings.get("init_weights", True))
        if str(beginning).lower() not in _BEGINNINGS:
            yield f"init_lora_weights {_short(beginning)}, which changes the base weights"
        for key in ("r", "lora_alpha", "alpha"):
            if settings.get(key) is not None and ((value := _number(settings[key])) is None or value < 0):
                yield f"{key} {_short(settings[key])}"
        if settings.get("use_rslora") is True and settings.get("lora_alpha") is None:
            yield "use_rslora without lora_alpha"
        for key in ("use_rslora", "use_dora"):
            if not isinstance(settings.get(key), bool | None):
                yield f"{key} {_short(settings[key])}"
        for key, values in (("alpha_pattern", self._alphas), ("rank_pattern", self._ranks)):
            if values.unclear:
                yield f"{key} {_short(values.unclear)}"
        for key, content in settings.items():
            if key not in _READ | _WITHOUT_EFFECT and _MODIFIER.search(key) and content not in _NOTHING:
                yield f"unsupported setting {key} {_short(content)}"


class _Values:
    """Numbers by patterns for the ends of module names; of several matches the first counts, as in PEFT."""

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
        """Return the number for the module of a change; ``otherwise`` if no pattern matches."""
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
