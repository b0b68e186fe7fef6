"""Checks that the specs of a plugin can be listed, selected and configured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import attrs

from lightx2v_core.api import (
    COMMAND_PARENTS,
    KINDS,
    CommandSpec,
    LightX2VError,
    ModelSpec,
    Plugin,
    PluginFault,
    PluginSet,
    Provided,
    QuantizerSpec,
    first_party,
    one_line,
    option_help,
)
from lightx2v_core.testing.options import default_options, survives_a_file
from lightx2v_devkit.audit.findings import Finding, error, warning
from lightx2v_devkit.distributions import CORE, canonical, name_of

_LONGEST_SUMMARY = 120


def spec_findings(plugin: Plugin) -> Iterator[Finding]:
    """Report all problems of the specs of a plugin and their options."""
    extras = [canonical(name) for name in _extras(plugin)]
    for provided in plugin.provides:
        spec, what = provided.spec, f"{provided.kind} {provided.spec.name}"
        if not spec.summary.strip() or "\n" in spec.summary or len(spec.summary) > _LONGEST_SUMMARY:
            yield warning(
                plugin.name, f"{what}: its summary must be one line of at most {_LONGEST_SUMMARY} characters"
            )
        if unknown := spec.devices - {"cpu", "cuda"}:
            yield error(
                plugin.name,
                f"{what}: unknown devices {', '.join(sorted(unknown))}; use cpu and cuda",
            )
        if plugin.dist is not None and spec.extra is not None and canonical(spec.extra) not in extras:
            yield error(
                plugin.name,
                f"{what}: {plugin.dist_name} has no extra {spec.extra!r}, so it can never be used; available extras: "
                f"{', '.join(extras) or 'none'}",
            )
        if isinstance(spec, CommandSpec) and spec.parent is not None and spec.parent not in COMMAND_PARENTS:
            parents = ", ".join(sorted(COMMAND_PARENTS))
            yield error(
                plugin.name,
                f"{what}: unreachable, since {spec.parent!r} accepts no subcommands from plugins; use {parents}",
            )
        yield from _options(plugin, provided, what)
        if isinstance(spec, ModelSpec):
            yield from _repositories(plugin, spec, what)


def clash_findings(plugins: PluginSet, commands: Collection[str]) -> Iterator[Finding]:
    """Report the names used by several plugins, by ``commands`` of the core, or by a known distribution."""
    for kind in KINDS:
        owners: dict[str, list[Provided]] = {}
        for provided in plugins.provided(kind):
            owners.setdefault(_full_name(provided), []).append(provided)
        for name, claimants in owners.items():
            who = tuple(provided.plugin for provided in claimants)
            if len(claimants) > 1:
                listed = ", ".join(sorted(provided.qualified for provided in claimants))
                yield Finding(
                    level="error",
                    text=f"{kind} {name!r} comes from more than one plugin: {listed}; each needs its qualified name",
                    plugins=who,
                )
            elif kind == "command" and name in commands:
                text = f"command {name!r} belongs to the core; that of {who[0]} is {claimants[0].qualified!r}"
                yield Finding(level="error", text=text, plugins=who)
            elif who[0] != CORE and (known := first_party(kind).get(name)):
                yield from _known(claimants[0], known)


def _full_name(provided: Provided) -> str:
    return provided.spec.full_name if isinstance(provided.spec, CommandSpec) else provided.spec.name


def _known(provided: Provided, known: str) -> Iterator[Finding]:
    if canonical(name_of(provided.dist)) != known:
        yield warning(
            provided.plugin,
            f"{provided.kind} {_full_name(provided)!r} is also provided by {known}; if both are installed, each needs "
            "its qualified name",
        )


def _options(plugin: Plugin, provided: Provided, what: str) -> Iterator[Finding]:
    """Report all problems of the options class of an implementation."""
    config = provided.spec.config
    try:
        default = default_options(config)
    except LightX2VError as exc:
        yield error(
            plugin.name,
            f"{what}: cannot be selected without options, since {config.__name__}() fails: {_why(exc)}; give every "
            "option a valid default",
        )
        return
    try:
        same = survives_a_file(default)
    except PluginFault as exc:  # from cattrs, or from type hints that cannot be resolved
        yield error(plugin.name, f"{what}: {config.__name__} cannot be read from a file: {_why(exc)}")
        return
    except LightX2VError as exc:
        yield error(plugin.name, f"{what}: the defaults of {config.__name__} are invalid: {_why(exc)}")
        return
    if not same:
        yield error(plugin.name, f"{what}: {config.__name__} changes when written to a file and read back")
    if not _is_frozen(default):
        yield warning(plugin.name, f"{what}: {config.__name__} is mutable; use attrs.frozen")
    fields = [field.name for field in attrs.fields(config)]
    said = option_help(config)
    if silent := [name for name in fields if not said.get(name)]:
        yield warning(
            plugin.name,
            f"{what}: no help for {', '.join(silent)}; write a comment that starts with #: above each, or set "
            'metadata with "help"',
        )
    if isinstance(provided.spec, QuantizerSpec) and (missing := {"keep", "only"} - set(fields)):
        yield warning(
            plugin.name,
            f"{what}: {config.__name__} has no {' and no '.join(sorted(missing))}; see QuantizerOptions",
        )


def _repositories(plugin: Plugin, spec: ModelSpec[Any], what: str) -> Iterator[Finding]:
    try:
        names = [repository.name for repository in spec.repositories()]
    except LightX2VError as exc:
        yield error(plugin.name, f"{what}: its repositories cannot be listed: {_why(exc)}")
        return
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield error(plugin.name, f"{what}: duplicate repository names: {', '.join(twice)}")


def _is_frozen(instance: Any) -> bool:
    fields = attrs.fields(type(instance))
    if not fields:
        return True
    try:
        setattr(instance, fields[0].name, getattr(instance, fields[0].name))
    except attrs.exceptions.FrozenInstanceError:
        return True
    return False


def _extras(plugin: Plugin) -> Sequence[str]:
    return () if plugin.dist is None else plugin.dist.metadata.get_all("Provides-Extra") or ()


def _why(exc: LightX2VError) -> str:
    return exc.why if isinstance(exc, PluginFault) else one_line(str(exc))
