"""Our Wan2.2 networks against those of diffusers, on tiny random weights.

The transformers of A14B and TI2V-5B are those of Wan2.1, see ``test_diffusers.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan, WanAnimateTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.api import (
    DIT_DIFFUSERS,
    VAE_DIFFUSERS,
    DitArchitecture,
    VaeArchitecture,
    dit_tensors,
    random_tensors,
    vae_tensors,
)
from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_tensors
from lightx2v_wan22.animate.dit import AnimateDiT
from lightx2v_wan22.key_maps import ANIMATE_DIFFUSERS, VAE22_DIFFUSERS, animate_diffusers
from lightx2v_wan22.vae22.architecture import FOLDED_CHANNELS, LATENT_CHANNELS, vae22_tensors
from lightx2v_wan22.vae22.network import LATENT_MEAN, LATENT_STD, Wan22Vae

Fill = Callable[..., nn.Module]
#: the values of released files, which are the defaults of diffusers
LARGE = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
FOLDED = {
    "is_residual": True,
    "in_channels": FOLDED_CHANNELS,
    "out_channels": FOLDED_CHANNELS,
    "patch_size": 2,
}
TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@pytest.fixture(scope="module")
def vaes(fill: Fill) -> tuple[Wan22Vae, AutoencoderKLWan]:
    arch = VaeArchitecture(dim=8, dec_dim=12, z_dim=LATENT_CHANNELS)
    tensors = random_tensors(vae22_tensors(arch), torch.Generator().manual_seed(71))
    ours = Wan22Vae(arch)
    ours.load_state_dict(tensors)
    theirs = AutoencoderKLWan(
        base_dim=arch.dim,
        decoder_base_dim=arch.dec_dim,
        z_dim=LATENT_CHANNELS,
        **FOLDED,
        scale_factor_spatial=16,
        latents_mean=list(LATENT_MEAN),
        latents_std=list(LATENT_STD),
    )
    return ours, fill(theirs, VAE22_DIFFUSERS, tensors)


def statistics() -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(part).view(-1, 1, 1, 1) for part in (LATENT_MEAN, LATENT_STD))
    return mean, std


@pytest.mark.parametrize("latent_frames", [1, 2, 4])
def test_vae_decodes(latent_frames: int, vaes: tuple[Wan22Vae, AutoencoderKLWan]) -> None:
    ours, theirs = vaes
    latents = randn(LATENT_CHANNELS, latent_frames, 2, 3, seed=72)
    mean, std = statistics()
    expected = theirs.decode((latents * std + mean)[None], return_dict=False)[0][0]
    found = torch.cat(list(ours.decode(latents)), dim=1).clamp(-1, 1)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_vae_encodes(frames: int, vaes: tuple[Wan22Vae, AutoencoderKLWan]) -> None:
    ours, theirs = vaes
    video = randn(3, frames, 32, 48, seed=73).clamp(-1, 1)
    mean, std = statistics()
    expected = (theirs.encode(video[None]).latent_dist.mode()[0] - mean) / std
    torch.testing.assert_close(ours.encode(video), expected, **TOLERANCE)


def test_names_at_the_official_sizes(check_names: Callable[..., object]) -> None:
    a14b = DitArchitecture(**LARGE, in_dim=36)
    animate = AnimateArchitecture(dit=DitArchitecture(**LARGE, in_dim=36, image_dim=1280))
    vae21 = VaeArchitecture(dim=96, dec_dim=96)
    vae22 = VaeArchitecture(dim=160, dec_dim=256, z_dim=LATENT_CHANNELS)
    with torch.device("meta"):
        check_names(WanTransformer3DModel(in_channels=36), DIT_DIFFUSERS, dit_tensors(a14b))
        check_names(
            WanAnimateTransformer3DModel(added_kv_proj_dim=5120),
            ANIMATE_DIFFUSERS,
            animate_tensors(animate),
            unstored=r"\.kernel$",
        )
        check_names(AutoencoderKLWan(), VAE_DIFFUSERS, vae_tensors(vae21))
        network = AutoencoderKLWan(base_dim=160, decoder_base_dim=256, z_dim=LATENT_CHANNELS, **FOLDED)
        check_names(network, VAE22_DIFFUSERS, vae22_tensors(vae22))


def test_animate(fill: Fill) -> None:
    """Pose, faces and reference image, with faces of 32x32 pixels."""
    arch = AnimateArchitecture(
        dit=DitArchitecture(
            dim=64,
            ffn_dim=128,
            num_heads=2,
            # diffusers makes an adapter for every five blocks, ours also for a rest; officially there is none
            num_layers=10,
            in_dim=36,
            out_dim=16,
            text_dim=48,
            image_dim=80,
        ),
        motion_channels=(8, 8, 8, 8),
        style_dim=32,
        motion_dim=48,
        face_dim=32,
        face_heads=4,
    )
    dit = arch.dit
    drawn = random_tensors(animate_tensors(arch), torch.Generator().manual_seed(81))
    # the blur kernels are computed, by both
    tensors = {name: tensor for name, tensor in drawn.items() if not name.endswith("kernel")}
    for name, tensor in tensors.items():
        if name.startswith("motion_encoder") and name.endswith("weight"):
            tensors[name] = tensor / tensor.std()
    ours = AnimateDiT(arch, attention=sdpa, dtype=torch.float32)
    ours.load_state_dict(tensors)
    theirs = WanAnimateTransformer3DModel(
        num_attention_heads=dit.num_heads,
        attention_head_dim=dit.head_dim,
        in_channels=dit.in_dim,
        latent_channels=arch.pose_dim,
        out_channels=dit.out_dim,
        text_dim=dit.text_dim,
        freq_dim=dit.freq_dim,
        ffn_dim=dit.ffn_dim,
        num_layers=dit.num_layers,
        eps=dit.eps,
        image_dim=dit.image_dim,
        added_kv_proj_dim=dit.dim,
        motion_encoder_channel_sizes={
            str(arch.face_size >> level): channels for level, channels in enumerate(arch.motion_channels)
        },
        motion_encoder_size=arch.face_size,
        motion_style_dim=arch.style_dim,
        motion_dim=arch.directions,
        motion_encoder_dim=arch.motion_dim,
        face_encoder_hidden_dim=arch.face_dim,
        face_encoder_num_heads=arch.face_heads,
    )
    key_map = animate_diffusers(residuals=len(arch.motion_channels) - 1)
    theirs = fill(theirs, key_map, tensors, unstored=r"\.kernel$")
    latents = randn(1, dit.in_dim, 4, 4, 6, seed=82)
    pose = randn(1, arch.pose_dim, 3, 4, 6, seed=83)
    faces = randn(1, 3, 9, arch.face_size, arch.face_size, seed=84).clamp(-1, 1)
    context = randn(1, dit.text_len, dit.text_dim, seed=85)
    image = randn(1, 257, dit.image_dim, seed=86)
    timesteps = torch.tensor([731])
    expected = theirs(latents, timesteps, context, image, pose, faces, return_dict=False)[0]
    found = ours(
        latents,
        timesteps,
        context,
        ours.rope(latents.shape[1:], "cpu"),
        image_MSD=image,
        pose_BCTHW=pose,
        motion_BTRD=ours.motion(faces),
    )
    torch.testing.assert_close(found, expected, **TOLERANCE)
