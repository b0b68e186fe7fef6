"""Options of other programs. They are removed from a command line before click parses it; ``--help`` omits them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import click

from lightx2v_core.config.layers import Value
from lightx2v_core.config.lightx2v.flags import flag_key, flag_value, takes_words
from lightx2v_core.errors import ConfigError

_KEPT = "lightx2v_core.cli.foreign"
#: spellings of our options that are parsed as those of other programs
_THEIRS = ("--model_cls",)
#: our options that are parsed as Wan's if the task is one of Wan's
_WITH_TASK = ("--task", "--image")
#: a task and the size of its model
_WAN_TASK = re.compile(r"[a-z0-9]+-A?\d+(\.\d+)?B", re.IGNORECASE)


class ForeignOptions(click.Command):
    """A command that accepts options of LightX2V and of Wan's ``generate.py``; ``foreign_values`` returns them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line without the foreign options, which are kept in the context."""
        own = {name: option for option in self.params for name in option.opts if name.startswith("-")}
        try:
            ctx.meta[_KEPT], rest = divided(args, own)
        except ConfigError as exc:
            raise click.UsageError(str(exc), ctx) from None
        return super().parse_args(ctx, rest)


def foreign_values() -> tuple[Value, ...]:
    """Return the values of foreign options of the running command."""
    ctx = click.get_current_context(silent=True)
    values: tuple[Value, ...] = () if ctx is None else ctx.meta.get(_KEPT, ())
    return values


def divided(args: Sequence[str], own: dict[str, click.Parameter]) -> tuple[tuple[Value, ...], list[str]]:
    """Split a command line into the values of foreign options and the remaining words."""
    theirs = {*_THEIRS, *(_WITH_TASK if _is_wan(args) else ())}
    values: list[Value] = []
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return tuple(values), [*rest, word, *waiting]
        name, equals, text = word.partition("=")
        option = own.get(name)
        if option is not None and name not in theirs:
            rest.append(word)
            flag = isinstance(option, click.Option) and (option.is_flag or option.count)
            if not equals and not flag and waiting:
                rest.append(waiting.pop(0))
            continue
        key = flag_key(name) if name.startswith("--") else ""
        if not key:
            rest.append(word)
            continue
        number = 0 if equals else takes_words(name, waiting)
        words = [text] if equals else waiting[:number]
        del waiting[:number]
        values.append(Value(path=(key,), value=flag_value(name, words), origin=name))
    return tuple(values), rest


def repeat_options(args: Sequence[str], names: Iterable[str]) -> list[str]:
    """Repeat the options ``names`` before each of their values.

    Other programs accept several values after one option (``--lora_strength 1.0 0.8``).
    """
    wanted, out, current = frozenset(names), list[str](), ""
    for word in args:
        if word.startswith("-") and not _is_number(word):
            current = word if word in wanted else ""
            out.append(word)
        elif current and out[-1] != current:
            out += [current, word]
        else:
            out.append(word)
    return out


def _is_wan(args: Sequence[str]) -> bool:
    tasks = [after for word, after in itertools.pairwise(args) if word == "--task"]
    tasks += [word.partition("=")[2] for word in args if word.startswith("--task=")]
    return any(_WAN_TASK.fullmatch(task) for task in tasks)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
