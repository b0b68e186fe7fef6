"""Which quantizer runs which layers of a component: decided from headers and the configuration, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod

from attrs import evolve, field, frozen

from lightx2v_core.checkpoint.components import Component
from lightx2v_core.checkpoint.verify import PLAIN_DTYPES
from lightx2v_core.config.lightx2v.schemes import scheme_of
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import Section
from lightx2v_core.discovery.plugins import CORE, Provided
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, PluginError
from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.plan.quantizer_names import UNQUANTIZED, instead, translated, unmet, why_unmet
from lightx2v_core.plan.selection import (
    Implementation,
    Objections,
    Prove,
    component_setting,
    named,
    no_objections,
    placed,
    select,
    unproved,
)
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.memory import MemoryNeed
from lightx2v_core.spec.specs import QuantizerSpec
from lightx2v_core.spec.tensors import DTYPE_BYTES, Header, LayerFormat

#: a layer inside a numbered block, and what is no linear
_NUMBERED = re.compile(r"(^|\.)\d+\.")
_NO_LINEAR = re.compile(r"norm|embed")


@frozen(kw_only=True)
class Quantization:
    """What becomes of the quantized layers of one component, and of those that are quantized on load."""

    #: None: nothing is quantized and nothing will be
    chosen: Implementation[QuantizerSpec] | None = None
    #: whether a quantizer that was asked for has a say here
    said: bool = False
    #: layers that the quantizer runs as they are stored
    kept: Mapping[str, LayerFormat] = field(factory=dict)
    #: stored layers that are decoded when they are loaded
    decoded: Mapping[str, LayerFormat] = field(factory=dict)
    #: plain layers that are quantized when they are loaded, with their shapes, and the format that they get
    made: Mapping[str, tuple[int, ...]] = field(factory=dict)
    target: str = ""
    #: the kernel that was wished for and is not the chosen one, and where it was
    unmet: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()


def choose_quantizers(
    registry: Registry,
    loaded: LoadedConfig,
    parts: Sequence[ComponentSpec],
    components: Mapping[str, Component],
    expected: Mapping[str, Mapping[str, tuple[int, ...]]],
    ctx: BuildContext,
    prove: Prove = unproved,
) -> Mapping[str, Quantization]:
    """Component -> what is quantized in it. ``PluginError`` when the quantizer that is asked for cannot run what the
    files hold, or is wrong on this machine as far as ``prove`` tells; ``CheckpointError`` when nothing that is
    installed can run them."""
    quantizations = {}
    for part in parts:
        component, wanted = components[part.name], expected[part.name]
        stored = {
            name: layer
            for name, layer in component.formats.items()
            if _needs_decoding(layer) and (f"{name}.weight" in wanted or name in wanted)
        }
        plain = {
            name: shape
            for name, shape in quantizable_layers(part, component.header).items()
            if f"{name}.weight" in wanted
        }
        quantizations[part.name] = _component(registry, loaded, part, stored, plain, ctx, prove)
    section = loaded.config.quantizer
    if (
        section is not None
        and section.use not in UNQUANTIZED
        and not any(one.said for one in quantizations.values())
    ):
        raise PluginError(
            f"quantizer {', '.join(section.use)} is asked for ({loaded.origin('quantizer', 'use')}), and there is "
            "nothing for it: no file is quantized, and it quantizes none itself; leave it out or give quantized files"
        )
    return _with_note(quantizations)


def _with_note(quantizations: Mapping[str, Quantization]) -> Mapping[str, Quantization]:
    """With one note of all wishes for kernels that others meet, at the first component that has one."""
    wishes = dict.fromkeys(one.unmet for one in quantizations.values() if one.unmet is not None)
    if not wishes:
        return quantizations
    said = "; ".join(f"{name!r} ({origin}) {why_unmet(name)}" for name, origin in wishes)
    runs: dict[str, list[str]] = {}
    for name, one in quantizations.items():
        if one.unmet is not None and one.chosen is not None:
            runs.setdefault(one.chosen.selection.name, []).append(name)
    instead = ", ".join(f"{kernel} ({', '.join(names)})" for kernel, names in runs.items())
    note = f"quantizer {said}: the same weights run on {instead}"
    first = next(name for name, one in quantizations.items() if one.unmet is not None)
    return {**quantizations, first: evolve(quantizations[first], notes=(note, *quantizations[first].notes))}


def chosen_quantizers(quantized: Mapping[str, Quantization]) -> Mapping[str, Implementation[QuantizerSpec]]:
    """The choices that were made, by component."""
    return {name: one.chosen for name, one in quantized.items() if one.chosen is not None}


def quantizable_layers(part: ComponentSpec, header: Header) -> dict[str, tuple[int, ...]]:
    """List the layers of a file that are quantized when it is: name -> shape [out, in] of plain two-dimensional
    weights."""
    patterns = None if part.quantize is None else [re.compile(pattern) for pattern in part.quantize]
    layers: dict[str, tuple[int, ...]] = {}
    for name, info in header.tensors.items():
        layer, _, suffix = name.rpartition(".")
        if suffix != "weight" or len(info.shape) != 2 or info.dtype not in PLAIN_DTYPES or 0 in info.shape:
            continue
        if patterns is None:
            takes = bool(_NUMBERED.search(layer)) and not _NO_LINEAR.search(layer)
        else:
            takes = any(pattern.search(layer) for pattern in patterns)
        if takes:
            layers[layer] = info.shape
    return layers


def takes(options: object, layer: str) -> bool:
    """Whether the ``only`` and ``keep`` of a quantizer's options let it have a layer."""
    only, keep = getattr(options, "only", ()), getattr(options, "keep", ())
    wanted = not only or any(fnmatchcase(layer, pattern) for pattern in only)
    return wanted and not any(fnmatchcase(layer, pattern) for pattern in keep)


