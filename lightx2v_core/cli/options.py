"""Options shared by commands. Each run option sets a configuration key, as declared by its field."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import click
from attrs import frozen

from lightx2v_core.cli.foreign import foreign_values
from lightx2v_core.config.declared import Setting, settings
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig, load_config, parse_set
from lightx2v_core.config.model import Section
from lightx2v_core.config.texts import listed, names, number, numbers, whole_number
from lightx2v_core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
Read = Callable[[str], object]

#: type of a field -> name of its value in ``--help``, and parser
_BY_TYPE: Mapping[object, tuple[str, Read]] = {
    int: ("N", whole_number),
    float: ("F", number),
    Section: ("NAME[,NAME]", names),
    tuple[float, ...]: ("F[,F]", numbers),
    tuple[str, ...]: ("TEXT", listed),
}
#: order of options in ``--help``, by prefix of their key; within a prefix, the order of the fields
_ORDER = tuple(
    "model_path model task prompt negative_prompt inputs sampling scheduler sampling.seed dtype device attention "
    "quantizer offloader memory loras lora_applier strict_lora output.path output.overwrite output".split()
)


@frozen(kw_only=True)
class RunOption:
    """An option of ``run`` and ``plan``: its spellings, help, key and parser."""

    names: tuple[str, ...]
    key: tuple[str, ...]
    help: str
    metavar: str = "TEXT"
    read: Read = str
    multiple: bool = False
    flag: bool = False
    #: value that a flag sets
    sets: bool = False

    @property
    def parameter(self) -> str:
        """Return the name of its parameter in click."""
        return self.names[0].lstrip("-").replace("-", "_")


def _run_options() -> tuple[RunOption, ...]:
    return tuple(
        _run_option(setting) for setting in sorted(settings(), key=_place) if setting.knob.option is not None
    )


def _place(setting: Setting) -> int:
    """Return the position of an option, by the longest prefix of its key in ``_ORDER``."""
    for end in range(len(setting.path), 0, -1):
        if (key := ".".join(setting.path[:end])) in _ORDER:
            return _ORDER.index(key)
    return len(_ORDER)


def _run_option(setting: Setting) -> RunOption:
    knob, option = setting.knob, setting.knob.option
    assert option is not None
    metavar, read = _BY_TYPE.get(setting.kind, ("TEXT", str))
    if knob.short is not None and knob.short.kind == "string":
        read = knob.short.read
    return RunOption(
        names=option.names,
        key=setting.path,
        help=option.help or f"{knob.help[:1].upper()}{knob.help[1:]}.",
        metavar=option.metavar or metavar,
        read=option.read or read,
        multiple=option.multiple,
        flag=setting.kind is bool,
        sets=setting.default is False,
    )


RUN_OPTIONS = _run_options()


def input_options(inputs: Container[str]) -> list[str]:
    """List the options of ``run`` for these inputs of a task, as in its help: ``--image FILE``."""
    return [
        f"{option.names[0]} {option.metavar}"
        for option in RUN_OPTIONS
        if option.key[0] == "inputs" and option.key[-1] in inputs
    ]


def run_options(command: F) -> F:
    """Add CONFIG, every run option and ``--set`` to a command. ``config_from`` reads them."""
    for option in reversed(RUN_OPTIONS):
        command = click.option(
            *option.names,
            option.parameter,
            help=option.help,
            metavar=None if option.flag else option.metavar,
            multiple=option.multiple,
            is_flag=option.flag or None,  # False would make the values optional
        )(command)
    command = click.option(
        "--set",
        "set_",
        metavar="KEY=JSON",
        multiple=True,
        help="Set a configuration key, such as sampling.steps=20. Repeatable.",
    )(command)
    command = click.option("--config_json", metavar="FILE", hidden=True)(command)
    return click.argument("config", required=False)(command)


def config_from(parameters: dict[str, Any]) -> LoadedConfig:
    """Load the configuration of a command line. Removes its parameters from ``parameters``.

    Options take precedence over the file, and ``--set`` over both. Raises ``ConfigError`` for anything invalid.
    """
    config, alias = parameters.pop("config"), parameters.pop("config_json")
    if config is not None and alias is not None:
        raise ConfigError("two configuration files: an argument and --config_json")
    if config is not None and not os.path.isfile(config) and not config.endswith((".json", ".jsonc")):
        what = "is a folder" if os.path.isdir(config) else "does not exist"
        raise ConfigError(
            f"configuration file {config[:200]!r} {what}; pass a model with --model-path and a prompt with --prompt"
        )
    values = []
    for option in RUN_OPTIONS:
        given = parameters.pop(option.parameter)
        # an empty path or name means "not set", as in the scripts of LightX2V
        if given in (None, (), False) or (
            given == "" and option.key not in (("prompt",), ("negative_prompt",))
        ):
            continue
        values.append(Value(path=option.key, value=_read(option, given), origin=option.names[0]))
    values += foreign_values()
    values += [parse_set(text) for text in parameters.pop("set_")]
    return load_config(config or alias, values)


def _read(option: RunOption, given: Any) -> object:
    if option.flag:
        return option.sets
    try:
        if not option.multiple:
            return option.read(given)
        if option.read is listed:
            return [part for text in given for part in listed(text)]
        return [option.read(text) for text in given]
    except ConfigError as exc:
        raise ConfigError(f"{option.names[0]}: {exc}") from None
