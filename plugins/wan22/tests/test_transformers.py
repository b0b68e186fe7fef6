"""The transformers of A14B and TI2V against reference outputs of the official code, and their official sizes."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lightx2v_wan21.api import DitArchitecture, WanDiT, dit_from, dit_tensors

TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}


def predict(model, inputs, run):
    latents, contexts = inputs[f"{run}.x"], []
    for index in range(len(latents)):
        context = inputs[f"{run}.context.{index}"]
        contexts.append(F.pad(context, (0, 0, 0, model.arch.text_len - len(context))))
    if f"{run}.y" in inputs:
        latents = torch.cat((latents, inputs[f"{run}.y"]), dim=1)
    return model(latents, inputs[f"{run}.t"], torch.stack(contexts), model.rope(latents.shape[1:], "cpu"))


@pytest.mark.parametrize(
    ("case", "folder", "runs"),
    [
        ("dit_wan22_t2v_a14b", "high_noise_model", ("single", "batch2")),
        ("dit_wan22_t2v_a14b", "low_noise_model", ("single", "batch2")),
        ("dit_wan22_i2v_a14b", "high_noise_model", ("single", "batch2")),
        ("dit_wan22_i2v_a14b", "low_noise_model", ("single", "batch2")),
        ("dit_wan22_ti2v_5b", "", ("single", "per_token", "per_token_batch2")),
    ],
)
def test_output_equals_official(case, folder, runs, golden, load_checkpoint, read_json, sdpa):
    checkpoint = golden(case) / "ckpt" / folder
    tensors = load_checkpoint(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = dit_from(read_json(checkpoint / "config.json"), shapes)
    assert dit_tensors(arch) == shapes
    model = WanDiT(arch, attention=sdpa, dtype=torch.float32)
    model.load_state_dict(tensors)
    inputs = load_file(golden(case) / "inputs.safetensors")
    outputs = load_file(golden(case) / "outputs.safetensors")
    for run in runs:
        expected = outputs[f"{run}.{folder}.out" if folder else f"{run}.out"]
        torch.testing.assert_close(predict(model, inputs, run), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("channels", "sizes", "tensors", "parameters"),
    [
        ((16, 16), (5120, 13824, 40, 40), 1095, 14_288_491_584),
        ((36, 16), (5120, 13824, 40, 40), 1095, 14_288_901_184),
        ((48, 48), (3072, 14336, 24, 30), 825, 4_999_787_712),
    ],
    ids=["T2V-A14B", "I2V-A14B", "TI2V-5B"],
)
def test_official_sizes(channels, sizes, tensors, parameters):
    dim, ffn_dim, num_heads, num_layers = sizes
    arch = DitArchitecture(
        dim=dim,
        ffn_dim=ffn_dim,
        num_heads=num_heads,
        num_layers=num_layers,
        in_dim=channels[0],
        out_dim=channels[1],
    )
    expected = dit_tensors(arch)
    assert len(expected) == tensors
    assert sum(map(math.prod, expected.values())) == parameters
    with torch.device("meta"):
        model = WanDiT(arch, attention=F.scaled_dot_product_attention, dtype=torch.bfloat16)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
