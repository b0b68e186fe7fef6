"""Tensor names that listing plugins needs; the sizes of the network are in ``architecture``."""

from __future__ import annotations

#: the kernels of blurring convolutions, all the same: 1 3 3 1 along both axes. They are computed, and files may omit
#: them
BLUR_KERNELS = (r"^motion_encoder\..*\.kernel$",)
