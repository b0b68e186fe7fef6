"""Access to checkpoints through the plugins of one set, for programs that read, change and write weights.

The rules are those of a run, so a conversion selects the same network that a run would load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import Factory, field, frozen

from lightx2v_core.checkpoint.components import locate_component
from lightx2v_core.checkpoint.folders import expanded, near, short
from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.layouts import MappedHeader
from lightx2v_core.checkpoint.listing import filesystem_errors, why_not
from lightx2v_core.checkpoint.places import CONFIG_FOLDERS
from lightx2v_core.checkpoint.quantized import Dequantize
from lightx2v_core.checkpoint.shards import FileSet, check_index
from lightx2v_core.config.model import LoraConfig, RunConfig
from lightx2v_core.discovery.answers import default_options
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, RequestError
from lightx2v_core.lora.scale import scaled
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.lora_fit import (
    AdapterFit,
    Network,
    adapter_notes,
    check_fit,
    fitted,
    lora_file,
)
from lightx2v_core.plan.loras import resolve_adapters, section_of, sections_of
from lightx2v_core.plan.recognize import ModelMatch, read_header, recognize
from lightx2v_core.quant.arithmetic import WEIGHT_FORMATS, dequantize_weight
from lightx2v_core.runtime.build import open_source
from lightx2v_core.spec.components import ComponentSpec, KeyMap
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Adapter, WeightSource
from lightx2v_core.spec.specs import LoraApplierSpec, ModelSpec, QuantizerSpec, WeightLoaderSpec
from lightx2v_core.spec.tensors import Header

#: weights are changed in float32
_CONTEXT = BuildContext(dtype="float32")


@frozen(kw_only=True)
class CheckpointFiles:
    """The weight files of one network, and their merged header."""

    files: tuple[Path, ...]
    header: Header


@frozen(kw_only=True)
class ModelComponent:
    """A component of a model in its folder: its spec, its files, and their headers."""

    spec: ComponentSpec
    files: tuple[Path, ...]
    #: the tensors by their names in the files
    stored: Header
    #: the tensors by their official names
    mapped: MappedHeader
    #: name of an asset of the component, such as its tokenizer -> its path, or its usual path if it is missing
    assets: Mapping[str, Path]


@frozen(kw_only=True)
class ModelFolder:
    """The folder of a recognized model."""

    path: Path
    spec: ModelSpec
    #: name -> located component
    components: Mapping[str, ModelComponent]
    #: components that a run needs but the folder lacks
    absent: tuple[ComponentSpec, ...]
    #: the ``config.json`` of the network; None where there is none
    config: Path | None
    _match: ModelMatch


@frozen(kw_only=True)
class LoraFile:
    """A LoRA file and its header."""

    path: Path
    header: Header
    #: True if it has keys for both of two networks
    for_two_networks: bool


@frozen(kw_only=True)
class LoraFit:
    """A LoRA file matched with one network: its changes by official tensor names."""

    config: LoraConfig
    path: Path
    #: the component of the network
    component: str
    _adapter: AdapterFit


@frozen
class Checkpoints:
    """A finder, recognizer and reader of checkpoints, based on the plugins of one set.

    Headers are cached until their files change. No files stay open except those of returned sources, which the caller
    closes.
    """

    plugins: PluginSet
    _registry: Registry = field(
        init=False, default=Factory(lambda self: Registry(self.plugins), takes_self=True)
    )
    _reader: Reader = field(
        init=False, default=Factory(lambda self: _reader_of(self._registry), takes_self=True)
    )

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Return the models of the plugins, by priority."""
        return tuple(candidate.spec for candidate in self._registry.candidates(ModelSpec))

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """Return the components of all models, in the order of ``models``."""
        return tuple(component for model in self.models for component in model.components)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Return the sorted suffixes of weight files that the plugins can read, such as ``.safetensors``."""
        loaders = self._registry.candidates(WeightLoaderSpec)
        return tuple(sorted({suffix for loader in loaders for suffix in loader.spec.suffixes}))

    def locate(self, source: str | Path) -> Path:
        """Resolve a path by the rules of ``--model-path``: ``~``, the name of a checkpoint that comes with a plugin,
        and ``OWNER/NAME`` in the hub cache are expanded. The result need not exist.

        Raises ``CheckpointError`` if the path leaves the checkpoint that it names.
        """
        return expanded(place_of(source, self._registry))

    def locate_existing(self, source: str | Path, title: str = "source") -> Path:
        """Resolve a path like ``locate``. Raises ``RequestError``, which starts with ``title`` and suggests similar
        names, if the path does not exist or cannot be accessed."""
        path = self.locate(source)
        if reason := why_not(path):
            raise RequestError(f"{title} {short(str(source))} {reason}{near(path)}")
        return path

    def read_header(self, path: Path) -> Header:
        """Read the header of a weight file with the loader of its suffix. Raises ``CheckpointError`` if the file is
        broken, or no loader is installed."""
        return self._reader(path)

    def weight_files(self, folder: Path) -> tuple[CheckpointFiles, ...]:
        """Read the headers of the weight files in a folder: single files, shards, and networks split by blocks.

        Raises ``CheckpointError`` if a set of shards is incomplete, an index contradicts them, or a file is broken.
        """
        sets = []
        with filesystem_errors(folder):
            for suffix in self.suffixes:
                complete, broken = self._reader.sets(folder, f"*{suffix}", "network")
                if broken:
                    raise CheckpointError(f"{folder}: {broken[0][1]}")
                sets += [self._files_of(located) for located in complete]
        return tuple(sets)

    def locate_component(self, component: ComponentSpec, folder: Path) -> CheckpointFiles | None:
        """Find a component in a model's folder by the rules of a run; ``None`` if it is missing. Raises
        ``CheckpointError`` if there are several, or if files are broken."""
        located = locate_component(component, folder, None, self._reader)
        return None if located is None else self._files_of(located)

    def recognize(self, folder: Path) -> ModelFolder:
        """Recognize the model in a folder. Raises ``CheckpointError`` if no model or several recognize it, and
        ``PluginError`` if no model is installed."""
        match = recognize(
            RunConfig(model_path=str(folder)), self._registry, folder, BuildContext(), self._reader
        )
        components = {
            name: ModelComponent(
                spec=match.part(name),
                files=component.files,
                stored=component.stored,
                mapped=component.mapped,
                assets=component.assets,
            )
            for name, component in match.components.items()
        }
        return ModelFolder(
            path=folder,
            spec=match.spec,
            components=components,
            absent=tuple(match.part(name) for name in match.absent),
            config=_config_beside(next(iter(components.values())).files[0].parent, folder),
            match=match,
        )

    def open(self, header: Header) -> WeightSource:
        """Open the files of a header. Raises ``RequestError`` if they are of different types."""
        return open_source(header, self._registry, _CONTEXT)

    def dequantizer(self, format: str) -> Dequantize | None:
        """Return the function that dequantizes the layers of a weight format to float32: ``(tensors by suffix, layer)
        -> weight [out, in]``; ``None`` if no installed quantizer does so without loss."""
        if format in WEIGHT_FORMATS:
            return lambda tensors, layer: dequantize_weight(tensors, layer.format)
        for candidate in self._registry.candidates(QuantizerSpec):
            spec = candidate.spec
            if spec.exact and format in spec.formats and not candidate.reasons(_CONTEXT):
                return spec.build(default_options(spec), _CONTEXT).dequantize
        return None

    def read_lora(self, path: str, folder: Path) -> LoraFile:
        """Read the header of a LoRA file, searched at ``path``, in a model's ``folder`` and in its ``loras``. Raises
        ``RequestError`` if it is missing, and ``CheckpointError`` if it is broken or not a LoRA file."""
        where, header = lora_file(path, folder, self._registry)
        return LoraFile(path=where, header=header, for_two_networks=len(sections_of(header)) == 2)

    def fit_lora(
        self,
        config: LoraConfig,
        lora: LoraFile,
        *,
        component: str,
        shapes: Mapping[str, Sequence[int]],
        layouts: Sequence[KeyMap] = (),
        title: str,
        experts: Sequence[str] = (),
        reason: str,
        strict: bool = False,
    ) -> LoraFit:
        """Fit a LoRA file to one network, whose tensors have these ``shapes`` by official names.

        ``layouts`` are other names that the file may use; ``experts`` are the components that denoise in turn if
        ``component`` is one of two; ``title`` names the network in messages; ``reason`` states why the file is for it.
        Raises ``RequestError`` if the file has no effect on the network, is for another model, or has no clear scale;
        with ``strict``, also if a part of it has no effect.
        """
        network = Network(
            component=component,
            expected={name: tuple(shape) for name, shape in shapes.items()},
            layouts=layouts,
            title=title,
            experts=tuple(experts),
        )
        part = section_of(lora.header, component, network.experts)
        adapter = fitted(config, lora.path, lora.header, part, network, reason)
        check_fit(adapter, network, strict=strict)
        return _lora_fit(adapter)

    def fit_loras(
        self, configs: Sequence[LoraConfig], model: ModelFolder, *, strict: bool = False
    ) -> tuple[LoraFit, ...]:
        """Fit LoRA files to the networks of a model by the rules of a run; a file for two networks is listed twice.
        Raises ``RequestError`` as ``fit_lora`` does, and for a file whose network is ambiguous."""
        adapters = resolve_adapters(configs, model._match, self._registry, model.path, strict=strict)
        return tuple(map(_lora_fit, adapters))

    def open_adapter(self, lora: LoraFit) -> Adapter:
        """Open a LoRA file as an adapter with scaled changes; the caller closes its ``source``. Raises
        ``CheckpointError`` for an alpha that is not finite."""
        adapter, config = lora._adapter, lora.config
        source = self.open(adapter.header)
        try:
            changes = scaled(
                adapter.coverage.changes,
                source,
                stated=adapter.stated.strengths,
                alpha=config.alpha,
                override=config.alpha_override,
            )
        except BaseException:
            source.close()
            raise
        return Adapter(source=source, changes=changes, strength=config.strength, name=lora.path.name)

    def merged(self, source: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return a source that merges adapters, in their order, into tensors on read; each tensor keeps its dtype."""
        spec = self._registry.find(LoraApplierSpec, "merge").spec
        return spec.build(spec.config(), _CONTEXT).merged(source, adapters)

    def _files_of(self, located: FileSet) -> CheckpointFiles:
        header = self._reader.whole(located.files)
        if located.index is not None:
            check_index(located.index, self._reader.weight_map(located.index), header)
        return CheckpointFiles(files=located.files, header=header)


def lora_notes(loras: Sequence[LoraFit]) -> tuple[list[str], list[str]]:
    """Return the notes and warnings about applied LoRA files, each a sentence."""
    return adapter_notes([lora._adapter for lora in loras])


def _lora_fit(adapter: AdapterFit) -> LoraFit:
    return LoraFit(
        config=adapter.config,
        path=Path(adapter.planned.path),
        component=adapter.planned.component,
        adapter=adapter,
    )


def _reader_of(registry: Registry) -> Reader:
    read: Callable[[Path], Header] = lambda path: read_header(registry, path)  # noqa: E731
    return Reader(read)


def _config_beside(weights: Path, folder: Path) -> Path | None:
    places = [weights, *(folder / name for name in CONFIG_FOLDERS)]
    return next((path for place in places if os.path.isfile(path := place / "config.json")), None)
