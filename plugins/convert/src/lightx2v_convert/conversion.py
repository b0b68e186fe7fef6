"""A complete conversion."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from attrs import asdict, evolve, frozen

from lightx2v_convert import __version__
from lightx2v_convert.merging import fit_loras
from lightx2v_convert.model_folder import FolderConversion, NetworkConversion, plan_folder
from lightx2v_convert.network import Network, find_network
from lightx2v_convert.network_reader import NetworkReader
from lightx2v_convert.options import ConvertOptions, check
from lightx2v_convert.output_files import (
    OutputFile,
    OutputTensor,
    config_of,
    files,
    index_of,
    output_tensors,
    stem_of,
)
from lightx2v_convert.workspace import Workspace, check_output, is_file, tidy
from lightx2v_core.api import (
    Emit,
    PhaseDone,
    PhaseStarted,
    PluginSet,
    Progress,
    RequestError,
    Warned,
    distilled_by,
    load_plugins,
    says_distilled,
)
from lightx2v_core.weights import (
    DISTILLED_BY,
    Checkpoints,
    fingerprint,
    first_network_config,
    lora_notes,
)

#: name of the configuration file of a transformer
CONFIG = "config.json"
#: metadata key with the history of a file
MADE_BY = "lightx2v_convert"


@frozen(kw_only=True)
class Conversion:
    """The result of a conversion."""

    files: tuple[Path, ...]
    #: size of ``files``
    nbytes: int
    #: number of quantized layers
    layers: int
    #: format of the quantized layers; empty if not requested
    format: str
    #: layer -> ``relative_rmse`` and ``max_error`` of its quantized weight
    report: Mapping[str, Mapping[str, float]]
    #: names of files copied unchanged
    copied: tuple[str, ...] = ()
    #: descriptions of files that a run needs and the source lacks
    lacking: tuple[str, ...] = ()


def convert(
    source: str | Path,
    output: str | Path,
    options: ConvertOptions = ConvertOptions(),  # noqa: B008 (frozen)
    *,
    plugins: PluginSet | None = None,
    overwrite: bool = False,
    copy: tuple[str, ...] = (CONFIG,),
    emit: Emit = lambda _event: None,
    named: Callable[[], None] = lambda: None,
) -> Conversion:
    """Convert the weights of ``source``.

    ``output`` is a file for one unsplit network, otherwise a folder, which also gets the files listed in ``copy`` if
    they are next to the source. A model folder is converted to a folder of the same model if no component is requested
    and ``output`` is a folder. ``named`` is called when the result has its final name, before a signal that arrived
    meanwhile takes effect.

    One tensor is in memory at a time. If the process is killed, no loadable files are left, and the same call resumes.
    Raises ``RequestError`` or a subclass before anything is written, and ``CheckpointError`` for weights that are not
    finite.
    """
    check(options)
    checkpoints = Checkpoints(plugins or load_plugins())
    output = Path(output).expanduser()
    single = is_file(output)
    if options.split != "single" and single:
        raise RequestError(f"output {str(output)!r} is a file; a split result needs a folder")
    if output.is_dir():
        output = output.resolve()  # a folder cannot replace a link
    tidy(output)
    check_output(output, folder=not single, overwrite=overwrite)
    whole = _plan(source, output, checkpoints, options, copy)
    notes, warnings = lora_notes([lora for conversion in whole.networks for lora in conversion.loras])
    for text in (*notes, *warnings):
        emit(Warned(message=text))
    with ExitStack() as opened:
        planned: list[tuple[list[OutputFile], NetworkReader]] = []
        others: dict[str, bytes] = {}
        for conversion in whole.networks:
            reader = NetworkReader(conversion, checkpoints, opened)
            network_files, small = _planned(conversion, reader, output.name if single else None)
            planned.append((network_files, reader))
            others |= small
        copies = {} if single else {name: path for name, path in whole.copies.items() if name not in others}
        out = [file for network_files, _ in planned for file in network_files]
        names = [file.name for file in out]
        _check_names([*names, *others, *copies], output)
        workspace = Workspace(output, _job(out, output, options), names, [*others, *copies])
        opened.callback(workspace.close)
        done = workspace.open()
        _write(workspace, planned, done, emit)
        report = dict(workspace.report)
        workspace.publish(names, others, copies, overwrite, named, folder=not single)
    return Conversion(
        files=(output,) if single else tuple(output / name for name in names),
        nbytes=sum(len(file.head()) + file.nbytes for file in out),
        layers=sum(len(reader.quantized) for _, reader in planned),
        format=options.format or "",
        report=report,
        copied=tuple(copies),
        lacking=whole.lacking,
    )


def _plan(
    source: str | Path,
    output: Path,
    checkpoints: Checkpoints,
    options: ConvertOptions,
    copy: tuple[str, ...],
) -> FolderConversion:
    """Plan the networks to convert, and the files to copy with their names in the output."""
    reason = ""
    if options.component is None and not is_file(output):
        whole = plan_folder(source, output, checkpoints, options)
        if isinstance(whole, FolderConversion):
            folder = checkpoints.locate(source)
            beside = {name: folder / name for name in copy if name != CONFIG}
            return evolve(whole, copies={**_there(beside), **whole.copies})
        reason = whole
    network = find_network(source, checkpoints, options.component, reason)
    # the configuration next to an encoder or a VAE is that of the transformer
    own = network.component is None or network.component.main
    beside = {name: network.files[0].parent / name for name in copy if own or name != CONFIG}
    path = checkpoints.locate(source)
    loras = fit_loras(network, options, checkpoints, path if path.is_dir() else path.parent)
    conversion = NetworkConversion(network=network, options=options, loras=loras)
    return FolderConversion(networks=(conversion,), copies=_there(beside))


def _there(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if path.is_file()}


def _planned(
    conversion: NetworkConversion, reader: NetworkReader, name: str | None
) -> tuple[list[OutputFile], dict[str, bytes]]:
    """Plan the files of a network and the small files next to them. ``name`` is set for a single output file."""
    network, options = conversion.network, conversion.options
    stem = conversion.stem or stem_of(network.spec, options.layout)
    tensors = output_tensors(reader.tensors(), network.spec, options)
    planned = files(tensors, options, name, stem)
    planned = [evolve(file, metadata=_metadata(conversion)) for file in planned]
    others = {}
    if options.split != "single":
        sizes = {file.name: len(file.head()) + file.nbytes for file in planned}
        others[f"{stem}.safetensors.index.json"] = index_of(planned, sizes)
    if name is None and (config := _config(network, reader, options)) is not None:
        others[CONFIG] = config
    return planned, others


def _check_names(names: list[str], output: Path) -> None:
    """Raise ``RequestError`` if two files of a folder would have the same name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(
            f"{', '.join(twice)} would exist twice in {str(output)!r}; convert one network at a time, with "
            "--component, or rename the files of the source"
        )