def needs_of(quantized: Quantization, need: MemoryNeed, dtype: str) -> MemoryNeed:
    """The forecast of a component with quantized layers as they are, from the one that counts all in ``dtype``. An
    exact quantizer also decodes a layer at a time."""
    unit = DTYPE_BYTES[dtype]
    layers = {name: layer.weight.nbytes + _scale_bytes(layer) for name, layer in quantized.kept.items()}
    shapes = {name: layer.shape for name, layer in quantized.kept.items()} | dict(quantized.made)
    layers |= {name: prod(shape) + 4 * shape[0] for name, shape in quantized.made.items()}
    saved = sum(prod(shapes[name]) * unit - size for name, size in layers.items())
    decoding = 0
    if quantized.chosen is not None and quantized.chosen.spec.exact:
        decoding = max((prod(shape) for shape in shapes.values()), default=0) * (8 + unit)
    return MemoryNeed(weights=need.weights - saved, activations=need.activations + decoding)


def _scale_bytes(layer: LayerFormat) -> int:
    return sum(4 * info.elements for suffix, info in layer.tensors.items() if suffix == "weight_scale")


def _component(
    registry: Registry,
    loaded: LoadedConfig,
    part: ComponentSpec,
    stored: Mapping[str, LayerFormat],
    plain: Mapping[str, tuple[int, ...]],
    ctx: BuildContext,
    prove: Prove,
) -> Quantization:
    own, key = component_setting(loaded.config, part, "quantizer")
    section = own or loaded.config.quantizer
    path = ("components", key, "quantizer", "use") if own else ("quantizer", "use")
    if section is not None and section.use in UNQUANTIZED:
        section = None
    if section is None:
        return _unsaid(registry, part, stored, ctx, prove) if stored else Quantization()
    if not stored and not plain:
        if own:
            raise PluginError(
                f"components.{key}.quantizer: the {part.summary} has no layers that can be quantized"
            )
        return Quantization()
    with placed(loaded, *path):
        _check_scheme(section, stored)
        kernels = translated(section, registry)
    objections = _readers(part, stored) if stored else _makers if own else no_objections
    try:
        chosen = select(
            registry,
            QuantizerSpec,
            kernels,
            ctx,
            origin=loaded.origin(*path),
            objections=objections,
            prove=prove,
            uses=lambda spec, options: uses_of(stored, spec, options),
            loaded=loaded,
            at=path,
        )
    except PluginError as exc:
        fitting = _fitting(registry, _readers(part, stored), ctx) if stored else []
        others = [one.spec.name for one in fitting if not named(kernels, registry, QuantizerSpec, one)]
        raise PluginError(f"{exc}\n  can run it here: {', '.join(others)}" if others else str(exc)) from None
    quantization = _divided(chosen, stored, ctx) if stored else _made_on_load(part, chosen, plain, ctx)
    if quantization.chosen is None:
        return quantization
    name = unmet(section, chosen.spec.name, registry)
    return evolve(quantization, said=True, unmet=(name, loaded.origin(*path)) if name else None)


