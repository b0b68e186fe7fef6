"""A conversion from beginning to end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from lightx2v_core import __version__
from lightx2v_core.answers import default_options
from lightx2v_core.build import open_source
from lightx2v_core.checkpoint.fingerprint import fingerprint
from lightx2v_core.checkpoint.folders import first_config
from lightx2v_core.checkpoint.formats import MARKER, layer_formats
from lightx2v_core.checkpoint.layouts import MappedSource
from lightx2v_core.checkpoint.quantized import DecodedSource, QuantizedSource, stored_as
from lightx2v_core.checkpoint.widened import WidenedSource
from lightx2v_core.codes import FORMATS as CODED
from lightx2v_core.codes import decode_weight, encode_weight, weight_error
from lightx2v_core.convert.merging import adapters_of
from lightx2v_core.convert.options import ConvertOptions, check
from lightx2v_core.convert.pieces import pieces
from lightx2v_core.convert.subject import Subject, find
from lightx2v_core.convert.target import OutFile, OutTensor, config_of, files, index_of, out_tensors, stem_of
from lightx2v_core.convert.workspace import Workspace, check_output, tidy
from lightx2v_core.errors import RequestError, suggestion
from lightx2v_core.events import Emit, PhaseDone, PhaseStarted, Progress, ignore
from lightx2v_core.plugins import PluginSet, load_plugins
from lightx2v_core.protocols import Quantizer, WeightSource
from lightx2v_core.quantization import quantizable, takes
from lightx2v_core.registry import Registry
from lightx2v_core.specs import BuildContext, LoraApplierSpec, QuantizerSpec
from lightx2v_core.tensors import LayerFormat, TensorInfo

#: key of the metadata that says how a file was made
MADE_BY = "lightx2v_convert"


@frozen(kw_only=True)
class Converted:
    """What was written. Sizes in bytes; ``report`` has the error of each quantized layer against its source."""

    files: tuple[Path, ...]
    nbytes: int
    layers: int
    format: str
    report: Mapping[str, Mapping[str, float]]


def convert(
    source: str | Path,
    output: str | Path,
    options: ConvertOptions = ConvertOptions(),  # noqa: B008 (frozen)
    *,
    plugins: PluginSet | None = None,
    overwrite: bool = False,
    copy: tuple[str, ...] = ("config.json",),
    emit: Emit = ignore,
    named: Callable[[], None] = lambda: None,
) -> Converted:
    """Convert the weights of ``source``. ``output`` is a file for one that is not split, a folder otherwise, which gets
    the files named in ``copy`` too where they lie beside the source. ``named`` is called when the result has its name,
    before a signal that arrived meanwhile has an effect.

    Streams: a tensor at a time is held. Killed at any moment, nothing that loads is left, and the same call goes on.
    ``RequestError`` (and its kinds) before anything is written; ``CheckpointError`` for weights that are not finite.
    """
    check(options)
    registry = Registry(plugins or load_plugins())
    output = Path(output).expanduser()
    single = options.split == "single" and output.suffix == ".safetensors"
    if options.split != "single" and output.suffix == ".safetensors":
        raise RequestError(f"output {str(output)!r} is a file; a result in several files takes a folder")
    if output.is_dir():
        output = output.resolve()  # a link cannot be replaced by a folder
    tidy(output)
    check_output(output, folder=not single, overwrite=overwrite)
    subject = find(source, registry, options.component)
    with ExitStack() as opened:
        recipe = _Recipe(subject, options, registry, opened)
        stem = stem_of(subject.spec, options.layout)
        tensors = out_tensors(recipe.tensors(), subject.spec, options)
        planned = files(tensors, options, output.name if single else None, stem)
        planned = [evolve(file, metadata=_metadata(subject, options)) for file in planned]
        beside = {item: subject.files[0].parent / item for item in copy}
        copies = {} if single else {item: path for item, path in beside.items() if path.is_file()}
        sizes = {file.name: len(file.head()) + file.nbytes for file in planned}
        others = (
            {f"{stem}.safetensors.index.json": index_of(planned, sizes)} if options.split != "single" else {}
        )
        if not single and (config := _config(subject, recipe, options)) is not None:
            others["config.json"], copies = config, {k: v for k, v in copies.items() if k != "config.json"}
        names = [file.name for file in planned]
        workspace = Workspace(output, _job(planned, output, options), names, [*others, *copies])
        opened.callback(workspace.close)
        done = workspace.open()
        recipe.report = workspace.report
        _write(workspace, planned, recipe, options, done, emit)
        report = dict(workspace.report)
        workspace.publish({name: name for name in names}, others, copies, overwrite, named)
    written = (output,) if single else tuple(output / file.name for file in planned)
    return Converted(
        files=written,
        nbytes=sum(sizes.values()),
        layers=len(recipe.made),
        format=options.format or "",
        report=report,
    )


def _write(
    workspace: Workspace,
    planned: list[OutFile],
    recipe: _Recipe,
    options: ConvertOptions,
    done: int,
    emit: Emit,
) -> None:
    total = sum(file.nbytes for file in planned)
    began = time.perf_counter()
    emit(PhaseStarted(phase="convert", total=total, unit="bytes"))
    emit(Progress(phase="convert", done=done, total=total))

    def told(tensor: OutTensor) -> None:
        nonlocal done
        done = min(done + tensor.nbytes, total)
        emit(Progress(phase="convert", done=done, total=total, detail=tensor.name))

    with torch.no_grad():
        for file in planned:
            workspace.write(
                file, lambda tensor: pieces(tensor, recipe.source, recipe.copied, options.device), told
            )
    emit(PhaseDone(phase="convert", seconds=time.perf_counter() - began))


class _Recipe:
    """How every tensor of the result is read: official names, decoded, adapters merged, quantized."""

    def __init__(
        self, subject: Subject, options: ConvertOptions, registry: Registry, opened: ExitStack
    ) -> None:
        ctx = BuildContext(dtype="float32")
        self.report: dict[str, Any] = {}
        base = open_source(subject.stored, registry, ctx)
        opened.callback(base.close)
        source: WeightSource = MappedSource(base, subject.mapped) if subject.mapped.renamed else base
        stored = layer_formats(subject.header)
        self._drop = options.drop
        adapters, changed = adapters_of(subject, options.loras, registry, ctx, opened)
        again = {name: layer for name, layer in stored.items() if name in changed}
        decoded = dict(stored) if options.quantize is not None else again
        decoded = {name: layer for name, layer in decoded.items() if not layer.format.endswith("-plain")}
        if decoded:
            source = DecodedSource(source, decoded, _decoding(decoded, registry, ctx))
        self.made = self._targets(source, subject, options, again)
        touched = {change.target for item in adapters for change in item.changes}
        if adapters:
            # what gets another dtype or is quantized behind this is not rounded to that of its file before
            rounded = (
                set() if options.dtype or options.full else touched - {f"{name}.weight" for name in self.made}
            )
            source = WidenedSource(source, touched - rounded)
            applier = registry.find("lora_applier", "merge").spec
            assert isinstance(applier, LoraApplierSpec)
            source = applier.build(applier.config(), ctx).merged(source, adapters)
        if self.made:
            source = QuantizedSource(
                source, self.made, encode_weight, self._measure if options.report else None
            )
        self.source = source
        self.copied = {
            name: info
            for name, info in subject.header.tensors.items()
            if info.offset is not None
            and info.file.suffix == ".safetensors"
            and subject.mapped.stored[name] == (info.name,)
            and name not in touched
            and name.rpartition(".")[0] not in {**self.made, **decoded}
        }

    def tensors(self) -> dict[str, TensorInfo]:
        """What there is to write, by official name."""
        found = {}
        for name in self.source.names():
            if name.rpartition(".")[2] != MARKER and not any(
                fnmatchcase(name, pattern) for pattern in self._drop
            ):
                found[name] = self.source.info(name)
        return found

    @staticmethod
    def _targets(
        source: WeightSource, subject: Subject, options: ConvertOptions, again: Mapping[str, LayerFormat]
    ) -> dict[str, LayerFormat]:
        """Layers that are quantized when they are read, as what."""
        if options.full or options.quantize == "none":
            return {}
        format = options.format
        if format is None:  # layers that an adapter changed go back into their format
            if unknown := [layer for layer in again.values() if layer.format not in CODED]:
                raise RequestError(
                    f"{unknown[0].weight.file.name} holds {unknown[0].weight.name} in {unknown[0].format}, which "
                    "is not written once a LoRA is merged into it; say what into, with --quantize"
                )
            return {
                name: stored_as(
                    name, layer.format.removesuffix("-static"), source.info(f"{name}.weight"), encode_weight
                )
                for name, layer in again.items()
                if "weight" in layer.tensors
            }
        if format not in CODED or format.endswith(("-plain", "-static")):
            known = sorted(name for name in CODED if not name.endswith(("-plain", "-static")))
            raise RequestError(
                f"no format {format!r} is made here{suggestion(format, known)}; known are {', '.join(known)}"
            )
        header = evolve(subject.header, tensors={name: source.info(name) for name in source.names()})
        layers = [name for name in quantizable(subject.spec, header) if takes(options, name)]
        if not layers:
            raise RequestError(
                f"the {subject.spec.summary} has no layers that can be quantized, or --only leaves none"
            )
        return {
            name: stored_as(name, format, source.info(f"{name}.weight"), encode_weight) for name in layers
        }

    def _measure(self, layer: LayerFormat, plain: Tensor, stored: Mapping[str, Tensor]) -> None:
        relative, largest = weight_error(plain, stored, layer.format)
        self.report[layer.name] = {"relative_rmse": relative, "max_error": largest}


def _config(subject: Subject, recipe: _Recipe, options: ConvertOptions) -> bytes | None:
    """The ``config.json`` of another layout, made of the one beside the source."""
    folder = subject.files[0].parent
    official = first_config([folder, folder.parent])
    config = config_of(official, recipe.tensors(), subject.spec, options.layout)
    return None if config is None else json.dumps(config, indent=2).encode()


def _decoding(
    layers: Mapping[str, LayerFormat], registry: Registry, ctx: BuildContext
) -> Callable[[Mapping[str, Tensor], LayerFormat], Tensor]:
    """What decodes these layers: the core, or a quantizer that computes with exactly what is stored. ``RequestError``
    when a format is unknown to all of them."""
    by_format: dict[str, Quantizer] = {}
    for layer in layers.values():
        if layer.format in CODED or layer.format in by_format:
            continue
        for item in registry.candidates("quantizer"):
            spec: Any = item.spec
            assert isinstance(spec, QuantizerSpec)
            if spec.exact and layer.format in spec.formats and not item.reasons(ctx):
                by_format[layer.format] = spec.build(default_options(spec), ctx)
                break
        else:
            raise RequestError(
                f"{layer.weight.file.name} holds {layer.weight.name} in {layer.format}, which nothing installed here "
                "decodes; without --quantize and --lora it can be split and renamed"
            )

    def decode(tensors: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        quantizer = by_format.get(layer.format)
        return (
            decode_weight(tensors, layer.format)
            if quantizer is None
            else quantizer.dequantize(tensors, layer)
        )

    return decode


def _metadata(subject: Subject, options: ConvertOptions) -> dict[str, str]:
    """How the file came about. ``format`` is what other readers want to see."""
    made = {
        "version": __version__,
        "source": [path.name for path in subject.files],
        "source_hash": fingerprint(subject.files),
        "settings": options.settings(),
    }
    return {"format": "pt", MADE_BY: json.dumps(made, default=str, sort_keys=True)}


def _job(planned: list[OutFile], output: Path, options: ConvertOptions) -> str:
    """What tells one conversion from another, so that only the same one is gone on with."""
    files = (json.dumps(asdict(file), sort_keys=True, default=str) for file in planned)
    data = [str(output.absolute()), str(options.report), *files]
    return hashlib.sha256("\n".join(data).encode()).hexdigest()
