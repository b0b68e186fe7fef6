"""Layered configuration values: overlaying a value on a configuration, and handling the values it replaces.

A choice of implementation (``--model NAME``) changes the implementation and keeps its options from lower layers. For
every other replaced value, a warning names the keys that are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen, mutable

from lightx2v_core.config.declared import COMPONENT_SECTIONS, SECTIONS
from lightx2v_core.errors import ConfigError, shortened


@frozen(kw_only=True)
class Value:
    """A value from outside the file: the path of its key, and its origin (``--steps``)."""

    path: tuple[str, ...]
    value: object
    origin: str


@mutable(kw_only=True)
class Layers:
    """A configuration under construction, with the origin and layer of each value."""

    data: dict[str, object]
    #: ``sampling.steps`` -> ``--steps``
    origins: dict[str, str] = field(factory=dict)
    #: ``sampling.steps`` -> number of its layer, 0 for the file
    layers: dict[str, int] = field(factory=dict)
    warnings: list[str] = field(factory=list)

    def record(self, origin: str) -> None:
        """Record ``origin`` as the origin of all current values, in layer 0."""
        leaves = leaves_of(self.data, "") if self.data else []
        self.origins.update(dict.fromkeys(leaves, origin))
        self.layers.update(dict.fromkeys(leaves, 0))

    def lay(self, new: Value, layer: int) -> list[str]:
        """Set a value and record its origin. Returns the keys that it sets.

        Raises ``ConfigError`` if the value of a parent key is not an object.
        """
        said: list[str] = []
        for part in parts_of(new):
            adds_nothing = part is not new and part.value == {} and value_at(self.data, part.path)
            said += [] if adds_nothing else self._lay(part, layer)
        return said

    def _lay(self, new: Value, layer: int) -> list[str]:
        before = value_at(self.data, new.path)
        put(self.data, new)
        leaves = leaves_of(new.value, ".".join(new.path))
        self._forget(new, frozenset(leaves), isinstance(before, Mapping))
        self.origins.update(dict.fromkeys(leaves, new.origin))
        self.layers.update(dict.fromkeys(leaves, layer))
        return leaves

    def _forget(self, new: Value, leaves: frozenset[str], held: bool) -> None:
        """Remove the records of the values that a new value replaces, and warn of keys without a replacement.

        ``held``: the path had an object, whose keys are replaced too.
        """
        path = new.path
        for end in range(len(path)):  # the old value of a parent was null or an empty object
            self.origins.pop(".".join(path[: end + 1]), None)
            self.layers.pop(".".join(path[: end + 1]), None)
        at = ".".join(path)
        below = [key for key in self.origins if key.startswith(f"{at}.")] if held else []
        gone = [f"{key} ({self.origins[key]})" for key in below if key not in leaves]
        for key in below:
            del self.origins[key], self.layers[key]
        if gone:
            self.warnings.append(f"{shortened(gone)}: not used, since {new.origin} replaces {at}")

    def beneath(self) -> frozenset[str]:
        """Return the option keys that come from a lower layer than the choice of the implementation."""
        overruled = []
        for path, layer in self.layers.items():
            section, options, _ = path.partition(".options.")
            if options and layer < self.layers.get(f"{section}.use", 0) and is_section(section.split(".")):
                overruled.append(path)
        return frozenset(overruled)

    def overrule(self) -> None:
        """Drop the quantizers of components that a later layer overrides with one for all components.

        A kernel named on the command line replaces those in the file. Offloaders of components are kept: a global
        offloader applies to the other components.
        """
        for own, by, holds in self.own_choices():
            *path, kind, _ = own.split(".")
            if kind != "quantizer":
                continue
            del value_at(self.data, path)[kind]
            below = f"{'.'.join(path)}.{kind}."
            gone = {key: self.origins.pop(key) for key in list(self.origins) if key.startswith(below)}
            for key in gone:
                self.layers.pop(key, None)
            said = shortened([f"{key} ({where})" for key, where in gone.items()])
            self.warnings.append(
                f"{said}: not used ({', '.join(holds)}), since {by} names another quantizer for all"
            )

    def own_choices(self) -> list[tuple[str, str, Sequence[str]]]:
        """List the choices of components that differ from a global choice in a later layer.

        Returns the key of the choice, the origin of the global choice, and the names in the component's choice.
        """
        choices: list[tuple[str, str, Sequence[str]]] = []
        components = self.data.get("components")
        for name in components if isinstance(components, Mapping) else ():
            for kind in COMPONENT_SECTIONS:
                own, common = f"components.{name}.{kind}.use", f"{kind}.use"
                holds = value_at(self.data, ("components", name, kind, "use"))
                below = own in self.layers and self.layers[own] < self.layers.get(common, 0)
                if below and isinstance(holds, list) and holds != value_at(self.data, (kind, "use")):
                    choices.append((own, self.origins[common], [str(name) for name in holds]))
        return choices


def is_section(path: Sequence[str]) -> bool:
    """Return whether a key chooses an implementation."""
    if len(path) == 1:
        return path[0] in SECTIONS
    return len(path) == 3 and path[0] == "components" and path[2] in COMPONENT_SECTIONS


def parts_of(new: Value) -> list[Value]:
    """Split a section into ``use`` and each option, to be set one by one; return any other value unchanged."""
    if not is_section(new.path) or new.value is None:
        return [new if not _holds_sections(new) else _spelt_out(new)]
    section = section_of(new.value)
    if not isinstance(section, Mapping) or not section:
        return [new]
    parts: dict[tuple[str, ...], object] = {}
    for key, value in section.items():
        if key != "options" or not isinstance(value, Mapping):
            parts[(key,)] = value
            continue
        for name, options in value.items():
            if isinstance(options, Mapping) and options:
                parts.update({(key, name, option): said for option, said in options.items()})
            else:
                parts[(key, name)] = options
    return [Value(path=(*new.path, *path), value=value, origin=new.origin) for path, value in parts.items()]


def _holds_sections(new: Value) -> bool:
    return new.path[0] == "components" and len(new.path) < 3


def _spelt_out(new: Value) -> Value:
    """Expand the short forms of sections in ``components`` or in one component."""
    value = new.value
    if isinstance(value, Mapping) and len(new.path) == 2:
        value = component_of(value)
    elif isinstance(value, Mapping):
        value = {name: component_of(inner) for name, inner in value.items()}
    return Value(path=new.path, value=value, origin=new.origin)


def component_of(value: object) -> object:
    """Expand the short forms of sections in a component."""
    if not isinstance(value, Mapping):
        return value
    return {key: section_of(inner) if key in COMPONENT_SECTIONS else inner for key, inner in value.items()}


def section_of(value: object) -> object:
    """Expand the short form of a section: ``"sdpa"`` -> ``{"use": ["sdpa"]}``."""
    if isinstance(value, str):
        return {"use": [value]}
    if isinstance(value, list | tuple):
        return {"use": list(value)}
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        return {**value, "use": [value["use"]]}
    return value


def value_at(data: object, path: Sequence[str]) -> Any:
    """Return the value at a path, or None if there is none."""
    for key in path:
        if not isinstance(data, Mapping) or key not in data:
            return None
        data = data[key]
    return data


def put(data: dict[str, object], new: Value) -> None:
    """Set a value by its path, keeping the other keys of a section.

    Raises ``ConfigError`` if the value of a parent key is not an object.
    """
    *parents, last = new.path
    here: Any = data
    for depth, key in enumerate(parents):
        below = here.get(key)
        if below is not None and is_section(new.path[: depth + 1]):
            below = section_of(below)
        if below is None:
            below = {}
        if not isinstance(below, dict):
            at = ".".join(parents[: depth + 1])
            raise ConfigError(f"{new.origin}: {at} is {below!r}, not an object")
        here[key] = dict(below)
        here = here[key]
    here[last] = new.value


def leaves_of(value: object, path: str) -> list[str]:
    """List the dotted keys of the leaf values in a value; an empty object counts as a leaf."""
    leaves: list[str] = []
    waiting: list[tuple[str, object]] = [(path, value)]
    while waiting:
        at, here = waiting.pop()
        if isinstance(here, Mapping) and here:
            waiting += [(f"{at}.{key}".lstrip("."), inner) for key, inner in reversed(list(here.items()))]
        else:
            leaves.append(at)
    return leaves
