"""The LoRA files that a conversion merges, matched to the network by the same rules as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lightx2v_convert.network import Network
from lightx2v_convert.options import ConvertOptions
from lightx2v_core.api import Adapter, RequestError, named_expert
from lightx2v_core.weights import Checkpoints, LoraConfig, LoraFit, layer_formats, sibling_files


def fit_loras(
    network: Network, options: ConvertOptions, checkpoints: Checkpoints, folder: Path
) -> tuple[LoraFit, ...]:
    """Match the LoRA files of a conversion to its network. Paths are also resolved in ``folder``.

    Raises ``RequestError`` as in a run.
    """
    if not options.loras:
        return ()
    formats = layer_formats(network.header).values()
    shapes = network.header.shapes | {f"{layer.name}.weight": layer.shape for layer in formats}
    expert = options.component if options.component in network.experts else _expert(network)
    fits = []
    for config in options.loras:
        lora = checkpoints.read_lora(config.path, folder)
        reason = _reason(config, expert, network)
        if lora.for_two_networks and not expert and network.experts:
            raise RequestError(
                f"LoRA {lora.path} has keys for two networks, and it is unknown which of them {network.files[0]} is: "
                f"use {' or '.join(f'--component {name}' for name in network.experts)}"
            )
        fits.append(
            checkpoints.fit_lora(
                config,
                lora,
                component=expert or network.spec.name,
                shapes=shapes,
                layouts=network.spec.layouts,
                title=network.files[0].name,
                experts=network.experts if expert else (),
                reason=reason,
                strict=options.strict_lora,
            )
        )
    return tuple(fits)


def open_adapters(
    loras: Sequence[LoraFit], checkpoints: Checkpoints, opened: ExitStack
) -> tuple[list[Adapter], frozenset[str]]:
    """Open the LoRA files, which ``opened`` closes.

    Returns their changes by official tensor names, and the names of the layers that they change.
    """
    adapters = []
    for lora in loras:
        adapter = checkpoints.open_adapter(lora)
        opened.callback(adapter.source.close)
        adapters.append(adapter)
    changed = frozenset(
        change.target.rpartition(".")[0] for adapter in adapters for change in adapter.changes
    )
    return adapters, changed


def _expert(network: Network) -> str | None:
    """Determine which expert a network is from the name of its file or of its folders; ``None`` if unclear."""
    file = network.files[0]
    stems = {Path(name).stem for name in sibling_files(file)}
    names = (named_expert(folder.name, network.experts) for folder in (file.parent, file.parent.parent))
    return named_expert(file.stem, network.experts, stems) or next(filter(None, names), None)


def _reason(config: LoraConfig, expert: str | None, network: Network) -> str:
    """Return why a LoRA applies to the network. Raises ``RequestError`` if it is configured for another one."""
    if config.name is None:
        return "the one network"
    name = config.name.removesuffix("_model")
    if expert and name in network.experts and name != expert:
        raise RequestError(
            f"LoRA {config.path!r} is for {config.name}, but {network.files[0]} is {expert}: convert the other "
            "network with it"
        )
    return f"name {config.name}"
