"""The networks of lightx2v-wan21 for training: built with initial parameters on the CPU, and run with gradients.

The modules are those of the runtime, unchanged. They differ from training code in two ways only: their parameters are
uninitialized, so ``begin`` initializes them, and the encoders and the VAE disable gradients when called. The functions
below call the function under that decorator (``__wrapped__``, which ``torch.no_grad`` keeps), or the same parts in the
same order.

Shape legend: B batch, C latent channels, T h w latent frames, rows and columns, F H W those of the clip, S text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightx2v_wan21.api import (
    STATISTICS,
    ClipArchitecture,
    ClipVision,
    DitArchitecture,
    Past,
    Umt5Architecture,
    Umt5Encoder,
    VaeArchitecture,
    WanDiT,
    WanVae,
    chunk_sizes,
)
from prompts import vocabulary

Network = TypeVar("Network", bound=nn.Module)
#: parameters initialized to zero, so that a branch initially adds nothing
_ZERO = ("bias", "head.head.weight", "v_img.weight")


def dit(arch: DitArchitecture, seed: int) -> WanDiT:
    """Build a transformer in float32 with torch's attention."""
    return begin(WanDiT(arch, attention=_attention, dtype=torch.float32), seed)


def umt5(arch: Umt5Architecture, seed: int) -> Umt5Encoder:
    """Build the text encoder. Its attention does not scale the scores, so the queries are initialized smaller."""
    network = begin(Umt5Encoder(arch, dtype=torch.float32), seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("attn.q.weight"):
                parameter.div_(math.sqrt(arch.dim_attn / arch.num_heads))
    return network


def clip(arch: ClipArchitecture, seed: int) -> ClipVision:
    return begin(ClipVision(arch, dtype=torch.float32), seed)


def vae(arch: VaeArchitecture, seed: int) -> WanVae:
    """Build the VAE in float32.

    Its biases are initialized small but not to zero: grey is 0, and the norm of a pixel whose channels are all exactly
    0 has a slope of 1e12.
    """
    network = begin(WanVae(arch), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=generator)
    return network


def begin(network: Network, seed: int) -> Network:
    """Initialize every parameter, from the seed alone.

    Norms are 1, biases and last layers 0, weights normal with a deviation that keeps activations near one, the
    projection of the time small.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(_ZERO):
                parameter.zero_()
            elif parameter.ndim == 1 or name.endswith("gamma"):
                parameter.fill_(1)
            else:
                parameter.normal_(0, _deviation(name, parameter), generator=generator)
    return network


def _deviation(name: str, parameter: Tensor) -> float:
    if "token_embedding" in name:
        return 1.0
    if "time_projection" in name:
        return 0.02
    fan: float = math.prod(parameter.shape[1:])
    if name.endswith("modulation") or "embedding" in name.rsplit(".", 1)[-1] or "pos_embedding" in name:
        fan = parameter.shape[-1]
    return 1 / math.sqrt(fan)


def texts(encoder: Umt5Encoder, ids_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Compute ``encoder(ids, mask)`` with gradients, float32 ``[B, S, D]``."""
    embedded: Tensor = Umt5Encoder.forward.__wrapped__(encoder, ids_BS, mask_BS)  # type: ignore[attr-defined]
    return embedded


def features(network: ClipVision, image_BCHW: Tensor) -> Tensor:
    """Compute ``network(image)`` with gradients, float32 ``[B, L, D]``."""
    computed: Tensor = ClipVision.forward.__wrapped__(network, image_BCHW)  # type: ignore[attr-defined]
    return computed


def encode(network: WanVae, video_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Encode to mean and log variance of the latents before normalization, ``[B, C, T, h, w]`` with gradients."""
    past: Past = {}
    chunks = torch.split(video_BCFHW, chunk_sizes(video_BCFHW.shape[2] // 4 + 1), dim=2)
    moments = torch.cat([network.encoder(chunk, past) for chunk in chunks], dim=2)
    mean, log_variance = network.conv1(moments).chunk(2, dim=1)
    return mean, log_variance


def decode(network: WanVae, z_BCTHW: Tensor) -> Tensor:
    """Decode latents before normalization to the video, ``[B, 3, F, H, W]`` with gradients."""
    past: Past = {}
    frames = network.conv2(z_BCTHW).split(1, dim=2)
    return torch.cat([network.decoder(frame, past) for frame in frames], dim=2)


@torch.no_grad()
def normalize(network: WanVae, mean_C: Tensor, deviation_C: Tensor) -> None:
    """Change the VAE so that its latents have the official statistics, without changing its videos.

    The statistics of official latents are constants of the runtime; those of a new VAE differ. The convolutions before
    and after the latents work on single pixels, so a scale and a shift of each channel are merged into the first and
    removed in the second.

    Args:
        network: the VAE.
        mean_C: mean of each channel of the latents before normalization.
        deviation_C: their standard deviation.
    """
    official_mean, official_deviation = (torch.tensor(values) for values in STATISTICS)
    scale = official_deviation / deviation_C
    shift = official_mean - mean_C * scale
    count = len(scale)
    network.conv1.weight[:count] *= scale.view(-1, 1, 1, 1, 1)
    network.conv1.bias[:count] = network.conv1.bias[:count] * scale + shift
    network.conv1.bias[count:] += 2 * scale.log()
    weight = network.conv2.weight / scale.view(1, -1, 1, 1, 1)
    network.conv2.bias.sub_((weight[:, :, 0, 0, 0] * shift).sum(1))
    network.conv2.weight.copy_(weight)


def tokenizer() -> FastTokenizer:
    """Build a tokenizer for any text: every word of the prompts is one piece, others are single letters and bytes."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    scores = {"▁": -6.0, **dict.fromkeys(letters, -8.0)}
    for word in vocabulary():
        # a whole word costs less than its pieces
        scores[word] = scores["▁" + word] = -4.0
    byte_pieces = [(f"<0x{value:02X}>", -12.0) for value in range(256)]
    built = FastTokenizer(
        models.Unigram([*specials, *scores.items(), *byte_pieces], unk_id=2, byte_fallback=True)
    )
    built.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    built.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return built


def parameters(networks: Sequence[nn.Module]) -> int:
    """Count the parameters of networks."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _attention(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BLHD, k_BSHD, v_BSHD))
    out = scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2)
