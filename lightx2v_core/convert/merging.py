"""The LoRA files that a conversion merges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from lightx2v_core.build import open_source
from lightx2v_core.checkpoint.folders import expanded, short
from lightx2v_core.checkpoint.formats import layer_formats
from lightx2v_core.checkpoint.listing import why_not
from lightx2v_core.convert.options import LoraToMerge
from lightx2v_core.convert.subject import Subject
from lightx2v_core.embedded import place_of
from lightx2v_core.errors import RequestError
from lightx2v_core.lora.matching import match
from lightx2v_core.lora.recognition import is_lora
from lightx2v_core.lora.scale import scaled, stated_alpha
from lightx2v_core.protocols import Adapter
from lightx2v_core.recognise import read_header
from lightx2v_core.registry import Registry
from lightx2v_core.specs import BuildContext


def adapters_of(
    subject: Subject, loras: Sequence[LoraToMerge], registry: Registry, ctx: BuildContext, opened: ExitStack
) -> tuple[list[Adapter], frozenset[str]]:
    """Adapters for the official names of a network, and the layers that they change. ``RequestError`` for a file that
    is none, or changes nothing here."""
    formats = layer_formats(subject.header).values()
    shapes = subject.header.shapes | {f"{layer.name}.weight": layer.shape for layer in formats}
    adapters = []
    for lora in loras:
        path = expanded(place_of(lora.path, registry))
        if not os.path.isfile(path):
            raise RequestError(f"LoRA file {short(lora.path)} {why_not(path) or 'is no file'}")
        header = read_header(registry, path)
        coverage = match(header, shapes, subject.spec.layouts)
        if not is_lora(header) or not coverage.changes:
            raise RequestError(
                f"{path} changes nothing in {subject.files[0].name}: it is no LoRA file for it"
            )
        if not coverage.whole:
            lost = [*coverage.unmatched, *coverage.mismatched]
            raise RequestError(
                f"{path}: {len(lost)} tensors have no place in {subject.files[0].name}, such as {lost[0]}"
            )
        source = open_source(header, registry, ctx)
        opened.callback(source.close)
        changes = scaled(
            coverage.changes, source, stated=stated_alpha(header), alpha=lora.alpha, override=False
        )
        adapters.append(Adapter(source=source, changes=changes, strength=lora.strength, name=path.name))
    changed = frozenset(change.target.rpartition(".")[0] for item in adapters for change in item.changes)
    return adapters, changed
