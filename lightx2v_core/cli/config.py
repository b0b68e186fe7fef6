"""The command ``lightx2v-core config``: check a configuration, or show it with the origin of every value."""

from __future__ import annotations

import json
from typing import Any

import click

from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.foreign import ForeignOptions
from lightx2v_core.cli.options import config_from, run_options
from lightx2v_core.cli.terminal import say, say_json
from lightx2v_core.config.declared import SECTIONS
from lightx2v_core.config.load import LoadedConfig, load_config
from lightx2v_core.config.model import Section
from lightx2v_core.config.schema import schema
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import ConfigError
from lightx2v_core.plan.leftovers import without_leftovers
from lightx2v_core.plan.quantizer_names import UNQUANTIZED, translated
from lightx2v_core.plan.selection import by_true_name, check_steps, placed, structured_options
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, SchedulerSpec


@click.group("config")
def command() -> None:
    """Check a configuration, or show it with the origin of every value."""


@command.command("check")
@click.argument("file")
@common_options
def check(file: str, **parameters: Any) -> None:
    """Check the keys, types, ranges and names in FILE.

    All named implementations must be installed.
    """
    plugins = plugins_from(parameters)
    loaded = load_config(file)
    check_names(loaded, plugins)
    _show_warnings(loaded)
    say(f"{file} is valid")


@command.command("show", cls=ForeignOptions)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON without origins.")
@common_options
def show(**parameters: Any) -> None:
    """Show the configuration of a file and options, with origins.

    The output is a valid configuration file; a comment after each value names its origin.
    """
    as_json = parameters.pop("as_json")
    plugins = plugins_from(parameters)
    loaded = without_leftovers(config_from(parameters), Registry(plugins))
    check_names(loaded, plugins)
    _show_warnings(loaded)
    if as_json:
        say_json(loaded.to_json())
        return
    for line in lines(loaded.to_json(), (), loaded):
        say(line)


@command.command("schema")
@common_options
def schema_command(**parameters: Any) -> None:
    """Print a JSON Schema of the configuration, for editors.

    It includes the options of all installed implementations.
    """
    say_json(schema(plugins_from(parameters)), indent=2)


def _show_warnings(loaded: LoadedConfig) -> None:
    for note in loaded.notes:
        say(f"note: {note}", err=True)
    for warning in loaded.warnings:
        say(f"warning: {warning}", err=True)


def check_names(loaded: LoadedConfig, plugins: PluginSet) -> None:
    """Check the named implementations: all are installed, and their options are valid.

    Raises ``PluginError`` or ``ConfigError`` otherwise.
    """
    registry = Registry(plugins)
    for kind in SECTIONS:
        # the default applier is only used if there are LoRA files
        unused = kind == "lora_applier" and not loaded.config.loras and not loaded.says(kind)
        if not unused:
            _check_section(getattr(loaded.config, kind), registry, kind, (kind,), loaded)
    for name, component in loaded.config.components.items():
        for kind in ("quantizer", "offloader"):
            path = ("components", name, kind)
            _check_section(getattr(component, kind), registry, kind, path, loaded)
    _check_steps(loaded, registry)


def _check_steps(loaded: LoadedConfig, registry: Registry) -> None:
    """Check the number of steps against the scheduler: the named one, or that of a network configured as distilled."""
    stated, _ = by_true_name(loaded, registry)
    section = loaded.config.scheduler
    if section is None and any(component.distilled for component in stated.config.components.values()):
        section = Section(use=("distill",))
    if (
        section is None
        or len(section.use) != 1
        or not registry.named(SchedulerSpec, section.use[0].removesuffix(OPTIONAL_SUFFIX))
    ):
        return
    scheduler = registry.find(SchedulerSpec, section.use[0].removesuffix(OPTIONAL_SUFFIX))
    options = structured_options(section, registry, "scheduler", scheduler, loaded=loaded)
    check_steps(scheduler.spec, options, loaded.config.sampling.steps, loaded.origin("sampling", "steps"))


def _check_section(
    section: Section | None, registry: Registry, kind: str, path: tuple[str, ...], loaded: LoadedConfig
) -> None:
    with placed(loaded, *path, "use"):
        _check_names(section, registry, kind, path, loaded)


def _check_names(
    section: Section | None, registry: Registry, kind: str, path: tuple[str, ...], loaded: LoadedConfig
) -> None:
    if section is not None and kind == "quantizer":
        section = translated(section, registry)
    if section is None or (kind == "quantizer" and section.use in UNQUANTIZED):
        return
    if section.use == ("auto",):
        _check_any(section, registry, kind, loaded)
        return
    origin = loaded.origin(*path, "use")
    for name in section.use:
        wished = name.endswith(OPTIONAL_SUFFIX)
        name = name.removesuffix(OPTIONAL_SUFFIX)
        if wished and not registry.named(kind, name):
            continue
        candidate = registry.find(kind, name, asked=origin != "default", origin=origin)
        structured_options(section, registry, kind, candidate, loaded=loaded)


def _check_any(section: Section, registry: Registry, kind: str, loaded: LoadedConfig) -> None:
    """Check the options of an automatic choice: at least one installed implementation must accept them."""
    problems = []
    for candidate in registry.candidates(kind):
        try:
            structured_options(section, registry, kind, candidate, loaded=loaded)
        except ConfigError as exc:
            problems.append(exc)
        else:
            return
    if problems:
        raise problems[0]


def lines(value: object, path: tuple[str, ...], loaded: LoadedConfig) -> list[str]:
    """Format the JSON with a ``// origin`` comment after each value; the result is a valid configuration file."""
    indent = "  " * len(path)
    if not isinstance(value, dict) or not value:
        return [f"{json.dumps(value, ensure_ascii=False)},  // {loaded.origin(*path)}"]
    out = ["{"]
    for key, inner in value.items():
        first, *rest = lines(inner, (*path, key), loaded)
        out += [f"{indent}  {json.dumps(key)}: {first}", *rest]
    return [*out, f"{indent}}}" + ("," if path else "")]
