"""Removal of options that a later choice of another implementation makes meaningless, with a warning for each.

Example: a file sets ``scheduler: distill`` with its timesteps, and the command line has ``--scheduler euler``. The
timesteps are not an error in the file, so they are ignored. Unknown options in the layer of the choice itself are
errors.
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
    """Remove options that a later choice made meaningless from the configuration, and add a warning for each."""
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
    """Return the options of a section that still apply, and warnings about the others."""
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
                f"{loaded.origin(*path, 'options', name, key)}: {'.'.join((*path, 'options', name, key))} is ignored, "
                f"since {'.'.join(path)} is {', '.join(section.use)} ({loaded.origin(*path, 'use')})"
            )
    return kept, warnings


def _chosen(section: Section, registry: Registry, kind: str) -> list[Provided]:
    """Return the installed implementations that the names in ``use`` select."""
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
    """Return whether a chosen implementation has an option.

    An option of ``*`` that no implementation has is kept, so that a later check reports it.
    """
    if name == WILDCARD:
        others = [candidate for candidate in registry.candidates(kind) if candidate not in chosen]
        return bool(chosen) and (_has(chosen, key) or not _has(others, key))
    if name in (used.removesuffix(OPTIONAL_SUFFIX) for used in section.use):
        return True
    return any(candidate in chosen for candidate in registry.named(kind, name))


def _has(candidates: list[Provided], key: str) -> bool:
    return any(option.name == key for candidate in candidates for option in fields(candidate.spec.config))
