"""The networks of lightx2v-wan21 as things to train: built with parameters on the CPU, begun, and run with gradients.

The modules are those that generate, untouched. They differ from training code in two ways only: parameters come
uninitialized, which ``begin`` mends, and the encoders and the VAE turn gradients off when they are called. The
functions below call what lies under that switch (``__wrapped__``, which ``torch.no_grad`` keeps), or the same parts in
the same order.

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
#: begin at zero: what they are added to is left as it is
_ZERO = ("bias", "head.head.weight", "v_img.weight")


def dit(arch: DitArchitecture, seed: int) -> WanDiT:
    """A transformer in float32 with torch's attention."""
    return begin(WanDiT(arch, attention=_attention, dtype=torch.float32), seed)


def umt5(arch: Umt5Architecture, seed: int) -> Umt5Encoder:
    """The text encoder. Its attention does not scale the scores, so the queries begin smaller."""
    network = begin(Umt5Encoder(arch, dtype=torch.float32), seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("attn.q.weight"):
                parameter.div_(math.sqrt(arch.dim_attn / arch.num_heads))
    return network


def clip(arch: ClipArchitecture, seed: int) -> ClipVision:
    return begin(ClipVision(arch, dtype=torch.float32), seed)


def vae(arch: VaeArchitecture, seed: int) -> WanVae:
    """The VAE in float32. Its biases begin small but not at zero: grey is 0, and the norm of a pixel whose channels are
    all exactly 0 has a slope of 1e12."""
    network = begin(WanVae(arch), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=generator)
    return network


def begin(network: Network, seed: int) -> Network:
    """Give every parameter its first value, from the seed alone: norms 1, biases and last layers 0, weights normal with
    a deviation that keeps activations near one, the projection of the time small."""
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
    """``encoder(ids, mask)`` with gradients, float32 ``[B, S, D]``."""
    embedded: Tensor = Umt5Encoder.forward.__wrapped__(encoder, ids_BS, mask_BS)  # type: ignore[attr-defined]
    return embedded


def features(network: ClipVision, image_BCHW: Tensor) -> Tensor:
    """``network(image)`` with gradients, float32 ``[B, L, D]``."""
    found: Tensor = ClipVision.forward.__wrapped__(network, image_BCHW)  # type: ignore[attr-defined]
    return found


def encode(network: WanVae, video_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latents, as they are before normalization, ``[B, C, T, h, w]`` with gradients."""
    past: Past = {}
    chunks = torch.split(video_BCFHW, chunk_sizes(video_BCFHW.shape[2] // 4 + 1), dim=2)
    moments = torch.cat([network.encoder(chunk, past) for chunk in chunks], dim=2)
    mean, log_variance = network.conv1(moments).chunk(2, dim=1)
    return mean, log_variance


def decode(network: WanVae, z_BCTHW: Tensor) -> Tensor:
    """The video of latents before normalization, ``[B, 3, F, H, W]`` with gradients."""
    past: Past = {}
    frames = network.conv2(z_BCTHW).split(1, dim=2)
    return torch.cat([network.decoder(frame, past) for frame in frames], dim=2)


@torch.no_grad()
def normalize(network: WanVae, mean_C: Tensor, deviation_C: Tensor) -> None:
    """Change the VAE so that its latents have the official statistics, and its videos stay what they are.

    The statistics of official latents are constants of the runtime; a new VAE has others. Both convolutions beside the
    latents work on single pixels, so a scale and a shift of each channel go into the first and out of the second.

    Args:
        network: the VAE.
        mean_C: mean of each channel of the latents before normalization.
        deviation_C: their standard deviation.
    """
    wanted_mean, wanted_deviation = (torch.tensor(values) for values in STATISTICS)
    scale = wanted_deviation / deviation_C
    shift = wanted_mean - mean_C * scale
    count = len(scale)
    network.conv1.weight[:count] *= scale.view(-1, 1, 1, 1, 1)
    network.conv1.bias[:count] = network.conv1.bias[:count] * scale + shift
    network.conv1.bias[count:] += 2 * scale.log()
    weight = network.conv2.weight / scale.view(1, -1, 1, 1, 1)
    network.conv2.bias.sub_((weight[:, :, 0, 0, 0] * shift).sum(1))
    network.conv2.weight.copy_(weight)


def tokenizer() -> FastTokenizer:
    """Every word of the prompts as one piece, single letters and bytes for the rest: takes any text."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = vocabulary()
    letters = "abcdefghijklmnopqrstuvwxyz"
    scores = {"▁": -6.0, **dict.fromkeys(letters, -8.0)}
    for word in words:
        # a longer piece costs less than the pieces it could be cut into
        scores[word] = scores["▁" + word] = -4.0
    byte_pieces = [(f"<0x{value:02X}>", -12.0) for value in range(256)]
    found = FastTokenizer(
        models.Unigram([*specials, *scores.items(), *byte_pieces], unk_id=2, byte_fallback=True)
    )
    found.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    found.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return found


def parameters(networks: Sequence[nn.Module]) -> int:
    """How many numbers networks hold."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _attention(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BLHD, k_BSHD, v_BSHD))
    out = scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2)
