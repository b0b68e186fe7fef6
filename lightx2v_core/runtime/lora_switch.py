"""The LoRA files of a loaded model: applied while its components load, and switched between requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from torch import nn

from lightx2v_core.checkpoint.fill import SourceWeights, slots
from lightx2v_core.checkpoint.widened import WidenedSource
from lightx2v_core.errors import RequestError
from lightx2v_core.lora.scale import scaled
from lightx2v_core.plan.lora_fit import AdapterFit
from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.runtime.proof.verdict import refuse_wrong
from lightx2v_core.runtime.quantize import LinearReplacement
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Adapter, LoraApplier, Offloader, WeightSource
from lightx2v_core.spec.specs import LoraApplierSpec
from lightx2v_core.spec.tensors import Header

OpenSource = Callable[[Header], WeightSource]


@frozen(kw_only=True)
class _Network:
    """A loaded component: its module, its weight sources, and its offloader."""

    module: nn.Module
    base: WeightSource
    #: source from which the offloader fills the module: the base, with adapters merged into it if any
    weights: SourceWeights
    offloader: Offloader
    replacement: LinearReplacement


class LoadedAdapters:
    """The adapters of one model. ``merged`` and ``loaded`` are called for each component while it loads."""

    def __init__(self, open_source: OpenSource, ctx: BuildContext) -> None:
        self._open = open_source
        self._ctx = ctx
        self._applier: LoraApplier | None = None
        self._adapters: dict[str, list[Adapter]] = {}
        self._networks: dict[str, _Network] = {}
        self._known: dict[tuple[object, ...], Adapter] = {}

    def choose(self, applier: Implementation[LoraApplierSpec] | None, adapters: Sequence[AdapterFit]) -> None:
        """Set the applier and the adapters for components loaded from now on. Raises ``CheckpointError`` for an alpha
        that is not finite, and ``PluginError`` for an applier that computes wrong results on this machine."""
        if self._applier is None and applier is not None:
            refuse_wrong(applier.selection.chosen, applier.config, self._ctx, (KernelUse(),))
        by_component: dict[str, list[Adapter]] = {}
        for fit in adapters:
            by_component.setdefault(fit.planned.component, []).append(self._adapter(fit))
        if self._applier is None and applier is not None:
            self._applier = applier.spec.build(applier.config, self._ctx)
        self._adapters = by_component

    def merged(self, component: str, source: WeightSource, replacement: LinearReplacement) -> WeightSource:
        """Return the source to fill a component from, with its adapters merged if the applier merges."""
        applier, adapters = self._applier, self._adapters.get(component, ())
        if applier is None or not self._merges(source, adapters):
            return replacement.stored(source)
        # adapters are added to plain weights in float32, which are then re-quantized, or rounded once to the compute
        # dtype of the module
        changed = _owners(adapters, "weight")
        targets = {change.target for adapter in adapters for change in adapter.changes}
        plain = WidenedSource(replacement.plain(source, changed), targets)
        return replacement.stored(applier.merged(plain, adapters), changed)

    def _merges(self, source: WeightSource, adapters: Sequence[Adapter]) -> bool:
        """Return whether the applier merges adapters into the weights."""
        return (
            bool(adapters)
            and self._applier is not None
            and self._applier.merged(source, adapters) is not source
        )

    def loaded(
        self,
        component: str,
        module: nn.Module,
        base: WeightSource,
        weights: SourceWeights,
        offloader: Offloader,
        replacement: LinearReplacement,
    ) -> None:
        """Register a component after its offloader placed it, and attach its adapters."""
        self._networks[component] = _Network(
            module=module, base=base, weights=weights, offloader=offloader, replacement=replacement
        )
        if self._applier is not None:
            self._applier.attach(module, self._adapters.get(component, []))

    def switch(self, applier: Implementation[LoraApplierSpec], adapters: Sequence[AdapterFit]) -> None:
        """Apply other adapters to the loaded components. If one cannot be read, the previous adapters are restored."""
        before = self._adapters
        self.choose(applier, adapters)
        after = self._adapters
        try:
            self._apply(before, after)
        except BaseException:
            self._adapters = before
            self._apply(after, before)
            raise

    def _apply(self, before: Mapping[str, Sequence[Adapter]], after: Mapping[str, Sequence[Adapter]]) -> None:
        applier = self._applier
        assert applier is not None
        for component, network in self._networks.items():
            old, new = before.get(component, ()), after.get(component, ())
            if list(old) == list(new):
                continue
            if self._merges(network.base, old) or self._merges(network.base, new):
                source = self.merged(component, network.base, network.replacement)
                _refresh(component, network, source, {*_owners(old), *_owners(new)})
            applier.attach(network.module, new)

    def _adapter(self, fit: AdapterFit) -> Adapter:
        """Return the adapter of a file; one used before is reused if its file has not changed."""
        path, config = Path(fit.planned.path), fit.config
        stat = path.stat()
        key = (
            path, stat.st_mtime_ns, stat.st_size, fit.planned.component, config.strength, config.alpha,
            config.alpha_override, tuple(fit.stated.strengths.items()),
        )  # fmt: skip
        if key not in self._known:
            source = self._open(fit.header)
            self._known[key] = Adapter(
                source=source,
                changes=scaled(
                    fit.coverage.changes,
                    source,
                    stated=fit.stated.strengths,
                    alpha=config.alpha,
                    override=config.alpha_override,
                ),
                strength=config.strength,
                target=fit.planned.component,
                name=path.name,
            )
            source.close()
        return self._known[key]


def _owners(adapters: Sequence[Adapter], parameter: str | None = None) -> set[str]:
    """Return the layers that adapters change, or those whose ``parameter`` they change. All tensors of a layer have to
    be reloaded then: for a quantized layer the scales change as well."""
    parts = [change.target.rpartition(".") for adapter in adapters for change in adapter.changes]
    return {owner for owner, _, name in parts if parameter in (None, name)}


def _refresh(component: str, network: _Network, source: WeightSource, owners: set[str]) -> None:
    refresh = getattr(network.offloader, "refresh", None)
    if refresh is None:
        raise RequestError(
            f"the offloader of {component} cannot reload weights, as needed to switch merged LoRA files; use "
            "lora_applier dynamic, or load another pipeline"
        )
    network.weights.source = source
    refresh(component, {name for _, _, name, _ in slots(network.module) if name.rpartition(".")[0] in owners})
