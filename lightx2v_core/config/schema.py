"""A JSON Schema (draft 2020-12) of the configuration file, for editors: both vocabularies and installed plugins.

Types, ranges and names are derived from the classes of ``model`` and the options of the installed implementations.
Loading a configuration performs further checks.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from lightx2v_core.config.declared import SECTIONS
from lightx2v_core.config.knob import Knob
from lightx2v_core.config.lightx2v.keys import (
    ATTENTION,
    BOOL,
    GRANULARITIES,
    LEGACY,
    LIST,
    MM_TYPES,
    NUMBER,
    PATH,
    VENDOR_ATTENTION,
    LegacyKey,
)
from lightx2v_core.config.model import LoraConfig, RunConfig, Section
from lightx2v_core.config.option_help import option_help
from lightx2v_core.config.ranges import Between
from lightx2v_core.discovery import isolation
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.errors import LightX2VError
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, WILDCARD

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {bool: BOOL, int: "integer", float: NUMBER, str: "string"}
_KERNELS = [*ATTENTION, *sorted(VENDOR_ATTENTION)]
#: flat keys with a closed set of values
_VALUES: Mapping[str, Sequence[str]] = {
    "offload_granularity": GRANULARITIES,
    "scheduler_type": ("WanStepDistillScheduler",),
    **dict.fromkeys(
        ("self_attn_1_type", "cross_attn_1_type", "cross_attn_2_type", "adapter_attn_type", "clip_attn_type"),
        _KERNELS,
    ),
}


def schema(plugins: PluginSet) -> Schema:
    """Build the schema of a configuration with these plugins."""
    definitions: dict[str, Schema] = {}
    for kind in SECTIONS:
        definitions[f"{kind}_name"], definitions[kind] = _section(kind, plugins)
    own = _object(RunConfig, definitions)
    flat = {name: _flat(name, key, definitions) for name, key in LEGACY.items()}
    return {
        "$schema": DRAFT,
        "title": "lightx2v-core configuration",
        "type": "object",
        "properties": {"$schema": {"type": "string"}, **own["properties"], **flat},
        "additionalProperties": False,
        "$defs": definitions,
    }


def options_schema(cls: type[attrs.AttrsInstance]) -> Schema:
    """Build the schema of the options of one implementation."""
    return _object(cls, {})


def _object(cls: type[attrs.AttrsInstance], definitions: dict[str, Schema]) -> Schema:
    """Build the schema of a configuration class."""
    hints, said = get_type_hints(cls), option_help(cls)
    properties, required = {}, []
    for field in attrs.fields(cls):
        kind = field.name if field.name in SECTIONS else None
        described = _type(hints[field.name], definitions, kind)
        declared: Knob | None = field.metadata.get("knob")
        if declared is not None and (short := declared.short) is not None:
            text = {"pattern": short.pattern} if short.pattern else {}
            described = {"anyOf": [{"type": short.kind, **text}, described]}
        described = _ranged(described, field.validator)
        if help_text := said[field.name]:
            described = {"description": help_text, **described}
        if field.default is attrs.NOTHING:
            required.append(field.name)
        elif not isinstance(field.default, attrs.Factory) and field.default not in (None, ()):  # type: ignore[arg-type]
            described = {**described, "default": field.default}
        properties[field.name] = described
    about = (cls.__doc__ or "").partition("\n\n")[0].strip()
    base = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"description": about, **base} | ({"required": required} if required else {})


def _type(hint: object, definitions: dict[str, Schema], kind: str | None = None) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _any([_type(part, definitions, kind) for part in arguments])
    if hint is type(None):
        return {"type": "null"}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if hint is Section:
        return {"$ref": f"#/$defs/{kind}"}
    if isinstance(hint, type) and attrs.has(hint):
        return _object(hint, definitions)
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _item(arguments[0], definitions)}
    if origin is tuple:
        items = [_type(part, definitions) for part in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if len(arguments) == 2:
        return {"type": "object", "additionalProperties": _type(arguments[1], definitions)}
    return {}


def _item(hint: object, definitions: dict[str, Schema]) -> Schema:
    plain = _type(hint, definitions)
    return {"anyOf": [{"type": "string"}, plain]} if hint is LoraConfig else plain


def _any(several: Sequence[Schema]) -> Schema:
    """Combine alternatives into ``anyOf``, or into a list of types if all are plain types."""
    if all(set(one) == {"type"} for one in several):
        return {"type": [one["type"] for one in several]}
    return {"anyOf": list(several)}


def _ranged(plain: Schema, validator: object) -> Schema:
    """Add the limits of numbers, including those in a list."""
    for check in getattr(validator, "_validators", (validator,)):
        if not isinstance(check, Between):
            continue
        limits = {"exclusiveMinimum" if check.above else "minimum": check.low}
        if check.high != math.inf:
            limits["maximum"] = check.high
        plain = _with_limits(plain, limits)
    return plain


def _with_limits(plain: Schema, limits: Schema) -> Schema:
    if "anyOf" in plain:
        return {**plain, "anyOf": [_with_limits(part, limits) for part in plain["anyOf"]]}
    if "prefixItems" in plain:
        return {**plain, "prefixItems": [_with_limits(part, limits) for part in plain["prefixItems"]]}
    if plain.get("type") == "array":
        return {**plain, "items": _with_limits(plain["items"], limits)}
    named = plain.get("type", [])
    numeric = {"integer", "number"} & set([named] if isinstance(named, str) else named)
    return {**plain, **limits} if numeric else plain


def _section(kind: str, plugins: PluginSet) -> tuple[Schema, Schema]:
    """Build the schemas of the installed names of a kind, and of a choice among them with their options."""
    implementations = plugins.provided(kind)
    names: dict[str, str] = (
        {"auto": "chosen automatically"} if kind in ("model", "attention", "offloader") else {}
    )
    options: dict[str, Schema] = {}
    shared: dict[str, Schema] = {}
    for implementation in implementations:
        try:
            known = isolation.called(implementation.qualified, _object, implementation.spec.config, {})
        except LightX2VError:  # `plugins check` reports the error
            known = {"type": "object", "properties": {}}
        options[implementation.spec.name] = known
        options[implementation.qualified] = known
        shared = {**known["properties"], **shared}
        for text in (
            implementation.spec.name,
            implementation.qualified,
            *getattr(implementation.spec, "aliases", ()),
        ):
            names.setdefault(text, implementation.spec.summary)
    options[WILDCARD] = {
        "description": "for the chosen implementation", "type": "object", "properties": shared,
        "additionalProperties": False,
    }  # fmt: skip
    wish = {
        "type": "string", "pattern": f"^.+\\{OPTIONAL_SUFFIX}$", "description": "skipped if it is not installed",
    }  # fmt: skip
    called = {"anyOf": [*({"const": text, "description": about} for text, about in names.items()), wish]}
    name: Schema = {"$ref": f"#/$defs/{kind}_name"}
    several: Schema = {"type": "array", "items": name, "minItems": 1}
    # NAME? may have options without being installed, so other names are not an error here
    held: Schema = {"type": "object", "properties": options}
    use: Schema = {"anyOf": [name, several]}
    properties = {"use": use, "options": held}
    whole: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return called, {"anyOf": [name, several, whole]}


def _flat(name: str, key: LegacyKey, definitions: dict[str, Schema]) -> Schema:
    """Build the schema of a key of the flat vocabulary."""
    if key.refused:
        return {"description": f"Not supported: {key.refused}.", "enum": [*key.harmless, None]}
    if key.ignored:
        return {"description": f"Ignored: {key.ignored}.", "deprecated": True}
    target = LEGACY[key.same_as] if key.same_as else key
    text = f"{target.help}; sets {', '.join(target.to)}"
    if key.same_as:
        text = f"older name of {key.same_as}: {text}"
    plain: Schema = {
        "anyOf": [*(_flat_type(name, kind, definitions) for kind in target.types), {"type": "null"}]
    }
    return {"description": text, **plain}


def _flat_type(name: str, kind: str, definitions: dict[str, Schema]) -> Schema:
    if name == "mm_config":
        properties = {
            "mm_type": {"enum": [*MM_TYPES, None]},
            "weight_auto_quant": {"type": ["boolean", "null"]},
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if name in _VALUES:
        return {"enum": list(_VALUES[name])}
    if name == "lora_configs":
        return {"type": "array", "items": _object(LoraConfig, definitions)}
    if kind == LIST:
        items = {"type": "string"} if name == "src_ref_images" else {"type": "number"}
        return {"type": "array", "items": items}
    return {"type": "string" if kind == PATH else kind}
