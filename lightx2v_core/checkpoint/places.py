"""Discovery rules as data: the folders of a model that may contain its components, and the precisions in file names.

The conventions are those of official repositories, of repositories with a folder for each precision, of diffusers
and of ComfyUI. A rule only states where to look; the tensors of a file determine its component.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen


@frozen(kw_only=True)
class SearchFolder:
    """A folder inside a model's folder, and whether its network is distilled (None: not known)."""

    folder: str
    distilled: bool | None = None


#: search folders; of equal candidates the first is preferred, and the root comes first
SEARCH_FOLDERS = (
    SearchFolder(folder=""),
    # a folder for each precision
    SearchFolder(folder="original", distilled=False),
    SearchFolder(folder="distill_models", distilled=True),
    SearchFolder(folder="fp8", distilled=False),
    SearchFolder(folder="int8", distilled=False),
    SearchFolder(folder="distill_fp8", distilled=True),
    SearchFolder(folder="distill_int8", distilled=True),
    SearchFolder(folder="gguf"),
    # diffusers
    SearchFolder(folder="transformer"),
    SearchFolder(folder="text_encoder"),
    SearchFolder(folder="image_encoder"),
    SearchFolder(folder="vae"),
    # ComfyUI
    SearchFolder(folder="diffusion_models"),
    SearchFolder(folder="unet"),
    SearchFolder(folder="text_encoders"),
    SearchFolder(folder="clip"),
    SearchFolder(folder="clip_vision"),
    SearchFolder(folder="vae_approx"),
)
#: folders that contain a distilled network by convention
DISTILLED_FOLDERS = tuple(place.folder for place in SEARCH_FOLDERS if place.distilled)

#: folders whose ``config.json`` may describe the network, in this order
CONFIG_FOLDERS = (
    "", "high_noise_model", "low_noise_model", "original", "transformer", "distill_models", "fp8", "int8",
    "distill_fp8", "distill_int8", "distill_models/high_noise_model", "distill_models/low_noise_model",
)  # fmt: skip

#: dtype of a stored 2-D weight -> its precision; a file without any of these is "original"
CODED: Mapping[str, str] = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "int8": "int8", "uint8": "packed"}
ORIGINAL = "original"

#: short names of dtypes in file names and configurations
DTYPE_NAMES: Mapping[str, str] = {
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32",
    "bfloat16": "bfloat16", "float16": "float16", "float32": "float32",
}  # fmt: skip

#: a precision in the name of a file
CLAIM = re.compile(r"(?<![a-z0-9])(fp8|int8|bf16|fp16|fp32)(?![a-z0-9])|(?<=clip-)(fp8|int8)")


def claimed_precision(name: str) -> str:
    """Return the precision in a file's name: ``fp8``, ``int8``, ``bfloat16``, ...; empty if it has none."""
    match = CLAIM.search(name.lower())
    if match is None:
        return ""
    word = match.group()
    return DTYPE_NAMES.get(word, word)
