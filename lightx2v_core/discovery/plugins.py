"""Loading of plugins from entry points. The only module that uses pluggy's manager.

pluggy's own loader stops at the first broken entry point, so this module imports each plugin in a separate ``try``: a
broken plugin causes one warning line and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

import attrs
import pluggy
from attrs import field, frozen

from lightx2v_core.discovery.answers import isolated, taken
from lightx2v_core.discovery.isolation import called, in_words, shown, traceback_of
from lightx2v_core.discovery.metadata import (
    CORE_DIST,
    canonical,
    incompatible,
    missing_requirements,
    name_of,
    version_of,
)
from lightx2v_core.errors import PluginError, PluginFault, suggestion
from lightx2v_core.spec import hooks as hookspecs
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.renamed import old_names_noted
from lightx2v_core.spec.specs import CommandSpec, Spec
from lightx2v_core.spec.version import __version__

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    #: class of a spec; any by default
    S_co = TypeVar("S_co", bound=Spec, covariant=True, default=Spec)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S", bound=Spec)

GROUP = "lightx2v_core.plugins"
#: plugin name of the core's own implementations
CORE = "core"

State = Literal["loaded", "disabled", "incompatible", "broken"]


@frozen(kw_only=True, eq=False)
class Provided(Generic[S_co]):
    """A spec with the plugin and distribution that provide it."""

    kind: str
    plugin: str
    spec: S_co
    dist: metadata.Distribution | None = None

    @property
    def qualified(self) -> str:
        return f"{self.plugin}/{self.spec.name}"

    def reasons(self, ctx: BuildContext) -> tuple[str, ...]:
        """Return the reasons why this machine cannot use it: cheap checks first, then the plugin's own."""
        spec, device = self.spec, ctx.device
        try:
            reasons = missing_requirements(self.dist, spec.extra)
            if device.kind not in spec.devices:
                reasons.append(f"runs on {', '.join(sorted(spec.devices))}, not on {device.kind}")
            elif device.kind == "cuda" and device.capability < spec.min_capability:
                reasons.append(
                    f"needs compute capability {spec.min_capability[0]}.{spec.min_capability[1]}, "
                    f"{device.name} has {device.capability[0]}.{device.capability[1]}"
                )
            if reasons:
                return tuple(reasons)
            unusable = spec.unusable(ctx)
            return (unusable,) if isinstance(unusable, str) else tuple(unusable)
        except Exception as exc:
            why = exc.why if isinstance(exc, PluginFault) else in_words(exc)
            return (f"its check failed: {why}",)


@frozen(kw_only=True, eq=False)
class Plugin:
    """One entry point and its state, with the reason if it did not load."""

    name: str
    module: str
    state: State
    reason: str = ""
    traceback: str = ""
    #: seconds that its import took
    seconds: float = 0.0
    dist: metadata.Distribution | None = None
    provides: tuple[Provided, ...] = ()
    #: descriptions of the deprecated names of the interface that it uses
    old_names: tuple[str, ...] = ()

    @property
    def dist_name(self) -> str:
        return name_of(self.dist) or "(no distribution)"

    @property
    def version(self) -> str:
        return version_of(self.dist)