def _made_on_load(
    part: ComponentSpec,
    chosen: Implementation[QuantizerSpec],
    plain: Mapping[str, tuple[int, ...]],
    ctx: BuildContext,
) -> Quantization:
    """Quantize the plain layers of a component while they are loaded, if a quantizer makes something of them."""
    spec = chosen.spec
    target = None if spec.makes is None else spec.makes(chosen.config)
    if target is None:
        return Quantization(
            said=spec.makes is not None,
            notes=(
                f"{part.name}: {spec.name} has nothing to do: its file is not quantized, and no format is asked for",
            ),
        )
    made = {
        name: shape
        for name, shape in plain.items()
        if takes(chosen.config, name) and not spec.refuses(shape, ctx)
    }
    note = f"{part.name}: {len(made)} layers are quantized to {target} while they are loaded"
    return Quantization(chosen=chosen, made=made, target=target, notes=(note,))


def _check_scheme(section: Section, stored: Mapping[str, LayerFormat]) -> None:
    """``PluginError`` for a scheme that names a type of blocks of which a file has none. Kernels refuse what else is
    stored in another way; one that decodes blocks takes them all."""
    schemes = [(name, known) for name in section.use if (known := scheme_of(name)) is not None]
    for name, scheme in schemes:
        packed = [layer for layer in stored.values() if layer.weight.block is not None]
        if not packed or len(section.use) > 1 or family(scheme.format) != family(packed[0].format):
            continue
        if not any(layer.format.startswith(scheme.format) for layer in packed):
            kinds = ", ".join(sorted({layer.format for layer in packed}))
            raise PluginError(
                f"quantizer {name!r} is for weights in {scheme.format}, and {packed[0].weight.file.name} holds "
                f"{packed[0].weight.name} in {packed[0].format} (in all: {kinds}); leave it out or give the other file"
            )


def family(format: str) -> str:
    """The kind of format that a format is of: ``fp8``, ``int8``, ``gguf``."""
    return format.partition("-")[0]


def uses_of(stored: Mapping[str, LayerFormat], spec: QuantizerSpec, options: object) -> tuple[KernelUse, ...]:
    """What layers ask of a quantizer: the formats that they are stored in or, when none is, the one that it makes."""
    if stored:
        return tuple(
            KernelUse(format=format, block=block)
            for format, block in sorted(
                {(layer.format, layer.weight.block) for layer in stored.values()}, key=str
            )
        )
    made = None if spec.makes is None else spec.makes(options)
    return () if made is None else (KernelUse(format=made),)


def _wrong(
    candidate: Provided[QuantizerSpec], stored: Mapping[str, LayerFormat], ctx: BuildContext, prove: Prove
) -> Sequence[str]:
    """What speaks against a quantizer, with the options that it has by default, for what is stored."""
    if prove is unproved:
        return ()
    options = candidate.spec.config()
    return prove(candidate, options, ctx, uses_of(stored, candidate.spec, options))


