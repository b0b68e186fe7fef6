"""A conversion from beginning to end."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from lightx2v_core.checkpoint.fingerprint import fingerprint
from lightx2v_core.checkpoint.folders import expanded, first_network_config
from lightx2v_core.checkpoint.formats import SCALED_FP8_MARKER, layer_formats
from lightx2v_core.checkpoint.layouts import MappedSource
from lightx2v_core.checkpoint.quantized import DecodedSource, QuantizedSource, quantized_layer
from lightx2v_core.checkpoint.widened import WidenedSource
from lightx2v_core.convert.merging import adapters_for, opened_adapters
from lightx2v_core.convert.options import ConvertOptions, check
from lightx2v_core.convert.pieces import pieces
from lightx2v_core.convert.subject import Subject, find
from lightx2v_core.convert.target import OutFile, OutTensor, config_of, files, index_of, out_tensors, stem_of
from lightx2v_core.convert.whole import Part, Whole, whole_of
from lightx2v_core.convert.workspace import Workspace, check_output, is_file, tidy
from lightx2v_core.discovery.answers import default_options
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import RequestError, suggestion
from lightx2v_core.events import Emit, PhaseDone, PhaseStarted, Progress, Warned, ignore
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.lora_fit import adapter_notes
from lightx2v_core.plan.quantization import quantizable_layers, takes
from lightx2v_core.quant.arithmetic import CODE_FORMATS as CODED
from lightx2v_core.quant.arithmetic import dequantize_weight, quantize_weight, weight_error
from lightx2v_core.runtime.build import open_source
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.file_names import DISTILLED_BY, distilled_by, says_distilled
from lightx2v_core.spec.protocols import Quantizer, WeightSource
from lightx2v_core.spec.specs import LoraApplierSpec, QuantizerSpec
from lightx2v_core.spec.tensors import LayerFormat, TensorInfo
from lightx2v_core.spec.version import __version__

#: what says of which sizes a transformer is
CONFIG = "config.json"
#: key of the metadata that says how a file was made
MADE_BY = "lightx2v_convert"


@frozen(kw_only=True)
class Converted:
    """What was written. Sizes in bytes; ``report`` has the error of each quantized layer against its source. ``copied``
    are files that were taken as they are."""

    files: tuple[Path, ...]
    nbytes: int
    layers: int
    format: str
    report: Mapping[str, Mapping[str, float]]
    copied: tuple[str, ...] = ()
    #: what a run of the result needs beside it, in words, since the source had it not
    lacking: tuple[str, ...] = ()


def convert(
    source: str | Path,
    output: str | Path,
    options: ConvertOptions = ConvertOptions(),  # noqa: B008 (frozen)
    *,
    plugins: PluginSet | None = None,
    overwrite: bool = False,
    copy: tuple[str, ...] = (CONFIG,),
    emit: Emit = ignore,
    named: Callable[[], None] = lambda: None,
) -> Converted:
    """Convert the weights of ``source``. ``output`` is a file for one network that is not split, a folder otherwise,
    which gets the files named in ``copy`` too where they lie beside the source. The folder of a model becomes one of
    the same model, when no component is asked for and ``output`` is a folder. ``named`` is called when the result has
    its name, before a signal that arrived meanwhile has an effect.

    Streams: a tensor at a time is held. Killed at any moment, nothing that loads is left, and the same call goes on.
    ``RequestError`` (and its kinds) before anything is written; ``CheckpointError`` for weights that are not finite.
    """
    check(options)
    registry = Registry(plugins or load_plugins())
    output = Path(output).expanduser()
    single = is_file(output)
    if options.split != "single" and single:
        raise RequestError(f"output {str(output)!r} is a file; a result in several files takes a folder")
    if output.is_dir():
        output = output.resolve()  # a link cannot be replaced by a folder
    tidy(output)
    check_output(output, folder=not single, overwrite=overwrite)
    whole = _parts(source, output, registry, options, copy)
    notes, warnings = adapter_notes([item for part in whole.parts for item in part.adapters])
    for text in (*notes, *warnings):
        emit(Warned(message=text))
    with ExitStack() as opened:
        planned: list[tuple[list[OutFile], _Recipe]] = []
        others: dict[str, bytes] = {}
        for part in whole.parts:
            recipe = _Recipe(part, registry, opened)
            made, small = _planned(part, recipe, output.name if single else None)
            planned.append((made, recipe))
            others |= small
        copies = {} if single else {name: path for name, path in whole.copies.items() if name not in others}
        out = [file for made, _ in planned for file in made]
        names = [file.name for file in out]
        _check_names([*names, *others, *copies], output)
        workspace = Workspace(output, _job(out, output, options), names, [*others, *copies])
        opened.callback(workspace.close)
        done = workspace.open()
        _write(workspace, planned, done, emit)
        report = dict(workspace.report)
        workspace.publish(names, others, copies, overwrite, named, folder=not single)
    return Converted(
        files=(output,) if single else tuple(output / name for name in names),
        nbytes=sum(len(file.head()) + file.nbytes for file in out),
        layers=sum(len(recipe.made) for _, recipe in planned),
        format=options.format or "",
        report=report,
        copied=tuple(copies),
        lacking=whole.lacking,
    )


def _parts(
    source: str | Path, output: Path, registry: Registry, options: ConvertOptions, copy: tuple[str, ...]
) -> Whole:
    """The networks to convert, and the files that are copied beside them, by their names there."""
    reason = ""
    if options.component is None and not is_file(output):
        whole = whole_of(source, output, registry, options)
        if isinstance(whole, Whole):
            folder = expanded(place_of(source, registry))
            beside = {name: folder / name for name in copy if name != CONFIG}
            return evolve(whole, copies={**_there(beside), **whole.copies})
        reason = whole
    subject = find(source, registry, options.component, reason)
    # what lies beside an encoder or a VAE is the configuration of the transformer
    own = subject.part is None or subject.part.main
    beside = {name: subject.files[0].parent / name for name in copy if own or name != CONFIG}
    path = expanded(place_of(source, registry))
    adapters = adapters_for(subject, options, registry, path if path.is_dir() else path.parent)
    return Whole(parts=(Part(subject=subject, options=options, adapters=adapters),), copies=_there(beside))


def _there(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if path.is_file()}


def _planned(part: Part, recipe: _Recipe, name: str | None) -> tuple[list[OutFile], dict[str, bytes]]:
    """The files of a network, and the small ones that go with them. ``name`` is that of a file in no folder."""
    subject, options = part.subject, part.options
    stem = part.stem or stem_of(subject.spec, options.layout)
    tensors = out_tensors(recipe.tensors(), subject.spec, options)
    planned = files(tensors, options, name, stem)
    planned = [evolve(file, metadata=_metadata(part)) for file in planned]
    others = {}
    if options.split != "single":
        sizes = {file.name: len(file.head()) + file.nbytes for file in planned}
        others[f"{stem}.safetensors.index.json"] = index_of(planned, sizes)
    if name is None and (config := _config(subject, recipe, options)) is not None:
        others[CONFIG] = config
    return planned, others


def _check_names(names: list[str], output: Path) -> None:
    """``RequestError`` when two files of a folder would have the same name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(
            f"{', '.join(twice)} would be there twice in {str(output)!r}; convert one network at a time, with "
            "--component, or rename the files of the source"
        )


