"""The offloader that keeps one component at a time: the text encoder while the prompt is encoded, then the network (of
two experts the active one), then the VAE. The others stay in their files and are read again for each use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightx2v_core.api import ModuleWeights

if TYPE_CHECKING:
    from torch import nn


class Sequential:
    """An offloader that fills a component on ``device`` on use, after releasing the previous one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._placed: dict[str, tuple[nn.Module, ModuleWeights]] = {}
        self._present: str | None = None

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        self._placed[component] = (module, weights)

    def refresh(self, component: str, names: Collection[str]) -> None:
        if self._present == component:
            self._placed[component][1].refill(names, self.device)

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        if self._present != component:
            self.release()
            _, weights = self._placed[component]
            # set first: an interrupted fill leaves weights to release
            self._present = component
            weights.fill("", self.device)
        yield

    def release(self) -> None:
        """Release the weights of the component on the device."""
        if self._present is not None:
            self._placed[self._present][0].to("meta")
            self._present = None

    def prepare(self, component: str) -> None:
        """Do nothing: there is room for one component only."""

    def close(self) -> None:
        self.release()