def _unsaid(
    registry: Registry,
    part: ComponentSpec,
    stored: Mapping[str, LayerFormat],
    ctx: BuildContext,
    prove: Prove,
) -> Quantization:
    """Nobody named a quantizer: the exact one, since it does not change the result; faster ones are named."""
    fitting = _fitting(registry, _readers(part, stored), ctx)
    exact = sorted((one for one in fitting if one.spec.exact), key=lambda one: one.plugin != CORE)
    faster = [one.spec.name for one in fitting if not one.spec.exact]
    right = next((one for one in (exact or fitting) if not _wrong(one, stored, ctx, prove)), None)
    if right is None:
        some = next(iter(stored.values()))
        kinds = ", ".join(sorted({layer.format for layer in stored.values()}))
        raise CheckpointError(
            f"{part.name}: {some.weight.file.name} is stored in {kinds} (such as {some.weight.name}), which no usable "
            f"quantizer reads{instead(some.format, registry)}"
        )
    use = right.qualified
    why = "default: the file is quantized" + (", and this computes exactly what it holds" if exact else "")
    chosen = select(registry, QuantizerSpec, Section(use=(use,)), ctx, origin=why)
    divided = _divided(chosen, stored, ctx)
    if exact and faster:
        note = (
            f"{part.name}: its quantized weights are decoded when they are used; "
            f"{' or '.join(faster)} multiplies with them as they are, rounding activations too: "
            f"--set components.{part.name}.quantizer={faster[0]}"
        )
        divided = evolve(divided, notes=(*divided.notes, note))
    return divided


def _fitting(
    registry: Registry, objections: Objections[QuantizerSpec], ctx: BuildContext
) -> list[Provided[QuantizerSpec]]:
    """List the quantizers that this machine can use and nothing speaks against, best first."""
    return [one for one in registry.candidates(QuantizerSpec) if not one.reasons(ctx) and not objections(one)]


def _divided(
    chosen: Implementation[QuantizerSpec], stored: Mapping[str, LayerFormat], ctx: BuildContext
) -> Quantization:
    kept, decoded, reasons = {}, {}, {}
    for name, layer in stored.items():
        reason = chosen.spec.refuses(layer.shape, ctx) if len(layer.shape) == 2 else "it is no matrix"
        if reason is None and takes(chosen.config, name):
            kept[name] = layer
        else:
            decoded[name] = layer
            if reason is not None:
                reasons[name] = reason
    notes: tuple[str, ...] = ()
    if reasons:
        name, reason = next(iter(reasons.items()))
        notes = (
            f"{len(reasons)} layers cannot run on {chosen.spec.name} and are decoded on load, such as {name}: {reason}",
        )
    return Quantization(chosen=chosen, kept=kept, decoded=decoded, notes=notes)


def _needs_decoding(layer: LayerFormat) -> bool:
    """Whether a layer is more than a tensor in a small float dtype, which is cast when it is loaded."""
    return not layer.format.endswith("-plain") or ("weight" in layer.tensors and len(layer.shape) == 2)


def _readers(part: ComponentSpec, stored: Mapping[str, LayerFormat]) -> Objections[QuantizerSpec]:
    """Refuse quantizers that do not read every layer's format."""

    def objections(candidate: Provided[QuantizerSpec]) -> Sequence[str]:
        formats = candidate.spec.formats
        wrong = [layer for layer in stored.values() if layer.format not in formats]
        if not wrong:
            return ()
        weight = wrong[0].weight
        return (
            f"reads {', '.join(sorted(formats))}, and {weight.file.name} holds {weight.name} in {wrong[0].format} "
            f"({len(wrong)} of {len(stored)} quantized layers); components.{part.name}.quantizer may name another",
        )

    return objections


def _makers(candidate: Provided[QuantizerSpec]) -> Sequence[str]:
    """Refuse quantizers that cannot quantize a plain file."""
    return () if candidate.spec.makes is not None else ("it cannot quantize a file that is not quantized",)