def _write(workspace: Workspace, planned: list[tuple[list[OutFile], _Recipe]], done: int, emit: Emit) -> None:
    total = sum(file.nbytes for made, _ in planned for file in made)
    began = time.perf_counter()
    emit(PhaseStarted(phase="convert", total=total, unit="bytes"))
    emit(Progress(phase="convert", done=done, total=total))

    def told(tensor: OutTensor) -> None:
        nonlocal done
        done = min(done + tensor.nbytes, total)
        emit(Progress(phase="convert", done=done, total=total, detail=tensor.name))

    with torch.no_grad():
        for made, recipe in planned:
            recipe.report = workspace.report
            for file in made:
                workspace.write(file, recipe.pieces, told)
    emit(PhaseDone(phase="convert", seconds=time.perf_counter() - began))


class _Recipe:
    """How every tensor of the result is read: official names, decoded, adapters merged, quantized."""

    def __init__(self, part: Part, registry: Registry, opened: ExitStack) -> None:
        subject, options = part.subject, part.options
        ctx = BuildContext(dtype="float32")
        self.report: dict[str, Any] = {}
        base = open_source(subject.stored, registry, ctx)
        opened.callback(base.close)
        source: WeightSource = MappedSource(base, subject.mapped) if subject.mapped.renamed else base
        stored = layer_formats(subject.header)
        self._drop, self._device, self._title = options.drop, options.device, part.title
        adapters, changed = opened_adapters(part.adapters, registry, ctx, opened)
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
                source, self.made, quantize_weight, self._measure if options.report else None
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
            if name.rpartition(".")[2] != SCALED_FP8_MARKER and not any(
                fnmatchcase(name, pattern) for pattern in self._drop
            ):
                found[name] = self.source.info(name)
        return found

    def pieces(self, tensor: OutTensor) -> Iterator[memoryview]:
        """The bytes of a tensor."""
        return pieces(tensor, self.source, self.copied, self._device)

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
                name: quantized_layer(
                    name, layer.format.removesuffix("-static"), source.info(f"{name}.weight"), quantize_weight
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
        layers = [name for name in quantizable_layers(subject.spec, header) if takes(options, name)]
        if not layers:
            raise RequestError(
                f"the {subject.spec.summary} has no layers that can be quantized, or --only leaves none"
            )
        return {
            name: quantized_layer(name, format, source.info(f"{name}.weight"), quantize_weight)
            for name in layers
        }

    def _measure(self, layer: LayerFormat, plain: Tensor, stored: Mapping[str, Tensor]) -> None:
        relative, largest = weight_error(plain, stored, layer.format)
        self.report[f"{self._title}{layer.name}"] = {"relative_rmse": relative, "max_error": largest}


def _config(subject: Subject, recipe: _Recipe, options: ConvertOptions) -> bytes | None:
    """The ``config.json`` of another layout, made of the one beside the source."""
    folder = subject.files[0].parent
    official = first_network_config([folder, folder.parent])
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
            dequantize_weight(tensors, layer.format)
            if quantizer is None
            else quantizer.dequantize(tensors, layer)
        )

    return decode


