"""The LoRA files of a configuration at plan time: found, read by header, and matched with their networks. Every error
in them is reported here, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from lightx2v_core.checkpoint.listing import sibling_files
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import RequestError, suggestion
from lightx2v_core.lora.recognition import expert_hint, of_text_encoder, second
from lightx2v_core.plan.lora_fit import AdapterFit, Network, check_fit, fitted, lora_file
from lightx2v_core.plan.quantization import Quantization
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.selection import Implementation, Prove, select, unproved
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import LoraApplierSpec
from lightx2v_core.spec.tensors import Header

#: name for all networks of a model, besides the name of their group
BOTH = "both"


def resolve_adapters(
    loras: Sequence[LoraConfig], model: ModelMatch, registry: Registry, folder: Path, *, strict: bool = False
) -> tuple[AdapterFit, ...]:
    """Resolve every LoRA of a configuration, in order; one for several networks appears once for each.

    Raises ``RequestError`` for a file that is missing, broken, not a LoRA, for another model, or for an unknown one of
    several networks; with ``strict``, also if part of it has no effect.
    """
    return tuple(fit for config in loras for fit in _resolved(config, model, registry, folder, strict=strict))


def adapted_model(plain: ModelMatch, adapters: Sequence[AdapterFit]) -> ModelMatch:
    """Update the recognition of a model for its LoRA files, which may change defaults."""
    names: dict[str, list[str]] = {}
    for adapter in adapters:
        if adapter.planned.strength > 0:
            names.setdefault(adapter.planned.component, []).append(Path(adapter.planned.path).name)
    if not names:
        return plain
    return evolve(plain, recognition=plain.spec.with_loras(plain.recognition, names))


def select_applier(
    registry: Registry,
    loaded: LoadedConfig,
    ctx: BuildContext,
    adapters: Sequence[AdapterFit],
    quantized: Mapping[str, Quantization],
    prove: Prove = unproved,
) -> Implementation[LoraApplierSpec] | None:
    """Select the LoRA applier; None without LoRA files, unless one is configured.

    Raises ``RequestError`` if it cannot apply the files.
    """
    origin = loaded.origin("lora_applier", "use")
    if not adapters and origin == "default":
        return None
    applier = select(
        registry, LoraApplierSpec, loaded.config.lora_applier, ctx, origin=origin, prove=prove, loaded=loaded
    )
    check_applier(adapters, applier, quantized)
    return applier


def check_applier(
    adapters: Sequence[AdapterFit],
    applier: Implementation[LoraApplierSpec],
    quantized: Mapping[str, Quantization],
) -> None:
    """Raise ``RequestError`` if an applier does not support the changes of a file, or the weights of its component."""
    for fit in adapters:
        if not applier.spec.resident:
            _check_writable(fit, quantized[fit.planned.component])
        kinds = {change.kind for change in fit.coverage.changes}
        kinds |= {"magnitude" for change in fit.coverage.changes if "magnitude" in change.tensors}
        if unable := sorted(kinds - applier.spec.kinds):
            raise RequestError(
                f"lora_applier {applier.selection.name} cannot apply {', '.join(unable)} in {fit.planned.path}; "
                f"it supports {', '.join(sorted(applier.spec.kinds))}. "
                "Use --set lora_applier=merge"
            )


def _check_writable(fit: AdapterFit, quantized: Quantization) -> None:
    """Raise ``RequestError`` if a merge would need to re-quantize weights and the quantizer cannot."""
    if quantized.chosen is None:
        return
    spec = quantized.chosen.spec
    writes = spec.formats if spec.writes is None else spec.writes
    for change in fit.coverage.changes:
        layer = quantized.kept.get(change.target.rpartition(".")[0])
        if layer is not None and layer.format not in writes and change.target.endswith(".weight"):
            raise RequestError(
                f"LoRA {fit.planned.path} cannot be merged into {change.target}: it is stored in {layer.format}, "
                f"which {quantized.chosen.selection.name} cannot write. Use --set lora_applier=dynamic"
            )


def _resolved(
    config: LoraConfig, model: ModelMatch, registry: Registry, folder: Path, *, strict: bool
) -> list[AdapterFit]:
    path, header = lora_file(config.path, folder, registry)
    made = []
    for component, why in _components(config, model, header, path):
        network = _network(model, component)
        made.append(
            (
                fitted(config, path, header, section_of(header, component, network.experts), network, why),
                network,
            )
        )
    # in a file with keys for both networks, the keys for one may all belong to a text encoder
    able = [(fit, network) for fit, network in made if fit.coverage.changes] or made[:1]
    for fit, network in able:
        check_fit(fit, network, strict=strict)
    return [fit for fit, _ in made]


def _network(model: ModelMatch, component: str) -> Network:
    part = model.part(component)
    group = [
        component_spec.name
        for component_spec in model.spec.components
        if component_spec.group and component_spec.group == part.group
    ]
    return Network(
        component=component,
        expected=model.recognition.expected[component],
        layouts=part.layouts,
        title=model.recognition.variant,
        experts=tuple(group),
    )


def _components(config: LoraConfig, model: ModelMatch, header: Header, path: Path) -> list[tuple[str, str]]:
    """Return the components that a LoRA is for, each with the reason."""
    main = model.spec.components[0]
    networks = [
        part.name
        for part in model.spec.components
        if part.name in model.recognition.components
        and (part.name == main.name or (part.group is not None and part.group == main.group))
    ]
    if config.name is not None:
        name = config.name.removesuffix("_model")
        if name in (BOTH, main.group):
            return [(network, f"name {config.name}") for network in networks]
        known = [*model.recognition.components, *([main.group] if main.group else [])]
        if name not in model.recognition.components:
            raise RequestError(
                f"LoRA {config.path!r} is for {config.name}, which {model.recognition.variant} does not have"
                f"{suggestion(name, known)}; it has {', '.join(known)}"
            )
        return [(name, f"name {config.name}")]
    if len(networks) == 1:
        return [(networks[0], "the only network")]
    if len(sections_of(header)) == 2 and len(networks) == 2:
        return [(network, "the file has keys for both networks") for network in networks]
    hint, why = expert_hint(header, networks, sibling_files(path))
    if hint is not None:
        return [(hint, why)]
    words = [network.partition("_")[0] for network in networks]
    ways = " or ".join(f"--lora {word}:{config.path}" for word in (*words, BOTH))
    doubt = f"for LoRA {str(path)!r} {why}" if why else f"LoRA {str(path)!r} does not name one"
    raise RequestError(
        f"{model.recognition.variant} has {len(networks)} networks, and {doubt}; use {ways} "
        f"(name {', '.join(f'{network}_model' for network in networks)} or {BOTH} in a configuration)"
    )


def sections_of(header: Header) -> set[bool]:
    """Return which of two networks a file has keys for: True for the second, False for the first."""
    return {second(name) for name in header if not of_text_encoder(name)}


def section_of(header: Header, component: str, experts: Sequence[str]) -> Header:
    """Return the section of a file for one of two networks, or the whole header if it has keys for only one."""
    if len(experts) < 2 or len(sections_of(header)) < 2:
        return header
    first = component == experts[0]
    return evolve(
        header, tensors={name: info for name, info in header.tensors.items() if second(name) != first}
    )