def _write(
    workspace: Workspace, planned: list[tuple[list[OutputFile], NetworkReader]], done: int, emit: Emit
) -> None:
    total = sum(file.nbytes for network_files, _ in planned for file in network_files)
    began = time.perf_counter()
    emit(PhaseStarted(phase="convert", total=total, unit="bytes"))
    emit(Progress(phase="convert", done=done, total=total))

    def tell(tensor: OutputTensor) -> None:
        nonlocal done
        done = min(done + tensor.nbytes, total)
        emit(Progress(phase="convert", done=done, total=total, detail=tensor.name))

    with torch.no_grad():
        for network_files, reader in planned:
            reader.report = workspace.report
            for file in network_files:
                workspace.write(file, reader.read, tell)
    emit(PhaseDone(phase="convert", seconds=time.perf_counter() - began))


def _config(network: Network, reader: NetworkReader, options: ConvertOptions) -> bytes | None:
    """Convert the ``config.json`` next to the source to the layout of the output; ``None`` if that has none."""
    folder = network.files[0].parent
    official = first_network_config([folder, folder.parent])
    config = config_of(official, reader.tensors(), network.spec, options.layout)
    return None if config is None else json.dumps(config, indent=2).encode()


def _metadata(conversion: NetworkConversion) -> dict[str, str]:
    """Build the metadata with the history of a file. Other readers expect ``format``."""
    network, options = conversion.network, conversion.options
    made = {
        "version": __version__,
        "source": [path.name for path in network.files],
        "source_hash": fingerprint(network.files),
        "settings": options.settings(),
    }
    metadata = {"format": "pt", MADE_BY: json.dumps(made, default=str, sort_keys=True)}
    return {**metadata, DISTILLED_BY: name} if (name := _distilled(conversion)) else metadata


def _distilled(conversion: NetworkConversion) -> str:
    """Return the file name of a LoRA or of the source that marks the result as distilled; empty if there is none."""
    network = conversion.network
    merged = (lora.path.name for lora in conversion.loras if lora.config.strength > 0)
    if network.component is not None and not network.component.main:
        return ""
    names = (*merged, distilled_by(network.stored.metadata), *(file.name for file in network.files))
    return next(filter(says_distilled, names), "")


def _job(planned: list[OutputFile], output: Path, options: ConvertOptions) -> str:
    """Compute the identity of a conversion, so that only the same one is resumed."""
    files = (json.dumps(asdict(file), sort_keys=True, default=str) for file in planned)
    data = [str(output.absolute()), str(options.report), *files]
    return hashlib.sha256("\n".join(data).encode()).hexdigest()
