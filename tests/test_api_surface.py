"""What users and plugin authors depend on: hooks, specs, public names, options, configuration keys.

``tests/api_surface.json`` holds it. A difference is a change of the public interface: look at it, then write the
file again with ``python tests/test_api_surface.py`` so that the change is a diff somebody reviews.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

import attrs
import click

SNAPSHOT = Path(__file__).with_name("api_surface.json")
WAN21 = Path(__file__).parent.parent / "plugins" / "wan21" / "src" / "lightx2v_wan21"


def surface() -> dict[str, Any]:
    """The public interface as plain data."""
    from lightx2v_core import api, testing, weights
    from lightx2v_core.config.model import RunConfig
    from lightx2v_core.discovery.plugins import GROUP
    from lightx2v_core.spec import components, context, memory, recognition, request, specs
    from lightx2v_core.spec.hooks import KINDS
    from lightx2v_core.spec.renamed import ALIASES

    hooks = {hook: list(inspect.signature(_hook(hook)).parameters) for hook, _ in KINDS.values()}
    classes = {
        name: found
        for module in (components, context, memory, recognition, request, specs)
        for name, found in vars(module).items()
        if attrs.has(found) and found.__module__ == module.__name__ and name != "Request"
    }
    return {
        "entry point group": GROUP,
        "hooks": hooks,
        "kinds": {kind: spec.__name__ for kind, (_, spec) in KINDS.items()},
        "specs": {name: _fields(found) for name, found in sorted(classes.items())},
        "aliases": dict(ALIASES),
        "lightx2v_core.api": sorted(api.__all__),
        # from its stub, which is there where the plugin is not installed
        "lightx2v_wan21.api": api.lazy_names("lightx2v_wan21.api", str(WAN21 / "api.py"))[2],
        "protocols": {
            name: _methods(getattr(api, name))
            for name in sorted(api.__all__)
            if getattr(getattr(api, name), "_is_protocol", False)
        },
        "lightx2v_core.weights": sorted(weights.__all__),
        "weights": {name: _members(getattr(weights, name)) for name in sorted(weights.__all__)},
        "lightx2v_core.testing": sorted(testing.__all__),
        "commands": _commands(),
        "configuration": _keys(RunConfig),
    }


def _hook(name: str) -> Any:
    from lightx2v_core.spec import hooks as hookspecs

    return getattr(hookspecs, name)


def _fields(cls: type[Any]) -> list[str]:
    """Names of fields; ``= ...`` marks those a plugin may leave out."""
    return [f.name if f.default is attrs.NOTHING else f"{f.name} = ..." for f in attrs.fields(cls)]


def _members(value: Any) -> Any:
    """A function's parameters; the public fields, methods and properties of a class, inherited ones too; of anything
    else its type."""
    if inspect.isfunction(value):
        return _signature(value)
    if not isinstance(value, type):
        return type(value).__name__
    fields = [field.name for field in attrs.fields(value)] if attrs.has(value) else []
    found = {name: "" for name in fields if not name.startswith("_")}
    ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("lightx2v_")]
    for name, member in {name: member for base in ours for name, member in vars(base).items()}.items():
        if name == "__init__" and not attrs.has(value) and inspect.isfunction(member):
            found[name] = _signature(member)
        elif not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            found[name] = _signature(member) if inspect.isfunction(member) else ""
    return found


def _signature(function: Any) -> str:
    """Its parameters without annotations and without ``self``; functions as defaults have no stable text."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != "self":
            plain = parameter.replace(annotation=inspect.Parameter.empty)
            found.append(f"{plain.name}=..." if inspect.isfunction(plain.default) else str(plain))
    return ", ".join(found)


def _methods(protocol: type[Any]) -> dict[str, str]:
    """Parameters by method; annotated attributes have none."""
    found = dict.fromkeys((name for name in vars(protocol).get("__annotations__", {})), "")
    for name, value in vars(protocol).items():
        if inspect.isfunction(value) and (name == "__call__" or not name.startswith("_")):
            found[name] = _signature(value)
    return found


