"""The network to convert: its files, its component of a model, and its tensors by official names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, frozen

from lightx2v_core.api import CheckpointError, ComponentSpec, Header, RequestError, suggestion
from lightx2v_core.weights import (
    OFFICIAL_LAYOUT,
    CheckpointFiles,
    Checkpoints,
    MappedHeader,
    apply_key_map,
    filesystem_errors,
    format_problems,
    recognize_layout,
)


@frozen(kw_only=True)
class Network:
    """A network before conversion."""

    files: tuple[Path, ...]
    #: None if no installed model recognizes the checkpoint
    component: ComponentSpec | None
    #: header with stored names
    stored: Header
    #: header with official names
    mapped: MappedHeader
    #: names of the matching components, and of their groups
    names: frozenset[str] = frozenset()
    #: components of one model that look alike and include this one; empty if there is only one
    experts: tuple[str, ...] = ()

    @property
    def header(self) -> Header:
        """Return the header with official names."""
        return self.mapped.header

    @property
    def spec(self) -> ComponentSpec:
        """Return the component, or a generic one for an unknown network."""
        return self.component or ComponentSpec(name="network", summary="network", files=())


@filesystem_errors()
def find_network(
    source: str | Path, checkpoints: Checkpoints, component: str | None = None, not_whole: str = ""
) -> Network:
    """Find the network in ``source``, a file or a folder.

    ``component`` selects one of several; ``not_whole`` is the reason why the folder cannot be converted as a whole, for
    messages. Raises ``CheckpointError`` for damaged files, ``RequestError`` if the choice is ambiguous.
    """
    path = checkpoints.locate_existing(source)
    networks = _in_file(path, checkpoints) if path.is_file() else _in_folder(path, checkpoints)
    if component is not None:
        # the rules of a run identify the expert of files in a folder; for a single file the user states it
        alone = path.is_file()
        own = [
            network for network in networks if component in (network.names if alone else _own_names(network))
        ]
        networks = own or (_below(path, component, checkpoints) if path.is_dir() else [])
        if not networks:
            raise RequestError(_no_component(path, component, checkpoints))
    whole = f"\n  it cannot be converted as a whole: {not_whole}" if not_whole else ""
    if not networks:
        raise RequestError(f"{_no_weights(path, checkpoints)}{whole}")
    if len(networks) > 1:
        lines = "\n".join(
            f"  {network.files[0].relative_to(path).as_posix()}: {network.spec.summary}"
            for network in networks
        )
        ways = "or --component" if whole else "--component, or a folder as --output for the whole model"
        raise RequestError(
            f"{path} contains {len(networks)} networks; give one of the files, {ways}:\n{lines}{whole}"
        )
    known = networks[0].component
    if component is None and known is not None and not known.main and (inside := _inside(path, checkpoints)):
        raise RequestError(
            f"{path} contains the {known.summary}, and its folders more networks ({', '.join(inside)}); choose one "
            f"with --component{whole}"
        )
    return checked(networks[0])


def checked(network: Network) -> Network:
    """Return ``network``. Raises ``CheckpointError`` if its weights and scales are inconsistent."""
    if problems := format_problems(network.stored):
        where = network.files[0] if len(network.files) == 1 else network.files[0].parent
        raise CheckpointError(f"{where} cannot be converted:\n  " + "\n  ".join(problems[:5]))
    return network


def identify(files: Sequence[Path], stored: Header, checkpoints: Checkpoints) -> Network:
    """Identify the component in files by its signature; of several, the one that renames most tensors."""
    known: list[tuple[ComponentSpec, MappedHeader]] = []
    for component in checkpoints.components:
        mapped = recognize_layout(component, stored) if component.signature else None
        if mapped is not None:
            known.append((component, mapped))
    if not known:
        mapped = apply_key_map(OFFICIAL_LAYOUT, stored)
        assert mapped is not None
        return Network(files=tuple(files), component=None, stored=stored, mapped=mapped)
    # if one network is part of another, the larger one has more names
    component, mapped = max(
        known, key=lambda candidate: (_renamed(candidate[1]), len(candidate[0].signature))
    )
    # variants of one network differ in additional layers
    patterns = {
        pattern: None for other, _ in known if other.quantize is not None for pattern in other.quantize
    }
    if component.quantize is not None:
        component = evolve(component, quantize=tuple(patterns))
    names = {name for other, _ in known for name in (other.name, other.group) if name is not None}
    return Network(
        files=tuple(files),
        component=component,
        stored=stored,
        mapped=mapped,
        names=frozenset(names),
        experts=_experts([other for other, _ in known], checkpoints),
    )


def _own_names(network: Network) -> tuple[str | None, ...]:
    return () if network.component is None else (network.component.name, network.component.group)


def _in_file(path: Path, checkpoints: Checkpoints) -> list[Network]:
    return [identify((path,), checkpoints.read_header(path), checkpoints)]


def _in_folder(folder: Path, checkpoints: Checkpoints) -> list[Network]:
    return [_of_files(files, checkpoints) for files in checkpoints.weight_files(folder)]


def _below(folder: Path, component: str, checkpoints: Checkpoints) -> list[Network]:
    """Find a component in the folders of a model, such as one of two experts, by the rules of a run."""
    located: dict[tuple[Path, ...], CheckpointFiles] = {}
    for spec in checkpoints.components:
        if component in (spec.name, spec.group):
            files = checkpoints.locate_component(spec, folder)
            if files is not None:
                located.setdefault(files.files, files)
    return [_of_files(files, checkpoints) for files in located.values()]


def _of_files(files: CheckpointFiles, checkpoints: Checkpoints) -> Network:
    return identify(files.files, files.header, checkpoints)


def _no_weights(folder: Path, checkpoints: Checkpoints) -> str:
    """Build the message for a folder without weights of its own."""
    if not (inside := _inside(folder, checkpoints)):
        return f"{folder} has no weight files; give a file, or the folder with the files"
    return (
        f"{folder} has no weight files itself, but its folders do ({', '.join(inside)}); give one of them, or choose "
        "a component with --component"
    )


def _inside(folder: Path, checkpoints: Checkpoints) -> list[str]:
    """List the subfolders with weight files; empty for a file."""
    suffixes = checkpoints.suffixes
    return sorted({file.parent.name for file in folder.glob("*/*") if file.name.endswith(suffixes)})


def _no_component(folder: Path, component: str, checkpoints: Checkpoints) -> str:
    """Build the message for a component that was not found, with the known ones."""
    names = sorted({name for spec in checkpoints.components for name in (spec.name, spec.group or spec.name)})
    if not names:
        return f"{folder} has no {component!r}: no model plugin is installed"
    meant = "" if component in names else suggestion(component, names)
    return f"{folder} has no {component!r}{meant}; components of the installed models: {', '.join(names)}"


def _experts(known: Sequence[ComponentSpec], checkpoints: Checkpoints) -> tuple[str, ...]:
    """Return the similar components of the first model that has several; empty if there is none."""
    for model in checkpoints.models:
        groups = {spec.group for spec in model.components if spec in known and spec.group is not None}
        alike = [spec.name for spec in model.components if spec.group in groups]
        if len(alike) > 1:
            return tuple(alike)
    return ()


def _renamed(mapped: MappedHeader) -> int:
    return sum(stored != (name,) for name, stored in mapped.stored.items())
