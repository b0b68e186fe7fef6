"""Assignment of quantizers to the layers of each component, from headers and the configuration, without torch."""

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

#: layers inside a numbered block
_NUMBERED = re.compile(r"(^|\.)\d+\.")
#: layers with a 2-D weight that are not linear
_NO_LINEAR = re.compile(r"norm|embed")


@frozen(kw_only=True)
class Quantization:
    """The treatment of the quantized layers of one component, and of those that are quantized on load."""

    #: None: no layer is quantized, in the file or on load
    chosen: Implementation[QuantizerSpec] | None = None
    #: whether a configured quantizer applies to this component
    said: bool = False
    #: layers that the quantizer computes in the stored format
    kept: Mapping[str, LayerFormat] = field(factory=dict)
    #: stored layers that are decoded on load
    decoded: Mapping[str, LayerFormat] = field(factory=dict)
    #: plain layers that are quantized on load, with their shapes, and the target format
    made: Mapping[str, tuple[int, ...]] = field(factory=dict)
    target: str = ""
    #: the preferred (``name?``) kernel that could not be used, and where it is configured
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
    """Choose the quantizer of each component. Returns component -> quantization.

    Raises ``PluginError`` if the configured quantizer cannot run the formats of the files, or fails ``prove`` on this
    machine; ``CheckpointError`` if no installed quantizer can run them.
    """
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
            f"quantizer {', '.join(section.use)} ({loaded.origin('quantizer', 'use')}) has nothing to do: no file is "
            "quantized, and it does not quantize on load; omit it or use quantized files"
        )
    return _with_note(quantizations)


def _with_note(quantizations: Mapping[str, Quantization]) -> Mapping[str, Quantization]:
    """Add one note about all preferred kernels that others replace, to the first component that has one."""
    wishes = dict.fromkeys(one.unmet for one in quantizations.values() if one.unmet is not None)
    if not wishes:
        return quantizations
    unavailable = "; ".join(f"{name!r} ({origin}) {why_unmet(name)}" for name, origin in wishes)
    runs: dict[str, list[str]] = {}
    for name, one in quantizations.items():
        if one.unmet is not None and one.chosen is not None:
            runs.setdefault(one.chosen.selection.name, []).append(name)
    instead = ", ".join(f"{kernel} ({', '.join(names)})" for kernel, names in runs.items())
    note = f"quantizer {unavailable}; using {instead} for the same weights"
    first = next(name for name, one in quantizations.items() if one.unmet is not None)
    return {**quantizations, first: evolve(quantizations[first], notes=(note, *quantizations[first].notes))}


def chosen_quantizers(quantized: Mapping[str, Quantization]) -> Mapping[str, Implementation[QuantizerSpec]]:
    """Return the selected quantizers, by component."""
    return {name: one.chosen for name, one in quantized.items() if one.chosen is not None}


def quantizable_layers(part: ComponentSpec, header: Header) -> dict[str, tuple[int, ...]]:
    """Find the layers of a file that can be quantized: name -> shape [out, in] of plain 2-D weights."""
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
    """Return True if the ``only`` and ``keep`` patterns of a quantizer's options select a layer."""
    only, keep = getattr(options, "only", ()), getattr(options, "keep", ())
    wanted = not only or any(fnmatchcase(layer, pattern) for pattern in only)
    return wanted and not any(fnmatchcase(layer, pattern) for pattern in keep)


def needs_of(quantized: Quantization, need: MemoryNeed, dtype: str) -> MemoryNeed:
    """Adjust a memory forecast that counts all layers in ``dtype`` for the quantized layers of a component.

    An exact quantizer also decodes one layer at a time.
    """
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
            raise PluginError(f"components.{key}.quantizer: no layer of the {part.summary} can be quantized")
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
        raise PluginError(f"{exc}\n  alternatives: {', '.join(others)}" if others else str(exc)) from None
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
    """Plan the quantization of the plain layers of a component on load, if the quantizer has a target format."""
    spec = chosen.spec
    target = None if spec.makes is None else spec.makes(chosen.config)
    if target is None:
        return Quantization(
            said=spec.makes is not None,
            notes=(
                f"{part.name}: {spec.name} has nothing to do: the file is not quantized and no target format is set",
            ),
        )
    made = {
        name: shape
        for name, shape in plain.items()
        if takes(chosen.config, name) and not spec.refuses(shape, ctx)
    }
    note = f"{part.name}: {len(made)} layers are quantized to {target} on load"
    return Quantization(chosen=chosen, made=made, target=target, notes=(note,))


