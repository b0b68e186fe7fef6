"""The candidates of each kind, and the choice between them, with reasons."""

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

#: the class of the specs of a kind, or the name of the kind
Kind = str | type[Spec]

#: kinds whose implementations all compute the same function, so that the machine may choose
AUTOMATIC = frozenset({"attention"})


@frozen(kw_only=True)
class Rejection:
    """A candidate that was not taken, and why."""

    name: str
    reasons: tuple[str, ...]


@frozen(kw_only=True)
class Selection(Generic[S_co]):
    """The implementation a configuration means."""

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
    """Looks implementations up by name in one ``PluginSet``."""

    plugins: PluginSet

    @overload
    def candidates(self, kind: type[S]) -> tuple[Provided[S], ...]: ...
    @overload
    def candidates(self, kind: Kind) -> tuple[Provided, ...]: ...
    def candidates(self, kind: Kind) -> tuple[Provided, ...]:
        """List all implementations of a kind, best first: by falling priority, then by name."""
        return tuple(
            sorted(
                self.plugins.provided(kind_of(kind)),
                key=lambda candidate: (-candidate.spec.priority, candidate.spec.name, candidate.plugin),
            )
        )

    @overload
    def find(self, kind: type[S], name: str, *, asked: bool = True, origin: str = "") -> Provided[S]: ...
    @overload
    def find(self, kind: Kind, name: str, *, asked: bool = True, origin: str = "") -> Provided: ...
    def find(self, kind: Kind, name: str, *, asked: bool = True, origin: str = "") -> Provided:
        """The implementation called ``name`` or ``plugin/name``, or that has it among its aliases.

        ``PluginError`` when nothing or more than one thing is called so; a default, which nobody ``asked`` for,
        then means the core's own, so that no plugin can break runs that do not name it. ``origin`` says who asked.
        """
        kind = kind_of(kind)
        matches = list(self.named(kind, name))
        if not asked and len(matches) > 1:
            matches = [match for match in matches if match.plugin == CORE] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = " or ".join(match.qualified for match in matches)
            raise PluginError(f"{kind} {name!r} comes from more than one plugin: ask for {choices}")
        raise PluginError(self._unknown(kind, name, self.candidates(kind), origin))

    @overload
    def named(self, kind: type[S], name: str) -> tuple[Provided[S], ...]: ...
    @overload
    def named(self, kind: Kind, name: str) -> tuple[Provided, ...]: ...
    def named(self, kind: Kind, name: str) -> tuple[Provided, ...]:
        """Everything called ``name`` or ``plugin/name``; what has it among its aliases when there is none."""
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
        origin: str = "asked for",
        limits: Callable[[Provided[S]], Sequence[str]] = ...,
    ) -> Selection[S]: ...
    @overload
    def select(
        self,
        kind: Kind,
        want: str | Sequence[str],
        ctx: BuildContext,
        *,
        origin: str = "asked for",
        limits: Callable[[Provided], Sequence[str]] = ...,
    ) -> Selection[Spec]: ...
    def select(
        self,
        kind: Kind,
        want: str | Sequence[str],
        ctx: BuildContext,
        *,
        origin: str = "asked for",
        limits: Callable[[Provided[Any]], Sequence[str]] = lambda _candidate: (),
    ) -> Selection[Spec]:
        """The usable implementation that ``want`` means. ``origin`` says who named it (``default ...``: nobody),
        ``limits`` gives further reasons against a candidate.

        ``"auto"`` takes the best usable one (attention only); a name takes it or fails; a list is tried in
        order. A named choice that is unusable never falls back: ``PluginError`` with every reason. Only a name that
        ends in ``?`` is passed over where nothing is called so.
        """
        kind = kind_of(kind)
        if want == "auto":
            if kind not in AUTOMATIC:
                known = ", ".join(one.spec.name for one in self.candidates(kind)) or "none installed"
                raise PluginError(
                    f"{kind} cannot be 'auto', since its choice changes the result; name one of: {known}"
                )
            candidates, absent = list(self.candidates(kind)), []
            why = "auto: the usable one of highest priority"
        else:
            names = [want] if isinstance(want, str) else list(want)
            if not names:
                raise PluginError(f"{kind} names no implementation; give a name or a list of names")
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
        """Whether a name is a wish (``name?``) for what is not installed."""
        return name.endswith(OPTIONAL_SUFFIX) and not self.named(kind, name.removesuffix(OPTIONAL_SUFFIX))

    def _unknown(self, kind: str, name: str, candidates: Sequence[Provided], origin: str) -> str:
        names = [candidate.spec.name for candidate in candidates]
        if kind == "model" and (what := elsewhere(name)):
            return f"{what}; installed: {', '.join(names) or 'none'}"
        # in LightX2V's names of models a word behind a _ makes another model, and is no slip
        near = [known for known in names if kind != "model" or not name.startswith(f"{known}_")]
        text = f"unknown {kind} {name!r}, installed: {', '.join(names) or 'none'}{suggestion(name, near)}"
        if " in " in origin:  # a key of a file, which need not say the name that is unknown here
            text += f" ({origin})"
        if brought := catalog.provider(kind, name):
            text += f"\n  {brought}"
        return "\n".join([text, *self._absent()])

    def _absent(self) -> list[str]:
        """Plugins that might have had it, and did not load."""
        return [
            f"  not loaded: {plugin.name} ({plugin.state}: {plugin.reason})"
            for plugin in self.plugins.not_loaded()
        ]
