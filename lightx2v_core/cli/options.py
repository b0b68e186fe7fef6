"""The options that commands share: each run option is a key of the configuration, as its field declares it."""

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

#: a type of the configuration -> what a value of it is called in ``--help``, and how its text is read
_BY_TYPE: Mapping[object, tuple[str, Read]] = {
    int: ("N", whole_number),
    float: ("F", number),
    Section: ("NAME[,NAME]", names),
    tuple[float, ...]: ("F[,F]", numbers),
    tuple[str, ...]: ("TEXT", listed),
}
#: the beginnings of keys in the order of their options in ``--help``; within one, the order is that of the fields
_ORDER = tuple(
    "model_path model task prompt negative_prompt inputs sampling scheduler sampling.seed dtype device attention "
    "quantizer offloader memory loras lora_applier strict_lora output.path output.overwrite output".split()
)


@frozen(kw_only=True)
class RunOption:
    """An option of ``run`` and ``plan``: its spellings, help, the key it sets, and how its text is read."""

    names: tuple[str, ...]
    key: tuple[str, ...]
    help: str
    metavar: str = "TEXT"
    read: Read = str
    multiple: bool = False
    flag: bool = False
    #: what a flag sets its key to
    sets: bool = False

    @property
    def parameter(self) -> str:
        return self.names[0].lstrip("-").replace("-", "_")


def _run_options() -> tuple[RunOption, ...]:
    return tuple(
        _run_option(setting) for setting in sorted(settings(), key=_place) if setting.knob.option is not None
    )


def _place(setting: Setting) -> int:
    """Where an option stands: by the longest beginning of its key that has a place."""
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
    """List the options of ``run`` that give these inputs of a task, as its help has them: ``--image FILE``."""
    return [
        f"{option.names[0]} {option.metavar}"
        for option in RUN_OPTIONS
        if option.key[0] == "inputs" and option.key[-1] in inputs
    ]


def run_options(command: F) -> F:
    """Add CONFIG, every run option and ``--set`` to a command; it receives ``loaded_config``."""
    for option in reversed(RUN_OPTIONS):
        command = click.option(
            *option.names,
            option.parameter,
            help=option.help,
            metavar=None if option.flag else option.metavar,
            multiple=option.multiple,
            is_flag=option.flag or None,  # False would make every value optional
        )(command)
    command = click.option(
        "--set", "set_", metavar="KEY=JSON", multiple=True, help="Set any configuration key."
    )(command)
    command = click.option("--config_json", metavar="FILE", hidden=True)(command)
    return click.argument("config", required=False)(command)


def config_from(parameters: dict[str, Any]) -> LoadedConfig:
    """The configuration of a command line; options lie over the file, ``--set`` over both. Takes its parameters out
    of ``parameters``."""
    config, alias = parameters.pop("config"), parameters.pop("config_json")
    if config is not None and alias is not None:
        raise ConfigError("the configuration file is given twice, as an argument and as --config_json")
    if config is not None and not os.path.isfile(config) and not config.endswith((".json", ".jsonc")):
        what = "is a folder" if os.path.isdir(config) else "does not exist"
        raise ConfigError(
            f"configuration file {config[:200]!r} {what}; a model goes with --model-path, and what the video shows "
            "with --prompt"
        )
    values = []
    for option in RUN_OPTIONS:
        given = parameters.pop(option.parameter)
        # an empty value of a path or name means "not given", as in the scripts of LightX2V's command
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
