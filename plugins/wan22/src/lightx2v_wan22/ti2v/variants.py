"""Recognition of TI2V-5B checkpoints and their official defaults, from headers alone.

Defaults: the official configuration (Wan-Video/Wan2.2, ``wan/configs/wan_ti2v_5B.py``).
"""

from __future__ import annotations

from typing import ClassVar

from lightx2v_core.api import CheckpointFacts, Defaults, Recognition
from lightx2v_wan21.api import NEGATIVE, distilled_note, input_channels, output_channels
from lightx2v_wan22.family import Family, Network
from lightx2v_wan22.options import Ti2vOptions
from lightx2v_wan22.planning import LAYOUTS22, VAE22_PEAK
from lightx2v_wan22.repositories import TI2V
from lightx2v_wan22.vae22.architecture import LATENT_CHANNELS, SPATIAL_STRIDE


class Ti2v(Family[Ti2vOptions]):
    """One network for text, with or without an image.

    An image is a single frame: encoding it needs less memory than decoding.
    """

    options = Ti2vOptions
    repositories: ClassVar = TI2V
    layouts: ClassVar = LAYOUTS22
    channels: ClassVar = LATENT_CHANNELS
    stride: ClassVar = SPATIAL_STRIDE
    vae_peak: ClassVar = VAE22_PEAK
    released: ClassVar = (3072, 30, "5b")
    presets: ClassVar = ((1280, 704),)

    def refusal(self, facts: CheckpointFacts) -> str:
        shapes = facts.headers["dit"].shapes
        channels, outputs = input_channels(shapes), output_channels(shapes)
        if channels != LATENT_CHANNELS:
            return f"its network has {channels} input channels; TI2V has {LATENT_CHANNELS}"
        if outputs != LATENT_CHANNELS:
            return f"its network has {outputs} output channels; TI2V has {LATENT_CHANNELS}"
        return ""

    def tasks(self, facts: CheckpointFacts) -> tuple[str, ...]:
        return ("t2v", "i2v")

    def kind(self, tasks: tuple[str, ...]) -> str:
        return "ti2v"

    def summary(self, network: Network, tasks: tuple[str, ...]) -> str:
        dit = network.dit
        return f"Wan2.2 text- and image-to-video, {dit.num_layers} blocks of width {dit.dim}, {dit.num_heads} heads"

    def notes(self, facts: CheckpointFacts, telling: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return (distilled_note(telling, "--scheduler unipc --steps 50 --guide-scale 5"),) if telling else ()

    def defaults(self, recognition: Recognition, task: str, size: tuple[int, int] | None) -> Defaults:
        """Return the official defaults.

        50 steps of unipc, shift 5, guidance 5, 121 frames at 24 fps, 1280x704. For a distilled network: its own
        scheduler, no guidance.
        """
        width, height = size or (1280, 704)
        steps = recognition.architecture["distilled"]
        return Defaults(
            width=width,
            height=height,
            frames=121,
            fps=24,
            steps=steps or 50,
            shift=5.0,
            guide_scale=(1.0,) if steps else (5.0,),
            scheduler="distill" if steps else "unipc",
            negative_prompt=NEGATIVE,
        )

    def size_for_image(self, recognition: Recognition, image: tuple[int, int], area: int) -> tuple[int, int]:
        return best_size(image, area, self.stride * recognition.architecture["patch_size"][1])


def best_size(image: tuple[int, int], area: int, step: int) -> tuple[int, int]:
    """Compute the (width, height) of at most ``area`` pixels whose aspect ratio is nearest to that of the image.

    Both are multiples of ``step``; the better one of rounding the width down first and rounding the height down first.
    (0, 0) if a side would be shorter than ``step``: extending it would exceed the area many times.

    Official: ``best_output_size``.
    """
    ratio = image[0] / image[1]
    wide = (area * ratio) ** 0.5
    width, height = int(wide // step) * step, int(area / wide // step) * step
    if not (width and height):
        return 0, 0
    by_width = (width, int(area / width // step) * step)
    by_height = (int(area / height // step) * step, height)

    def distortion(size: tuple[int, int]) -> float:
        other = size[0] / size[1]
        return max(ratio / other, other / ratio)

    return by_width if distortion(by_width) < distortion(by_height) else by_height


FAMILY = Ti2v()
