"""Classification of a set of weight files as a component of an installed model, a LoRA, or something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from lightx2v_core.checkpoint import verify
from lightx2v_core.checkpoint.candidates import false_claim
from lightx2v_core.checkpoint.folders import first_network_config
from lightx2v_core.checkpoint.formats import format_problems, main_format
from lightx2v_core.checkpoint.layouts import ALL_IN_ONE, MappedHeader, recognize_layout
from lightx2v_core.checkpoint.places import CONFIG_FOLDERS
from lightx2v_core.discovery.answers import default_options
from lightx2v_core.errors import CheckpointError, PluginFault
from lightx2v_core.inspection.files import WeightSet
from lightx2v_core.inspection.report import ComponentReport
from lightx2v_core.plan.recognize import asked
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.recognition import CheckpointFacts, Recognition
from lightx2v_core.spec.specs import ModelSpec

Shapes = Mapping[str, tuple[int, ...]]
_Match = tuple[ModelSpec, ComponentSpec, MappedHeader]


@frozen(kw_only=True)
class Network:
    """A main network, with the tensors that its model expects, for matching with adapters."""

    name: str
    expected: Shapes
    part: ComponentSpec


@frozen(kw_only=True)
class Contents:
    """A recognized component and its problems."""

    report: ComponentReport
    networks: tuple[Network, ...] = ()
    problems: tuple[str, ...] = field(default=())


def contents(files: WeightSet, models: Sequence[ModelSpec], root: Path) -> list[Contents]:
    """Recognize the component in a set of files, or all components of an all-in-one checkpoint.

    Empty if no model recognizes it.
    """
    matches = list(_matches(files, models))
    if not any(mapped.layout == ALL_IN_ONE for _, _, mapped in matches):
        return [_content(files, matches, root)] if matches else []
    kinds: dict[str, list[_Match]] = {}
    for match in matches:
        kinds.setdefault(match[1].group or match[1].name, []).append(match)
    return [_content(files, mapped, root) for mapped in kinds.values()]


def _content(files: WeightSet, matches: Sequence[_Match], root: Path) -> Contents:
    _, part, mapped = matches[0]
    variants: list[str] = []
    networks: list[Network] = []
    problems: list[str] = []
    doubts: list[str] = []
    reasons: dict[str, str] = {}
    for spec, own, own_mapped in matches:
        if not own.main:
            continue
        try:
            answer = _variant(spec, files, own, own_mapped, root)
        except (CheckpointError, PluginFault) as exc:
            doubts.append(str(exc))
            continue
        if isinstance(answer, str):
            reasons[spec.name] = answer
        elif answer is not None and answer.doubts:
            reasons[spec.name] = f"would run it as {answer.variant}, but {'; '.join(answer.doubts)}"
        elif answer is not None and answer.variant not in variants:
            variants.append(answer.variant)
            expected = answer.expected[own.name]
            networks.append(Network(name=answer.variant, expected=expected, part=own))
            problems += _shape_problems(answer, own, own_mapped)
    if not variants:
        problems += doubts
        if reasons and not doubts:
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            problems.append(f"{shown(files, root)} is a network that no model recognizes: {why}")
    problems += [f"{shown(files, root)}: {problem}" for problem in format_problems(mapped.header)]
    header = mapped.header
    if doubt := false_claim(files.located.files[0].name, header):
        problems.append(f"{shown(files, root)}: {doubt}")
    report = ComponentReport(
        component=part.group or part.name,
        summary=part.summary if part.group is None else "expert",
        files=tuple(relative(path, root) for path in files.located.files),
        layout=mapped.layout,
        models=tuple(dict.fromkeys(spec.name for spec, _, _ in matches)),
        variants=tuple(variants),
        precision=header.precision,
        scheme=main_format(header),
        tensors=len(header),
        parameters=header.parameters,
        bytes=header.nbytes,
    )
    return Contents(report=report, networks=tuple(networks), problems=tuple(dict.fromkeys(problems)))


def _matches(files: WeightSet, models: Iterable[ModelSpec]) -> Iterable[_Match]:
    """Yield each model and component whose signature the files match. Specs with equal data share one mapping."""
    known: dict[tuple[object, ...], MappedHeader | None] = {}
    for spec in models:
        for part in spec.components:
            if not part.signature:
                continue
            key = (part.signature, tuple(layout.name for layout in part.layouts), part.layouts)
            if key not in known:
                known[key] = recognize_layout(part, files.header)
            mapped = known[key]
            if mapped is not None:
                yield spec, part, mapped


def _variant(
    spec: ModelSpec, files: WeightSet, part: ComponentSpec, mapped: MappedHeader, root: Path
) -> Recognition | str | None:
    """Return a model's recognition of a network alone, or the reason why it does not recognize it.

    The other experts of its group are assumed to be equal. None if the model recognizes its checkpoints by another
    component.
    """
    members = [own.name for own in spec.components if own is part or (part.group and own.group == part.group)]
    if spec.components[0].name not in members:
        return None
    base = root if root.is_dir() else root.parent
    folders = [files.folder, files.folder.parent, *(base / name for name in CONFIG_FOLDERS)]
    return asked(
        spec,
        CheckpointFacts(
            folder=base,
            config=first_network_config(dict.fromkeys(folders if root.is_dir() else folders[:2])),
            headers=dict.fromkeys(members, mapped.header),
            options=default_options(spec),
        ),
    )


def _shape_problems(answer: Recognition, part: ComponentSpec, mapped: MappedHeader) -> list[str]:
    header = mapped.header
    expected = answer.expected[part.name]
    fitting = {
        name: evolve(info, shape=tuple(expected[name]))
        for name, info in header.tensors.items()
        if name in expected and _long(info.shape) == _long(expected[name])
    }
    header = evolve(header, tensors={**header.tensors, **fitting})
    return verify.problems(part.group or part.name, header, expected, answer.variant)


def _long(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def shown(files: WeightSet, root: Path) -> str:
    """Return the name of a set in messages."""
    return relative(files.located.index or files.located.files[0], root)


def relative(path: Path, root: Path) -> str:
    """Return a path relative to the inspected folder."""
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else path.name
