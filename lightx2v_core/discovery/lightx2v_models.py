"""Model classes of LightX2V that nothing here runs, as data: a message says what they are."""

from __future__ import annotations

#: model classes of LightX2V that no distribution brings -> what they are
_ELSEWHERE = {
    "wan2.1_mean_flow_distill": "a mean-flow network, which is told two timesteps",
    "wan2.1_causvid": "a network that attends to the frames before alone, block by block (CausVid)",
    "wan2.1_sf": "a network that attends to the frames before alone, block by block (self forcing)",
    "wan2.1_sf_mtxg2": "a network that is steered by actions",
    "wan2.2_moe_vace": "VACE with two experts",
    "wan22_animate2_distilled": "Animate 2, which takes a reference among its frames",
    "wan2.2_matrix_game3": "a network that is steered by actions",
    "wan2.2_audio": "a model driven by sound", "wan2.2_moe_audio": "a model driven by sound",
    "seko_talk": "a model driven by sound", "wan2.2_s2v": "a model driven by sound",
}  # fmt: skip


def elsewhere(name: str) -> str:
    """Say what a name of another program means that nothing here runs, in words; empty for other names."""
    what = _ELSEWHERE.get(name)
    return "" if what is None else f"{name} is {what}, and none that this program runs"