def _metadata(part: Part) -> dict[str, str]:
    """How the file came about. ``format`` is what other readers want to see."""
    subject, options = part.subject, part.options
    made = {
        "version": __version__,
        "source": [path.name for path in subject.files],
        "source_hash": fingerprint(subject.files),
        "settings": options.settings(),
    }
    found = {"format": "pt", MADE_BY: json.dumps(made, default=str, sort_keys=True)}
    return {**found, DISTILLED_BY: name} if (name := _distilled(part)) else found


def _distilled(part: Part) -> str:
    """The name that says that the network of the result is distilled: of a LoRA file, or of the source; empty when
    none does."""
    added = [item for item in part.adapters if item.planned.strength > 0]
    merged = (Path(item.planned.path).name for item in added)
    subject = part.subject
    if subject.part is not None and not subject.part.main:
        return ""
    names = (*merged, distilled_by(subject.stored.metadata), *(file.name for file in subject.files))
    return next(filter(says_distilled, names), "")


def _job(planned: list[OutFile], output: Path, options: ConvertOptions) -> str:
    """What tells one conversion from another, so that only the same one is gone on with."""
    files = (json.dumps(asdict(file), sort_keys=True, default=str) for file in planned)
    data = [str(output.absolute()), str(options.report), *files]
    return hashlib.sha256("\n".join(data).encode()).hexdigest()
