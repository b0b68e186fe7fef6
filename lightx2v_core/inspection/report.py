"""What is found out about a folder or a file: plain data, which can be printed and stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen


@frozen(kw_only=True)
class ComponentReport:
    """A set of files that is a component of a model that is installed."""

    #: ``dit`` (an expert too), ``text_encoder``, ``vae``, ...
    component: str
    summary: str
    #: relative to what was asked about
    files: tuple[str, ...]
    layout: str
    #: models that have such a component
    models: tuple[str, ...]
    #: what a network may be, several where they look alike; empty for other components
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
    #: kind of change -> how many
    kinds: Mapping[str, int]
    #: module without its block's number -> how many changes
    targets: Mapping[str, int]
    #: the expert that it says it is for
    expert: str | None
    #: network -> tensors that have a place in it, of all
    coverage: Mapping[str, tuple[int, int]]
    bytes: int


@frozen(kw_only=True)
class OtherFile:
    """A weight file that no installed model has a use for."""

    file: str
    #: why, or what it looks like
    what: str
    bytes: int


@frozen(kw_only=True)
class Runnable:
    """A run that is possible with what is there."""

    model: str
    variant: str
    task: str
    command: str


@frozen(kw_only=True)
class Inspection:
    """The whole report."""

    path: str
    components: tuple[ComponentReport, ...]
    loras: tuple[LoraReport, ...]
    others: tuple[OtherFile, ...]
    problems: tuple[str, ...]
    runnable: tuple[Runnable, ...]
    #: why nothing, or not everything, can be run
    obstacles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``."""
        return asdict(self)
