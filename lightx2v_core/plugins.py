"""Entry points -> ``PluginSet``. The only module that touches pluggy's manager.

pluggy's own loader stops at the first broken entry point, so this one imports each plugin in a ``try`` of its
own: a broken plugin costs one warning line and nothing else.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

import pluggy
from attrs import field, frozen

from lightx2v_core import __version__, hookspecs
from lightx2v_core.errors import PluginError, suggestion
from lightx2v_core.specs import BuildContext, Spec

GROUP = "lightx2v_core.plugins"
#: the entry-point name under which the core's own implementations are listed
CORE = "core"

State = Literal["loaded", "disabled", "incompatible", "broken"]


@frozen(kw_only=True)
class Provided:
    """A spec, and the plugin and distribution it came from."""

    kind: str
    plugin: str
    spec: Spec[Any]
    dist: metadata.Distribution | None = None

    @property
    def qualified(self) -> str:
        return f"{self.plugin}/{self.spec.name}"

    def reasons(self, ctx: BuildContext) -> tuple[str, ...]:
        """Why this machine cannot use it; the cheap checks first, the plugin's own last."""
        spec, device = self.spec, ctx.device
        found = [f"{need} is not installed" for need in missing_requirements(self.dist, spec.extra)]
        if device.kind not in spec.devices:
            found.append(f"runs on {', '.join(sorted(spec.devices))}, not on {device.kind}")
        elif device.kind == "cuda" and device.capability < spec.min_capability:
            found.append(
                f"needs compute capability {spec.min_capability[0]}.{spec.min_capability[1]}, "
                f"{device.name} has {device.capability[0]}.{device.capability[1]}"
            )
        if found:
            return tuple(found)
        try:
            return tuple(spec.unusable(ctx))
        except Exception as exc:
            return (f"its check failed: {type(exc).__name__}: {exc}",)


@frozen(kw_only=True)
class Plugin:
    """One entry point: what it is, whether it loaded, and why not."""

    name: str
    module: str
    state: State
    reason: str = ""
    traceback: str = ""
    #: seconds its import took
    seconds: float = 0.0
    dist: metadata.Distribution | None = None
    provides: tuple[Provided, ...] = ()

    @property
    def dist_name(self) -> str:
        return self.dist.metadata["Name"] if self.dist is not None else "(no distribution)"

    @property
    def version(self) -> str:
        return self.dist.version if self.dist is not None else ""


@frozen(kw_only=True)
class PluginSet:
    """The plugins of this process, in name order. Passed on explicitly; there is no global one."""

    plugins: tuple[Plugin, ...]
    warnings: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Plugin:
        for plugin in self.plugins:
            if name == plugin.name or canonical(name) == canonical(plugin.dist_name):
                return plugin
        known = [plugin.name for plugin in self.plugins]
        raise PluginError(f"no plugin {name!r}; installed: {', '.join(known)}{suggestion(name, known)}")

    def provided(self, kind: str) -> tuple[Provided, ...]:
        """All implementations of a kind, in plugin name order."""
        return tuple(found for plugin in self.plugins for found in plugin.provides if found.kind == kind)

    def not_loaded(self) -> tuple[Plugin, ...]:
        return tuple(plugin for plugin in self.plugins if plugin.state != "loaded")


def load_plugins(
    *,
    disable: Iterable[str] = (),
    only: Iterable[str] | None = None,
    strict: bool = False,
    environ: Mapping[str, str] | None = None,
) -> PluginSet:
    """Find, check and import the installed plugins.

    ``disable`` and ``only`` take entry-point or distribution names; ``LIGHTX2V_DISABLE_PLUGINS`` and
    ``LIGHTX2V_PLUGINS`` (comma separated) do the same for a whole environment. A name that matches nothing is a
    ``PluginError``; with ``strict`` so is a plugin that does not load. The core's own implementations are always
    there.
    """
    environ = os.environ if environ is None else environ
    found = discover()
    names = {entry.name for entry in found}
    alias = {canonical(entry.dist.metadata["Name"]): entry.name for entry in found if entry.dist is not None}
    off = _known(_listed(environ.get("LIGHTX2V_DISABLE_PLUGINS")), names, alias, "LIGHTX2V_DISABLE_PLUGINS")
    off |= _known(disable, names, alias, "--disable-plugin")
    allowed = set(names)
    if environ.get("LIGHTX2V_PLUGINS") is not None:
        allowed &= _known(_listed(environ["LIGHTX2V_PLUGINS"]), names, alias, "LIGHTX2V_PLUGINS")
    if only is not None:
        allowed &= _known(only, names, alias, "--only-plugins")

    manager = pluggy.PluginManager("lightx2v_core")
    manager.add_hookspecs(hookspecs)
    plugins = [_core(manager)]
    for entry in found:
        if entry.name in off or entry.name not in allowed:
            plugins.append(Plugin(name=entry.name, module=entry.value, state="disabled", dist=entry.dist,
                                  reason="switched off by name"))  # fmt: skip
        else:
            plugins.append(_load(manager, entry))
    warnings = tuple(_warning(plugin) for plugin in plugins if plugin.state in ("broken", "incompatible"))
    if strict and warnings:
        raise PluginError("\n".join(warnings))
    return PluginSet(plugins=tuple(plugins), warnings=warnings)


def discover() -> list[metadata.EntryPoint]:
    """The entry points of the group, once each, sorted by name; nothing is imported.

    A distribution can be listed twice (two folders of one environment on the path); two distributions that take
    the same plugin name stay two, and the second is reported as broken.
    """
    unique = {
        (entry.name, entry.value, canonical(entry.dist.metadata["Name"]) if entry.dist else ""): entry
        for entry in reversed(list(metadata.entry_points(group=GROUP)))
    }
    return [unique[key] for key in sorted(unique)]


