"""What ``convert`` writes, in diffusers and transformers: folders by ``from_pretrained``, others by
``from_single_file``. They compute what our networks compute on the same weights. Run by ``tox -e oracles``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, UMT5EncoderModel

from lightx2v_convert.conversion import convert
from lightx2v_convert.options import ConvertOptions
from lightx2v_wan21.api import (
    ClipArchitecture,
    ClipVision,
    DitArchitecture,
    Umt5Encoder,
    VaeArchitecture,
    WanDiT,
    WanVae,
    clip_from,
    clip_tensors,
    dit_tensors,
    random_tensors,
    umt5_from,
    vae_from,
)
from lightx2v_wan21.tiny import write_tiny
from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_tensors
from lightx2v_wan22.vae22.architecture import LATENT_CHANNELS, vae22_tensors
from lightx2v_wan22.vae22.network import Wan22Vae

TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}
SMALL = {"dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 3, "out_dim": 16, "text_dim": 48}
ARCHITECTURES = {
    "t2v": DitArchitecture(**SMALL, in_dim=16),
    "i2v": DitArchitecture(**SMALL, in_dim=36, image_dim=80),
    "flf2v": DitArchitecture(**SMALL, in_dim=36, image_dim=80, image_positions=514),
    "vace": DitArchitecture(**SMALL, in_dim=16, vace_layers=(0, 2)),
}


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def official(
    folder: Path, tensors: dict[str, tuple[int, ...]], config: dict[str, Any] | None, seed: int
) -> dict[str, Tensor]:
    """An official checkpoint with random weights, and these."""
    folder.mkdir()
    drawn = random_tensors(tensors, torch.Generator().manual_seed(seed))
    save_file(drawn, folder / "diffusion_pytorch_model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return drawn


def config_of(arch: DitArchitecture, kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {"model_type": kind, "text_len": arch.text_len, "text_dim": arch.text_dim}
    for name in ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "freq_dim", "eps"):
        config[name] = getattr(arch, name)
    if arch.vace_layers:
        config |= {"vace_layers": list(arch.vace_layers), "vace_in_dim": arch.vace_in_dim}
    return config


def expected(
    arch: DitArchitecture, tensors: dict[str, Tensor], dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs by the names of diffusers, and what our network makes of them."""
    network = WanDiT(arch, attention=sdpa, dtype=torch.float32).eval()
    network.load_state_dict({name: tensor.to(dtype).float() for name, tensor in tensors.items()})
    latents = randn(1, arch.in_dim, 3, 4, 6, seed=2)
    inputs = {
        "hidden_states": latents,
        "timestep": torch.tensor([731]),
        "encoder_hidden_states": randn(1, arch.text_len, arch.text_dim, seed=3),
    }
    more: dict[str, Any] = {}
    if arch.image_dim:
        features = randn(2 if arch.image_positions else 1, 257, arch.image_dim, seed=4)
        inputs["encoder_hidden_states_image"] = more["image_MSD"] = features
    if arch.vace_layers:
        condition = randn(1, arch.vace_in_dim, 3, 4, 6, seed=5)
        inputs["control_hidden_states"] = more["vace_BCTHW"] = condition
        inputs["control_hidden_states_scale"] = torch.ones(len(arch.vace_layers))
    rope = network.rope(latents.shape[1:], "cpu")
    return inputs, network(latents, inputs["timestep"], inputs["encoder_hidden_states"], rope, **more)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_transformers_as_a_folder_of_diffusers(kind: str, tmp_path: Path) -> None:
    arch = ARCHITECTURES[kind]
    tensors = official(tmp_path / "model", dit_tensors(arch), config_of(arch, kind), seed=11)
    convert(tmp_path / "model", tmp_path / "transformer", ConvertOptions(layout="diffusers"))
    theirs = WanVACETransformer3DModel if kind == "vace" else WanTransformer3DModel
    network, report = theirs.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(report.values()), report
    inputs, wanted = expected(arch, tensors, torch.float32)
    torch.testing.assert_close(network(**inputs, return_dict=False)[0], wanted, **TOLERANCE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("layout", ["official", "comfyui", "diffusers"])
def test_a_transformer_as_a_single_file(layout: Any, dtype: str, tmp_path: Path) -> None:
    arch = ARCHITECTURES["i2v"]
    tensors = official(tmp_path / "model", dit_tensors(arch), config_of(arch, "i2v"), seed=12)
    # what diffusers needs beside it, and would fetch for the released sizes
    convert(tmp_path / "model", tmp_path / "config", ConvertOptions(layout="diffusers"))
    file = tmp_path / f"wan_{dtype}.safetensors"
    convert(tmp_path / "model", file, ConvertOptions(layout=layout, dtype=dtype))
    network = WanTransformer3DModel.from_single_file(str(file), config=str(tmp_path / "config"))
    inputs, wanted = expected(arch, tensors, getattr(torch, dtype))
    torch.testing.assert_close(network.float()(**inputs, return_dict=False)[0], wanted, **TOLERANCE)


def test_shards_with_an_index(tmp_path: Path) -> None:
    arch = ARCHITECTURES["t2v"]
    tensors = official(tmp_path / "model", dit_tensors(arch), config_of(arch, "t2v"), seed=13)
    options = ConvertOptions(layout="diffusers", split="shards", shard_bytes=300_000)
    convert(tmp_path / "model", tmp_path / "transformer", options)
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 2
    network = WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    inputs, wanted = expected(arch, tensors, torch.float32)
    torch.testing.assert_close(network(**inputs, return_dict=False)[0], wanted, **TOLERANCE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=11)
    return folder


@pytest.mark.parametrize("layout", ["diffusers", "transformers"])
def test_a_text_encoder(layout: Any, tiny: Path, tmp_path: Path) -> None:
    source = tiny / "models_t5_umt5-xxl-enc-bf16.pth"
    tensors = {name: tensor.float() for name, tensor in torch.load(source, weights_only=True).items()}
    convert(source, tmp_path / "text_encoder", ConvertOptions(layout=layout, dtype="float32"))
    theirs = UMT5EncoderModel.from_pretrained(tmp_path / "text_encoder").eval()
    arch = umt5_from({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    ours = Umt5Encoder(arch, dtype=torch.float32).eval()
    ours.load_state_dict(tensors)
    ids = torch.randint(3, arch.vocab_size, (1, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    torch.testing.assert_close(
        ours(ids, mask), theirs(ids, attention_mask=mask).last_hidden_state, **TOLERANCE
    )


def test_an_image_encoder(tmp_path: Path) -> None:
    """With what only the official file holds: the tower for texts, a scale, and a head."""
    arch = ClipArchitecture(dim=160, dim_mlp=320, num_layers=4, patch_size=7, num_tokens=17)
    last = {"visual.post_norm.weight": (arch.dim,), "visual.post_norm.bias": (arch.dim,)}
    others = {"textual.token_embedding.weight": (9, 8), "log_scale": (1,), "visual.head": (arch.dim, 32)}
    tensors = official(tmp_path / "clip", clip_tensors(arch) | last | others, None, seed=61)
    convert(tmp_path / "clip", tmp_path / "image_encoder", ConvertOptions(layout="diffusers"))
    theirs = CLIPVisionModel.from_pretrained(tmp_path / "image_encoder").eval()
    arch = clip_from({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    ours = ClipVision(arch, dtype=torch.float32).eval()
    ours.load_state_dict({name: tensors[name] for name in clip_tensors(arch)})
    images = randn(2, 3, 28, 28, seed=62)
    wanted = theirs(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours.visual(images), wanted, **TOLERANCE)


@pytest.mark.parametrize("single", [False, True])
def test_a_vae(single: bool, tiny: Path, tmp_path: Path) -> None:
    tensors = torch.load(tiny / "Wan2.1_VAE.pth", weights_only=True)
    arch = vae_from({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    ours = WanVae(arch, dtype=torch.float32)
    ours.load_state_dict(tensors)
    convert(tiny / "Wan2.1_VAE.pth", tmp_path / "vae", ConvertOptions(layout="diffusers"))
    if single:
        file = tmp_path / "wan_vae.safetensors"
        convert(tiny / "Wan2.1_VAE.pth", file)
        theirs = AutoencoderKLWan.from_single_file(str(file), config=str(tmp_path / "vae"))
    else:
        theirs = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    video = randn(3, 5, 32, 48, seed=5).clamp(-1, 1)
    mean, std = (
        torch.tensor(part).view(-1, 1, 1, 1)
        for part in (theirs.config.latents_mean, theirs.config.latents_std)
    )
    wanted = (theirs.encode(video[None]).latent_dist.mode()[0] - mean) / std
    torch.testing.assert_close(ours.encode(video), wanted, **TOLERANCE)
    frames = theirs.decode((wanted * std + mean)[None], return_dict=False)[0][0]
    torch.testing.assert_close(torch.cat(list(ours.decode(wanted)), dim=1).clamp(-1, 1), frames, **TOLERANCE)


def test_the_vae_of_wan22(tmp_path: Path) -> None:
    arch = VaeArchitecture(dim=8, dec_dim=12, z_dim=LATENT_CHANNELS)
    tensors = official(tmp_path / "vae22", vae22_tensors(arch), None, seed=71)
    convert(tmp_path / "vae22", tmp_path / "vae", ConvertOptions(layout="diffusers"))
    theirs = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    ours = Wan22Vae(arch)
    ours.load_state_dict(tensors)
    video = randn(3, 5, 32, 48, seed=73).clamp(-1, 1)
    mean, std = (
        torch.tensor(part).view(-1, 1, 1, 1)
        for part in (theirs.config.latents_mean, theirs.config.latents_std)
    )
    wanted = (theirs.encode(video[None]).latent_dist.mode()[0] - mean) / std
    torch.testing.assert_close(ours.encode(video), wanted, **TOLERANCE)


def test_animate(tmp_path: Path) -> None:
    """Every weight is where ``filled_by_names`` puts it, which the other tests compare outputs with."""
    dit = DitArchitecture(
        dim=64, ffn_dim=128, num_heads=2, num_layers=10, in_dim=36, out_dim=16, text_dim=48, image_dim=80
    )
    # seven residual blocks, as the released network has
    arch = AnimateArchitecture(dit=dit, motion_channels=(4,) * 8, style_dim=32, motion_dim=48, face_dim=32)
    tensors = official(tmp_path / "model", animate_tensors(arch), config_of(dit, "i2v"), seed=81)
    convert(tmp_path / "model", tmp_path / "transformer", ConvertOptions(layout="diffusers"))
    theirs, report = WanAnimateTransformer3DModel.from_pretrained(
        tmp_path / "transformer", output_loading_info=True
    )
    assert not any(report.values()), report
    found = theirs.state_dict()
    keys, values = tensors["face_adapter.fuser_blocks.1.linear1_kv.weight"].chunk(2)
    assert torch.equal(found["face_adapter.1.to_k.weight"], keys)
    assert torch.equal(found["face_adapter.1.to_v.weight"], values)
    bias = tensors["motion_encoder.enc.net_app.convs.3.conv2.2.bias"]
    assert torch.equal(found["motion_encoder.res_blocks.2.conv2.act_fn.bias"], bias.flatten())
    convert(tmp_path / "transformer", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) == {name for name in tensors if not name.endswith(".kernel")}
    for name, tensor in back.items():
        assert torch.equal(tensor.flatten(), tensors[name].flatten()), name
