"""A report on this machine: device, packages, plugins and known problems."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from attrs import asdict, frozen
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from lightx2v_core.discovery.plugins import PluginSet, Provided
from lightx2v_core.plan import device
from lightx2v_core.runtime.proof.claim import KERNELS, Verdict
from lightx2v_core.spec.context import BuildContext, Device
from lightx2v_core.spec.hooks import KINDS
from lightx2v_core.spec.version import __version__


@frozen(kw_only=True)
class KnownBad:
    """Package versions with a known problem."""

    package: str
    versions: str
    #: type of the devices affected, such as ``cuda``
    device: str
    trouble: str


#: reported by developers of other programs for these models
KNOWN_BAD = (
    KnownBad(
        package="torch",
        versions="==2.8.*",
        device="cuda",
        trouble="host memory grows with every run; use torch 2.7, or 2.10 and later",
    ),
    KnownBad(
        package="torch",
        versions="==2.9.*",
        device="cuda",
        trouble="3-D convolutions in bfloat16 use several times more memory, so a VAE may not fit; keep the VAE in "
        "float32 (the default), or use another version",
    ),
)
#: packages whose versions are reported, if installed
PACKAGES = (
    "torch", "safetensors", "huggingface_hub", "av", "numpy", "pillow", "tokenizers", "vllm", "xformers", "flash-attn",
    "sageattention", "torchao", "gguf",
)  # fmt: skip


@frozen(kw_only=True)
class Checkup:
    """The report on this machine."""

    core: str
    python: str
    system: str
    processors: int
    #: bytes; 0 when unknown
    memory: int
    device: Device
    #: why this device was chosen
    device_why: str
    packages: Mapping[str, str]
    #: plugin -> state and version
    plugins: Mapping[str, str]
    #: kind -> implementation -> obstacles on this machine; empty if it is usable
    implementations: Mapping[str, Mapping[str, tuple[str, ...]]]
    #: kind -> kernel -> result of its proof on this machine, for those that were tried
    proofs: Mapping[str, Mapping[str, Verdict]]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data for ``json.dumps``."""
        return asdict(self)


#: runs the proofs of kernels usable here
Try = Callable[[PluginSet, Sequence[Provided], BuildContext], Mapping[Provided, Verdict]]


def untried(
    _plugins: PluginSet, _items: Sequence[Provided], _ctx: BuildContext
) -> Mapping[Provided, Verdict]:
    """Run no proofs."""
    return {}


def checkup(plugins: PluginSet, *, trials: Try = untried) -> Checkup:
    """Inspect this machine. Does not import torch; ``trials`` runs the proofs of kernels in another process."""
    here, why = device.probe()
    ctx = usual_context(here)
    packages = {name: version for name in PACKAGES if (version := _version(name))}
    reasons = {
        provided: tuple(provided.reasons(ctx)) for kind in KINDS for provided in plugins.provided(kind)
    }
    verdicts = trials(plugins, [provided for provided, why_not in reasons.items() if not why_not], ctx)
    return Checkup(
        core=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        memory=device.host_memory(),
        device=here,
        device_why=why,
        packages=packages,
        plugins={
            plugin.name: f"{plugin.state} {plugin.version}".strip()
            + (f": {plugin.reason}" if plugin.reason else "")
            for plugin in plugins.plugins
        },
        implementations={
            kind: {provided.qualified: reasons[provided] for provided in plugins.provided(kind)}
            for kind in KINDS
        },
        proofs={
            kind: {
                provided.qualified: verdicts[provided]
                for provided in plugins.provided(kind)
                if provided in verdicts
            }
            for kind in KERNELS
        },
        problems=tuple(_problems(plugins, packages, here)),
    )


def usual_context(where: Device) -> BuildContext:
    """Return the default build context of a run on a device."""
    return BuildContext(device=where, dtype="float32" if where.kind == "cpu" else "bfloat16")


def _problems(plugins: PluginSet, packages: Mapping[str, str], here: Device) -> list[str]:
    problems = list(plugins.warnings)
    for bad in KNOWN_BAD:
        version = packages.get(bad.package)
        if version is not None and bad.device == here.kind and _is(version, bad.versions):
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
