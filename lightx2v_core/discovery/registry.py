"""Lookup of implementations by kind and name, and selection among candidates, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, overload

from attrs import frozen

from lightx2v_core.discovery import catalog
from lightx2v_core.discovery.lightx2v_models import elsewhere
from lightx2v_core.discovery.plugins import CORE, PluginSet, Provided, S, S_co
from lightx2v_core.errors import PluginError, suggestion
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.hooks import kind_of
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, Spec

#: class of specs, or name of a kind
Kind = str | type[Spec]

#: kinds whose implementations all compute the same function, so that ``auto`` is allowed
AUTOMATIC = frozenset({"attention"})


@frozen(kw_only=True)
class Rejection:
    """A candidate that was not selected, with reasons."""

    name: str
    reasons: tuple[str, ...]


@frozen(kw_only=True)
class Selection(Generic[S_co]):
    """The implementation selected for a configuration."""

    chosen: Provided[S_co]
    why: str
    rejected: tuple[Rejection, ...] = ()

    @property
    def name(self) -> str:
        return self.chosen.spec.name

    def to_json(self) -> dict[str, Any]:
        return {
            "use": self.chosen.qualified,
            "why": self.why,
            "rejected": {candidate.name: list(candidate.reasons) for candidate in self.rejected},
        }


@frozen
class Registry:
    """A lookup of implementations by name in one ``PluginSet``."""

    plugins: PluginSet

    @overload
    def candidates(self, kind: type[S]) -> tuple[Provided[S], ...]: ...
    @overload
    def candidates(self, kind: Kind) -> tuple[Provided, ...]: ...
    def candidates(self, kind: Kind) -> tuple[Provided, ...]:
        """List all implementations of a kind, best first: by descending priority, then the core's own, then by name.

        So a plugin becomes the automatic choice only if it claims a higher priority than the core's implementation.
        """
        return tuple(
            sorted(
                self.plugins.provided(kind_of(kind)),
                key=lambda candidate: (
                    -candidate.spec.priority,
                    candidate.plugin != CORE,
                    candidate.spec.name,
                    candidate.plugin,
                ),
            )
        )

    @overload
    def find(self, kind: type[S], name: str, *, asked: bool = True, origin: str = "") -> Provided[S]: ...
    @overload
    def find(self, kind: Kind, name: str, *, asked: bool = True, origin: str = "") -> Provided: ...
    def find(self, kind: Kind, name: str, *, asked: bool = True, origin: str = "") -> Provided:
        """Return the implementation with a ``name``, ``plugin/name`` or alias.

        Raises ``PluginError`` if none or more than one matches. For a default (not ``asked``), the core's own wins
        over others, so that no plugin can break runs that do not name it. ``origin`` is the place of the name in a
        configuration.
        """
        kind = kind_of(kind)
        matches = list(self.named(kind, name))
        if not asked and len(matches) > 1:
            matches = [match for match in matches if match.plugin == CORE] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = " or ".join(match.qualified for match in matches)
            raise PluginError(f"{kind} {name!r} is provided by more than one plugin: use {choices}")
        raise PluginError(self._unknown(kind, name, self.candidates(kind), origin))

    @overload
    def named(self, kind: type[S], name: str) -> tuple[Provided[S], ...]: ...
    @overload
    def named(self, kind: Kind, name: str) -> tuple[Provided, ...]: ...
    def named(self, kind: Kind, name: str) -> tuple[Provided, ...]:
        """Return all implementations with a ``name`` or ``plugin/name``, else those with it as an alias."""
        candidates = self.candidates(kind)
        return tuple(one for one in candidates if name in (one.spec.name, one.qualified)) or tuple(
            one for one in candidates if name in getattr(one.spec, "aliases", ())
        )

    @overload
    def select(
        self,
        kind: type[S],
        want: str | Sequence[str],
        ctx: BuildContext,
        *,
        origin: str = "requested",
        limits: Callable[[Provided[S]], Sequence[str]] = ...,
    ) -> Selection[S]: ...
    @overload
    def select(
        self,
        kind: Kind,
        want: str | Sequence[str],
        ctx: BuildContext,
        *,
        origin: str = "requested",
        limits: Callable[[Provided], Sequence[str]] = ...,
    ) -> Selection[Spec]: ...
    def select(
        self,
        kind: Kind,
        want: str | Sequence[str],
        ctx: BuildContext,
        *,
        origin: str = "requested",
        limits: Callable[[Provided[Any]], Sequence[str]] = lambda _candidate: (),
    ) -> Selection[Spec]:
        """Select a usable implementation.

        ``want`` is ``"auto"`` for the best usable one (attention only), a name, or a list of names that is tried in
        order. There is no fallback from unusable named implementations, except that a name that ends in ``?`` is
        skipped if it is not installed. ``origin`` is the place of ``want`` in a configuration (``default ...``: not
        configured); ``limits`` returns further reasons against a candidate. Raises ``PluginError`` with every reason
        if no candidate is usable.
        """
        kind = kind_of(kind)
        if want == "auto":
            if kind not in AUTOMATIC:
                known = ", ".join(one.spec.name for one in self.candidates(kind)) or "none installed"
                raise PluginError(
                    f"{kind} cannot be 'auto', since the choice changes the result; use one of: {known}"
                )
            candidates, absent = list(self.candidates(kind)), []
            why = "auto: highest priority among usable ones"
        else:
            names = [want] if isinstance(want, str) else list(want)
            if not names:
                raise PluginError(f"{kind}: no implementation given; use a name or a list of names")
            asked = not origin.startswith("default")
            candidates = [
                self.find(kind, name.removesuffix(OPTIONAL_SUFFIX), asked=asked, origin=origin)
                for name in names
                if not self._is_unmet(kind, name)
            ]
            absent = [name.removesuffix(OPTIONAL_SUFFIX) for name in names if self._is_unmet(kind, name)]
            why = origin if len(names) == 1 else f"{origin}: first usable of {', '.join(names)}"
        rejected: list[Rejection] = [Rejection(name=name, reasons=("not installed",)) for name in absent]
        for candidate in candidates:
            reasons = candidate.reasons(ctx) or tuple(limits(candidate))
            if not reasons:
                return Selection(chosen=candidate, why=why, rejected=tuple(rejected))
            rejected.append(Rejection(name=candidate.qualified, reasons=reasons))
        among = "auto" if want == "auto" else ", ".join(repr(name) for name in names)
        lines = [f"  {rejection.name}: {'; '.join(rejection.reasons)}" for rejection in rejected]
        raise PluginError("\n".join([f"no usable {kind} among {among}:", *lines, *self._absent()]))

    def _is_unmet(self, kind: str, name: str) -> bool:
        """Return True if a name is optional (``name?``) and not installed."""
        return name.endswith(OPTIONAL_SUFFIX) and not self.named(kind, name.removesuffix(OPTIONAL_SUFFIX))

    def _unknown(self, kind: str, name: str, candidates: Sequence[Provided], origin: str) -> str:
        names = [candidate.spec.name for candidate in candidates]
        if kind == "model" and (what := elsewhere(name)):
            return f"{what}; installed: {', '.join(names) or 'none'}"
        # in LightX2V's model names, a suffix after _ denotes another model, so it is not a typo
        near = [known for known in names if kind != "model" or not name.startswith(f"{known}_")]
        text = f"unknown {kind} {name!r}, installed: {', '.join(names) or 'none'}{suggestion(name, near)}"
        if " in " in origin:  # a key of a file, which may have another name than the unknown one
            text += f" ({origin})"
        if brought := catalog.provider(kind, name):
            text += f"\n  {brought}"
        return "\n".join([text, *self._absent()])

    def _absent(self) -> list[str]:
        """List the plugins that did not load, as they might provide it."""
        return [
            f"  not loaded: {plugin.name} ({plugin.state}: {plugin.reason})"
            for plugin in self.plugins.not_loaded()
        ]
