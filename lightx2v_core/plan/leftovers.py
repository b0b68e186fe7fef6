"""Options that lie below a choice of another implementation, and mean nothing to it: each is named in a warning.

A file says ``scheduler: distill`` and how many steps it takes, and the command line says ``--scheduler euler``. The
steps are no mistake of the file, so they are passed over; options in the layer of the choice itself are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, fields

from lightx2v_core.config.declared import COMPONENT_SECTIONS, SECTIONS
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import ComponentConfig, RunConfig, Section
from lightx2v_core.discovery.plugins import Provided
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.quantizer_names import UNQUANTIZED, translated
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, WILDCARD


def without_leftovers(loaded: LoadedConfig, registry: Registry) -> LoadedConfig:
    """The configuration without options that a later choice left without a meaning; they are in its warnings."""
    if not loaded.beneath:
        return loaded
    warnings: list[str] = []

    def sifted(
        holder: RunConfig | ComponentConfig, kinds: tuple[str, ...], above: tuple[str, ...]
    ) -> dict[str, Any]:
        sections: dict[str, Any] = {}
        for kind in kinds:
            section: Section | None = getattr(holder, kind)
            if section is not None and section.use != ("auto",):
                options, gone = _kept(section, registry, kind, (*above, kind), loaded)
                sections[kind] = evolve(section, options=options)
                warnings.extend(gone)
        return sections

    components = {
        name: evolve(component, **sifted(component, COMPONENT_SECTIONS, ("components", name)))
        for name, component in loaded.config.components.items()
    }
    config = evolve(loaded.config, **sifted(loaded.config, SECTIONS, ()), components=components)
    return evolve(loaded, config=config, warnings=(*loaded.warnings, *warnings), beneath=frozenset())


def _kept(
    section: Section, registry: Registry, kind: str, path: tuple[str, ...], loaded: LoadedConfig
) -> tuple[dict[str, Mapping[str, object]], list[str]]:
    """The options of a section that mean something, and warnings of the others."""
    chosen = _chosen(section, registry, kind)
    kept: dict[str, Mapping[str, object]] = {}
    warnings = []
    for name, options in section.options.items():
        gone = [
            key
            for key in options
            if _lies_beneath(loaded, (*path, "options", name, key))
            and not _means_something(section, registry, kind, chosen, name, key)
        ]
        rest = {key: value for key, value in options.items() if key not in gone}
        if rest or not gone:
            kept[name] = rest
        for key in gone:
            warnings.append(
                f"{loaded.origin(*path, 'options', name, key)}: {'.'.join((*path, 'options', name, key))} is not used, "
                f"since {'.'.join(path)} is {', '.join(section.use)} ({loaded.origin(*path, 'use')})"
            )
    return kept, warnings


def _chosen(section: Section, registry: Registry, kind: str) -> list[Provided]:
    """What the names in ``use`` stand for, as far as it is installed."""
    if kind == "quantizer" and section.use in UNQUANTIZED:
        return []
    use = translated(section, registry).use if kind == "quantizer" else section.use
    return [
        candidate for name in use for candidate in registry.named(kind, name.removesuffix(OPTIONAL_SUFFIX))
    ]


def _lies_beneath(loaded: LoadedConfig, path: tuple[str, ...]) -> bool:
    at = ".".join(path)
    return at in loaded.beneath or any(key.startswith(f"{at}.") for key in loaded.beneath)


def _means_something(
    section: Section, registry: Registry, kind: str, chosen: list[Provided], name: str, key: str
) -> bool:
    """Whether what is chosen has an option; one of ``*`` that nothing at all has stays, to be refused."""
    if name == WILDCARD:
        others = [candidate for candidate in registry.candidates(kind) if candidate not in chosen]
        return bool(chosen) and (_has(chosen, key) or not _has(others, key))
    if name in (used.removesuffix(OPTIONAL_SUFFIX) for used in section.use):
        return True
    return any(candidate in chosen for candidate in registry.named(kind, name))


def _has(candidates: list[Provided], key: str) -> bool:
    return any(option.name == key for candidate in candidates for option in fields(candidate.spec.config))
