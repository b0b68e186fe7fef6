"""Unsupported model classes of LightX2V, with descriptions for error messages."""

from __future__ import annotations

#: model class of LightX2V that no distribution provides -> description
_ELSEWHERE = {
    "wan2.1_mean_flow_distill": "a mean-flow network with two timesteps",
    "wan2.1_causvid": "a causal network with block-wise attention (CausVid)",
    "wan2.1_sf": "a causal network with block-wise attention (self forcing)",
    "wan2.1_sf_mtxg2": "a network controlled by actions",
    "wan2.2_moe_vace": "VACE with two experts",
    "wan22_animate2_distilled": "Animate 2, which has a reference image among its frames",
    "wan2.2_matrix_game3": "a network controlled by actions",
    "wan2.2_audio": "an audio-driven model", "wan2.2_moe_audio": "an audio-driven model",
    "seko_talk": "an audio-driven model", "wan2.2_s2v": "an audio-driven model",
}  # fmt: skip


def elsewhere(name: str) -> str:
    """Describe a model class of LightX2V that is not supported; empty for other names."""
    description = _ELSEWHERE.get(name)
    return "" if description is None else f"{name} is not supported: it is {description}"
