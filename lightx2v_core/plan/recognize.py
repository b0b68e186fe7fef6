"""Recognition of the model in a folder by the model plugins, and the check that the checkpoint is complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from lightx2v_core.checkpoint import verify
from lightx2v_core.checkpoint.components import Component, absence, with_expected_shapes
from lightx2v_core.checkpoint.folders import first_network_config, listing
from lightx2v_core.checkpoint.header_cache import Reader, ReadHeader, reader_of
from lightx2v_core.checkpoint.listing import broken_link
from lightx2v_core.checkpoint.places import CONFIG_FOLDERS
from lightx2v_core.checkpoint.stand_ins import broken_links, not_json, stand_in
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.discovery import catalog
from lightx2v_core.discovery.plugins import CORE, Provided
from lightx2v_core.discovery.registry import Registry, Selection
from lightx2v_core.errors import CheckpointError, LightX2VError, PluginError, PluginFault
from lightx2v_core.plan.search import (
    component_names,
    component_spec,
    fault_of,
    found_beside,
    found_networks,
    is_incidental,
    networks_of,
)
from lightx2v_core.plan.selection import (
    Implementation,
    check_wildcard,
    component_setting,
    placed,
    structured_options,
)
from lightx2v_core.plan.verdicts import Claim, Verdicts, none_or_many
from lightx2v_core.plan.ways import above, that_bring
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.recognition import CheckpointFacts, Recognition
from lightx2v_core.spec.specs import ModelSpec, WeightLoaderSpec
from lightx2v_core.spec.tensors import Header


@frozen(kw_only=True)
class ModelMatch:
    """The recognized model of a folder, its components, and the rejected models with reasons."""

    model: Implementation[ModelSpec]
    recognition: Recognition
    components: Mapping[str, Component]
    rejected: Mapping[str, str]
    #: missing required component -> reason
    absent: Mapping[str, str]

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    def part(self, name: str) -> ComponentSpec:
        """Return the spec of a component."""
        return component_spec(self.spec, name)


def recognize(
    config: RunConfig,
    registry: Registry,
    folder: Path,
    ctx: BuildContext,
    read: ReadHeader | None = None,
    loaded: LoadedConfig | None = None,
) -> ModelMatch:
    """Find the one model that recognizes ``folder``.

    ``read`` caches headers between calls; ``loaded`` gives the origins of the model's options, for messages. Raises
    ``CheckpointError`` if no model or more than one recognizes it.
    """
    read = reader_of(read) if read is not None else Reader(lambda path: read_header(registry, path))
    verdicts = Verdicts()
    with placed(loaded, "model", "use"):
        candidates = _candidates(config, registry)
    for candidate in candidates:
        if reasons := candidate.reasons(ctx):
            verdicts.strangers[candidate.qualified] = "; ".join(reasons)
        else:
            _judge(candidate, config, registry, folder, read, loaded, verdicts)
    if len(verdicts.known) != 1:
        other = "" if verdicts.known or verdicts.own else _known_by(config, registry, folder, ctx, read)
        specs = [candidate.spec for candidate in candidates]
        raise none_or_many(verdicts, folder, specs, other)
    (claim,) = verdicts.known
    check_wildcard(config.model, "model", claim.model, loaded)
    return _match(claim, config, folder, read, verdicts.rejected)


def _judge(
    candidate: Provided[ModelSpec],
    config: RunConfig,
    registry: Registry,
    folder: Path,
    read: Reader,
    loaded: LoadedConfig | None,
    verdicts: Verdicts,
) -> None:
    """Let one model recognize a folder, and add the result to ``verdicts``."""
    spec, name = candidate.spec, candidate.qualified
    try:
        options = structured_options(config.model, registry, "model", candidate, loaded=loaded, whole=False)
        networks = found_networks(spec, config, folder, read, loaded)
        components, wrong = found_beside(spec, config, folder, read, networks)
        answer = _ask(spec, config, folder, components, networks, options, read)
    except (CheckpointError, PluginFault) as exc:
        verdicts.failed(name, exc)
        return
    if isinstance(answer, str):
        (verdicts.declined if networks else verdicts.strangers)[name] = answer
        if not networks and len(networks_of(spec)) > 1:
            verdicts.pairs.append(" and ".join(f"components.{part.name}.path" for part in networks_of(spec)))
    elif answer.doubts and config.model.use == ("auto",):
        verdicts.doubtful.append((candidate, answer))
    # the network is this model's, so errors in its other files are reported
    elif (fault := fault_of(spec, config, answer, wrong)) is not None:
        verdicts.failed(name, fault, own=True)
    else:
        claim = Claim(model=candidate, options=options, recognition=answer, components=components)
        verdicts.known.append(claim)


def _match(
    claim: Claim, config: RunConfig, folder: Path, read: Reader, rejected: Mapping[str, str]
) -> ModelMatch:
    """Convert a claim to a match: components in the expected shapes, and reasons for the missing ones."""
    recognition = claim.recognition
    why = "recognized by its tensors" if config.model.use == ("auto",) else "requested"
    return ModelMatch(
        model=Implementation(selection=Selection(chosen=claim.model, why=why), config=claim.options),
        recognition=recognition,
        components={
            name: with_expected_shapes(component, recognition.expected.get(name, {}))
            for name, component in claim.components.items()
        },
        rejected=rejected,
        absent={
            name: absence(component_spec(claim.model.spec, name), folder, read)
            for name in recognition.components
            if name not in claim.components
        },
    )


def _known_by(
    config: RunConfig, registry: Registry, folder: Path, ctx: BuildContext, read: ReadHeader
) -> str:
    """Suggest the model that recognizes a folder if the requested one does not; empty if none does, or for ``auto``."""
    if config.model.use == ("auto",):
        return ""
    try:
        match = recognize(evolve(config, model=Section(use=("auto",))), registry, folder, ctx, read)
    except LightX2VError:
        return ""
    name = match.spec.name
    return (
        f"\n  it is recognized as {name} ({match.recognition.variant}): omit --model, or use --model {name}"
    )


def check_complete(match: ModelMatch, folder: Path) -> None:
    """Check that all required components and assets exist and have the right tensors.

    Raises one ``CheckpointError`` that lists every problem.
    """
    problems: list[str] = []
    lacking: list[str] = []
    for name in match.recognition.components:
        part = match.part(name)
        component = match.components.get(name)
        if component is None:
            lacking.append(name)
            problems.append(
                f"{name}: {match.absent[name]}; {part.hint or 'add it to the folder'}"
                f" or set components.{name}.path"
            )
            continue
        for asset, path in component.assets.items():
            lacking += [] if os.path.exists(path) else [asset]
            if target := broken_link(path):
                problems.append(f"{name}: {asset} is a broken link: {path} -> {target}")
            elif not os.path.exists(path):
                problems.append(f"{name}: {asset} is missing: {path}; {part.hint or 'add it to the folder'}")
            elif path.suffix == ".json" and (reason := not_json(path)):
                problems.append(f"{name}: {asset} {path} {reason}")
        source = "config.json" if part is match.spec.components[0] else "its own layout"
        problems += verify.problems(name, component.header, match.recognition.expected[name], source)
        problems += verify.wrong_formats(name, component.stored, component.header)
    if problems:
        problems += [text] if (text := broken_links(folder)) else []
        if hint := above(folder) if lacking else "":
            problems.append(hint)
        elif commands := that_bring(match.spec, match.recognition, lacking, folder):
            problems.append(f"download the missing files with: {' && '.join(commands)}")
        lines = "\n".join(f"  {line}" for line in problems)
        raise CheckpointError(
            f"{folder} ({match.recognition.variant}) cannot be run:\n{lines}\n  ({listing(folder)})"
        )


def loader_for(registry: Registry, path: Path) -> Provided[WeightLoaderSpec]:
    """Return the usable weight loader of highest priority for the suffix of a file.

    Raises ``CheckpointError`` if none is usable.
    """
    suffixes: set[str] = set()
    unusable: list[str] = []
    for loader in registry.candidates(WeightLoaderSpec):
        if path.suffix.lower() in loader.spec.suffixes:
            if not (reasons := loader.reasons(BuildContext())):
                return loader
            unusable.append(f"{loader.qualified}: {'; '.join(reasons)}")
        suffixes.update(loader.spec.suffixes)
    if unusable:
        raise CheckpointError(f"no usable weight loader for {path.name}: {' | '.join(unusable)}")
    brought = catalog.reader(path.suffix.lower())
    raise CheckpointError(
        f"no weight loader is installed for {path.name}; supported suffixes: {', '.join(sorted(suffixes))}"
        f"{'; ' if brought else ''}{brought}"
    )


def loader_notes(registry: Registry, match: ModelMatch) -> list[str]:
    """Return notes on weight loaders that are not part of the core."""
    notes = []
    for suffix, path in {c.files[0].suffix: c.files[0] for c in match.components.values()}.items():
        loader = loader_for(registry, path)
        if loader.plugin != CORE:
            notes.append(f"{suffix} files are read by {loader.qualified}, which has the highest priority")
    return notes


def read_header(registry: Registry, path: Path) -> Header:
    """Read the header of a file with the loader for its suffix.

    Raises ``CheckpointError`` for stand-ins of a weight file, such as a Git LFS pointer.
    """
    if reason := stand_in(path):
        raise CheckpointError(f"{path} {reason}")
    return loader_for(registry, path).spec.read_header(path)


def passed_over(loaded: LoadedConfig, spec: ModelSpec) -> tuple[str, ...]:
    """Return notes on flat keys for components that the model does not have.

    LightX2V's files set them for all models alike, so they are not errors.
    """
    names = [name for name in loaded.config.components if name not in component_names(spec)]
    return tuple(
        f"{', '.join(_origins(loaded, name))}: ignored, {spec.name} has no {name.replace('_', ' ')}"
        for name in names
        if is_incidental(loaded, name)
    )


def _origins(loaded: LoadedConfig, name: str) -> list[str]:
    origins = (origin for path, origin in loaded.origins.items() if path.startswith(f"components.{name}"))
    return list(dict.fromkeys(origins))


def _candidates(config: RunConfig, registry: Registry) -> list[Provided[ModelSpec]]:
    if config.model.use != ("auto",):
        return [registry.find(ModelSpec, name) for name in config.model.use]
    models = list(registry.candidates(ModelSpec))
    if not models:
        absent = "".join(
            f"\n  not loaded: {plugin.name} ({plugin.state}: {plugin.reason})"
            for plugin in registry.plugins.not_loaded()
        )
        ways = "".join(f"\n  {way}" for way in catalog.ways("model"))
        raise PluginError(f"no model plugin is installed{ways}{absent}")
    return models


def _ask(
    spec: ModelSpec,
    config: RunConfig,
    folder: Path,
    components: Mapping[str, Component],
    networks: Mapping[str, Component],
    options: object,
    read: ReadHeader,
) -> Recognition | str:
    main = networks_of(spec)[0]
    if main.name not in networks:
        why = absence(main, folder, read)
        if not networks:
            return why
        other = next(iter(networks.values()))
        summary = component_spec(spec, other.name).summary
        return f"{why}, and {other.files[0].name} is the {summary}; set components.{main.name}.path"
    here = components[main.name].files[0].parent
    facts = CheckpointFacts(
        folder=folder,
        config=first_network_config([here, *(folder / name for name in CONFIG_FOLDERS)]),
        headers={name: component.header for name, component in components.items()},
        options=options,
        distilled=component_setting(config, main, "distilled")[0],
    )
    return asked(spec, facts)


def asked(spec: ModelSpec, facts: CheckpointFacts) -> Recognition | str:
    """Return a model's recognition of a checkpoint, or the reason why it does not recognize it.

    Tensors can have any shape and ``config.json`` any values. A model whose ``recognize`` fails on them counts as one
    that does not recognize the checkpoint, with the error as the reason.
    """
    try:
        answer = spec.recognize(facts)
        _check_answer(spec, facts, answer)
    except PluginFault as exc:
        return f"its recognition failed: {exc.why or exc}"
    if isinstance(answer, str):
        return answer
    return evolve(answer, doubts=(*answer.doubts, *_left_over(spec, facts, answer)))


def _left_over(spec: ModelSpec, facts: CheckpointFacts, answer: Recognition) -> list[str]:
    """Describe tensors of the networks that the model would not use, which indicate another model."""
    lines: list[str] = []
    for part in networks_of(spec):
        header = facts.headers.get(part.name)
        if header is None or part.name not in answer.expected or not part.whole:
            continue
        if extra := verify.strangers(header, answer.expected[part.name], part.spare):
            line = f"{len(extra)} of its {len(header)} tensors would have no effect: {verify.kinds(extra)}"
            lines += [line] if line not in lines else []
    return lines


def _check_answer(spec: ModelSpec, facts: CheckpointFacts, answer: Recognition | str) -> None:
    """Raise ``PluginFault`` if a recognition names tasks or components that the model itself does not have."""
    if isinstance(answer, str):
        return
    parts = {part.name for part in spec.components}
    checks = {
        "tasks": (answer.tasks, set(spec.tasks)),
        # a missing component needs no expected tensors yet
        "components": (answer.components, parts - (set(facts.headers) - set(answer.expected))),
    }
    for what, (names, known) in checks.items():
        if not names or not known.issuperset(names):
            raise PluginFault(
                f"model {spec.name} recognized {answer.variant} with {what} {', '.join(names) or '(none)'}, but has "
                f"{', '.join(sorted(known)) or 'none'}: this is a bug in its plugin"
            )
