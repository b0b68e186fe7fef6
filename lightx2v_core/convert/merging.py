"""The LoRA files that a conversion merges: fitted by the rules that a run fits them by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lightx2v_core.checkpoint.formats import layer_formats
from lightx2v_core.checkpoint.listing import sibling_files
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.convert.options import ConvertOptions
from lightx2v_core.convert.subject import Subject
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import RequestError
from lightx2v_core.lora.scale import scaled
from lightx2v_core.plan.lora_fit import AdapterFit, Network, check_fit, fitted, lora_file
from lightx2v_core.plan.loras import section_of, sections_of
from lightx2v_core.runtime.build import open_source
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.file_names import named_expert
from lightx2v_core.spec.protocols import Adapter


def adapters_for(
    subject: Subject, options: ConvertOptions, registry: Registry, folder: Path
) -> tuple[AdapterFit, ...]:
    """The LoRA files of a conversion, for its one network. ``folder`` is where they are looked for besides as they are
    named. ``RequestError`` as in a run."""
    if not options.loras:
        return ()
    network = _network(subject, options.component)
    found = []
    for config in options.loras:
        path, header = lora_file(config.path, folder, registry)
        why = _why(config, network, subject)
        if len(sections_of(header)) == 2 and not network.experts and subject.experts:
            raise RequestError(
                f"LoRA {path} has keys for two networks, and nothing says which of them {subject.files[0]} is: use "
                f"{' or '.join(f'--component {name}' for name in subject.experts)}"
            )
        item = fitted(
            config, path, header, section_of(header, network.component, network.experts), network, why
        )
        check_fit(item, network, strict=options.strict_lora)
        found.append(item)
    return tuple(found)


def opened_adapters(
    resolved: Sequence[AdapterFit], registry: Registry, ctx: BuildContext, opened: ExitStack
) -> tuple[list[Adapter], frozenset[str]]:
    """Adapters for the official names of a network, and the layers that they change."""
    adapters = []
    for item in resolved:
        source = open_source(item.header, registry, ctx)
        opened.callback(source.close)
        config = item.config
        changes = scaled(
            item.coverage.changes,
            source,
            stated=item.stated.strengths,
            alpha=config.alpha,
            override=config.alpha_override,
        )
        name = Path(item.planned.path).name
        adapters.append(Adapter(source=source, changes=changes, strength=config.strength, name=name))
    changed = frozenset(change.target.rpartition(".")[0] for item in adapters for change in item.changes)
    return adapters, changed


def _network(subject: Subject, component: str | None) -> Network:
    """The network of a conversion. Which of two experts it is was said, or its names say it."""
    formats = layer_formats(subject.header).values()
    expert = component if component in subject.experts else _expert(subject)
    return Network(
        component=expert or subject.spec.name,
        expected=subject.header.shapes | {f"{layer.name}.weight": layer.shape for layer in formats},
        layouts=subject.spec.layouts,
        title=subject.files[0].name,
        experts=subject.experts if expert else (),
    )


def _expert(subject: Subject) -> str | None:
    """The one of two experts that the name of a file, or of the folders it is in, says."""
    file = subject.files[0]
    stems = {Path(name).stem for name in sibling_files(file)}
    names = (named_expert(folder.name, subject.experts) for folder in (file.parent, file.parent.parent))
    return named_expert(file.stem, subject.experts, stems) or next(filter(None, names), None)


def _why(config: LoraConfig, network: Network, subject: Subject) -> str:
    """Why a LoRA is for the network; ``RequestError`` when it is said to be for another one."""
    if config.name is None:
        return "the one network"
    name = config.name.removesuffix("_model")
    if name in subject.experts and network.experts and name != network.component:
        raise RequestError(
            f"LoRA {config.path!r} is for {config.name}, and {subject.files[0]} is {network.component}: convert the "
            "other network with it"
        )
    return f"name {config.name}"
