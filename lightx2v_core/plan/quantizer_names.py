"""Names of quantizers in a configuration. A scheme of LightX2V stands for several kernels; a name that ends in ``?`` is
a preference, which another kernel replaces where it is unavailable."""

from __future__ import annotations

from collections.abc import Mapping

from lightx2v_core.config.lightx2v.schemes import MM_TYPES, SCHEMES
from lightx2v_core.config.model import Section
from lightx2v_core.discovery.catalog import install, quantizers
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginError
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, QuantizerSpec

#: values of ``use`` for no quantizer; the second occurs in LightX2V configurations
UNQUANTIZED = (("none",), ("Default",))


def translated(section: Section, registry: Registry) -> Section:
    """Replace the scheme names of a section by the quantizers that they stand for.

    Raises ``PluginError`` for a scheme without an available kernel; the message names quantizers for the same weights.
    """
    use: list[str] = []
    options: dict[str, Mapping[str, object]] = {}
    for name in section.use:
        names = _kernels(name, registry)
        use += [new for new in names if new not in use and f"{new}{OPTIONAL_SUFFIX}" not in use]
        if (plain := name.removesuffix(OPTIONAL_SUFFIX)) in section.options:
            options |= dict.fromkeys(
                (new.removesuffix(OPTIONAL_SUFFIX) for new in names), section.options[plain]
            )
    used = [name.removesuffix(OPTIONAL_SUFFIX) for name in section.use]
    rest = {name: value for name, value in section.options.items() if name not in used}
    return Section(use=tuple(use), options={**rest, **options})


def unmet(section: Section, chosen: str, registry: Registry) -> str:
    """Return the preference (``name?``) of a section if the ``chosen`` quantizer is not one of its kernels, else ''."""
    first = section.use[0]
    if not first.endswith(OPTIONAL_SUFFIX):
        return ""
    kernels = [name.removesuffix(OPTIONAL_SUFFIX) for name in _kernels(first, registry)]
    return "" if chosen in kernels else first.removesuffix(OPTIONAL_SUFFIX)


def why_unmet(name: str) -> str:
    """Explain why a preferred quantizer is unavailable, as far as its name tells."""
    scheme = SCHEMES.get(MM_TYPES.get(name, name))
    return f"needs {scheme.needs}" if scheme is not None and scheme.needs else "cannot be used here"


def _kernels(name: str, registry: Registry) -> tuple[str, ...]:
    """Return the installed quantizers that the name of a scheme stands for.

    Other names, and preferences without an installed kernel, are returned as they are.
    """
    if name.endswith(OPTIONAL_SUFFIX):
        plain = name.removesuffix(OPTIONAL_SUFFIX)
        try:
            kernels = _kernels(plain, registry)
        except PluginError:
            return (name,)
        return (name,) if kernels == (plain,) else kernels
    candidates = registry.candidates(QuantizerSpec)
    installed = {candidate.spec.name for candidate in candidates}
    if name in installed or any(name == candidate.qualified for candidate in candidates):
        return (name,)
    scheme_name = MM_TYPES.get(name, name)
    label = f"quantizer {name!r}" + (f" ({scheme_name})" if scheme_name != name else "")
    scheme = SCHEMES.get(scheme_name)
    if scheme is not None and scheme.needs:
        text = f"{label} needs {scheme.needs}, which is not supported"
        raise PluginError(text + instead(scheme.format, registry))
    if scheme is None and scheme_name not in quantizers():
        return (name,)  # unknown; the registry reports it with a suggestion
    wanted = (scheme_name,) if scheme is None else scheme.kernels
    if kernels := tuple(kernel for kernel in wanted if kernel in installed):
        return kernels
    format = quantizers()[scheme_name]["formats"][0].partition("-")[0] if scheme is None else scheme.format
    raise PluginError(f"{label} is not installed{instead(format, registry)}")


def instead(format: str, registry: Registry) -> str:
    """Describe which quantizers run weights of a format, and how to select or install one."""
    candidates = [one.spec for one in registry.candidates(QuantizerSpec)]
    here = [spec.name for spec in candidates if any(known.startswith(format) for known in spec.formats)]
    installed = {spec.name for spec in candidates}
    absent = [
        f"{name} (pip install {install(entry)})"
        for name, entry in quantizers().items()
        if name not in installed and any(known.startswith(format) for known in entry["formats"] if format)
    ]
    if not here and not absent:
        return f"; no quantizer runs {format} weights: use fp8, int8 or original weights"
    text = f"; for {format} weights, "
    if here:
        text += f"use {'one of ' * (len(here) > 1)}{', '.join(here)} instead"
    if absent:
        text += f"{', or ' if here else ''}install {' or '.join(absent)}"
    return text