def missing_requirements(dist: metadata.Distribution | None, extra: str | None) -> list[str]:
    """Requirements of an extra that are not met here, read from metadata without importing anything."""
    if dist is None or extra is None:
        return []
    from packaging.requirements import Requirement

    missing = []
    for text in dist.requires or ():
        need = Requirement(text)
        if (
            need.marker is None
            or not need.marker.evaluate({"extra": extra})
            or need.marker.evaluate({"extra": ""})
        ):
            continue
        try:
            if need.specifier.contains(metadata.version(need.name), prereleases=True):
                continue
        except metadata.PackageNotFoundError:
            pass
        missing.append(f"{need.name}{need.specifier}")
    return missing


def canonical(name: str) -> str:
    """A distribution name as packaging compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


def _core(manager: pluggy.PluginManager) -> Plugin:
    from lightx2v_core.builtin import plugin

    try:
        dist = metadata.distribution("lightx2v-core")
    except metadata.PackageNotFoundError:
        dist = None
    provides = _collect(manager, plugin, CORE, dist)
    return Plugin(name=CORE, module=plugin.__name__, state="loaded", dist=dist, provides=provides)


def _load(manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> Plugin:
    """Check an entry point's distribution against this core, import it and collect its specs."""
    dist = entry.dist
    plugin = Plugin(name=entry.name, module=entry.value, state="loaded", dist=dist)
    start = time.perf_counter()
    try:
        reason = _incompatible(dist)
        if reason:
            return _with(plugin, state="incompatible", reason=reason)
        if manager.has_plugin(entry.name) or entry.name == CORE:
            raise ValueError(f"another plugin is already called {entry.name!r}")
        provides = _collect(manager, entry.load(), entry.name, dist)
    except (Exception, SystemExit) as exc:
        reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        return _with(plugin, state="broken", reason=reason, traceback=traceback.format_exc(),
                     seconds=time.perf_counter() - start)  # fmt: skip
    return _with(plugin, provides=provides, seconds=time.perf_counter() - start)


def _collect(
    manager: pluggy.PluginManager, module: Any, name: str, dist: metadata.Distribution | None
) -> tuple[Provided, ...]:
    """Register a plugin and return its specs; on failure the manager is as it was before."""
    if manager.register(module, name) is None:
        raise ValueError(f"the plugin {name!r} is blocked")
    try:
        if not manager.get_hookcallers(module):
            raise TypeError(f"{getattr(module, '__name__', module)!r} implements no hook of lightx2v-core")
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as exc:
            raise TypeError(_unknown_hook(module) or str(exc)) from None
        found: list[Provided] = []
        for kind, (hook, spec_type) in hookspecs.KINDS.items():
            for impl in getattr(manager.hook, hook).get_hookimpls():
                for spec in impl.function() if impl.plugin is module else ():
                    if not isinstance(spec, spec_type):
                        raise TypeError(f"{hook} gave {spec!r}, which is not a {spec_type.__name__}")
                    if any(kind == other.kind and spec.name == other.spec.name for other in found):
                        raise ValueError(f"{hook} gave two specs called {spec.name!r}")
                    found.append(Provided(kind=kind, plugin=name, spec=spec, dist=dist))
        return tuple(found)
    except BaseException:
        manager.unregister(name=name)
        raise


def _incompatible(dist: metadata.Distribution | None) -> str:
    """Why the distribution's own requirement does not admit this core, or an empty string."""
    if dist is None:
        return ""
    from packaging.requirements import Requirement

    for text in dist.requires or ():
        need = Requirement(text)
        if canonical(need.name) != "lightx2v-core" or (
            need.marker and not need.marker.evaluate({"extra": ""})
        ):
            continue
        if not need.specifier.contains(__version__, prereleases=True):
            return f"needs lightx2v-core{need.specifier}, found {__version__}"
    return ""


def _unknown_hook(module: Any) -> str:
    """The misspelt hook of a module, in words."""
    known = [hook for hook, _ in hookspecs.KINDS.values()]
    for name in dir(module):
        if name not in known and getattr(getattr(module, name), "lightx2v_core_impl", None):
            return f"unknown hook {name!r}{suggestion(name, known)}"
    return ""


def _warning(plugin: Plugin) -> str:
    who = f"plugin {plugin.name} ({plugin.dist_name} {plugin.version})"
    return f"{who} is {plugin.state} and was left out: {plugin.reason}"


def _with(plugin: Plugin, **changes: Any) -> Plugin:
    from attrs import evolve

    return evolve(plugin, **changes)


def _listed(text: str | None) -> Sequence[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _known(wanted: Iterable[str], names: set[str], alias: Mapping[str, str], where: str) -> set[str]:
    """Names as entry-point names; those that match nothing are an error."""
    wanted = list(wanted)
    found = {name: name if name in names else alias.get(canonical(name)) for name in wanted}
    unknown = [name for name, known in found.items() if known is None]
    if CORE in unknown:
        raise PluginError(f"{where}: the implementations of the core itself cannot be switched off")
    if unknown:
        hint = suggestion(unknown[0], names)
        installed = ", ".join(sorted(names)) or "none"
        raise PluginError(
            f"{where} names unknown plugins: {', '.join(unknown)}; installed: {installed}{hint}"
        )
    return {known for known in found.values() if known is not None}
