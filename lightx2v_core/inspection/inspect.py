"""Inspection of a folder or file."""

from __future__ import annotations

from pathlib import Path

from lightx2v_core.checkpoint.folders import expanded, near, short
from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.listing import filesystem_errors, sibling_files, why_not
from lightx2v_core.checkpoint.stand_ins import broken_links
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError, RequestError
from lightx2v_core.inspection.contents import Contents, Network, contents, relative
from lightx2v_core.inspection.files import WeightSet, weight_files
from lightx2v_core.inspection.report import Inspection, LoraReport, OtherFile
from lightx2v_core.inspection.runs import possible_runs
from lightx2v_core.lora.matching import match
from lightx2v_core.lora.recognition import describe, is_lora
from lightx2v_core.plan.bundled import place_of
from lightx2v_core.plan.recognize import read_header
from lightx2v_core.spec.specs import ModelSpec, WeightLoaderSpec


@filesystem_errors()
def inspect(path: str | Path, plugins: PluginSet) -> Inspection:
    """Inspect a folder or a file. The report lists its problems. Raises ``RequestError`` if it does not exist."""
    registry = Registry(plugins)
    place = place_of(path, registry)
    root, named = expanded(place), str(path) if place != str(path) else ""
    if reason := why_not(root):
        raise RequestError(f"{short(str(path))} {reason}{near(root)}")
    read = Reader(lambda file: read_header(registry, file))
    suffixes = sorted(
        {suffix for loader in registry.candidates(WeightLoaderSpec) for suffix in loader.spec.suffixes}
    )
    if root.is_file() and root.suffix.lower() not in suffixes:
        raise RequestError(f"{root} is not a weight file; supported suffixes: {', '.join(suffixes)}")
    models = [files.spec for files in registry.candidates(ModelSpec)]
    sets, problems = weight_files(root, suffixes, read)
    known: list[Contents] = []
    loras: list[WeightSet] = []
    others: list[OtherFile] = []
    for files in sets:
        if is_lora(files.header):
            loras.append(files)
        elif parts := contents(files, models, root):
            known += parts
            problems += [problem for part in parts for problem in part.problems]
        else:
            others.append(_other(files, root, bool(models)))
    networks = {network.name: network for part in known for network in part.networks}
    main = [part.report for part in known if part.networks]
    runnable, obstacles = (
        possible_runs(root, main, plugins, read, named) if root.is_dir() and models else ([], [])
    )
    links = broken_links(root) if root.is_dir() else ""
    if links and not any(links in text for text in obstacles):
        problems.append(f"{root}: {links}")
    if not models:
        obstacles = ["no model plugin is installed, so no file is recognized"]
    components = sorted((part.report for part in known), key=lambda report: not report.variants)
    return Inspection(
        path=str(root),
        components=tuple(components),
        loras=tuple(_lora(files, root, networks) for files in loras),
        others=tuple(others),
        problems=tuple(dict.fromkeys(problems)),
        runnable=tuple(runnable),
        obstacles=tuple(obstacles),
    )


def _lora(files: WeightSet, root: Path, networks: dict[str, Network]) -> LoraReport:
    description = describe(files.header, beside=sibling_files(files.located.files[0]))
    coverage = {}
    for name, network in networks.items():
        try:
            fit = match(files.header, network.expected, network.part.layouts)
        except CheckpointError:
            continue
        coverage[name] = (len(fit.matched), len(files.header))
    return LoraReport(
        file=relative(files.located.files[0], root),
        family=description.family,
        ranks=description.ranks,
        alphas=description.alphas,
        kinds=description.kinds,
        targets=description.targets,
        expert=description.expert,
        coverage=coverage,
        bytes=files.header.nbytes,
    )


def _other(files: WeightSet, root: Path, models: bool) -> OtherFile:
    names = list(files.header)
    first = f"its first tensor is {names[0]!r}" if names else "it contains no tensors"
    what = f"no installed model recognizes it ({first})" if models else first
    return OtherFile(file=relative(files.located.files[0], root), what=what, bytes=files.header.nbytes)
