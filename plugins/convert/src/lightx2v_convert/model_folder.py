"""Conversion of a whole model folder: converted networks, their names, and copied files.

The result is one flat folder, like LightX2V's folders by precision (``fp8/``, ``int8/``): a run finds everything in
this layout, and a conversion creates it in one step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import evolve, frozen

from lightx2v_convert.network import Network, checked, identify
from lightx2v_convert.options import ConvertOptions
from lightx2v_convert.output_files import STEM
from lightx2v_core.api import ComponentSpec, LightX2VError, RequestError, says_distilled
from lightx2v_core.weights import (
    DISTILLED_FOLDERS,
    DTYPE_NAMES,
    Checkpoints,
    LoraFit,
    ModelComponent,
    claimed_precision,
    layer_formats,
    precision_of,
    quantizable_layers,
)

#: component -> tensors that LightX2V's converter omits; no supported model uses them
UNUSED: Mapping[str, tuple[str, ...]] = {"image_encoder": ("textual.*",)}
_SAFETENSORS = ".safetensors"
#: a precision in a file name, with the adjacent words that belong to it
_PRECISION = re.compile(
    r"(?<![a-z0-9])(scaled[-_])?(fp8|int8|bf16|fp16|fp32)([-_]e[45]m[23](fn)?)?([-_]scaled)?(?![a-z0-9])"
)
#: name of the precision of unquantized weights
_ORIGINAL = "original"
_DTYPES = {dtype: short for short, dtype in DTYPE_NAMES.items() if short != dtype}


@frozen(kw_only=True)
class NetworkConversion:
    """The conversion of one network."""

    network: Network
    options: ConvertOptions
    #: base name of its files; None: that of the layout
    stem: str | None = None
    #: prefix of its layer names in a report
    title: str = ""
    #: LoRA files to merge into it
    loras: tuple[LoraFit, ...] = ()


@frozen(kw_only=True)
class FolderConversion:
    """The conversion of a folder."""

    networks: tuple[NetworkConversion, ...]
    #: name in the output -> file to copy
    copies: Mapping[str, Path]
    #: descriptions of files that a run needs and the folder lacks
    lacking: tuple[str, ...] = ()


def plan_folder(
    source: str | Path, output: Path, checkpoints: Checkpoints, options: ConvertOptions
) -> FolderConversion | str:
    """Plan the conversion of a model folder.

    For any other source, returns the reason why it is not a model folder; empty for a file or a folder with one
    network. Raises ``RequestError`` for options that apply to one network only.
    """
    folder = checkpoints.locate(source)
    if not os.path.isdir(folder) or not checkpoints.models:
        return ""
    try:
        model = checkpoints.recognize(folder)
    except LightX2VError as exc:
        return str(exc)
    if len(model.components) < 2:
        return ""
    _check_options(options)
    mains = [name for name, component in model.components.items() if component.spec.main]
    _check_networks(mains, options)
    networks: list[NetworkConversion] = []
    copies: dict[str, Path] = {}
    loras = checkpoints.fit_loras(options.loras, model, strict=options.strict_lora)
    lacking = [spec.summary for spec in model.absent]
    for name, component in model.components.items():
        network = checked(identify(component.files, component.stored, checkpoints))
        if component.spec.main:
            stem = _network_name(component, folder, options, alone=len(mains) == 1)
            _check_distilled(component, folder, output, stem, options)
            title = "" if len(mains) == 1 else f"{name}: "
            merged = tuple(lora for lora in loras if lora.component == name)
            own = evolve(options, loras=tuple(lora.config for lora in merged))
            networks.append(
                NetworkConversion(network=network, options=own, stem=stem, title=title, loras=merged)
            )
        elif _has_layers(network):
            own = evolve(options, split="single", loras=(), drop=UNUSED.get(name, ()))
            stem = _encoder_name(component, options)
            networks.append(NetworkConversion(network=network, options=own, stem=stem, title=f"{name}: "))
        else:
            for file in component.files:
                _add(copies, _copy_name(file, component.spec), file)
        for asset, path in component.assets.items():
            if os.path.exists(path):
                _add(copies, _asset_name(asset, component.spec, folder), path)
            else:
                lacking.append(f"{asset} of the {component.spec.summary}")
    if model.config is not None:
        copies["config.json"] = model.config
    return FolderConversion(networks=tuple(networks), copies=copies, lacking=tuple(lacking))


def _check_options(options: ConvertOptions) -> None:
    if options.layout != "official":
        raise RequestError(
            f"--layout {options.layout} supports one network at a time, not a whole model; choose one with "
            "--component, such as dit"
        )
    if options.keep or options.only or options.drop:
        raise RequestError(
            "--keep, --only and --drop apply to one network, not to a whole model; choose one with --component, such "
            "as dit"
        )


def _check_networks(mains: list[str], options: ConvertOptions) -> None:
    if len(mains) < 2:
        return
    each = " and then ".join(f"--component {name}" for name in mains)
    if options.split == "blocks":
        raise RequestError(
            f"the blocks of {' and '.join(mains)} have the same names; use --split single or shards, or {each}, each "
            "with its own --output"
        )


def _has_layers(network: Network) -> bool:
    """Return whether a network has quantized or quantizable layers: encoders have, a VAE does not."""
    return bool(layer_formats(network.header)) or bool(quantizable_layers(network.spec, network.header))


def _network_name(component: ModelComponent, folder: Path, options: ConvertOptions, *, alone: bool) -> str:
    """Choose the base name for the files of a transformer. It keeps the expert and whether it is distilled."""
    distilled = says_distilled(_inside(component, folder))
    stem = component.files[0].stem
    if len(component.files) > 1 or stem == STEM or not (alone or component.spec.name in stem):
        stem = STEM if alone else f"{component.spec.name}_model"
    elif stem != "distill_model" and (options.quantize or options.dtype):
        tag = _precision(component, options)
        stem = _PRECISION.sub(tag, stem) if _PRECISION.search(stem) else f"{stem}-{tag}"
    if distilled and not says_distilled(stem):
        stem = "distill_model" if alone else f"distill_{stem}"
    return stem


def _check_distilled(
    component: ModelComponent, folder: Path, output: Path, stem: str, options: ConvertOptions
) -> None:
    """Raise ``RequestError`` if the output would lose the information that a network is distilled.

    File names of blocks do not contain it.
    """
    if (
        options.split == "blocks"
        and says_distilled(_inside(component, folder))
        and output.name not in DISTILLED_FOLDERS
    ):
        raise RequestError(
            f"{_inside(component, folder)} is distilled, which names of block files cannot express; use --split "
            f"single, which writes {stem}{_SAFETENSORS}, or an --output called {' or '.join(DISTILLED_FOLDERS)}"
        )


def _inside(component: ModelComponent, folder: Path) -> str:
    """Return the path of a component's first file within the model folder, in lower case."""
    path = component.files[0]
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix().lower()


