"""Extraction of a LoRA file from the difference of two networks: large matrices by singular value decomposition, other
tensors in full. One pair of tensors is in memory at a time, besides the results so far.

The layout is that of LightX2V's extraction tool: ``diffusion_model.<layer>`` with ``lora_up``, ``lora_down`` (the root
of the singular values on both sides, no alpha), ``diff``, ``diff_b`` and ``diff_m``. By Eckart and Young the truncated
decomposition is the nearest matrix of its rank (https://doi.org/10.1007/BF02288367).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from lightx2v_core.api import CheckpointError, ModelSpec, PluginSet, RequestError, WeightSource, suggestion
from lightx2v_core.weights import (
    PLAIN_DTYPES,
    Checkpoints,
    MappedSource,
    claim_outputs,
    recognize_layout,
    serialize_safetensors,
    write_atomically,
)

_SUFFIXES = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}
#: singular values below this fraction of the largest are rounding errors
_ROUNDING = 1e-6

Tell = Callable[[int, int, str], None]


@frozen(kw_only=True)
class ExtractionOptions:
    """Options of an extraction."""

    #: largest rank of a pair, >= 1
    rank: int
    #: matrices with fewer elements are stored in full
    least: int = 1_000_000
    #: dtype of the file, as a torch name
    dtype: str = "bfloat16"
    #: network of a model with several; None: the only one
    component: str | None = None


@define(kw_only=True)
class Extraction:
    """The result of an extraction."""

    #: tensors stored as low-rank pairs
    pairs: int = 0
    #: tensors stored in full
    differences: int = 0
    #: equal tensors
    same: int = 0
    #: tensors that are missing in one network or differ in shape, which a LoRA cannot express
    left_out: list[str] = field(factory=list)
    #: squared norm of all differences, and of the part that the pairs lose
    total: float = 0.0
    lost: float = 0.0

    @property
    def error(self) -> float:
        """Return the relative error: norm of the lost part / norm of all differences."""
        return (self.lost / self.total) ** 0.5 if self.total else 0.0


def extract(
    base: str,
    tuned: str,
    output: Path,
    how: ExtractionOptions,
    plugins: PluginSet,
    *,
    tell: Tell = lambda *_: None,
    named: Callable[[], None] = lambda: None,
) -> Extraction:
    """Write a LoRA file that turns ``base`` into ``tuned``; both are model folders or weight files.

    The file is written atomically, by one process at a time; ``named`` is called when it exists. Raises
    ``RequestError`` if they are not two versions of one network, or are equal; ``OutputError`` if the file cannot be
    written.
    """
    if output.suffix != ".safetensors":
        raise RequestError(f"the name of the LoRA file {str(output)!r} must end in .safetensors")
    for path in (base, tuned):
        if Path(path).resolve() == output.resolve():
            raise RequestError(f"the LoRA file {str(output)!r} would replace one of its sources")
    checkpoints = Checkpoints(plugins)
    first, second = (_weights(path, how.component, checkpoints) for path in (base, tuned))
    result = Extraction()
    tensors: dict[str, Tensor] = {}
    with claim_outputs(output):
        try:
            names = _common(first, second, result, base, tuned)
            for number, name in enumerate(names):
                tell(number, len(names), name)
                tensors |= _changed(name, first.read(name), second.read(name), how, result)
        finally:
            first.close()
            second.close()
        if not tensors:
            raise RequestError(f"{tuned} does not differ from {base}; there is nothing to extract")
        metadata = {"format": "pt", "rank": str(how.rank), "base": Path(base).name, "tuned": Path(tuned).name}
        write_atomically(output, serialize_safetensors(tensors, metadata), named)
    return result


def _weights(path: str, component: str | None, checkpoints: Checkpoints) -> WeightSource:
    """Open the network of a folder or file, under official names."""
    where = Path(path).expanduser()
    if where.is_dir():
        model = checkpoints.recognize(where)
        networks = _networks(model.spec, model.components)
        name = component or networks[0]
        if component is None and len(networks) > 1:
            raise RequestError(f"{path} has the networks {', '.join(networks)}; choose one with --component")
        if name not in model.components:
            raise RequestError(
                f"{path} has no component {name!r}{suggestion(name, model.components)}; it has "
                f"{', '.join(model.components)}"
            )
        network = model.components[name]
        return _plain(MappedSource(checkpoints.open(network.stored), network.mapped), path)
    if not where.is_file():
        raise CheckpointError(f"{path!r} does not exist")
    header = checkpoints.read_header(where)
    source = checkpoints.open(header)
    for spec in checkpoints.components:
        mapped = recognize_layout(spec, header) if spec.signature else None
        if mapped is not None:
            return _plain(MappedSource(source, mapped), path)
    return _plain(source, path)


def _networks(spec: ModelSpec[Any], there: Mapping[str, Any]) -> list[str]:
    main = spec.components[0]
    grouped = [part.name for part in spec.components if main.group is not None and part.group == main.group]
    return [name for name in grouped if name in there] or [main.name]


def _plain(source: WeightSource, path: str) -> WeightSource:
    """Return ``source``. Raises ``CheckpointError`` for quantized weights: their rounding would end up in the LoRA."""
    for name in source.names():
        info = source.info(name)
        if info.dtype not in PLAIN_DTYPES and len(info.shape) > 1:
            raise CheckpointError(
                f"{path} has quantized weights, such as {name} ({info.dtype}); extraction needs plain weights: use the "
                "original files"
            )
    return source


def _common(
    first: WeightSource, second: WeightSource, result: Extraction, base: str, tuned: str
) -> list[str]:
    """List the tensors common to both networks, in the order of the base."""
    left, right = list(first.names()), set(second.names())
    names = [name for name in left if name in right and first.info(name).shape == second.info(name).shape]
    if not names:
        raise RequestError(
            f"{base} and {tuned} have no common tensor: {left[0] if left else 'nothing'} in one, "
            f"{min(right, default='nothing')} in the other"
        )
    known = set(names)
    result.left_out = sorted({*left, *right} - known)
    return [
        name
        for name in names
        if first.info(name).dtype in PLAIN_DTYPES and second.info(name).dtype in PLAIN_DTYPES
    ]


def _changed(
    name: str, before: Tensor, after: Tensor, how: ExtractionOptions, result: Extraction
) -> dict[str, Tensor]:
    """Compute the difference of a tensor, as tensors of a LoRA file by name."""
    difference = after.float() - before.float()
    size = float(difference.square().sum(dtype=torch.float64))
    if not torch.isfinite(difference).all():
        raise RequestError(f"{name} has values that are not finite")
    if size == 0:
        result.same += 1
        return {}
    result.total += size
    base, _, parameter = name.rpartition(".")
    dtype: torch.dtype = getattr(torch, how.dtype)
    rows, columns = difference.shape if difference.ndim == 2 else (0, 0)
    smaller = how.rank * (rows + columns) < rows * columns
    if difference.ndim != 2 or parameter != "weight" or difference.numel() < how.least or not smaller:
        result.differences += 1
        key = f"{base}.{_SUFFIXES[parameter]}" if parameter in _SUFFIXES else f"{name}.diff"
        return {f"diffusion_model.{key}": difference.to(dtype)}
    up, down = _decomposed(difference, how.rank)
    up, down = up.to(dtype).contiguous(), down.to(dtype).contiguous()
    result.pairs += 1
    result.lost += float((difference - up.float() @ down.float()).square().sum(dtype=torch.float64))
    return {f"diffusion_model.{base}.lora_up.weight": up, f"diffusion_model.{base}.lora_down.weight": down}


def _decomposed(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Compute ``up`` [out, rank] and ``down`` [rank, in], whose product is the matrix of that rank nearest to
    ``matrix`` [out, in]."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    rank = max(min(rank, int((s > s[0] * _ROUNDING).sum())), 1)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]