def _check_scheme(section: Section, stored: Mapping[str, LayerFormat]) -> None:
    """Raise ``PluginError`` if a scheme names a GGUF block format that the file does not contain.

    Other mismatches are left to the kernels; a kernel that decodes blocks accepts all block formats.
    """
    schemes = [(name, known) for name in section.use if (known := scheme_of(name)) is not None]
    for name, scheme in schemes:
        packed = [layer for layer in stored.values() if layer.weight.block is not None]
        if not packed or len(section.use) > 1 or family(scheme.format) != family(packed[0].format):
            continue
        if not any(layer.format.startswith(scheme.format) for layer in packed):
            kinds = ", ".join(sorted({layer.format for layer in packed}))
            raise PluginError(
                f"quantizer {name!r} is for weights in {scheme.format}, but {packed[0].weight.file.name} has "
                f"{packed[0].weight.name} in {packed[0].format} (all formats: {kinds}); omit it or use another file"
            )


def family(format: str) -> str:
    """Return the family of a format: ``fp8``, ``int8``, ``gguf``."""
    return format.partition("-")[0]


def uses_of(stored: Mapping[str, LayerFormat], spec: QuantizerSpec, options: object) -> tuple[KernelUse, ...]:
    """List the formats that a quantizer has to run: those of the stored layers, else its target format."""
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
    """Prove a quantizer with its default options on the stored formats. Returns reasons against it."""
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
    """Choose a quantizer where none is configured: an exact one, as it does not change the result.

    A note names the faster ones.
    """
    fitting = _fitting(registry, _readers(part, stored), ctx)
    exact = sorted((one for one in fitting if one.spec.exact), key=lambda one: one.plugin != CORE)
    faster = [one.spec.name for one in fitting if not one.spec.exact]
    right = next((one for one in (exact or fitting) if not _wrong(one, stored, ctx, prove)), None)
    if right is None:
        some = next(iter(stored.values()))
        kinds = ", ".join(sorted({layer.format for layer in stored.values()}))
        raise CheckpointError(
            f"{part.name}: no usable quantizer reads {some.weight.file.name}, which is stored in {kinds} (such as "
            f"{some.weight.name}){instead(some.format, registry)}"
        )
    use = right.qualified
    why = "default: the file is quantized" + (", and this quantizer is exact" if exact else "")
    chosen = select(registry, QuantizerSpec, Section(use=(use,)), ctx, origin=why)
    divided = _divided(chosen, stored, ctx)
    if exact and faster:
        note = (
            f"{part.name}: quantized weights are decoded on use; "
            f"{' or '.join(faster)} is faster without decoding, but also rounds activations: "
            f"--set components.{part.name}.quantizer={faster[0]}"
        )
        divided = evolve(divided, notes=(*divided.notes, note))
    return divided


def _fitting(
    registry: Registry, objections: Objections[QuantizerSpec], ctx: BuildContext
) -> list[Provided[QuantizerSpec]]:
    """List the quantizers that are usable on this machine and raise no objections, best first."""
    return [one for one in registry.candidates(QuantizerSpec) if not one.reasons(ctx) and not objections(one)]


def _divided(
    chosen: Implementation[QuantizerSpec], stored: Mapping[str, LayerFormat], ctx: BuildContext
) -> Quantization:
    kept, decoded, reasons = {}, {}, {}
    for name, layer in stored.items():
        reason = chosen.spec.refuses(layer.shape, ctx) if len(layer.shape) == 2 else "not a 2-D weight"
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
            f"{len(reasons)} layers that {chosen.spec.name} does not support are decoded on load, such as {name}: "
            f"{reason}",
        )
    return Quantization(chosen=chosen, kept=kept, decoded=decoded, notes=notes)


def _needs_decoding(layer: LayerFormat) -> bool:
    """Return False for a tensor in a small float dtype that is only cast on load, True for quantized layers."""
    return not layer.format.endswith("-plain") or ("weight" in layer.tensors and len(layer.shape) == 2)


def _readers(part: ComponentSpec, stored: Mapping[str, LayerFormat]) -> Objections[QuantizerSpec]:
    """Build a function that rejects quantizers without support for every layer's format."""

    def objections(candidate: Provided[QuantizerSpec]) -> Sequence[str]:
        formats = candidate.spec.formats
        wrong = [layer for layer in stored.values() if layer.format not in formats]
        if not wrong:
            return ()
        weight = wrong[0].weight
        return (
            f"reads {', '.join(sorted(formats))}, but {weight.file.name} has {weight.name} in {wrong[0].format} "
            f"({len(wrong)} of {len(stored)} quantized layers); set components.{part.name}.quantizer to use another",
        )

    return objections


def _makers(candidate: Provided[QuantizerSpec]) -> Sequence[str]:
    """Reject quantizers that cannot quantize on load."""
    return (
        ()
        if candidate.spec.makes is not None
        else ("cannot quantize on load, and the file is not quantized",)
    )
