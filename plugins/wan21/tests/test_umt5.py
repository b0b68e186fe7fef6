"""The text encoder against reference outputs of the official code."""

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_wan21.architecture import Umt5Architecture, umt5_from, umt5_tensors
from lightx2v_wan21.umt5 import Umt5Encoder, relative_buckets

TOLERANCE = {"atol": 1e-3, "rtol": 1e-3}


@pytest.fixture(scope="module")
def checkpoint(golden):
    folder = golden("t5_umt5")
    tensors = torch.load(folder / "ckpt" / "models_t5_umt5-xxl-enc-bf16.pth", weights_only=True)
    return tensors, load_file(folder / "outputs.safetensors")


def build(tensors, dtype):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = umt5_from(shapes)
    assert umt5_tensors(arch) == shapes
    encoder = Umt5Encoder(arch, dtype=dtype)
    encoder.load_state_dict(tensors)
    return encoder


@pytest.mark.parametrize("length", [512, 32])
def test_embeddings_equal_official(length, checkpoint):
    tensors, outputs = checkpoint
    ids, mask = outputs[f"len{length}.ids"], outputs[f"len{length}.mask"]
    embeddings = build(tensors, torch.float32)(ids, mask)
    assert embeddings.shape == (*ids.shape, 64)
    for row, used in enumerate(mask.sum(dim=1).tolist()):
        torch.testing.assert_close(embeddings[row, :used], outputs[f"len{length}.emb.{row}"], **TOLERANCE)
        assert not embeddings[row, used:].any()


def test_trimming_does_not_change_the_result(checkpoint):
    tensors, outputs = checkpoint
    encoder = build(tensors, torch.float32)
    ids, mask = outputs["len512.ids"], outputs["len512.mask"]
    alone = encoder(ids[:1], mask[:1])  # computed on 21 columns
    torch.testing.assert_close(alone[0], encoder(ids, mask)[0], atol=1e-5, rtol=1e-5)


def test_bfloat16_is_close(checkpoint):
    tensors, outputs = checkpoint
    embeddings = build(tensors, torch.bfloat16)(outputs["len32.ids"], outputs["len32.mask"])
    assert embeddings.dtype == torch.bfloat16
    expected = outputs["len32.emb.0"]
    assert (embeddings[0, : len(expected)].float() - expected).norm() < 0.05 * expected.norm()


def test_buckets_tell_direction_and_grow_with_distance():
    buckets = relative_buckets(300, 32, torch.device("cpu"))
    assert buckets[0, :9].tolist() == [0, 17, 18, 19, 20, 21, 22, 23, 24]
    assert buckets[:9, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert buckets[0, 128:].unique().tolist() == [31]
    assert (buckets[0].diff() >= 0).all()


def random_tensors(seed=0):
    """A small encoder with weights as large as those of umT5, in bfloat16 like the published ones."""
    arch = Umt5Architecture(
        vocab_size=50, dim=64, dim_attn=64, dim_ffn=128, num_heads=4, num_layers=3, num_buckets=32
    )
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.ones(shape) if "norm" in name else torch.randn(shape, generator=generator) * 0.1
        ).bfloat16()
        for name, shape in umt5_tensors(arch).items()
    }


@pytest.mark.parametrize(
    ("ending", "factor"),
    [
        ("", 1),
        ("ffn.fc2.weight", 3e4),  # the residual stream leaves the range
        ("ffn.fc1.weight", 3e4),  # the product with the gate does
        ("ffn.gate.0.weight", 3e4),
        ("attn.o.weight", 3e4),
        ("attn.v.weight", 3e4),
        ("token_embedding.weight", 3e4),
    ],
)
def test_nothing_overflows_in_float16(ending, factor):
    tensors = random_tensors()
    tensors = {n: (t.float() * factor).bfloat16() if n.endswith(ending) else t for n, t in tensors.items()}
    ids = torch.randint(1, 50, (2, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    expected = build(tensors, torch.float32)(ids, mask)
    embeddings = build(tensors, torch.float16)(ids, mask)
    assert embeddings.dtype == torch.float16
    assert torch.isfinite(embeddings).all()
    assert (embeddings.float() - expected).norm() < 0.005 * expected.norm()
