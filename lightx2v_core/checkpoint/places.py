"""Discovery rules, as data: the folders of a model that may hold its components, and what names claim.

The conventions are those of official repositories, of repositories with a folder for each precision, of diffusers
and of ComfyUI. A rule only says where to look; what a file is follows from its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen


@frozen(kw_only=True)
class SearchFolder:
    """A folder inside a model's folder, and whether its network is a distilled one (None: it does not say)."""

    folder: str
    distilled: bool | None = None


#: in the order in which equals are preferred; the root comes first
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
#: folders whose name says that the network inside is distilled
DISTILLED_FOLDERS = tuple(place.folder for place in SEARCH_FOLDERS if place.distilled)

#: folders beside that of the network whose ``config.json`` is its own, in this order
CONFIG_FOLDERS = (
    "", "high_noise_model", "low_noise_model", "original", "transformer", "distill_models", "fp8", "int8",
    "distill_fp8", "distill_int8", "distill_models/high_noise_model", "distill_models/low_noise_model",
)  # fmt: skip

#: dtype of a stored matrix -> precision it stands for; a file without such a matrix is "original"
CODED: Mapping[str, str] = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "int8": "int8", "uint8": "packed"}
ORIGINAL = "original"

#: short names of dtypes, as file names and users write them
DTYPE_NAMES: Mapping[str, str] = {
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32",
    "bfloat16": "bfloat16", "float16": "float16", "float32": "float32",
}  # fmt: skip

#: what the name of a file claims about its precision
CLAIM = re.compile(r"(?<![a-z0-9])(fp8|int8|bf16|fp16|fp32)(?![a-z0-9])|(?<=clip-)(fp8|int8)")


def claimed_precision(name: str) -> str:
    """Read the precision that a file's name claims: ``fp8``, ``int8``, ``bfloat16``, ...; empty when it claims none."""
    match = CLAIM.search(name.lower())
    if match is None:
        return ""
    word = match.group()
    return DTYPE_NAMES.get(word, word)
