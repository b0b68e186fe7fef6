"""Recognition of Animate checkpoints and their official defaults, from headers alone.

Defaults: the official configuration and script (Wan-Video/Wan2.2, ``wan/configs/wan_animate_14B.py``, ``generate.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from lightx2v_core.api import (
    DTYPE_BYTES,
    CheckpointFacts,
    Defaults,
    Geometry,
    MemoryNeed,
    Recognition,
    RequestError,
    SizeRules,
    Target,
)
from lightx2v_wan21.api import (
    NEGATIVE,
    PLAIN_CLASS,
    axis,
    config_doubts,
    image_size,
    input_channels,
    output_channels,
    taken,
    video_info,
)
from lightx2v_wan22.animate.architecture import (
    AnimateArchitecture,
    animate_from,
    animate_tensors,
)
from lightx2v_wan22.animate.tensor_names import BLUR_KERNELS
from lightx2v_wan22.family import Family, Network
from lightx2v_wan22.options import AnimateOptions
from lightx2v_wan22.planning import (
    text_need,
    transformer_need,
    vae_needs,
    wan_geometry,
    wan_sizes,
    weight_bytes,
)
from lightx2v_wan22.repositories import ANIMATE

#: "a person in the video is moving": the official prompt of every video
PROMPT = "视频中的人在做动作"
STRIDE, LATENT_CHANNELS = 8, 16
#: number of latent frames for the reference image
REFERENCE_FRAMES = 1


class AnimateFamily(Family[AnimateOptions]):
    """One network conditioned on a pose and a face; generates in segments."""

    options = AnimateOptions
    repositories: ClassVar = ANIMATE
    encoders: ClassVar = ("text_encoder", "image_encoder")
    released: ClassVar = (5120, 40, "14b")

    def refusal(self, facts: CheckpointFacts) -> str:
        shapes = facts.headers["dit"].shapes
        if "pose_patch_embedding.weight" not in shapes:
            return "its network has no tensor 'pose_patch_embedding.weight', so it is not an Animate network"
        channels, outputs = input_channels(shapes), output_channels(shapes)
        return _other_channels(
            channels, outputs, axis(shapes, "pose_patch_embedding.weight", 1, "an Animate network")
        )

    def tasks(self, facts: CheckpointFacts) -> tuple[str, ...]:
        return ("animate",)

    def kind(self, tasks: tuple[str, ...]) -> str:
        return "animate"

    def summary(self, network: Network, tasks: tuple[str, ...]) -> str:
        dit, adapters = network.dit, sum(name.startswith("face_adapter") for name in network.blocks)
        return (
            f"Wan2.2 Animate, {dit.num_layers} blocks of width {dit.dim}, {dit.num_heads} heads, "
            f"{adapters} face adapters"
        )

    def network(self, facts: CheckpointFacts) -> Network:
        arch = animate_from(facts.config, facts.headers["dit"].shapes)
        return Network(
            dit=arch.dit,
            architecture=attrs.asdict(arch),
            tensors=_needed(animate_tensors(arch)),
            blocks=arch.blocks,
        )

    def distilled(self, facts: CheckpointFacts) -> str:
        """Return an empty string: there is no distilled network."""
        return ""

    def details(self, network: Network, options: AnimateOptions, telling: str) -> Mapping[str, Any]:
        return {
            "face_size": AnimateArchitecture(**network.architecture).face_size,
            "segment": options.segment_frames,
            "overlap": options.overlap_frames,
        }

    def notes(self, facts: CheckpointFacts, telling: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return (
            "size and length are those of the pose video",
            f"without a prompt the official one is used for every video: {PROMPT!r}",
        )

    def doubts(self, facts: CheckpointFacts) -> tuple[str, ...]:
        return config_doubts(facts.config, f"{PLAIN_CLASS}|wananimate(?:model|transformer3dmodel)")

    def defaults(self, recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
        """Return the official defaults.

        20 steps of unipc, shift 5, no guidance, 30 fps, in segments of 77 frames. Size and length are those of the pose
        video. The official pipeline has a prompt of its own, and guides only at scales above 1.
        """
        width, height = size or (1280, 720)
        return Defaults(
            width=width,
            height=height,
            frames=recognition.architecture["segment"],
            fps=30,
            steps=20,
            shift=5.0,
            guide_scale=(1.0,),
            scheduler="unipc",
            negative_prompt=NEGATIVE,
            prompt=PROMPT,
            least_guide_scale=1.0,
        )

    def geometry(self, recognition: Recognition, target: Target) -> Geometry:
        """Compute latent shape [16, 1 + T, h, w] and tokens of one segment, and the number of segments.

        Size and length are those of the pose video, if there is one.

        Raises:
            RequestError: an input has an impossible size.
        """
        inputs, size, frames = target.inputs, (target.width, target.height), target.frames
        _check_inputs(recognition, inputs)
        if "pose_video" in inputs:
            pose = video_info(inputs["pose_video"], "pose_video")
            size, frames = (pose.width, pose.height), pose.frames
        length, overlap = recognition.architecture["segment"], recognition.architecture["overlap"]
        segment = attrs.evolve(target, frames=length)
        shape = wan_geometry(
            recognition, segment, size=size, channels=LATENT_CHANNELS, stride=STRIDE, extra=REFERENCE_FRAMES
        )
        later = math.ceil(max(frames - length, 0) / (length - overlap))
        return attrs.evolve(shape, frames=frames, lead=REFERENCE_FRAMES, segments=1 + later, overlap=overlap)

    def size_rules(self, recognition: Recognition, task: str) -> SizeRules:
        """Return the rules for the pose video, which may have any length: it is processed in segments."""
        rules = wan_sizes(recognition, (), stride=STRIDE, shaped_by=("pose_video",))
        return attrs.evolve(rules, frame_step=1)

    def memory(
        self, recognition: Recognition, shape: Geometry, dtype: str, options: AnimateOptions
    ) -> Mapping[str, MemoryNeed]:
        """Compute the bytes of weights exactly, and estimate activations.

        Those of the transformer are for one segment, or for its motion encoder if that needs more.
        """
        dit, clip = recognition.architecture["dit"], recognition.architecture["image_encoder"]
        network = transformer_need(recognition.expected["dit"], dit["dit"], shape.tokens, dtype)
        # eight faces at full resolution in float32, four times: input and output of a convolution and its activation
        faces = 4 * 8 * dit["motion_channels"][0] * recognition.architecture["face_size"] ** 2 * 4
        segment = attrs.evolve(shape, frames=recognition.architecture["segment"])
        return {
            "dit": attrs.evolve(network, activations=max(network.activations, faces)),
            "text_encoder": text_need(recognition, dtype, dit["dit"]["text_len"]),
            "image_encoder": MemoryNeed(
                weights=weight_bytes(
                    recognition.expected["image_encoder"], DTYPE_BYTES[dtype], keep=("norm",)
                ),
                activations=clip["num_tokens"] * (6 * clip["dim"] + 2 * clip["dim_mlp"]) * 4,
            ),
            **vae_needs(recognition, segment, dtype, options, self.vae_peak, videos=3),
        }


def _other_channels(channels: int, outputs: int, pose: int) -> str:
    """Explain why a network with these channels is not an Animate network; empty if it can be one."""
    expected = taken(LATENT_CHANNELS, image=True)
    if not expected.startswith(f"{channels} "):
        return f"its network has {channels} input channels; Animate has {expected}"
    if (outputs, pose) != (LATENT_CHANNELS, LATENT_CHANNELS):
        return (
            f"its network has {outputs} output channels and {pose} channels for the pose; Animate has "
            f"{LATENT_CHANNELS} of each"
        )
    return ""


def _needed(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return all tensors but the blur kernels, which are computed."""
    kernels = [re.compile(pattern) for pattern in BLUR_KERNELS]
    return {name: shape for name, shape in tensors.items() if not any(k.search(name) for k in kernels)}


def _check_inputs(recognition: Recognition, inputs: Mapping[str, Any]) -> None:
    """Raise ``RequestError`` for invalid inputs, judging by their headers."""
    problems = []
    if ("background_video" in inputs) != ("mask_video" in inputs):
        problems.append(
            "background_video and mask_video belong together (replacing a person); give both or none"
        )
    if "face_video" in inputs:
        side = recognition.architecture["face_size"]
        face = video_info(inputs["face_video"], "face_video")
        if (face.width, face.height) != (side, side):
            problems.append(f"face_video is {face.width}x{face.height}; it must be {side}x{side}")
    if "ref_images" in inputs:
        count = len(reference_images(inputs))
        if count != 1:
            problems.append(f"ref_images must be one image, not {count}")
        else:
            image_size(reference_images(inputs)[0], "ref_images")
    if problems:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")


def reference_images(inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the reference images of a request as a tuple."""
    given = inputs.get("ref_images", ())
    return tuple(given) if isinstance(given, list | tuple) else (given,)


FAMILY = AnimateFamily()