def _encoder_name(component: ModelComponent, options: ConvertOptions) -> str:
    """Choose the usual file name of an encoder for the precision of the result."""
    tag = _precision(component, options)
    usual = [name for name in component.spec.files if name.endswith(_SAFETENSORS) and not _is_glob(name)]
    for wanted in (DTYPE_NAMES.get(tag, tag), ""):
        for name in usual:
            if claimed_precision(name) == wanted:
                return name.rpartition("/")[2].removesuffix(_SAFETENSORS)
    stem = component.files[0].stem
    return _PRECISION.sub(tag, stem) if _PRECISION.search(stem) else f"{stem}-{tag}"


def _precision(component: ModelComponent, options: ConvertOptions) -> str:
    """Return the precision of a result as used in file names: fp8, int8, bf16, ..."""
    stored = precision_of(component.mapped.header)
    if options.format is not None:
        return options.format.partition("-")[0]
    if options.quantize is None and stored != _ORIGINAL:
        return stored
    dtype = options.dtype or component.mapped.header.precision
    return _DTYPES.get(dtype, dtype)


def _copy_name(file: Path, part: ComponentSpec) -> str:
    """Choose the name of a copied file: its own if a run finds that, else the usual one."""
    names = [name.rpartition("/")[2] for name in part.files]
    if any(fnmatchcase(file.name, name) for name in names):
        return file.name
    usual = (name for name in names if not _is_glob(name) and name.endswith(file.suffix))
    return next(usual, file.name)


def _asset_name(asset: str, part: ComponentSpec, folder: Path) -> str:
    """Return the name of an asset next to the weights. Raises ``RequestError`` if it must be in a subfolder."""
    flat = next((path for path in part.assets[asset] if "/" not in path), None)
    if flat is None:
        raise RequestError(
            f"{folder}: the {asset} of its {part.summary} must be at {part.assets[asset][0]}, but a whole model is "
            "written into one folder; convert its networks one at a time, with --component"
        )
    return flat


def _add(copies: dict[str, Path], name: str, path: Path) -> None:
    if copies.setdefault(name, path) != path:
        raise RequestError(
            f"{copies[name]} and {path} would both be called {name}; convert one network at a time, with --component"
        )


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")
