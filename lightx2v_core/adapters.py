"""The LoRA files of a configuration, resolved at plan time: found, read by their headers, and matched with the networks
they are for. Everything that can be wrong with them is said here, before any weight is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from lightx2v_core.checkpoint.folders import expanded, short
from lightx2v_core.checkpoint.listing import ABSENT, beside, listed, why_not
from lightx2v_core.choices import Chosen
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.embedded import place_of
from lightx2v_core.errors import CheckpointError, RequestError, suggestion
from lightx2v_core.lora.matching import Coverage, match
from lightx2v_core.lora.recognition import describe, expert_hint, is_lora, second
from lightx2v_core.lora.scale import stated_alpha
from lightx2v_core.plan import PlannedAdapter
from lightx2v_core.quantization import Quantized
from lightx2v_core.recognise import Recognised, read_header
from lightx2v_core.registry import Registry
from lightx2v_core.specs import QuantizerSpec
from lightx2v_core.tensors import Header

#: what stands for all networks of a model, beside the name of their group
BOTH = "both"
_SHOWN = 3
#: names that a wrong one is compared with: comparing is slow
_COMPARED = 1000


@frozen(kw_only=True)
class ResolvedAdapter:
    """A LoRA file and the one component it is applied to."""

    config: LoraConfig
    planned: PlannedAdapter
    #: the header of the whole file
    header: Header
    coverage: Coverage
    stated_alpha: float | None


def resolve_adapters(
    loras: Sequence[LoraConfig], found: Recognised, registry: Registry, folder: Path, *, strict: bool = False
) -> tuple[ResolvedAdapter, ...]:
    """Every LoRA of a configuration, in order; one that is for several networks once for each. ``RequestError`` for a
    file that is missing, broken or no LoRA, does not say which network it is for, or changes nothing there; with
    ``strict``, also when part of it has no effect."""
    return tuple(
        item for config in loras for item in _resolved(config, found, registry, folder, strict=strict)
    )


def adapter_notes(adapters: Sequence[ResolvedAdapter]) -> tuple[list[str], list[str]]:
    """What the plan notes, and what it warns of."""
    notes: list[str] = []
    warnings: list[str] = []
    for item in adapters:
        planned, config = item.planned, item.config
        name = f"LoRA {Path(planned.path).name}"
        if not 0 <= planned.strength <= 1:
            notes.append(f"{name} has a strength of {planned.strength:g}, outside of the usual 0 to 1")
        if config.alpha is not None and not config.alpha_override and planned.file_alpha:
            notes.append(
                f"{name}: the alpha of {config.alpha:g} in the configuration is not used, since the file has alphas of "
                f"its own ({planned.file_alpha}); alpha_override: true makes it win"
            )
        if planned.hint and planned.hint != planned.component:
            warnings.append(
                f"{name} is applied to {planned.component}, and {planned.hint_why} says {planned.hint}"
            )
        if not item.coverage.whole:
            warnings.append(f"{name}: {_partial(item)}")
    return notes, warnings


def check_applier(
    adapters: Sequence[ResolvedAdapter], applier: Chosen, quantized: Mapping[str, Quantized]
) -> None:
    """``RequestError`` when an applier cannot do what a file holds, or cannot do it to the weights of its component."""
    for item in adapters:
        if not applier.spec.resident:
            _check_writable(item, quantized[item.planned.component])
        kinds = {change.kind for change in item.coverage.changes}
        kinds |= {"magnitude" for change in item.coverage.changes if "magnitude" in change.tensors}
        if unable := sorted(kinds - applier.spec.kinds):
            raise RequestError(
                f"lora_applier {applier.selection.name} cannot apply {', '.join(unable)}, which "
                f"{item.planned.path} holds; it applies {', '.join(sorted(applier.spec.kinds))}. "
                "Use --set lora_applier=merge"
            )


def _check_writable(item: ResolvedAdapter, quantized: Quantized) -> None:
    """Quantized weights that are merged into have to be quantized again."""
    if quantized.chosen is None:
        return
    spec: QuantizerSpec[Any] = quantized.chosen.spec
    writes = spec.formats if spec.writes is None else spec.writes
    for change in item.coverage.changes:
        layer = quantized.kept.get(change.target.rpartition(".")[0])
        if layer is not None and layer.format not in writes and change.target.endswith(".weight"):
            raise RequestError(
                f"LoRA {item.planned.path} cannot be merged into {change.target}: it is stored in {layer.format}, "
                f"which {quantized.chosen.selection.name} cannot write. Use --set lora_applier=dynamic"
            )


def _resolved(
    config: LoraConfig, found: Recognised, registry: Registry, folder: Path, *, strict: bool
) -> list[ResolvedAdapter]:
    path, header = lora_file(config.path, folder, registry)
    made = []
    for component, why in _components(config, found, header, path):
        made.append(_matched(config, found, header, path, component, why))
    if not any(item.coverage.changes for item in made):
        raise RequestError(_nothing(made[0], found))
    for item in made:
        if strict and not item.coverage.whole:
            raise RequestError(f"LoRA {path} does not fit {found.recognition.variant}: {_partial(item)}")
    return made


def lora_file(given: str, folder: Path, registry: Registry) -> tuple[Path, Header]:
    """A LoRA file by its path, or by its name in a model's folder, and its header. ``RequestError`` when it is not
    there, broken, or no LoRA."""
    path = _found(place_of(given, registry), folder)
    header = read_header(registry, path)
    if not is_lora(header):
        some = ", ".join(list(header)[:_SHOWN]) or "nothing"
        raise CheckpointError(
            f"{path} is no LoRA file: it holds {some}; a LoRA holds pairs such as "
            "blocks.0.attn.q.lora_A.weight and blocks.0.attn.q.lora_B.weight"
        )
    return path, header


def _found(given: str, folder: Path) -> Path:
    """The file as it is named, or of this name in the model's folder or its ``loras``."""
    path = expanded(given)
    if os.path.isdir(path):
        raise RequestError(f"LoRA {given!r} is a folder; name the file in it")
    places = [path]
    if not path.is_absolute() and ".." not in path.parts:
        places += [folder / path, folder / "loras" / path]
    for place in places:
        if os.path.isfile(place):
            return place
    near = ""
    for place in places:
        if os.path.isdir(place.parent):
            near = near or suggestion(place.name, listed(place.parent).files[:_COMPARED])
    reasons = [reason for place in places if (reason := why_not(place)) not in ("", ABSENT)]
    raise RequestError(f"LoRA file {short(given)} {(reasons or [ABSENT])[0]}{near}")


