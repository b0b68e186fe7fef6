"""Finds the files of each component by the rules of a ``ComponentSpec``, and reads their headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from lightx2v_core.checkpoint.layouts import OFFICIAL, Mapped, applied, recognised
from lightx2v_core.checkpoint.shards import Located, check_index, weight_sets
from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.specs import ComponentSpec
from lightx2v_core.tensors import Header, TensorInfo

ReadHeader = Callable[[Path], Header]


@frozen(kw_only=True)
class Component:
    """A component that was found: its files, the rule that chose them, and what their headers say."""

    name: str
    files: tuple[Path, ...]
    rule: str
    #: the header in official names
    header: Header
    #: how the stored names become the official ones
    mapped: Mapped
    #: the header as the files have it
    stored: Header
    assets: Mapping[str, Path]


def model_folder(path: str | Path) -> Path:
    """The folder a user named; ``CheckpointError`` when it is none."""
    folder = expanded(path)
    if folder is None or not folder.exists():
        raise CheckpointError(f"model folder {_short(str(path))} does not exist{_near(folder)}")
    if not folder.is_dir():
        raise CheckpointError(
            f"model path {str(path)!r} is a file; give the folder that holds the model's files"
        )
    if not any(folder.iterdir()):
        raise CheckpointError(f"model folder {str(path)!r} is empty")
    return folder


def expanded(path: str | Path) -> Path | None:
    """A path with ``~`` replaced, ``None`` when no file can be called so."""
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError):  # a name that is too long, an unknown ~user
        return None
    return found


def _near(folder: Path | None) -> str:
    """What else is there, for a folder that is not."""
    parent = next((p for p in folder.parents if p.is_dir()), None) if folder is not None else None
    if folder is None or parent is None:
        return ""
    try:
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        return ""
    if near := suggestion(folder.relative_to(parent).parts[0], names):
        return f"{near} (in {str(parent)!r})"
    return f"; {str(parent)!r} holds: {', '.join(names[:8])}" if names else ""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder, ``{}`` when there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} is damaged: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__} where an object is expected")
    return value


def locate(
    spec: ComponentSpec, folder: Path, override: str | None, read: ReadHeader | None = None
) -> Located | None:
    """The files of a component and the rule that chose them, ``None`` when there are none.

    An explicit path wins and must exist; else the first of the spec's patterns that matches, which may name a folder
    inside the model's. An index beside shards is followed. With ``read``, files that lack the spec's signature are
    passed over. Several candidates are a ``CheckpointError`` that lists them.
    """
    if override is not None:
        return _explicit(spec, override, read)
    return _matching(spec, folder, spec.files, read)


def _explicit(spec: ComponentSpec, override: str, read: ReadHeader | None) -> Located:
    key = f"components.{spec.name}.path"
    path = expanded(override)
    if path is not None and path.is_file():
        if read is not None and spec.signature and recognised(spec, read(path)) is None:
            raise CheckpointError(f"{key} {override!r} is no {spec.summary}: it lacks {spec.signature[0]!r}")
        return Located(files=(path,), rule=key)
    if path is None or not path.is_dir():
        raise CheckpointError(f"{key} {_short(override)} does not exist{_near(path)}")
    names = [pattern.rpartition("/")[2] for pattern in spec.files]
    found = _matching(spec, path, [*dict.fromkeys(names), "*.safetensors"], read)
    if found is None:
        raise CheckpointError(f"{key} {override!r} holds no {spec.summary} ({', '.join(spec.files)})")
    return evolve(found, rule=f"{key}, {found.rule}")


def read_component(spec: ComponentSpec, folder: Path, found: Located, read: ReadHeader) -> Component:
    """Read the headers of located files. ``CheckpointError`` for a broken or contradictory file."""
    stored = merged([read(path) for path in found.files])
    if found.index is not None:
        check_index(found.index, stored)
    mapped = recognised(spec, stored) or applied(OFFICIAL, stored)
    assert mapped is not None
    return Component(
        name=spec.name,
        files=found.files,
        rule=found.rule,
        header=mapped.header,
        mapped=mapped,
        stored=stored,
        assets={name: folder / path for name, path in spec.assets.items()},
    )


def merged(headers: Sequence[Header]) -> Header:
    """Several files as one; a tensor that is in two of them is a ``CheckpointError``."""
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in tensors:
                raise CheckpointError(f"tensor {name!r} is in both {tensors[name].file} and {info.file.name}")
            tensors[name] = info
        metadata.update(header.metadata)
    return Header(tensors=tensors, metadata=metadata)


def _matching(
    spec: ComponentSpec, folder: Path, patterns: Sequence[str], read: ReadHeader | None
) -> Located | None:
    for pattern in patterns:
        sub, _, name_pattern = pattern.rpartition("/")
        where = folder / sub
        if not where.is_dir():
            continue
        found = weight_sets(where, name_pattern, spec.summary)
        if read is not None and spec.signature:
            found = [item for item in found if _belongs(spec, item, read)]
        if len(found) > 1:
            raise CheckpointError(_ambiguous(spec, where, found, read))
        if found:
            return evolve(
                found[0], rule=f"{found[0].rule} {pattern}" if found[0].index is None else found[0].rule
            )
    return None


def _belongs(spec: ComponentSpec, item: Located, read: ReadHeader) -> bool:
    return recognised(spec, merged([read(path) for path in item.files])) is not None


def _ambiguous(spec: ComponentSpec, folder: Path, found: Sequence[Located], read: ReadHeader | None) -> str:
    lines = []
    for item in found:
        name = item.index.name if item.index is not None else item.files[0].name
        more = f" and {len(item.files) - 1} more" if len(item.files) > 1 and item.index is None else ""
        precision = f" ({merged([read(path) for path in item.files]).precision})" if read is not None else ""
        lines.append(f"  {name}{more}{precision}")
    return (
        f"{folder} holds more than one {spec.summary}; say which with components.{spec.name}.path:\n"
        + "\n".join(lines)
    )


def _short(text: str) -> str:
    return repr(text) if len(text) <= 300 else f"{text[:300]!r}..."