@frozen(kw_only=True, eq=False)
class PluginSet:
    """The plugins of this process, in name order. Passed explicitly; there is no global set."""

    plugins: tuple[Plugin, ...]
    warnings: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Plugin:
        """Return a plugin by its name, else by that of its distribution. Raises ``PluginError`` if there is none."""
        by_name = [plugin for plugin in self.plugins if plugin.name == name]
        by_dist = [plugin for plugin in self.plugins if canonical(plugin.dist_name) == canonical(name)]
        for plugin in by_name + by_dist:
            return plugin
        known = [plugin.name for plugin in self.plugins]
        raise PluginError(f"no plugin {name!r}; installed: {', '.join(known)}{suggestion(name, known)}")

    @overload
    def provided(self, kind: type[S]) -> tuple[Provided[S], ...]: ...
    @overload
    def provided(self, kind: str) -> tuple[Provided, ...]: ...
    def provided(self, kind: str | type[Spec]) -> tuple[Provided[Any], ...]:
        """List all implementations of a kind, in plugin name order.

        The kind is a class of specs, such as ``ModelSpec``, or a name, such as ``"model"``.
        """
        name = hookspecs.kind_of(kind)
        return tuple(one for plugin in self.plugins for one in plugin.provides if one.kind == name)

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

    ``disable`` and ``only`` contain entry-point or distribution names; ``LIGHTX2V_DISABLE_PLUGINS`` and
    ``LIGHTX2V_PLUGINS`` (comma separated) do the same for a whole environment. An empty ``only`` or
    ``LIGHTX2V_PLUGINS`` loads none. The core's own implementations are always available. Raises ``PluginError`` for
    an unknown name and, with ``strict``, for a plugin that does not load.
    """
    environ = os.environ if environ is None else environ
    entries = discover()
    off = _matching(_listed(environ.get("LIGHTX2V_DISABLE_PLUGINS")), entries, "LIGHTX2V_DISABLE_PLUGINS")
    off |= _matching(disable, entries, "--disable-plugin")
    if environ.get("LIGHTX2V_PLUGINS") is not None:
        listed = _listed(environ["LIGHTX2V_PLUGINS"])
        off |= set(entries) - _matching(listed, entries, "LIGHTX2V_PLUGINS", core=True)
    if only is not None:
        off |= set(entries) - _matching(only, entries, "--only-plugins", core=True)

    manager = _manager()
    plugins = [_core(manager)]
    for entry in entries:
        if entry in off:
            plugins.append(Plugin(name=entry.name, module=entry.value, state="disabled", dist=entry.dist,
                                  reason="excluded by name"))  # fmt: skip
        else:
            plugins.append(_load(manager, entry))
    warnings = tuple(_warning(plugin) for plugin in plugins if plugin.state in ("broken", "incompatible"))
    if strict and warnings:
        raise PluginError("\n".join(warnings))
    old = tuple(f"{_who(plugin)} uses {text}" for plugin in plugins for text in plugin.old_names)
    return PluginSet(plugins=tuple(plugins), warnings=(*warnings, *old))


def collected(modules: Mapping[str, Any]) -> PluginSet:
    """Build a set of the core and the given modules, by plugin name, without discovery. A broken module raises."""
    manager = _manager()
    plugins = [_core(manager)]
    for name, module in modules.items():
        provides = _collect(manager, module, name, None)
        plugins.append(Plugin(name=name, module=module.__name__, state="loaded", provides=provides))
    return PluginSet(plugins=tuple(plugins))


def discover() -> list[metadata.EntryPoint]:
    """Find the entry points of the group, sorted by name, without duplicates. Imports nothing.

    A distribution can be found twice (two folders of one environment on the path). Two distributions with the same
    plugin name are both kept; the second is reported as broken.
    """
    unique = {
        (entry.name, entry.value, canonical(name_of(entry.dist))): entry
        for entry in reversed(list(metadata.entry_points(group=GROUP)))
    }
    return [unique[key] for key in sorted(unique)]


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("lightx2v_core")
    manager.add_hookspecs(hookspecs)
    return manager


def _core(manager: pluggy.PluginManager) -> Plugin:
    from lightx2v_core.builtin import plugin

    try:
        dist = metadata.distribution(CORE_DIST)
    except metadata.PackageNotFoundError:
        dist = None
    provides = _collect(manager, plugin, CORE, dist)
    return Plugin(name=CORE, module=plugin.__name__, state="loaded", dist=dist, provides=provides)


def _load(manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> Plugin:
    """Check that an entry point's distribution supports this core, import it and collect its specs."""
    dist = entry.dist
    plugin = Plugin(name=entry.name, module=entry.value, state="loaded", dist=dist)
    start = time.perf_counter()
    try:
        reason = incompatible(dist, __version__) if dist is not None else ""
        if reason:
            return attrs.evolve(plugin, state="incompatible", reason=reason)
        if manager.has_plugin(entry.name):
            raise ValueError(f"the plugin name {entry.name!r} is already in use")
        with old_names_noted() as old_names:
            provides = called(entry.name, lambda: _collect(manager, entry.load(), entry.name, dist))
    except Exception as exc:
        cause = exc.__cause__ if isinstance(exc, PluginFault) and exc.__cause__ is not None else exc
        return attrs.evolve(plugin, state="broken", reason=in_words(cause), traceback=traceback_of(cause),
                            seconds=time.perf_counter() - start)  # fmt: skip
    return attrs.evolve(
        plugin, provides=provides, seconds=time.perf_counter() - start, old_names=tuple(old_names)
    )