def _components(config: LoraConfig, found: Recognised, header: Header, path: Path) -> list[tuple[str, str]]:
    """The components that a LoRA is for, each with the reason."""
    main = found.spec.components[0]
    networks = [
        part.name
        for part in found.spec.components
        if part.name in found.recognition.components
        and (part.name == main.name or (part.group is not None and part.group == main.group))
    ]
    if config.name is not None:
        name = config.name.removesuffix("_model")
        if name in (BOTH, main.group):
            return [(network, f"name {config.name}") for network in networks]
        known = [*found.recognition.components, *([main.group] if main.group else [])]
        if name not in found.recognition.components:
            raise RequestError(
                f"LoRA {config.path!r} is for {config.name}, which {found.recognition.variant} does not have"
                f"{suggestion(name, known)}; it has {', '.join(known)}"
            )
        return [(name, f"name {config.name}")]
    if len(networks) == 1:
        return [(networks[0], "the one network")]
    sections = {second(name) for name in header}
    if len(sections) == 2 and len(networks) == 2:
        return [(network, "the file has keys for both networks") for network in networks]
    hint, why = expert_hint(header, networks, beside(path))
    if hint is not None:
        return [(hint, why)]
    short = [network.partition("_")[0] for network in networks]
    raise RequestError(
        f"{found.recognition.variant} has {len(networks)} networks, and nothing says which of them LoRA "
        f"{str(path)!r} is for: use {' or '.join(f'--lora {word}:{config.path}' for word in (*short, BOTH))} "
        f"(name {', '.join(f'{network}_model' for network in networks)} or {BOTH} in a configuration)"
    )


def _matched(
    config: LoraConfig, found: Recognised, header: Header, path: Path, component: str, why: str
) -> ResolvedAdapter:
    part = _section(header, found, component)
    coverage = match(part, found.recognition.expected[component], found.part(component).layouts)
    networks = [
        item.name
        for item in found.spec.components
        if item.group and item.group == found.part(component).group
    ]
    described = describe(part, networks, beside(path))
    stated = stated_alpha(header)
    used = {name: header.tensors[name] for name in coverage.matched}
    planned = PlannedAdapter(
        path=str(path),
        component=component,
        component_why=why,
        strength=config.strength,
        family=described.family,
        kinds=described.kinds,
        ranks=described.ranks,
        file_alpha=_file_alpha(described.alphas, described.with_alpha, described.scalable, stated),
        alpha=config.alpha,
        alpha_override=config.alpha_override,
        hint=described.expert,
        hint_why=described.expert_why,
        tensors=len(part),
        changed=len({change.target for change in coverage.changes}),
        bytes=sum(info.nbytes for info in used.values()),
        matched=coverage.matched,
        unmatched=coverage.unmatched,
        mismatched=coverage.mismatched,
    )
    return ResolvedAdapter(
        config=config, planned=planned, header=header, coverage=coverage, stated_alpha=stated
    )


def _section(header: Header, found: Recognised, component: str) -> Header:
    """The part of a file that is for one of two networks, when the file has keys for both."""
    if len({second(name) for name in header}) < 2:
        return header
    first = component == found.spec.components[0].name
    return evolve(
        header, tensors={name: info for name, info in header.tensors.items() if second(name) != first}
    )


def _file_alpha(alphas: Sequence[float], count: int, scalable: int, stated: float | None) -> str:
    """The alphas of a file in words, empty when it has none."""
    if not count:
        return "" if stated is None else f"{stated:g}"
    shown = ", ".join(f"{alpha:g}" for alpha in alphas[:_SHOWN]) + (", ..." if len(alphas) > _SHOWN else "")
    return (shown or "read when it is loaded") + (f" for {count} of {scalable}" if count < scalable else "")


def _partial(item: ResolvedAdapter) -> str:
    """What of a file has no effect, and why."""
    planned = item.planned
    lost: Mapping[str, str] = {**planned.mismatched, **planned.unmatched}
    some = "; ".join(f"{name}: {why}" for name, why in list(lost.items())[:_SHOWN])
    more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return f"{len(lost)} of its {planned.tensors} tensors have no effect on {planned.component}: {some}{more}"


def _nothing(item: ResolvedAdapter, found: Recognised) -> str:
    """Why a file that changes nothing cannot be for this model."""
    expected = found.recognition.expected[item.planned.component]
    return (
        f"LoRA {item.planned.path} changes nothing in {item.planned.component} of {found.recognition.variant}: "
        f"{_partial(item)}. The network has tensors such as {next(iter(expected))}; this file is for another model"
    )
