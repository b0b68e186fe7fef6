"""The names of quantizers in a configuration: schemes of other programs stand for several kernels, and a name that ends
in ``?`` is a wish, which another kernel meets where it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping

from lightx2v_core.config.lightx2v.schemes import MM_TYPES, SCHEMES
from lightx2v_core.config.model import Section
from lightx2v_core.discovery.catalog import install, quantizers
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import PluginError
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, QuantizerSpec

#: what says that nothing is asked for; the second in existing configurations
UNQUANTIZED = (("none",), ("Default",))


def translated(section: Section, registry: Registry) -> Section:
    """A section with the names of schemes replaced by the quantizers that they stand for. ``PluginError`` for a scheme
    whose kernel is not to be had, with those that run the same weights."""
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
    """The first wish of a section when another quantizer than it stands for was ``chosen``; empty otherwise."""
    first = section.use[0]
    if not first.endswith(OPTIONAL_SUFFIX):
        return ""
    kernels = [name.removesuffix(OPTIONAL_SUFFIX) for name in _kernels(first, registry)]
    return "" if chosen in kernels else first.removesuffix(OPTIONAL_SUFFIX)


def why_unmet(name: str) -> str:
    """Why a wish cannot be met, as far as its name says."""
    scheme = SCHEMES.get(MM_TYPES.get(name, name))
    return f"needs {scheme.needs}" if scheme is not None and scheme.needs else "cannot be used here"


def _kernels(name: str, registry: Registry) -> tuple[str, ...]:
    """The installed quantizers that a scheme's name stands for; the name itself when it is none, or is a wish that
    cannot be met."""
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
    said = f"quantizer {name!r}" + (f" ({scheme_name})" if scheme_name != name else "")
    scheme = SCHEMES.get(scheme_name)
    if scheme is not None and scheme.needs:
        text = f"{said} needs {scheme.needs}, which is not supported here"
        raise PluginError(text + instead(scheme.format, registry))
    if scheme is None and scheme_name not in quantizers():
        return (name,)  # unknown, which the registry says with a suggestion
    wanted = (scheme_name,) if scheme is None else scheme.kernels
    if kernels := tuple(kernel for kernel in wanted if kernel in installed):
        return kernels
    format = quantizers()[scheme_name]["formats"][0].partition("-")[0] if scheme is None else scheme.format
    raise PluginError(f"{said} is not installed{instead(format, registry)}")


def instead(format: str, registry: Registry) -> str:
    """Which quantizers run weights of a format, and how to ask for one or get another."""
    candidates = [one.spec for one in registry.candidates(QuantizerSpec)]
    here = [spec.name for spec in candidates if any(known.startswith(format) for known in spec.formats)]
    installed = {spec.name for spec in candidates}
    absent = [
        f"{name} (pip install {install(entry)})"
        for name, entry in quantizers().items()
        if name not in installed and any(known.startswith(format) for known in entry["formats"] if format)
    ]
    text = f"; its weights are {format}"
    if here:
        text += f', which {", ".join(here)} can run: ask for one of them in its place, such as "{here[0]}"'
    if absent:
        text += f"{'; or' if here else ', which'} install {' or '.join(absent)}"
        text += "" if here else " can run"
    if not here and not absent:
        text += ", which nothing here can run: use fp8, int8 or original weights"
    return text
