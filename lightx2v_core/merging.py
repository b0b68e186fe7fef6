"""LoRA files merged into the weights of one network outside of a run, such as while a file is converted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.adapters import lora_file
from lightx2v_core.build import open_source
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.errors import RequestError
from lightx2v_core.lora.matching import Coverage, match
from lightx2v_core.lora.scale import scaled, stated_alpha
from lightx2v_core.protocols import Adapter, LoraApplier, WeightSource
from lightx2v_core.registry import Registry
from lightx2v_core.specs import BuildContext, KeyMap


@frozen(kw_only=True)
class Merged:
    """Weights with LoRA files in them, and what of each file has an effect, in the order they were given."""

    source: WeightSource
    coverage: tuple[Coverage, ...]


def merged_with(
    source: WeightSource,
    loras: Sequence[LoraConfig],
    registry: Registry,
    *,
    layouts: Sequence[KeyMap] = (),
    folder: Path | None = None,
    strict: bool = False,
) -> Merged:
    """``source`` (plain weights under official names) with LoRA files merged into it, in their order, in the maths of
    the ``merge`` applier: what is read of it equals what a run with these files computes with. Quantized weights have
    to be decoded before and quantized after.

    ``RequestError`` for a file that is missing, broken, no LoRA, or changes nothing; with ``strict``, also for one of
    which a part has no effect."""
    expected = {name: source.info(name).shape for name in source.names()}
    adapters, found = [], []
    for lora in loras:
        path, header = lora_file(lora.path, folder or Path(), registry)
        coverage = match(header, expected, layouts)
        without = {**coverage.mismatched, **coverage.unmatched}
        if not coverage.changes or (strict and without):
            name, why = next(iter(without.items()))
            raise RequestError(
                f"{len(without)} of the {len(header)} tensors of LoRA {path} have no effect here, such as {name}: {why}"
            )
        opened = open_source(header, registry, BuildContext())
        changes = scaled(
            coverage.changes,
            opened,
            stated=stated_alpha(header),
            alpha=lora.alpha,
            override=lora.alpha_override,
        )
        adapters.append(
            Adapter(source=opened, changes=changes, strength=lora.strength, target="", name=path.name)
        )
        found.append(coverage)
    spec: Any = registry.find("lora_applier", "core/merge").spec
    applier: LoraApplier = spec.build(spec.config(), BuildContext())
    return Merged(source=applier.merged(source, adapters), coverage=tuple(found))