def _collect(
    manager: pluggy.PluginManager, module: object, name: str, dist: metadata.Distribution | None
) -> tuple[Provided, ...]:
    """Register a plugin and return its specs. On failure the plugin is unregistered again."""
    if module is None:
        raise TypeError("its entry point is None, not a module")
    try:
        try:
            manager.register(module, name)
        except pluggy.PluginValidationError as exc:
            raise TypeError(f"hooks have no arguments: {exc}") from None
        _check_hooks(manager, module)
        provides: list[Provided] = []
        for kind, (hook, spec_type) in hookspecs.KINDS.items():
            for impl in getattr(manager.hook, hook).get_hookimpls():
                for given in _called(hook, impl, spec_type) if impl.plugin is module else ():
                    spec = _checked(hook, kind, name, given, spec_type)
                    full_name = _full_name(spec)
                    if any(kind == other.kind and full_name == _full_name(other.spec) for other in provides):
                        raise ValueError(f"{hook} returned two specs named {full_name!r}")
                    provides.append(Provided(kind=kind, plugin=name, spec=spec, dist=dist))
        return tuple(provides)
    except BaseException:
        # not has_plugin(): a plugin with the same module under another name stays registered
        if manager.get_plugin(name) is module:
            manager.unregister(name=name)
        raise


def _full_name(spec: Spec) -> str:
    """Return the unique name of a spec within its kind: subcommands of different parents may share a name."""
    return spec.full_name if isinstance(spec, CommandSpec) else spec.name


def _check_hooks(manager: pluggy.PluginManager, module: object) -> None:
    """Raise ``TypeError`` if a plugin implements no hook, or an unknown one that is not marked optional."""
    callers = manager.get_hookcallers(module)
    if not callers:
        raise TypeError(f"{getattr(module, '__name__', module)!r} implements no lightx2v-core hook")
    known = [hook for hook, _ in hookspecs.KINDS.values()]
    for caller in callers:
        required = [i for i in caller.get_hookimpls() if i.plugin is module and not i.optionalhook]
        if required and not caller.has_spec():
            raise TypeError(f"unknown hook {caller.name!r}{suggestion(caller.name, known)}")


def _called(hook: str, impl: Any, spec_type: type[Any]) -> Sequence[object]:
    """Call one implementation of a hook. It is called alone, so that no plugin can wrap or stop another."""
    if impl.wrapper or impl.hookwrapper:
        raise TypeError(f"{hook} is a hook wrapper, which lightx2v-core does not support")
    given = impl.function()
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"{hook} returned {shown(given)}, not a list of {spec_type.__name__}")
    specs: Sequence[object] = taken(given, Iterable[Any])
    return specs


def _checked(hook: str, kind: str, plugin: str, spec: Any, spec_type: type[Any]) -> Spec:
    """Check the fields of a spec, and isolate its functions. An unchecked field could make a later run fail."""
    if not issubclass(type(spec), spec_type):
        raise TypeError(f"{hook} returned {shown(spec)}, not a {spec_type.__name__}")
    wants = {
        "name": isinstance(spec.name, str) and spec.name != "auto",
        "config": isinstance(spec.config, type) and attrs.has(spec.config),
        "priority": type(spec.priority) is int,
    }
    for field_name, right in wants.items():
        if not right:
            value = getattr(spec, field_name)
            raise TypeError(f"{hook} returned {shown(spec.name)} with a wrong {field_name}: {shown(value)}")
    try:
        return isolated(kind, plugin, spec)
    except TypeError as exc:
        raise TypeError(f"{hook} returned {shown(spec.name)} with a {exc}") from None


def _warning(plugin: Plugin) -> str:
    return f"{_who(plugin)} is {plugin.state} and was skipped: {plugin.reason}"


def _who(plugin: Plugin) -> str:
    return f"plugin {plugin.name} ({' '.join(filter(None, (plugin.dist_name, plugin.version)))})"


def _listed(text: str | None) -> Sequence[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _matching(
    wanted: Iterable[str], entries: Sequence[metadata.EntryPoint], where: str, *, core: bool = False
) -> set[metadata.EntryPoint]:
    """Return the entry points that match plugin or distribution names.

    Raises ``PluginError`` for unknown names, and for the name of the core unless ``core``.
    """
    wanted = list(wanted)
    if not wanted:
        return set()
    names = {entry.name for entry in entries}
    dists = {canonical(name_of(entry.dist)) for entry in entries}
    matching: set[metadata.EntryPoint] = set()
    unknown = []
    for name in wanted:
        if name in names:
            matching |= {entry for entry in entries if entry.name == name}
        elif canonical(name) in dists:
            matching |= {entry for entry in entries if canonical(name_of(entry.dist)) == canonical(name)}
        elif canonical(name) not in (CORE, CORE_DIST):
            unknown.append(name)
        elif not core:
            raise PluginError(f"{where}: the implementations of the core cannot be disabled")
    if unknown:
        installed = ", ".join(sorted(names)) or "none"
        hint = suggestion(unknown[0], names | dists)
        raise PluginError(f"{where}: unknown plugins: {', '.join(unknown)}; installed: {installed}{hint}")
    return matching
