"""Writes docs/config.md from the configuration's classes and the table of the flat vocabulary.

python docs/config_reference.py
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from lightx2v_core.config.declared import SECTIONS
from lightx2v_core.config.lightx2v.flags import WAN
from lightx2v_core.config.lightx2v.keys import LEGACY, MM_TYPES
from lightx2v_core.config.lightx2v.translate import type_words
from lightx2v_core.config.model import RunConfig, Section

TARGET = Path(__file__).with_name("config.md")

INTRODUCTION = """\
# Configuration

<!-- written by docs/config_reference.py; change that, or the help texts of the keys -->

A configuration is one JSON file with `//` and `/* */` comments and trailing commas. Lowest to highest: the defaults of
the model, the file, the options of the command line, `--set KEY=JSON`. `lightx2v-core config show [FILE] [options]`
prints the result with the origin of every value, `config check FILE` says what is wrong with line and column, and
`config schema` prints a JSON Schema for editors that knows the options of everything that is installed:

    lightx2v-core config schema > lightx2v.schema.json

```jsonc
{
  "$schema": "./lightx2v.schema.json",
  "model_path": "models/Wan2.1-I2V-14B-480P",
  "attention": ["flash-attn3?", "sdpa"],  // a wish, and what computes where it is not installed
  "sampling": {"size": "832x480", "steps": 40, "seed": 7},
  "components": {"text_encoder": {"path": "shared/models_t5_umt5-xxl-enc-bf16.pth"}},
}
```

Two vocabularies are read, and may be mixed: our own, and the flat one of LightX2V's configuration files. The same thing
said twice in one file must be the same. `--set` takes keys of both; a key with dots in it is put in quotes
(`--set model.options."wan2.1".vae_tile=256`).

## Sections

These keys choose an implementation: `SECTIONS`, and `quantizer` and `offloader` of one component.

Their value is a name, a list of names that are tried in order, or `{"use": NAME or NAMES, "options": {NAME: {...}}}`. A
named choice is used or is an error that says why it cannot be; `NAME?` is passed over where it is not installed.
Options under `"*"` are for whichever implementation is chosen and lie below its own:
`"model": {"options": {"*": {"tiny_vae": true}}}`.
`lightx2v-core plugins show NAME` lists the options of each implementation.

## Our own vocabulary

"""
FLAT = """
## The flat vocabulary

Files of LightX2V work as they are: every key below is understood, refused with a hint, or named in a note.
`null` says nothing, and so does `""` where a path is wanted. Where LightX2V went on in silence, this program does
not: a key that has no effect beside the others is named in a note, and what differs from LightX2V in a warning.

### Understood

| key | value | meaning | here |
|---|---|---|---|
"""
NOTES = """
Notes: `sample_guide_scale` lists high noise first. Guidance is on when a scale is given; LightX2V also wants
`enable_cfg`. Attention kernels are wishes, since nearly every file names one: `sdpa` computes where they are not
installed. So are the kernels of quantized weights, of which the format is what counts. `denoising_step_list` is read
where no model class is given or a distilled one, and is the number of steps then.
`fp8` and `int8` as schemes of the encoders take the best kernel that is installed.

### Schemes by their long names

`mm_config.mm_type` | as `dit_quant_scheme`
---|---
"""

WAN_OPTIONS = """
## Options of other programs

`run`, `plan` and `config show` take the options of LightX2V's `infer` and of Wan's own `generate.py` too, so that
one word of an existing command changes; `--help` does not list them. A key of the flat vocabulary is an option of
its name and means what the key means: `--target_shape 720 1280`, `--warmup`, `--cpu_offload true`. Wan's options
are these, beside those that are ours or keys of the flat vocabulary (`--size`, `--prompt`, `--src_video`, ...).
With a task such as `t2v-A14B` or `ti2v-5B`, `--task` says the model too, and `t2i-14B` is one frame.

