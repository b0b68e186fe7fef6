"""Our Wan2.1 networks and sampler against transformers and diffusers, on a tiny checkpoint with random weights.

The two were written independently of ours from the same official code. Run by ``tox -e oracles``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from lightx2v_core import load
from lightx2v_core.builtin.schedulers.unipc import FlowUniPC
from lightx2v_wan21.api import (
    DitArchitecture,
    Tokenizer,
    Umt5Architecture,
    Umt5Encoder,
    VaeArchitecture,
    WanDiT,
    WanVae,
    dit_from,
    umt5_from,
    vae_from,
)
from lightx2v_wan21.tiny import write_tiny

Tensors = Mapping[str, Tensor]
TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}

#: official name -> diffusers name, one substitution after the other
DIT_NAMES = (
    (r"^text_embedding\.0", "condition_embedder.text_embedder.linear_1"),
    (r"^text_embedding\.2", "condition_embedder.text_embedder.linear_2"),
    (r"^time_embedding\.0", "condition_embedder.time_embedder.linear_1"),
    (r"^time_embedding\.2", "condition_embedder.time_embedder.linear_2"),
    (r"^time_projection\.1", "condition_embedder.time_proj"),
    (r"^head\.head", "proj_out"),
    (r"^head\.modulation|modulation$", "scale_shift_table"),
    (r"self_attn", "attn1"),
    (r"cross_attn", "attn2"),
    (r"(attn\d)\.([qkv])\.", r"\1.to_\2."),
    (r"(attn\d)\.o\.", r"\1.to_out.0."),
    (r"norm3", "norm2"),
    (r"ffn\.0", "ffn.net.0.proj"),
    (r"ffn\.2", "ffn.net.2"),
)
VAE_NAMES = (
    (r"^conv1", "quant_conv"),
    (r"^conv2", "post_quant_conv"),
    (r"coder\.conv1", "coder.conv_in"),
    (r"head\.0", "norm_out"),
    (r"head\.2", "conv_out"),
    (r"middle\.0", "mid_block.resnets.0"),
    (r"middle\.1", "mid_block.attentions.0"),
    (r"middle\.2", "mid_block.resnets.1"),
    (r"downsamples\.", "down_blocks."),
    (r"residual\.0", "norm1"),
    (r"residual\.2", "conv1"),
    (r"residual\.3", "norm2"),
    (r"residual\.6", "conv2"),
    (r"shortcut", "conv_shortcut"),
)
UMT5_NAMES = (
    (r"^token_embedding", "shared"),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.", r"encoder.block.\1.layer."),
    (r"norm1", "0.layer_norm"),
    (r"norm2", "1.layer_norm"),
    (r"attn", "0.SelfAttention"),
    (r"pos_embedding\.embedding", "0.SelfAttention.relative_attention_bias"),
    (r"ffn\.gate\.0", "1.DenseReluDense.wi_0"),
    (r"ffn\.fc1", "1.DenseReluDense.wi_1"),
    (r"ffn\.fc2", "1.DenseReluDense.wo"),
)


def renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        # the VAE's decoder is a flat list in official files: per stage three blocks, then an upsampler
        if flat := re.match(r"decoder\.upsamples\.(\d+)\.(.*)", name):
            stage, index = divmod(int(flat[1]), 4)
            part = "upsamplers.0" if index == 3 else f"resnets.{index}"
            name = f"decoder.up_blocks.{stage}.{part}.{flat[2]}"
        found[name] = tensor
    return found


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def filled(network: nn.Module, tensors: Tensors) -> nn.Module:
    network.load_state_dict(dict(tensors), strict=True)
    return network.eval()


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class OfficialGrid(UniPCMultistepScheduler):
    """UniPC with the noise levels of Wan's own code, which start at 0.999; diffusers starts at 1."""

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        sigmas = np.linspace(0.9990000128746033, 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(device=device, sigmas=sigmas)


def official_unipc(shift: float) -> OfficialGrid:
    return OfficialGrid(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


@pytest.fixture(scope="module", autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=11)
    return folder


@pytest.fixture(scope="module")
def dit_tensors(tiny: Path) -> Tensors:
    tensors: dict[str, Tensor] = {}
    for file in sorted(tiny.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


@pytest.fixture(scope="module")
def text_tensors(tiny: Path) -> Tensors:
    held = torch.load(tiny / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True)
    return {name: tensor.float() for name, tensor in held.items()}


@pytest.fixture(scope="module")
def vae_tensors(tiny: Path) -> Tensors:
    return torch.load(tiny / "Wan2.1_VAE.pth", weights_only=True)


@pytest.fixture(scope="module")
def their_dit(dit_tensors: Tensors) -> WanTransformer3DModel:
    arch = dit_architecture(dit_tensors)
    network = WanTransformer3DModel(
        patch_size=arch.patch_size,
        num_attention_heads=arch.num_heads,
        attention_head_dim=arch.head_dim,
        in_channels=arch.in_dim,
        out_channels=arch.out_dim,
        text_dim=arch.text_dim,
        freq_dim=arch.freq_dim,
        ffn_dim=arch.ffn_dim,
        num_layers=arch.num_layers,
        eps=arch.eps,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )
    return filled(network, renamed(dit_tensors, DIT_NAMES))


@pytest.fixture(scope="module")
def their_encoder(text_tensors: Tensors) -> UMT5EncoderModel:
    arch = umt5_from(shapes(text_tensors))
    config = UMT5Config(
        vocab_size=arch.vocab_size,
        d_model=arch.dim,
        d_kv=arch.dim_attn // arch.num_heads,
        d_ff=arch.dim_ffn,
        num_layers=arch.num_layers,
        num_heads=arch.num_heads,
        relative_attention_num_buckets=arch.num_buckets,
        relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    network = UMT5EncoderModel(config)
    tensors = renamed(text_tensors, UMT5_NAMES)
    tied = {"encoder.embed_tokens.weight": tensors["shared.weight"]}
    return filled(network, tensors | tied)


@pytest.fixture(scope="module")
def their_vae(vae_tensors: Tensors) -> AutoencoderKLWan:
    arch = vae_from(shapes(vae_tensors))
    network = AutoencoderKLWan(base_dim=arch.dim, decoder_base_dim=arch.dec_dim, z_dim=arch.z_dim)
    return filled(network, renamed(vae_tensors, VAE_NAMES))


def dit_architecture(tensors: Tensors) -> DitArchitecture:
    sizes = {"dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 2, "in_dim": 16, "out_dim": 16}
    return dit_from({"model_type": "t2v", **sizes}, shapes(tensors))


def test_text_encoder(text_tensors: Tensors, their_encoder: UMT5EncoderModel) -> None:
    arch: Umt5Architecture = umt5_from(shapes(text_tensors))
    encoder = filled(Umt5Encoder(arch, dtype=torch.float32), text_tensors)
    # longer than the 128 tokens at which the buckets of distances end
    ids = torch.randint(3, arch.vocab_size, (2, 200), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(200) < torch.tensor([[200], [17]])).long()
    expected = their_encoder(ids, attention_mask=mask).last_hidden_state * mask[:, :, None]
    torch.testing.assert_close(encoder(ids, mask), expected, **TOLERANCE)


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 4, 10)])
def test_transformer(
    size: tuple[int, int, int], dit_tensors: Tensors, their_dit: WanTransformer3DModel
) -> None:
    arch = dit_architecture(dit_tensors)
    network = filled(WanDiT(arch, attention=sdpa, dtype=torch.float32), dit_tensors)
    latents = randn(2, arch.in_dim, *size, seed=2)
    context = randn(2, arch.text_len, arch.text_dim, seed=3)
    timesteps = torch.tensor([999, 251])
    expected = their_dit(latents, timesteps, context, return_dict=False)[0]
    found = network(latents, timesteps, context, network.rope(latents.shape[1:], "cpu"))
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.fixture(scope="module")
def vae(vae_tensors: Tensors) -> WanVae:
    arch: VaeArchitecture = vae_from(shapes(vae_tensors))
    network = WanVae(arch, dtype=torch.float32)
    network.load_state_dict(dict(vae_tensors))
    return network


def statistics(their_vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    config = their_vae.config
    return tuple(torch.tensor(part).view(-1, 1, 1, 1) for part in (config.latents_mean, config.latents_std))


@pytest.mark.parametrize("latent_frames", [1, 2, 4])
def test_vae_decodes(latent_frames: int, vae: WanVae, their_vae: AutoencoderKLWan) -> None:
    latents = randn(16, latent_frames, 4, 6, seed=4)
    mean, std = statistics(their_vae)
    expected = their_vae.decode((latents * std + mean)[None], return_dict=False)[0][0]
    found = torch.cat(list(vae.decode(latents)), dim=1).clamp(-1, 1)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_vae_encodes(frames: int, vae: WanVae, their_vae: AutoencoderKLWan) -> None:
    video = randn(3, frames, 32, 48, seed=5).clamp(-1, 1)
    mean, std = statistics(their_vae)
    expected = (their_vae.encode(video[None]).latent_dist.mode()[0] - mean) / std
    torch.testing.assert_close(vae.encode(video), expected, **TOLERANCE)


@pytest.mark.parametrize(("steps", "shift"), [(1, 5.0), (2, 3.0), (5, 8.0), (20, 5.0), (50, 3.0)])
def test_unipc(steps: int, shift: float) -> None:
    theirs, ours = official_unipc(shift), FlowUniPC(steps, shift)
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == list(ours.timesteps)
    torch.testing.assert_close(theirs.sigmas, torch.tensor(ours.sigmas))
    expected = found = randn(16, 2, 4, 4, seed=6)
    for index, timestep in enumerate(theirs.timesteps):
        # a prediction that depends on the sample, as a network's does
        expected = theirs.step(torch.tanh(2 * expected), timestep, expected, return_dict=False)[0]
        found = ours.step(torch.tanh(2 * found), index, found)
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_whole_pipeline(
    tiny: Path,
    their_dit: WanTransformer3DModel,
    their_encoder: UMT5EncoderModel,
    their_vae: AutoencoderKLWan,
) -> None:
    """From two prompts and a seed to latents and frames."""
    prompt, negative = "A red fox  runs over the snow &amp; sings", "night, city"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny / "google" / "umt5-xxl" / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    ids, _ = Tokenizer(tiny / "google" / "umt5-xxl").encode([negative], 16)
    assert tokenizer(negative, padding="max_length", max_length=16)["input_ids"] == ids[0].tolist()

    theirs = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=their_encoder,
        transformer=their_dit,
        vae=their_vae,
        scheduler=official_unipc(3.0),
    )
    theirs.set_progress_bar_config(disable=True)
    last: dict[str, Tensor] = {}
    expected = theirs(
        prompt=prompt,
        negative_prompt=negative,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(21),
        output_type="pt",
        callback_on_step_end=lambda pipeline, step, timestep, values: last.update(values) or {},
    ).frames[0]

    pipeline = load(tiny, task="t2v", dtype="float32", device="cpu", scheduler="unipc")
    found = pipeline.generate(
        prompt=prompt,
        negative_prompt=negative,
        size=(48, 32),
        frames=9,
        steps=4,
        guide_scale=4.0,
        shift=3.0,
        seed=21,
    )
    tolerance = {"atol": 5e-4, "rtol": 1e-3}
    torch.testing.assert_close(found.latents, last["latents"][0], **tolerance)
    torch.testing.assert_close((found.frames.transpose(0, 1) + 1) / 2, expected, **tolerance)
