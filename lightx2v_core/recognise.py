"""Asks the model plugins whose checkpoint a folder is, and checks that everything it needs is there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import evolve, frozen

from lightx2v_core import catalogue
from lightx2v_core.checkpoint import verify
from lightx2v_core.checkpoint.candidates import Wish
from lightx2v_core.checkpoint.components import Component, OfAnother, absence, fitted, locate, read_component
from lightx2v_core.checkpoint.folders import expanded, first_config, listing
from lightx2v_core.checkpoint.listing import broken_link
from lightx2v_core.checkpoint.places import CONFIG_FOLDERS
from lightx2v_core.checkpoint.reader import Reader, ReadHeader, reader_of
from lightx2v_core.checkpoint.stand_ins import broken_links, not_json, stand_in
from lightx2v_core.choices import Chosen, component_setting, placed, structured_options
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.errors import CheckpointError, LightX2VError, PluginError, PluginFault, suggestion
from lightx2v_core.facts import CheckpointFacts, Recognition
from lightx2v_core.parts import ComponentSpec
from lightx2v_core.plugins import Provided
from lightx2v_core.registry import Registry, Selection
from lightx2v_core.specs import BuildContext, ModelSpec, WeightLoaderSpec
from lightx2v_core.tensors import Header
from lightx2v_core.verdicts import Answers, none_or_many
from lightx2v_core.ways import above, that_bring


@frozen(kw_only=True)
class Recognised:
    """The model a folder holds, its components, and the models it is not, with reasons."""

    model: Chosen
    recognition: Recognition
    components: Mapping[str, Component]
    rejected: Mapping[str, str]
    #: needed component that was not found -> why
    absent: Mapping[str, str]

    @property
    def spec(self) -> ModelSpec[Any]:
        spec: ModelSpec[Any] = self.model.spec
        return spec

    def part(self, name: str) -> ComponentSpec:
        """What the model says of one of its components."""
        return component_spec(self.spec, name)


def recognise(
    config: RunConfig,
    registry: Registry,
    folder: Path,
    ctx: BuildContext,
    read: ReadHeader | None = None,
    loaded: LoadedConfig | None = None,
) -> Recognised:
    """The one model that knows ``folder``. ``CheckpointError`` when there is none or more than one. ``read`` remembers
    headers from one call to the next; ``loaded`` says where the options of the model came from."""
    read = reader_of(read) if read is not None else Reader(lambda path: read_header(registry, path))
    found = Answers()
    with placed(loaded, "model", "use"):
        candidates = _candidates(config, registry)
    for item in candidates:
        assert isinstance(item.spec, ModelSpec)
        if reasons := item.reasons(ctx):
            found.strangers[item.qualified] = "; ".join(reasons)
            continue
        try:
            options = structured_options(config.model, registry, "model", item, loaded=loaded, whole=False)
            networks = _locate(item.spec, config, folder, read, loaded, _networks(item.spec))
            answer = _ask(item.spec, config, folder, networks, options, read)
        except (CheckpointError, PluginFault) as exc:
            found.failed(item.qualified, exc)
            continue
        if isinstance(answer, str):
            (found.declined if networks else found.strangers)[item.qualified] = answer
            if not networks and len(_networks(item.spec)) > 1:
                found.pairs.append(
                    " and ".join(f"components.{part.name}.path" for part in _networks(item.spec))
                )
            continue
        if answer.doubts and config.model.use == ("auto",):
            found.doubtful.append((item, answer))
            continue
        try:
            # what is wrong with other files is this model's to say, now that its network is there
            components = networks | _locate(
                item.spec, config, folder, read, loaded, beside=networks, needed=answer.components
            )
            answer = _ask(item.spec, config, folder, components, options, read)
        except (CheckpointError, PluginFault) as exc:
            found.failed(item.qualified, exc, own=True)
            continue
        if isinstance(answer, str):
            found.declined[item.qualified] = answer
        else:
            found.known.append((item, answer, components))
    if len(found.known) != 1:
        other = "" if found.known or found.own else _known_by(config, registry, folder, ctx, read)
        specs = [item.spec for item in candidates if isinstance(item.spec, ModelSpec)]
        raise none_or_many(found, folder, specs, other)
    rejected = found.rejected
    item, recognition, located = found.known[0]
    components = {
        name: fitted(component, recognition.expected.get(name, {})) for name, component in located.items()
    }
    chosen = Chosen(
        selection=Selection(
            chosen=item, why="recognised by its tensors" if config.model.use == ("auto",) else "asked for"
        ),
        config=structured_options(config.model, registry, "model", item, loaded=loaded),
    )
    assert isinstance(item.spec, ModelSpec)
    absent = {
        name: absence(component_spec(item.spec, name), folder, read)
        for name in recognition.components
        if name not in components
    }
    return Recognised(
        model=chosen, recognition=recognition, components=components, rejected=rejected, absent=absent
    )


def _known_by(
    config: RunConfig, registry: Registry, folder: Path, ctx: BuildContext, read: ReadHeader
) -> str:
    """Which model knows what those that were asked for do not, in words; empty when none does, or all were asked."""
    if config.model.use == ("auto",):
        return ""
    try:
        found = recognise(evolve(config, model=Section(use=("auto",))), registry, folder, ctx, read)
    except LightX2VError:
        return ""
    name = found.spec.name
    return f"\n  it is of {name} ({found.recognition.variant}): leave out --model, or say --model {name}"


def check_complete(found: Recognised, folder: Path) -> None:
    """Everything the variant needs must be there, with the right tensors; all problems in one ``CheckpointError``."""
    problems: list[str] = []
    lacking: list[str] = []
    for name in found.recognition.components:
        part = found.part(name)
        component = found.components.get(name)
        if component is None:
            lacking.append(name)
            problems.append(
                f"{name}: {found.absent[name]}; {part.hint or 'add it to the folder'}"
                f" or set components.{name}.path"
            )
            continue
        for asset, path in component.assets.items():
            lacking += [] if os.path.exists(path) else [asset]
            if target := broken_link(path):
                problems.append(
                    f"{name}: {asset} is a link to a file that does not exist: {path} -> {target}"
                )
            elif not os.path.exists(path):
                problems.append(f"{name}: {asset} is missing: {path}; {part.hint or 'add it to the folder'}")
            elif path.suffix == ".json" and (reason := not_json(path)):
                problems.append(f"{name}: {asset} {path} {reason}")
        source = "config.json" if part is found.spec.components[0] else "its own layout"
        problems += verify.problems(name, component.header, found.recognition.expected[name], source)
        problems += verify.wrong_formats(name, component.stored, component.header)
    if problems:
        problems += [text] if (text := broken_links(folder)) else []
        if hint := above(folder) if lacking else "":
            problems.append(hint)
        elif commands := that_bring(found.spec, found.recognition, lacking, folder):
            problems.append(f"what is missing comes with: {' && '.join(commands)}")
        lines = "\n".join(f"  {line}" for line in problems)
        raise CheckpointError(
            f"{folder} ({found.recognition.variant}) cannot be run:\n{lines}\n  ({listing(folder)})"
        )


def component_spec(spec: ModelSpec[Any], name: str) -> ComponentSpec:
    """The component of a model by its name."""
    return next(part for part in spec.components if part.name == name)


def loader_for(registry: Registry, path: Path) -> Provided:
    """The weight loader of a file, by its suffix: the usable one of highest priority."""
    suffixes: set[str] = set()
    unusable: list[str] = []
    for item in registry.candidates("weight_loader"):
        assert isinstance(item.spec, WeightLoaderSpec)
        if path.suffix.lower() in item.spec.suffixes:
            if not (reasons := item.reasons(BuildContext())):
                return item
            unusable.append(f"{item.qualified}: {'; '.join(reasons)}")
        suffixes.update(item.spec.suffixes)
    if unusable:
        raise CheckpointError(f"no usable weight loader for {path.name}: {' | '.join(unusable)}")
    brought = catalogue.reader(path.suffix.lower())
    raise CheckpointError(
        f"no weight loader is installed for {path.name}; known are {', '.join(sorted(suffixes))}"
        f"{'; ' if brought else ''}{brought}"
    )


def read_header(registry: Registry, path: Path) -> Header:
    """The header of a file, by the loader of its suffix. ``CheckpointError`` for what only has the name of one."""
    if reason := stand_in(path):
        raise CheckpointError(f"{path} {reason}")
    spec = loader_for(registry, path).spec
    assert isinstance(spec, WeightLoaderSpec)
    return spec.read_header(path)


def passed_over(loaded: LoadedConfig, spec: ModelSpec[Any]) -> tuple[str, ...]:
    """Notes of what flat keys say of components that the model does not have. The files of the original say it of
    all their models, so it is no mistake."""
    names = [name for name in loaded.config.components if name not in _component_names(spec)]
    return tuple(
        f"{', '.join(_origins(loaded, name))}: passed over, {spec.name} has no {name.replace('_', ' ')}"
        for name in names
        if _is_incidental(loaded, name)
    )


def _component_names(spec: ModelSpec[Any]) -> list[str]:
    groups = {part.group for part in spec.components if part.group is not None}
    return [*(part.name for part in spec.components), *sorted(groups)]


def _is_incidental(loaded: LoadedConfig, name: str) -> bool:
    """Whether only flat keys speak of a component, and none names a file of it."""
    said = [path for path in loaded.origins if path.startswith(f"components.{name}.")]
    return bool(said) and loaded.flat.issuperset(said) and loaded.config.components[name].path is None


def _origins(loaded: LoadedConfig, name: str) -> list[str]:
    found = (origin for path, origin in loaded.origins.items() if path.startswith(f"components.{name}"))
    return list(dict.fromkeys(found))


def _candidates(config: RunConfig, registry: Registry) -> list[Provided]:
    if config.model.use != ("auto",):
        return [registry.find("model", name) for name in config.model.use]
    found = list(registry.candidates("model"))
    if not found:
        absent = "".join(
            f"\n  not loaded: {plugin.name} ({plugin.state}: {plugin.reason})"
            for plugin in registry.plugins.not_loaded()
        )
        ways = "".join(f"\n  {way}" for way in catalogue.ways("model"))
        raise PluginError(f"no model plugin is installed{ways}{absent}")
    return found


def _networks(spec: ModelSpec[Any]) -> list[ComponentSpec]:
    """What a model knows a checkpoint by: its first component, and the others of its group."""
    first = spec.components[0]
    return [part for part in spec.components if part is first or (part.group and part.group == first.group)]


def _locate(
    spec: ModelSpec[Any],
    config: RunConfig,
    folder: Path,
    read: ReadHeader,
    loaded: LoadedConfig | None,
    parts: Sequence[ComponentSpec] = (),
    beside: Mapping[str, Component] = MappingProxyType({}),
    needed: Sequence[str] = (),
) -> dict[str, Component]:
    """Those of ``parts`` that are there, or all components but the networks, which were found before (``beside``).
    Where there is no network it is another model's folder, and what the configuration says is not meant for this
    one. Files of a component that is not ``needed``, nor named in the configuration, may be damaged: nobody asked for
    them."""
    components: dict[str, Component] = {}
    for part in parts or [part for part in spec.components if part not in _networks(spec)]:
        main = {**beside, **components}.get(spec.components[0].name)
        wish = _wish(config, part, main.files[0].parent if main is not None else None)
        override, asked_as = component_setting(config, part, "path")
        if override is not None and asked_as != part.name:
            _check_group(spec, override, asked_as)
        elif override is not None:
            part = evolve(part, experts=())  # whatever it is called
        own = config.components.get(part.name)
        try:
            found = locate(part, folder, override, read, wish)
            if found is not None:
                assets = own.assets if own is not None else None
                components[part.name] = read_component(part, folder, found, read, assets)
        except CheckpointError:
            if parts or override is not None or own is not None or part.name in needed:
                raise
    if parts and components:
        _check_names(spec, config, loaded)
    return components


def _check_names(spec: ModelSpec[Any], config: RunConfig, loaded: LoadedConfig | None) -> None:
    """``CheckpointError`` when the configuration names a component that the model does not have."""
    names = _component_names(spec)
    for name in config.components:
        if name not in names and not (loaded is not None and _is_incidental(loaded, name)):
            raise CheckpointError(
                f"components.{name}: {spec.name} has no such component{suggestion(name, names)}; "
                f"it has {', '.join(names)}"
            )


def _wish(config: RunConfig, part: ComponentSpec, near: Path | None) -> Wish:
    """What the configuration asks of a component beside its path."""
    precision, key = component_setting(config, part, "precision")
    distilled, other = component_setting(config, part, "distilled")
    key = key if precision is not None else other
    return Wish(key=f"components.{key}", precision=precision, distilled=distilled, near=near)


def _check_group(spec: ModelSpec[Any], path: str, group: str) -> None:
    """``OfAnother`` when one file is given for all of a group: it cannot be several networks."""
    members = [item.name for item in spec.components if item.group == group]
    if len(members) > 1 and os.path.isfile(expanded(path)):
        ways = " and ".join(f"components.{name}.path" for name in members)
        raise OfAnother(
            f"components.{group}.path {path!r} is one file, and {spec.name} has {len(members)} networks; use {ways}"
        )


def _ask(
    spec: ModelSpec[Any],
    config: RunConfig,
    folder: Path,
    components: Mapping[str, Component],
    options: Any,
    read: ReadHeader,
) -> Recognition | str:
    main = spec.components[0]
    if main.name not in components:
        why = absence(main, folder, read)
        if not components:
            return why
        other = next(iter(components.values()))
        what = component_spec(spec, other.name).summary
        return f"{why}, and {other.files[0].name} is the {what}; give components.{main.name}.path"
    here = components[main.name].files[0].parent
    facts = CheckpointFacts(
        folder=folder,
        config=first_config([here, *(folder / name for name in CONFIG_FOLDERS)]),
        headers={name: component.header for name, component in components.items()},
        options=options,
        distilled=component_setting(config, main, "distilled")[0],
    )
    return asked(spec, facts)


def asked(spec: ModelSpec[Any], facts: CheckpointFacts) -> Recognition | str:
    """What a model says of a checkpoint. The tensors of a file can have any shape and a ``config.json`` any values, so
    a model that fails at them is one that does not know them: the others go on, and its failure is the reason."""
    try:
        answer = spec.recognise(facts)
        _check_answer(spec, facts, answer)
    except PluginFault as exc:
        return f"its recognition failed: {exc.why or exc}"
    if isinstance(answer, str):
        return answer
    return evolve(answer, doubts=(*answer.doubts, *_left_over(spec, facts, answer)))


def _left_over(spec: ModelSpec[Any], facts: CheckpointFacts, answer: Recognition) -> list[str]:
    """The weights of networks that a model would not compute with: another one would."""
    found: list[str] = []
    for part in _networks(spec):
        header = facts.headers.get(part.name)
        if header is None or part.name not in answer.expected or not part.whole:
            continue
        if extra := verify.strangers(header, answer.expected[part.name], part.spare):
            line = f"{len(extra)} of its {len(header)} tensors would have no effect: {verify.kinds(extra)}"
            found += [line] if line not in found else []
    return found


def _check_answer(spec: ModelSpec[Any], facts: CheckpointFacts, answer: Recognition | str) -> None:
    """``PluginFault`` when a model recognises what it does not have itself: tasks, components, or their tensors."""
    if isinstance(answer, str):
        return
    parts = {part.name for part in spec.components}
    said = {
        "tasks": (answer.tasks, set(spec.tasks)),
        # of a component that is not there nothing can be expected yet
        "components": (answer.components, parts - (set(facts.headers) - set(answer.expected))),
    }
    for what, (names, known) in said.items():
        if not names or not known.issuperset(names):
            raise PluginFault(
                f"model {spec.name} recognised {answer.variant} with {what} {', '.join(names) or '(none)'}, and has "
                f"{', '.join(sorted(known)) or 'none'}: this is a mistake of its plugin"
            )
