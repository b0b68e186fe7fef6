"""Our Wan2.1 networks and sampler against transformers and diffusers, on a tiny checkpoint with random weights.

The two were written independently of ours from the same official code. Run by ``tox -e oracles``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from lightx2v_core import load
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header
from lightx2v_core.builtin.schedulers.unipc import FlowUniPC
from lightx2v_core.checkpoint.layouts import MappedSource, apply_key_map
from lightx2v_core.spec.components import KeyMap
from lightx2v_wan21.api import (
    CLIP_TRANSFORMERS,
    DIT_DIFFUSERS,
    UMT5_TRANSFORMERS,
    VAE_DIFFUSERS,
    ClipArchitecture,
    ClipVision,
    DitArchitecture,
    Tokenizer,
    Umt5Architecture,
    Umt5Encoder,
    VaeArchitecture,
    WanDiT,
    WanVae,
    clip_from,
    clip_tensors,
    dit_from,
    umt5_from,
    vae_from,
)
from lightx2v_wan21.tiny import write_tiny

from .networks import TOLERANCE, Fill, Tensors, dit_config, filled, randn, sdpa, shapes, weights


class OfficialGrid(UniPCMultistepScheduler):
    """UniPC with the noise levels of Wan's own code, which start at 0.999; diffusers starts at 1."""

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        sigmas = np.linspace(0.9990000128746033, 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(device=device, sigmas=sigmas)


def official_unipc(shift: float) -> OfficialGrid:
    return OfficialGrid(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=11)
    return folder


@pytest.fixture(scope="module")
def t2v_tensors(tiny: Path) -> Tensors:
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
def their_dit(t2v_tensors: Tensors, fill: Fill) -> WanTransformer3DModel:
    arch = dit_architecture(t2v_tensors)
    network = WanTransformer3DModel(**dit_config(arch))
    return fill(network, DIT_DIFFUSERS, t2v_tensors)


@pytest.fixture(scope="module")
def their_encoder(text_tensors: Tensors, fill: Fill) -> UMT5EncoderModel:
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
    return fill(UMT5EncoderModel(config), UMT5_TRANSFORMERS, text_tensors)


@pytest.fixture(scope="module")
def their_vae(vae_tensors: Tensors, fill: Fill) -> AutoencoderKLWan:
    arch = vae_from(shapes(vae_tensors))
    network = AutoencoderKLWan(base_dim=arch.dim, decoder_base_dim=arch.dec_dim, z_dim=arch.z_dim)
    return fill(network, VAE_DIFFUSERS, vae_tensors)


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
    size: tuple[int, int, int], t2v_tensors: Tensors, their_dit: WanTransformer3DModel
) -> None:
    arch = dit_architecture(t2v_tensors)
    network = filled(WanDiT(arch, attention=sdpa, dtype=torch.float32), t2v_tensors)
    latents = randn(2, arch.in_dim, *size, seed=2)
    context = randn(2, arch.text_len, arch.text_dim, seed=3)
    timesteps = torch.tensor([999, 251])
    expected = their_dit(latents, timesteps, context, return_dict=False)[0]
    found = network(latents, timesteps, context, network.rope(latents.shape[1:], "cpu"))
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.fixture(scope="module")
def clip_tensors_whole() -> Tensors:
    """The visual tower with its last block and norm, which image features do without."""
    arch = ClipArchitecture(dim=160, dim_mlp=320, num_layers=4, patch_size=7, num_tokens=17)
    last = {"visual.post_norm.weight": (arch.dim,), "visual.post_norm.bias": (arch.dim,)}
    return weights(clip_tensors(arch) | last, seed=61)


@pytest.fixture(scope="module")
def their_clip(clip_tensors_whole: Tensors, fill: Fill) -> CLIPVisionModel:
    arch = clip_from(shapes(clip_tensors_whole))
    config = CLIPVisionConfig(
        hidden_size=arch.dim,
        intermediate_size=arch.dim_mlp,
        num_hidden_layers=arch.num_layers + 1,
        num_attention_heads=arch.dim // arch.head_dim,
        image_size=arch.side * arch.patch_size,
        patch_size=arch.patch_size,
        hidden_act="gelu",
    )
    return fill(CLIPVisionModel(config), CLIP_TRANSFORMERS, clip_tensors_whole)


def test_image_encoder(clip_tensors_whole: Tensors, their_clip: CLIPVisionModel) -> None:
    arch = clip_from(shapes(clip_tensors_whole))
    tensors = {name: clip_tensors_whole[name] for name in clip_tensors(arch)}
    network = filled(ClipVision(arch, dtype=torch.float32), tensors)
    images = randn(2, 3, 28, 28, seed=62)
    expected = their_clip(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(network.visual(images), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("theirs", "tensors", "key_map"),
    [
        ("their_dit", "t2v_tensors", DIT_DIFFUSERS),
        ("their_vae", "vae_tensors", VAE_DIFFUSERS),
        ("their_encoder", "text_tensors", UMT5_TRANSFORMERS),
        ("their_clip", "clip_tensors_whole", CLIP_TRANSFORMERS),
    ],
    ids=["dit", "vae", "text_encoder", "image_encoder"],
)
def test_files_that_they_write(
    theirs: str, tensors: str, key_map: KeyMap, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The names in a file are not always those of the module."""
    request.getfixturevalue(theirs).save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    header = read_header(file)
    mapped = apply_key_map(key_map, header)
    assert mapped is not None
    source = MappedSource(SafetensorsSource(header), mapped)
    expected = request.getfixturevalue(tensors)
    assert sorted(source.names()) == sorted(expected)
    for name, tensor in expected.items():
        # axes of length one may be missing there
        assert torch.equal(source.read(name).reshape(tensor.shape), tensor)
    source.close()


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
