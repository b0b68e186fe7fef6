"""Entry points -> ``PluginSet``. The only module that touches pluggy's manager.

pluggy's own loader stops at the first broken entry point, so this one imports each plugin in a ``try`` of its
own: a broken plugin costs one warning line and nothing else.
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

    #: the class of a spec; of any one where it is not written
    S_co = TypeVar("S_co", bound=Spec, covariant=True, default=Spec)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S", bound=Spec)

GROUP = "lightx2v_core.plugins"
#: the entry-point name under which the core's own implementations are listed
CORE = "core"

State = Literal["loaded", "disabled", "incompatible", "broken"]


@frozen(kw_only=True, eq=False)
class Provided(Generic[S_co]):
    """A spec, and the plugin and distribution it came from."""

    kind: str
    plugin: str
    spec: S_co
    dist: metadata.Distribution | None = None

    @property
    def qualified(self) -> str:
        return f"{self.plugin}/{self.spec.name}"

    def reasons(self, ctx: BuildContext) -> tuple[str, ...]:
        """Why this machine cannot use it; the cheap checks first, the plugin's own last."""
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
            said = spec.unusable(ctx)
            return (said,) if isinstance(said, str) else tuple(said)
        except Exception as exc:
            why = exc.why if isinstance(exc, PluginFault) else in_words(exc)
            return (f"its check failed: {why}",)


@frozen(kw_only=True, eq=False)
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
    #: names of the interface that it uses and that have others now, in words
    old_names: tuple[str, ...] = ()

    @property
    def dist_name(self) -> str:
        return name_of(self.dist) or "(no distribution)"

    @property
    def version(self) -> str:
        return version_of(self.dist)


@frozen(kw_only=True, eq=False)
class PluginSet:
    """The plugins of this process, in name order. Passed on explicitly; there is no global one."""

    plugins: tuple[Plugin, ...]
    warnings: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Plugin:
        """A plugin by its name, else by that of its distribution. ``PluginError`` when there is none."""
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
        """List all implementations of a kind, in plugin name order. The kind is the class of their specs, such as
        ``ModelSpec``, or its name: ``"model"``."""
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

    ``disable`` and ``only`` take entry-point or distribution names; ``LIGHTX2V_DISABLE_PLUGINS`` and
    ``LIGHTX2V_PLUGINS`` (comma separated) do the same for a whole environment. An empty ``only`` or
    ``LIGHTX2V_PLUGINS`` admits none. A name that matches nothing is a ``PluginError``; with ``strict`` so is
    a plugin that does not load. The core's own implementations are always there.
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
                                  reason="switched off by name"))  # fmt: skip
        else:
            plugins.append(_load(manager, entry))
    warnings = tuple(_warning(plugin) for plugin in plugins if plugin.state in ("broken", "incompatible"))
    if strict and warnings:
        raise PluginError("\n".join(warnings))
    old = tuple(f"{_who(plugin)} uses {text}" for plugin in plugins for text in plugin.old_names)
    return PluginSet(plugins=tuple(plugins), warnings=(*warnings, *old))


def collected(modules: Mapping[str, Any]) -> PluginSet:
    """The core and the given modules, by plugin name. Nothing is discovered, and a broken module raises."""
    manager = _manager()
    plugins = [_core(manager)]
    for name, module in modules.items():
        provides = _collect(manager, module, name, None)
        plugins.append(Plugin(name=name, module=module.__name__, state="loaded", provides=provides))
    return PluginSet(plugins=tuple(plugins))


