"""Fitting a LoRA file to one network: find it, read its header, match its tensors, and reject files for other models or
with an unclear scale. Used by runs and conversions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from lightx2v_core.checkpoint.folders import expanded, short
from lightx2v_core.checkpoint.listing import ABSENT, list_folder, sibling_files, why_not
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, RequestError, suggestion
from lightx2v_core.lora.matching import Coverage, Shapes, match
from lightx2v_core.lora.recognition import LoraDescription, describe, expert_claims, is_lora, parsed
from lightx2v_core.lora.stated import SIDECAR, StatedStrengths, stated
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.plan import PlannedAdapter
from lightx2v_core.plan.recognize import read_header
from lightx2v_core.spec.components import KeyMap
from lightx2v_core.spec.tensors import Header

_SHOWN = 3
#: most file names that a misspelled one is compared with, as comparing is slow
_COMPARED = 1000
#: suffixes of weight files; with several in a folder, PEFT's sidecar may belong to another one
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
#: stem of the files that PEFT writes
_OF_PEFT = "adapter_model"


@frozen(kw_only=True)
class Network:
    """A network that LoRA files are fitted to."""

    component: str
    #: tensor name -> shape
    expected: Shapes
    layouts: Sequence[KeyMap] = ()
    #: name in messages: a variant or a file
    title: str
    #: names of all experts, including this one; a file may name the one it is for
    experts: tuple[str, ...] = ()


@frozen(kw_only=True)
class AdapterFit:
    """A LoRA file and the one component it is applied to."""

    config: LoraConfig
    planned: PlannedAdapter
    #: the header of the whole file
    header: Header
    coverage: Coverage
    stated: StatedStrengths = field(factory=StatedStrengths)


def lora_file(given: str, folder: Path, registry: Registry) -> tuple[Path, Header]:
    """Find a LoRA file by its path, or by its name in a model's folder, and read its header.

    Raises ``RequestError`` if it is missing, broken or not a LoRA.
    """
    path = _located(place_of(given, registry), folder)
    header = read_header(registry, path)
    if not is_lora(header):
        some = ", ".join(list(header)[:_SHOWN]) or "nothing"
        raise CheckpointError(
            f"{path} is not a LoRA file: it contains {some}; a LoRA contains pairs such as "
            "blocks.0.attn.q.lora_A.weight and blocks.0.attn.q.lora_B.weight"
        )
    return path, header


def _located(given: str, folder: Path) -> Path:
    """Return the path of a file as given, or in the model's folder or its ``loras``."""
    path = expanded(given)
    if os.path.isdir(path):
        inside = [name for name in list_folder(path).files if name.endswith(_WEIGHTS)]
        some = f", such as {Path(given) / inside[0]}" if inside else ""
        raise RequestError(f"LoRA {given!r} is a folder; give a file in it{some}")
    places = [path]
    if not path.is_absolute() and ".." not in path.parts:
        places += [folder / path, folder / "loras" / path]
    for place in places:
        if os.path.isfile(place):
            return place
    near = ""
    for place in places:
        if os.path.isdir(place.parent):
            near = near or suggestion(place.name, list_folder(place.parent).files[:_COMPARED])
    reasons = [reason for place in places if (reason := why_not(place)) not in ("", ABSENT)]
    where = f"; searched here, in {folder} and in its loras" if len(places) > 1 and not reasons else ""
    raise RequestError(f"LoRA file {short(given)} {(reasons or [ABSENT])[0]}{where}{near}")


def fitted(
    config: LoraConfig, path: Path, header: Header, part: Header, network: Network, why: str
) -> AdapterFit:
    """Match a file with a network. ``part`` is the section of its header for it, ``why`` the reason."""
    coverage = match(part, network.expected, network.layouts)
    described = describe(part, network.experts, sibling_files(path))
    said = _stated(path, part, described)
    claims = expert_claims(part, network.experts, sibling_files(path))
    against = next((what for what, expert in claims.items() if expert != network.component), "")
    planned = PlannedAdapter(
        path=str(path),
        component=network.component,
        component_why=why,
        strength=config.strength,
        family=described.family,
        kinds=described.kinds,
        ranks=described.ranks,
        file_alpha=_file_alpha(described, said),
        alpha_from=said.over if said.strengths else "of the file / rank",
        alpha=config.alpha,
        alpha_override=config.alpha_override,
        hint=claims.get(against, described.expert),
        hint_why=against or described.expert_why,
        tensors=len(part),
        changed=len({change.target for change in coverage.changes}),
        bytes=sum(header.tensors[name].nbytes for name in coverage.matched),
        matched=coverage.matched,
        unmatched=coverage.unmatched,
        mismatched=coverage.mismatched,
    )
    return AdapterFit(config=config, planned=planned, header=header, coverage=coverage, stated=said)


