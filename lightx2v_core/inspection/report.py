"""The report on a folder or a file: plain data that can be printed and stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen


@frozen(kw_only=True)
class ComponentReport:
    """A set of files that is a component of an installed model."""

    #: ``dit`` (an expert too), ``text_encoder``, ``vae``, ...
    component: str
    summary: str
    #: paths relative to the inspected folder
    files: tuple[str, ...]
    layout: str
    #: models with this component
    models: tuple[str, ...]
    #: possible variants of a network, several where their tensors are alike; empty for other components
    variants: tuple[str, ...]
    #: dtype of most bytes
    precision: str
    #: format of quantized weights, empty when there are none
    scheme: str
    tensors: int
    parameters: int
    bytes: int


@frozen(kw_only=True)
class LoraReport:
    """A LoRA file."""

    file: str
    family: str
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    #: type of change -> count
    kinds: Mapping[str, int]
    #: module without its block number -> number of changes
    targets: Mapping[str, int]
    #: expert that the file names
    expert: str | None
    #: network -> number of matched tensors and of all tensors
    coverage: Mapping[str, tuple[int, int]]
    bytes: int


@frozen(kw_only=True)
class OtherFile:
    """A weight file that no installed model has a use for."""

    file: str
    #: reason, or a description
    what: str
    bytes: int


@frozen(kw_only=True)
class Runnable:
    """A run that is possible with the files of the folder."""

    model: str
    variant: str
    task: str
    command: str


@frozen(kw_only=True)
class Inspection:
    """The complete report."""

    path: str
    components: tuple[ComponentReport, ...]
    loras: tuple[LoraReport, ...]
    others: tuple[OtherFile, ...]
    problems: tuple[str, ...]
    runnable: tuple[Runnable, ...]
    #: reasons why nothing, or not everything, can be run
    obstacles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data for ``json.dumps``."""
        return asdict(self)
