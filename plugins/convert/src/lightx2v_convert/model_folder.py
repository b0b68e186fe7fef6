"""A model's whole folder as one conversion: which parts of it are converted, under which names, and what is copied.

The result lies flat in one folder, as the folders by precision of LightX2V do (``fp8/``, ``int8/``): that is one of the
layouts that a run finds everything in, and one that a conversion makes in one step.
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

#: what the original converter leaves out of a component: no model here uses it
UNUSED: Mapping[str, tuple[str, ...]] = {"image_encoder": ("textual.*",)}
_SAFETENSORS = ".safetensors"
#: a precision in the name of a file, with the words around it that belong to it
_PRECISION = re.compile(
    r"(?<![a-z0-9])(scaled[-_])?(fp8|int8|bf16|fp16|fp32)([-_]e[45]m[23](fn)?)?([-_]scaled)?(?![a-z0-9])"
)
#: the precision of weights that are not quantized
_ORIGINAL = "original"
_DTYPES = {dtype: short for short, dtype in DTYPE_NAMES.items() if short != dtype}


@frozen(kw_only=True)
class NetworkConversion:
    """A network that is converted, and to what. ``stem`` is what its files are called; None: what the layout calls
    them."""

    network: Network
    options: ConvertOptions
    stem: str | None = None
    #: what its layers are called in a report, in front of their own names
    title: str = ""
    #: LoRA files that are merged into it
    loras: tuple[LoraFit, ...] = ()


@frozen(kw_only=True)
class FolderConversion:
    """What becomes of a folder: the networks that are converted, and files that are copied, by their new names."""

    networks: tuple[NetworkConversion, ...]
    copies: Mapping[str, Path]
    #: what a run needs and the folder has not, in words
    lacking: tuple[str, ...] = ()


def plan_folder(
    source: str | Path, output: Path, checkpoints: Checkpoints, options: ConvertOptions
) -> FolderConversion | str:
    """Decide what to convert when ``source`` is the folder of a model. Else the answer is why it is not taken for one,
    empty for a file or for a folder of one network. ``RequestError`` for options that say something of one network
    only."""
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
            f"--layout {options.layout} is written for one network at a time, and a whole model is given; say which "
            "with --component, such as dit"
        )
    if options.keep or options.only or options.drop:
        raise RequestError(
            "--keep, --only and --drop name layers of one network, and a whole model is given; say which with "
            "--component, such as dit"
        )


def _check_networks(mains: list[str], options: ConvertOptions) -> None:
    if len(mains) < 2:
        return
    each = " and then ".join(f"--component {name}" for name in mains)
    if options.split == "blocks":
        raise RequestError(
            f"the blocks of {' and '.join(mains)} have the same names; use --split single or shards, or {each}, with "
            "an --output of its own"
        )


def _has_layers(network: Network) -> bool:
    """Whether a network has layers that can be quantized, or are: encoders have, a VAE has not."""
    return bool(layer_formats(network.header)) or bool(quantizable_layers(network.spec, network.header))


def _network_name(component: ModelComponent, folder: Path, options: ConvertOptions, *, alone: bool) -> str:
    """The name of the files of a transformer. It says what the name before said: which expert it is, and whether it is
    distilled."""
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
    """``RequestError`` when nothing would say any more that a network is distilled: names of blocks do not."""
    if (
        options.split == "blocks"
        and says_distilled(_inside(component, folder))
        and output.name not in DISTILLED_FOLDERS
    ):
        raise RequestError(
            f"{_inside(component, folder)} is distilled, which files split by blocks do not say; use --split single, "
            f"which makes {stem}{_SAFETENSORS}, or an --output called {' or '.join(DISTILLED_FOLDERS)}"
        )


def _inside(component: ModelComponent, folder: Path) -> str:
    """Where a component's first file is in the model's folder, in small letters."""
    path = component.files[0]
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix().lower()


def _encoder_name(component: ModelComponent, options: ConvertOptions) -> str:
    """The usual name of an encoder's file in the precision that it will have."""
    tag = _precision(component, options)
    usual = [name for name in component.spec.files if name.endswith(_SAFETENSORS) and not _is_glob(name)]
    for wanted in (DTYPE_NAMES.get(tag, tag), ""):
        for name in usual:
            if claimed_precision(name) == wanted:
                return name.rpartition("/")[2].removesuffix(_SAFETENSORS)
    stem = component.files[0].stem
    return _PRECISION.sub(tag, stem) if _PRECISION.search(stem) else f"{stem}-{tag}"


def _precision(component: ModelComponent, options: ConvertOptions) -> str:
    """The precision of a result, as names of files say it: fp8, int8, bf16, ..."""
    stored = precision_of(component.mapped.header)
    if options.format is not None:
        return options.format.partition("-")[0]
    if options.quantize is None and stored != _ORIGINAL:
        return stored
    dtype = options.dtype or component.mapped.header.precision
    return _DTYPES.get(dtype, dtype)


def _copy_name(file: Path, part: ComponentSpec) -> str:
    """The name of a copied file: its own where a run looks for that, else the usual one."""
    names = [name.rpartition("/")[2] for name in part.files]
    if any(fnmatchcase(file.name, name) for name in names):
        return file.name
    usual = (name for name in names if not _is_glob(name) and name.endswith(file.suffix))
    return next(usual, file.name)


def _asset_name(asset: str, part: ComponentSpec, folder: Path) -> str:
    """The name of an asset that lies beside the weights. ``RequestError`` when it has to be in a folder of its own."""
    flat = next((path for path in part.assets[asset] if "/" not in path), None)
    if flat is None:
        raise RequestError(
            f"{folder}: the {asset} of its {part.summary} is looked for in {part.assets[asset][0]} only, and a whole "
            "model is written into one folder; convert its networks one at a time, with --component"
        )
    return flat


def _add(copies: dict[str, Path], name: str, path: Path) -> None:
    if copies.setdefault(name, path) != path:
        raise RequestError(
            f"{copies[name]} and {path} would both be called {name}; convert one network at a time, with --component"
        )


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")