def check_fit(fit: AdapterFit, network: Network, *, strict: bool) -> None:
    """Raise ``RequestError`` for a file that has no effect, is for another model, or has an unclear scale.

    With ``strict``, also if part of it has no effect.
    """
    planned, coverage = fit.planned, fit.coverage
    where = f"{planned.component} of {network.title}"
    if not coverage.changes:
        raise RequestError(
            f"LoRA {planned.path} is for another model: it changes nothing in {where}; {_partial(fit)}. "
            f"The network has tensors such as {next(iter(network.expected))}"
        )
    if coverage.foreign:
        raise RequestError(
            f"LoRA {planned.path} is for another model: only {coverage.placed} of its {coverage.pairs} pairs fit "
            f"{where}; {_partial(fit)}"
        )
    if strict and not coverage.whole:
        raise RequestError(f"LoRA {planned.path} does not fit {network.title}: {_partial(fit)}")
    if fit.stated.doubt and fit.config.alpha is None:
        ranks = ", ".join(map(str, planned.ranks[:_SHOWN]))
        raise RequestError(
            f"the scale of LoRA {planned.path} is unclear: {fit.stated.doubt}. Set the alpha, which is "
            f"divided by the rank ({ranks}; alpha = rank is a scale of 1), with convert --lora_alpha or "
            f'--set \'loras=[{{"path": "{fit.config.path}", "alpha": {planned.ranks[0]}}}]\''
        )


def adapter_notes(adapters: Sequence[AdapterFit]) -> tuple[list[str], list[str]]:
    """Return notes and warnings about LoRA files."""
    notes: list[str] = []
    warnings: list[str] = []
    for fit in adapters:
        planned, config = fit.planned, fit.config
        name = f"LoRA {Path(planned.path).name}"
        if not 0 <= planned.strength <= 1:
            notes.append(f"{name} has strength {planned.strength:g}, outside the usual 0 to 1")
        if config.alpha is not None and not config.alpha_override and planned.file_alpha:
            notes.append(
                f"{name}: the configured alpha of {config.alpha:g} is ignored, since the file has its own "
                f"({planned.file_alpha}); set alpha_override: true to override it"
            )
        if config.alpha is not None and fit.stated.doubt:
            notes.append(
                f"{name}: the configured alpha of {config.alpha:g} is used, since {fit.stated.doubt}"
            )
        if planned.hint and planned.hint != planned.component:
            warnings.append(
                f"{name} is applied to {planned.component}, but {planned.hint_why} says {planned.hint}"
            )
        if not fit.coverage.whole:
            warnings.append(f"{name}: {_partial(fit)}")
    return notes, warnings


def _stated(path: Path, part: Header, described: LoraDescription) -> StatedStrengths:
    """Read the strengths that a file states, or PEFT's ``adapter_config.json`` next to it."""
    file = parsed(part)
    sidecar = path.parent / SIDECAR
    if not os.path.isfile(sidecar):
        return stated(file)
    try:
        settings: Mapping[str, object] | None = read_object(sidecar, "cannot be read")
    except CheckpointError as exc:
        return stated(file, None, str(exc))
    beside = stated(file, settings)
    own = path.stem == _OF_PEFT or [name for name in sibling_files(path) if name.endswith(_WEIGHTS)] == [
        path.name
    ]
    ranks = {info.name: target.rank for target in file.targets for info in target.tensors.values()}
    if own or beside.where != SIDECAR or beside.is_one(ranks):
        return beside
    if not described.family.startswith("peft"):
        return stated(file)  # other programs write no such file
    return StatedStrengths(
        where=SIDECAR,
        doubt=f"{sidecar.name} next to it has {_short_alpha(settings)}, but may belong to other weights in that folder",
    )


def _short_alpha(settings: Mapping[str, object] | None) -> str:
    return ", ".join(
        f"{key} {str((settings or {})[key])[:40]}"
        for key in ("lora_alpha", "r", "use_rslora")
        if key in (settings or {})
    )


def _file_alpha(described: LoraDescription, said: StatedStrengths) -> str:
    """Format the alphas of a file; empty when it has none."""
    if not described.with_alpha:
        return said.shown()
    alphas, count = described.alphas, described.with_alpha
    shown = ", ".join(f"{alpha:g}" for alpha in alphas[:_SHOWN]) + (", ..." if len(alphas) > _SHOWN else "")
    some = f" for {count} of {described.scalable}" if count < described.scalable else ""
    return (shown or "read on load") + some


def _partial(fit: AdapterFit) -> str:
    """Describe the tensors of a file that have no effect, with reasons."""
    planned = fit.planned
    lost: Mapping[str, str] = {**planned.mismatched, **planned.unmatched}
    some = "; ".join(f"{name}: {why}" for name, why in list(lost.items())[:_SHOWN])
    more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return f"{len(lost)} of its {planned.tensors} tensors have no effect on {planned.component}: {some}{more}"