def _commands() -> dict[str, list[str]]:
    """Every option spelling and argument by command, of the core and of the first-party plugins that are installed."""
    from lightx2v_core.cli import COMMANDS, cli

    ctx = click.Context(cli)
    found = {"": _parameters(cli)}
    for name in COMMANDS:
        command = cli.get_command(ctx, name)
        assert command is not None
        found[name] = _parameters(command)
        if isinstance(command, click.Group):
            found.update({f"{name} {sub}": _parameters(item) for sub, item in command.commands.items()})
    return found | {name: _parameters(command.load()) for name, command in _commands_of_plugins().items()}


def _commands_of_plugins() -> dict[str, Any]:
    from lightx2v_core.api import CommandSpec, load_plugins
    from lightx2v_core.discovery import catalog

    commands = (given.spec for given in load_plugins(environ={}).provided(CommandSpec))
    return {spec.full_name: spec for spec in commands if spec.full_name in catalog.commands()}


def _parameters(command: click.Command) -> list[str]:
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    options = [o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)]
    return [*arguments, *sorted(options)]


def _keys(cls: type[Any], prefix: str = "") -> list[str]:
    """Dotted configuration keys; ``*`` stands for names that users choose, ``[]`` for items of a list."""
    found = []
    hints = typing.get_type_hints(cls)
    for field in attrs.fields(cls):
        key = f"{prefix}{field.name}"
        found.append(key)
        for nested, suffix in _nested(hints[field.name]):
            found += _keys(nested, f"{key}{suffix}.")
    return found


def _nested(hint: Any, suffix: str = "") -> list[tuple[type[Any], str]]:
    """The configuration classes inside a type, and how a key reaches them."""
    if isinstance(hint, type) and attrs.has(hint):
        return [(hint, suffix)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [found for argument in arguments for found in _nested(argument, suffix)]
    if origin is tuple:
        return _nested(arguments[0], f"{suffix}[]")
    return _nested(arguments[1], f"{suffix}.*") if len(arguments) == 2 else []


def text(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def test_the_public_interface_is_what_was_reviewed() -> None:
    from lightx2v_core.discovery import catalog

    stored = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    for name in set(catalog.commands()) - set(_commands_of_plugins()):
        stored["commands"].pop(name)
    found = json.loads(text(surface()))
    how = f"look at the difference; if it is meant, run `python tests/{Path(__file__).name}` and commit the diff"
    for part in stored.keys() | found.keys():
        assert found.get(part) == stored.get(part), f"the public interface changed in {part!r}: {how}"


def test_the_snapshot_is_written_as_the_script_writes_it() -> None:
    stored = SNAPSHOT.read_text(encoding="utf-8")
    assert stored == text(json.loads(stored))


def test_the_snapshot_sees_every_part() -> None:
    found = surface()
    assert all(found.values())
    assert found["hooks"]["lightx2v_models"] == []
    assert found["specs"]["AttentionSpec"][-1] == "build"
    assert "priority = ..." in found["specs"]["Spec"]
    assert {"sampling.steps", "loras[].path", "components.*.path", "attention.use"} <= {
        *found["configuration"]
    }
    assert "--model-path" in found["commands"]["run"]
    assert found["commands"]["plugins show"] == ["NAME", "--json"]
    assert found["protocols"]["Scheduler"]["step"] == "prediction, index, latents"


def test_spec_fields_can_be_added_without_breaking_plugins() -> None:
    """Fields that every kind shares have defaults, but for the two that say what it is."""
    required = [name for name in surface()["specs"]["Spec"] if not name.endswith("= ...")]
    assert required == ["name", "summary"]


if __name__ == "__main__":
    SNAPSHOT.write_text(text(surface()), encoding="utf-8")
