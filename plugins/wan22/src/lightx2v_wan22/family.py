"""Base class of the Wan2.2 families: recognition, sizes and memory that all three share.

No torch here: plans are made from headers alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from lightx2v_core.api import (
    CheckpointFacts,
    Defaults,
    Geometry,
    MemoryNeed,
    Recognition,
    Repository,
    Request,
    SizeRules,
    Stage,
    Target,
)
from lightx2v_wan21.api import (
    DitArchitecture,
    config_doubts,
    distilled_merged,
    distilled_name,
    distilled_steps,
    dit_from,
    dit_tensors,
    size_for_image,
)
from lightx2v_wan22.options import Vae22Options
from lightx2v_wan22.planning import (
    LAYOUTS,
    VAE21_PEAK,
    Layouts,
    check_fit,
    count_name,
    described,
    encoder_blocks,
    read_sizes,
    shaped,
    text_need,
    transformer_need,
    unreadable,
    vae_components,
    vae_needs,
    wan_geometry,
    wan_sizes,
)

C = TypeVar("C", bound=Vae22Options)


@attrs.frozen(kw_only=True)
class Network:
    """The transformer of a checkpoint: its sizes as a class and as plain data, its tensors and its blocks."""

    dit: DitArchitecture
    architecture: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]
    blocks: tuple[str, ...]


class Family(ABC, Generic[C]):
    """A family of models: recognizes checkpoints, and provides defaults, sizes and memory estimates for them."""

    options: type[C]
    #: components that are transformers; one at a time runs
    networks: ClassVar[tuple[str, ...]] = ("dit",)
    #: name of the first of them in messages
    title: ClassVar[str] = "network"
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    layouts: ClassVar[Layouts] = LAYOUTS
    #: channels and pixel stride of the latents
    channels: ClassVar[int] = 16
    stride: ClassVar[int] = 8
    vae_peak: ClassVar[tuple[int, int, int]] = VAE21_PEAK
    #: width, number of blocks and size name of the released model
    released: ClassVar[tuple[int, int, str]]
    #: official sizes in landscape
    presets: ClassVar[tuple[tuple[int, int], ...]] = ()
    #: repositories with the files
    repositories: ClassVar[tuple[Repository, ...]]

    @abstractmethod
    def refusal(self, facts: CheckpointFacts) -> str:
        """Explain why a checkpoint is not of this family; empty if it is. A ``ValueError`` also counts as a reason."""

    @abstractmethod
    def tasks(self, facts: CheckpointFacts) -> tuple[str, ...]:
        """Return the tasks of a checkpoint of this family."""

    @abstractmethod
    def kind(self, tasks: tuple[str, ...]) -> str:
        """Return the part of the variant's name that distinguishes the Wan2.2 models."""

    @abstractmethod
    def summary(self, network: Network, tasks: tuple[str, ...]) -> str:
        """Describe a checkpoint in one line."""

    def network(self, facts: CheckpointFacts) -> Network:
        """Read the sizes of the transformer. ``ValueError`` for a contradictory configuration."""
        dit = dit_from(facts.config, facts.headers[self.networks[0]].shapes)
        return Network(dit=dit, architecture=attrs.asdict(dit), tensors=dit_tensors(dit), blocks=dit.blocks)

    def distilled(self, facts: CheckpointFacts) -> str:
        """Return the name that marks a checkpoint as distilled; empty if none does."""
        return distilled_name(facts, self.networks[0]) or distilled_merged(facts, self.networks)

    def details(self, network: Network, options: C, telling: str) -> Mapping[str, Any]:
        """Return the entries of ``Recognition.architecture`` other than the sizes of the components."""
        return {"distilled": distilled_steps(telling) if telling else 0}

    def notes(self, facts: CheckpointFacts, telling: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """Return the notes on a checkpoint for users."""
        return ()

    def doubts(self, facts: CheckpointFacts) -> tuple[str, ...]:
        """Return the evidence against a checkpoint of this family."""
        return config_doubts(facts.config)

    def recognize(self, facts: CheckpointFacts) -> Recognition | str:
        """Recognize the variant in a folder, or explain why it is not of this family.

        ``CheckpointError`` for a model of this family with a contradictory configuration.
        """
        try:
            if reason := self.refusal(facts):
                return reason
        except ValueError as exc:
            return str(exc)
        options, tasks = facts.options or self.options(), self.tasks(facts)
        vaes = vae_components(options, encodes=tasks != ("t2v",))
        components = (*self.networks, *self.encoders, *vaes)
        try:
            network, sizes = self.network(facts), read_sizes(facts, components, self.layouts)
        except ValueError as exc:
            raise unreadable(facts, exc, self.title) from None
        check_fit(facts, network.dit, sizes)
        expected, architecture = described(sizes, self.layouts)
        telling, dit = self.distilled(facts), network.dit
        *official, size = self.released
        if [dit.dim, dit.num_layers] != official:
            size = count_name(facts.headers[self.networks[0]].parameters)
        return Recognition(
            variant=f"wan2.2-{self.kind(tasks)}-{size}{'-distill' if telling else ''}",
            summary=self.summary(network, tasks),
            tasks=tasks,
            components=components,
            architecture={
                **architecture,
                "dit": network.architecture,
                "patch_size": dit.patch_size,
                **self.details(network, options, telling),
            },
            expected={**expected, **dict.fromkeys(self.networks, network.tensors)},
            head_dim=dit.head_dim,
            blocks={**dict.fromkeys(self.networks, network.blocks), **encoder_blocks(sizes)},
            experts=len(self.networks),
            notes=self.notes(facts, telling, tasks),
            doubts=self.doubts(facts),
        )

    @abstractmethod
    def defaults(self, recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
        """Return the official defaults for a (width, height), or for the official size."""

    def least_frames(self, task: str) -> int:
        """Return the minimum number of frames of a video."""
        return 1

    def size_for_image(self, recognition: Recognition, image: tuple[int, int], area: int) -> tuple[int, int]:
        """Return the (width, height) of a video of this area with the aspect ratio of an image.

        A side that would be shorter than a patch is 0.
        """
        _, rows, columns = recognition.architecture["patch_size"]
        return size_for_image(*image, area, (rows, columns))

    def geometry(self, recognition: Recognition, target: Target) -> Geometry:
        """Compute latent shape [C, T, h, w] and tokens.

        An image keeps its aspect ratio: the requested size is only the area then. ``RequestError`` for impossible
        sizes, frames and inputs.
        """
        size, notes = shaped(
            recognition, target, lambda image, area: self.size_for_image(recognition, image, area)
        )
        least = self.least_frames(target.task)
        geometry = wan_geometry(
            recognition, target, size=size, channels=self.channels, stride=self.stride, least=least
        )
        return attrs.evolve(geometry, notes=notes)

    def size_rules(self, recognition: Recognition, task: str) -> SizeRules:
        """Return the sizes of the official script (``SUPPORTED_SIZES`` of Wan-Video/Wan2.2)."""
        shaped_by = () if task == "t2v" else ("image",)
        least = self.least_frames(task)
        return wan_sizes(recognition, self.presets, stride=self.stride, least=least, shaped_by=shaped_by)

    def stages(
        self, recognition: Recognition, request: Request, shape: Geometry, options: C
    ) -> Sequence[Stage]:
        """Return the stages of denoising: a single one."""
        return (Stage(shift=request.shift, geometry=shape),)

    def encoded_videos(self, recognition: Recognition) -> int:
        """Return the number of full-length videos that the VAE encodes."""
        return 0

    def memory(
        self, recognition: Recognition, shape: Geometry, dtype: str, options: C
    ) -> Mapping[str, MemoryNeed]:
        """Compute the bytes of weights exactly, and estimate activations from the tensors alive at each network's peak.

        Only one expert runs at a time, so the activations are those of one.
        """
        dit = recognition.architecture["dit"]
        transformer = transformer_need(recognition.expected[self.networks[0]], dit, shape.tokens, dtype)
        videos = self.encoded_videos(recognition)
        return {
            **dict.fromkeys(self.networks, transformer),
            "text_encoder": text_need(recognition, dtype, dit["text_len"]),
            **vae_needs(recognition, shape, dtype, options, self.vae_peak, videos=videos),
        }
