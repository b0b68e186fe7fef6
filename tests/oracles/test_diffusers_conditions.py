"""Our Wan2.1 networks with images, VACE and a timestep for each token against diffusers, with random weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)

from lightx2v_wan21.api import (
    DIT_DIFFUSERS,
    DitArchitecture,
    WanDiT,
    dit_tensors,
)

from .networks import SMALL, TOLERANCE, Fill, dit_config, filled, randn, sdpa, weights


@pytest.mark.parametrize(("images", "positions"), [(1, 0), (2, 514)], ids=["i2v", "flf2v"])
def test_transformer_with_images(images: int, positions: int, fill: Fill) -> None:
    arch = DitArchitecture(**{**SMALL, "in_dim": 36}, image_dim=80, image_positions=positions)
    tensors = weights(dit_tensors(arch), seed=31)
    network = filled(WanDiT(arch, attention=sdpa, dtype=torch.float32), tensors)
    theirs = fill(WanTransformer3DModel(**dit_config(arch)), DIT_DIFFUSERS, tensors)
    latents = randn(2, arch.in_dim, 3, 4, 6, seed=32)
    context = randn(2, arch.text_len, arch.text_dim, seed=33)
    features = randn(2 * images, 257, arch.image_dim, seed=34)
    timesteps = torch.tensor([999, 251])
    expected = theirs(latents, timesteps, context, features, return_dict=False)[0]
    rope = network.rope(latents.shape[1:], "cpu")
    found = network(latents, timesteps, context, rope, image_MSD=features)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_transformer_with_vace(scale: float, fill: Fill) -> None:
    arch = DitArchitecture(**SMALL, vace_layers=(0, 2))
    tensors = weights(dit_tensors(arch), seed=41)
    network = filled(WanDiT(arch, attention=sdpa, dtype=torch.float32), tensors)
    theirs = WanVACETransformer3DModel(
        **dit_config(arch), vace_layers=list(arch.vace_layers), vace_in_channels=arch.vace_in_dim
    )
    theirs = fill(theirs, DIT_DIFFUSERS, tensors)
    latents = randn(2, arch.in_dim, 3, 4, 6, seed=42)
    condition = randn(2, arch.vace_in_dim, 3, 4, 6, seed=43)
    context = randn(2, arch.text_len, arch.text_dim, seed=44)
    timesteps = torch.tensor([999, 251])
    expected = theirs(
        latents,
        timesteps,
        context,
        control_hidden_states=condition,
        control_hidden_states_scale=torch.full((len(arch.vace_layers),), scale),
        return_dict=False,
    )[0]
    rope = network.rope(latents.shape[1:], "cpu")
    found = network(latents, timesteps, context, rope, vace_BCTHW=condition, vace_scale=scale)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_transformer_with_a_timestep_per_token(fill: Fill) -> None:
    """The network of Wan2.2 TI2V-5B: 48 channels, and the tokens of a known first frame hold no noise."""
    arch = DitArchitecture(**{**SMALL, "in_dim": 48, "out_dim": 48})
    tensors = weights(dit_tensors(arch), seed=51)
    network = filled(WanDiT(arch, attention=sdpa, dtype=torch.float32), tensors)
    theirs = fill(WanTransformer3DModel(**dit_config(arch)), DIT_DIFFUSERS, tensors)
    latents = randn(2, arch.in_dim, 3, 4, 6, seed=52)
    context = randn(2, arch.text_len, arch.text_dim, seed=53)
    timesteps = torch.tensor([[999], [251]]).repeat(1, 3 * 2 * 3)
    timesteps[:, : 2 * 3] = 0
    expected = theirs(latents, timesteps, context, return_dict=False)[0]
    found = network(latents, timesteps, context, network.rope(latents.shape[1:], "cpu"))
    torch.testing.assert_close(found, expected, **TOLERANCE)