| option | meaning | here |
|---|---|---|
"""


def reference() -> str:
    """The text of docs/config.md."""
    sections = ", ".join(f"`{name}`" for name in SECTIONS)
    lines = ["| key | value | default | meaning |", "|---|---|---|---|", *own_rows(RunConfig, "")]
    parts = [INTRODUCTION.replace("`SECTIONS`", sections), "\n".join(lines), "\n", FLAT]
    parts += [f"{row}\n" for row in flat_rows()]
    parts.append(NOTES)
    parts += [
        f"`{name}` | {f'`{short}`' if short else 'not quantized'}\n" for name, short in MM_TYPES.items()
    ]
    parts.append("\n### Refused\n\nThey cannot be had here; off, or what is done anyway, is fine.\n\n")
    parts += grouped({name: key.refused for name, key in LEGACY.items() if key.refused})
    parts.append("\n### Without a meaning here\n\nThey are passed over with a note.\n\n")
    parts += grouped({name: key.ignored for name, key in LEGACY.items() if key.ignored})
    parts.append(WAN_OPTIONS)
    parts += [f"{row}\n" for row in wan_rows()]
    return "".join(parts)


def own_rows(cls: type[Any], prefix: str) -> Iterator[str]:
    """A row for each key of a class and of those inside it."""
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        inner, suffix = nested(hint)
        help_text = field.metadata["help"].replace("|", "\\|")
        if inner is None or field.name in SECTIONS:
            yield f"| `{key}` | {words(hint)} | {default(field)} | {help_text} |"
        else:
            yield f"| `{key}` | | | {help_text} |"
            yield from own_rows(inner, f"{key}{suffix}.")


def nested(hint: Any) -> tuple[type[Any] | None, str]:
    """The class of keys inside a key, and how they are written."""
    arguments = [item for item in get_args(hint) if item is not Ellipsis]
    for item, suffix in [
        (hint, ""),
        *((item, "[]" if get_origin(hint) is tuple else ".NAME") for item in arguments),
    ]:
        if isinstance(item, type) and attrs.has(item) and item is not Section:
            return item, suffix
    return None, ""


def words(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is None:
        plain = {bool: "true or false", int: "integer", float: "number", str: "text", Section: "choice"}
        return plain[hint]
    arguments = [item for item in get_args(hint) if item not in (type(None), Ellipsis)]
    if "Literal" in str(get_origin(hint)):
        return ", ".join(f"`{item}`" for item in arguments)
    if get_origin(hint) is tuple:
        return f"{words(arguments[0])}, several"
    if len(arguments) == 2:
        return f"name: {words(arguments[1])}"
    return words(arguments[0])


def default(field: Any) -> str:
    """A default as it would be written, empty for none."""
    value = field.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory()
    if isinstance(value, Section):
        return f"`{value.want}`"
    if value is attrs.NOTHING:
        return "required"
    return "" if value in (None, (), {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def flat_rows() -> Iterator[str]:
    for name, key in LEGACY.items():
        if key.refused or key.ignored:
            continue
        target = LEGACY[key.same_as] if key.same_as else key
        meaning = f"older name of `{key.same_as}`" if key.same_as else target.help
        here = ", ".join(f"`{path}`" for path in target.to)
        yield f"| `{name}` | {' or '.join(type_words(target))} | {meaning} | {here} |"


def wan_rows() -> Iterator[str]:
    for name, key in WAN.items():
        target = LEGACY[key.same_as] if key.same_as else key
        meaning = f"refused: {key.refused}" if key.refused else f"passed over: {key.ignored}"
        meaning = target.help if target.to else meaning
        yield f"| `{name}` | {meaning} | {', '.join(f'`{path}`' for path in target.to)} |"


def grouped(reasons: dict[str, str]) -> list[str]:
    """Keys by the reason they have in common."""
    named: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        named.setdefault(reason, []).append(f"`{name}`")
    return [f"- {', '.join(names)}: {reason}\n" for reason, names in named.items()]


def folded(text: str, width: int = 120) -> str:
    """Prose and list items in lines of at most ``width``; tables as they are."""
    out = []
    for line in text.split("\n"):
        if len(line) <= width or " | " in line:
            out.append(line)
            continue
        indent = "  " if line.startswith("- ") else ""
        out += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(out)


if __name__ == "__main__":
    TARGET.write_text(folded(reference()), encoding="utf-8")
