"""What this machine has for a run, and what is known to go wrong with it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from attrs import asdict, frozen
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from lightx2v_core import __version__, device
from lightx2v_core.hookspecs import KINDS
from lightx2v_core.plugins import PluginSet
from lightx2v_core.specs import BuildContext, Device


@frozen(kw_only=True)
class KnownBad:
    """Versions of a package that are known to cause trouble."""

    package: str
    versions: str
    #: ``cuda`` when it matters on such devices only
    device: str
    trouble: str


#: as reported by the makers of other programs for these models
KNOWN_BAD = (
    KnownBad(
        package="torch",
        versions="==2.8.*",
        device="cuda",
        trouble="host memory grows from run to run; use torch 2.7, or 2.10 and later",
    ),
    KnownBad(
        package="torch",
        versions="==2.9.*",
        device="cuda",
        trouble="three-dimensional convolutions in bfloat16 take many times their memory, so a VAE may not fit; keep "
        "the VAE in float32 (the default), or use another version",
    ),
)
#: packages whose versions matter to a run, where they are installed
PACKAGES = (
    "torch", "safetensors", "huggingface_hub", "av", "numpy", "pillow", "tokenizers", "vllm", "xformers", "flash-attn",
    "sageattention", "torchao", "gguf",
)  # fmt: skip


@frozen(kw_only=True)
class Checkup:
    """The report."""

    core: str
    python: str
    system: str
    processors: int
    #: bytes; 0 when unknown
    memory: int
    device: Device
    #: why there is no accelerator, or that there is one
    device_why: str
    packages: Mapping[str, str]
    #: plugin -> state and version
    plugins: Mapping[str, str]
    #: kind -> implementation -> why it cannot be used here; empty: it can
    implementations: Mapping[str, Mapping[str, tuple[str, ...]]]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``."""
        return asdict(self)


def checkup(plugins: PluginSet) -> Checkup:
    """Look at this machine. Imports no torch."""
    found, why = device.probe()
    ctx = BuildContext(device=found, dtype="float32" if found.kind == "cpu" else "bfloat16")
    packages = {name: version for name in PACKAGES if (version := _version(name))}
    return Checkup(
        core=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        memory=device.host_memory(),
        device=found,
        device_why=why,
        packages=packages,
        plugins={
            plugin.name: f"{plugin.state} {plugin.version}".strip()
            + (f": {plugin.reason}" if plugin.reason else "")
            for plugin in plugins.plugins
        },
        implementations={
            kind: {item.qualified: tuple(item.reasons(ctx)) for item in plugins.provided(kind)}
            for kind in KINDS
        },
        problems=tuple(_problems(plugins, packages, found)),
    )


def _problems(plugins: PluginSet, packages: Mapping[str, str], found: Device) -> list[str]:
    problems = list(plugins.warnings)
    for bad in KNOWN_BAD:
        version = packages.get(bad.package)
        if version is not None and bad.device == found.kind and _is(version, bad.versions):
            problems.append(f"{bad.package} {version}: {bad.trouble}")
    return problems


def _is(version: str, versions: str) -> bool:
    try:
        return SpecifierSet(versions, prereleases=True).contains(Version(version).public)
    except InvalidVersion:
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