def discover() -> list[metadata.EntryPoint]:
    """The entry points of the group, once each, sorted by name; nothing is imported.

    A distribution can be listed twice (two folders of one environment on the path); two distributions that
    take the same plugin name stay two, and the second is reported as broken.
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
    """Check an entry point's distribution against this core, import it and collect its specs."""
    dist = entry.dist
    plugin = Plugin(name=entry.name, module=entry.value, state="loaded", dist=dist)
    start = time.perf_counter()
    try:
        reason = incompatible(dist, __version__) if dist is not None else ""
        if reason:
            return attrs.evolve(plugin, state="incompatible", reason=reason)
        if manager.has_plugin(entry.name):
            raise ValueError(f"another plugin is already called {entry.name!r}")
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
    """Register a plugin and return its specs; on failure the manager is as it was before."""
    if module is None:
        raise TypeError("its entry point gives None, not a module")
    try:
        try:
            manager.register(module, name)
        except pluggy.PluginValidationError as exc:
            raise TypeError(f"a hook takes no arguments: {exc}") from None
        _check_hooks(manager, module)
        provides: list[Provided] = []
        for kind, (hook, spec_type) in hookspecs.KINDS.items():
            for impl in getattr(manager.hook, hook).get_hookimpls():
                for given in _called(hook, impl, spec_type) if impl.plugin is module else ():
                    spec = _checked(hook, kind, name, given, spec_type)
                    full_name = _full_name(spec)
                    if any(kind == other.kind and full_name == _full_name(other.spec) for other in provides):
                        raise ValueError(f"{hook} gave two specs called {full_name!r}")
                    provides.append(Provided(kind=kind, plugin=name, spec=spec, dist=dist))
        return tuple(provides)
    except BaseException:
        # not has_plugin(): when the module is there under another name, that plugin stays
        if manager.get_plugin(name) is module:
            manager.unregister(name=name)
        raise


def _full_name(spec: Spec) -> str:
    """What a spec is called among those of its kind: subcommands of different parents may share a name."""
    return spec.full_name if isinstance(spec, CommandSpec) else spec.name


def _check_hooks(manager: pluggy.PluginManager, module: object) -> None:
    """A plugin must implement a hook, and no hook that this core does not know (unless marked optional)."""
    callers = manager.get_hookcallers(module)
    if not callers:
        raise TypeError(f"{getattr(module, '__name__', module)!r} implements no hook of lightx2v-core")
    known = [hook for hook, _ in hookspecs.KINDS.values()]
    for caller in callers:
        required = [i for i in caller.get_hookimpls() if i.plugin is module and not i.optionalhook]
        if required and not caller.has_spec():
            raise TypeError(f"unknown hook {caller.name!r}{suggestion(caller.name, known)}")


def _called(hook: str, impl: Any, spec_type: type[Any]) -> Sequence[object]:
    """What one implementation of a hook returns. Called alone, so that no plugin can wrap or stop another."""
    if impl.wrapper or impl.hookwrapper:
        raise TypeError(f"{hook} is a wrapper, which lightx2v-core does not have")
    given = impl.function()
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"{hook} gave {shown(given)}, which is not a list of {spec_type.__name__}")
    specs: Sequence[object] = taken(given, Iterable[Any])
    return specs


def _checked(hook: str, kind: str, plugin: str, spec: Any, spec_type: type[Any]) -> Spec:
    """The spec as the core relies on it before it builds anything; a wrong field would otherwise stop a later run."""
    if not issubclass(type(spec), spec_type):
        raise TypeError(f"{hook} gave {shown(spec)}, which is not a {spec_type.__name__}")
    wants = {
        "name": isinstance(spec.name, str) and spec.name != "auto",
        "config": isinstance(spec.config, type) and attrs.has(spec.config),
        "priority": type(spec.priority) is int,
    }
    for field_name, right in wants.items():
        if not right:
            value = getattr(spec, field_name)
            raise TypeError(f"{hook} gave {shown(spec.name)} with a wrong {field_name}: {shown(value)}")
    try:
        return isolated(kind, plugin, spec)
    except TypeError as exc:
        raise TypeError(f"{hook} gave {shown(spec.name)} with a {exc}") from None


def _warning(plugin: Plugin) -> str:
    return f"{_who(plugin)} is {plugin.state} and was left out: {plugin.reason}"


def _who(plugin: Plugin) -> str:
    return f"plugin {plugin.name} ({' '.join(filter(None, (plugin.dist_name, plugin.version)))})"


def _listed(text: str | None) -> Sequence[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _matching(
    wanted: Iterable[str], entries: Sequence[metadata.EntryPoint], where: str, *, core: bool = False
) -> set[metadata.EntryPoint]:
    """The entry points that names mean. A name that matches none is an error; with ``core`` its own is none."""
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
            raise PluginError(f"{where}: the implementations of the core itself cannot be switched off")
    if unknown:
        installed = ", ".join(sorted(names)) or "none"
        hint = suggestion(unknown[0], names | dists)
        raise PluginError(
            f"{where} names unknown plugins: {', '.join(unknown)}; installed: {installed}{hint}"
        )
    return matching
