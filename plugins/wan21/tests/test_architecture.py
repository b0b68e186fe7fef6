"""Tensor lists against the modules and the known totals of the official files; inference of sizes."""

import math
import subprocess
import sys

import pytest
import torch

from lightx2v_wan21 import architecture as arch
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import WanVae

DIT_1_3B = arch.DitArchitecture(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_dim=16, out_dim=16)
DIT_14B = arch.DitArchitecture(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=16, out_dim=16)
DIT_TINY = arch.DitArchitecture(
    dim=64, ffn_dim=128, num_heads=2, num_layers=3, in_dim=16, out_dim=16, text_dim=48
)
UMT5 = arch.Umt5Architecture(
    vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24
)
UMT5_TINY = arch.Umt5Architecture(vocab_size=640, dim=64, dim_attn=32, dim_ffn=128, num_heads=4, num_layers=3)
VAE = arch.VaeArchitecture(dim=96, dec_dim=96)
VAE_TINY = arch.VaeArchitecture(dim=6, dec_dim=8)


def state_shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("size", "tensors", "parameters"),
    [(DIT_TINY, 15 + 27 * 3, None), (DIT_1_3B, 825, 1_418_996_800), (DIT_14B, 1095, 14_288_491_584)],
    ids=["tiny", "1.3B", "14B"],
)
def test_dit_tensors(size, tensors, parameters, sdpa):
    expected = arch.dit_tensors(size)
    with torch.device("meta"):
        module = WanDiT(size, attention=sdpa, dtype=torch.bfloat16)
    assert state_shapes(module) == expected
    assert len(expected) == tensors
    assert parameters in (None, sum(map(math.prod, expected.values())))


@pytest.mark.parametrize(
    ("size", "tensors", "parameters"),
    [(UMT5_TINY, 2 + 10 * 3, None), (UMT5, 242, 5_680_910_336)],
    ids=["tiny", "xxl"],
)
def test_umt5_tensors(size, tensors, parameters):
    expected = arch.umt5_tensors(size)
    with torch.device("meta"):
        module = Umt5Encoder(size, dtype=torch.bfloat16)
    assert state_shapes(module) == expected
    assert len(expected) == tensors
    assert parameters in (None, sum(map(math.prod, expected.values())))


@pytest.mark.parametrize(
    ("size", "parameters"), [(VAE_TINY, None), (VAE, 126_892_531)], ids=["tiny", "official"]
)
def test_vae_tensors(size, parameters):
    expected = arch.vae_tensors(size)
    with torch.device("meta"):
        module = WanVae(size)
    assert state_shapes(module) == expected
    assert len(expected) == 194
    assert parameters in (None, sum(map(math.prod, expected.values())))


def test_sizes_come_back_from_shapes():
    assert arch.umt5_from(arch.umt5_tensors(UMT5_TINY)) == UMT5_TINY
    assert arch.vae_from(arch.vae_tensors(VAE_TINY)) == VAE_TINY


CONFIG = {"dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 3, "in_dim": 16, "out_dim": 16}


def test_dit_from_config_takes_text_dim_from_the_file():
    assert arch.dit_from(CONFIG, arch.dit_tensors(DIT_TINY)) == DIT_TINY
    assert arch.dit_from(CONFIG, {}).text_dim == 4096
    assert arch.dit_from({**CONFIG, "text_dim": 9}, arch.dit_tensors(DIT_TINY)).text_dim == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ffn_dim": None}, r"ffn_dim = None, the checkpoint holds blocks.0.ffn.0.weight \[128, 64\]"),
        ({"num_layers": "3"}, r"num_layers = '3', the checkpoint holds 3 blocks"),
        ({"num_heads": True}, "num_heads = True, the checkpoint does not tell it"),
        ({"dim": 64.0}, "dim = 64.0"),
        ({"patch_size": [2, 2]}, "patch_size"),
        ({"eps": "small"}, "eps"),
        ({"num_heads": 7}, "dim 64 must be num_heads 7 times"),
    ],
)
def test_dit_from_names_a_bad_field(change, message):
    with pytest.raises(ValueError, match=message):
        arch.dit_from({**CONFIG, **change}, arch.dit_tensors(DIT_TINY))


def test_dit_from_names_a_missing_field():
    config = {key: value for key, value in CONFIG.items() if key != "in_dim"}
    with pytest.raises(ValueError, match="config.json has no 'in_dim', the checkpoint holds patch_embedding"):
        arch.dit_from(config, arch.dit_tensors(DIT_TINY))


def test_missing_tensor_is_named():
    with pytest.raises(ValueError, match="umT5 encoder checkpoint: 'token_embedding.weight' is missing"):
        arch.umt5_from(arch.vae_tensors(VAE_TINY))
    with pytest.raises(ValueError, match="Wan2.1 VAE checkpoint: 'encoder.conv1.weight' is missing"):
        arch.vae_from(arch.umt5_tensors(UMT5_TINY))
    with pytest.raises(ValueError, match="has shape"):
        arch.umt5_from({"token_embedding.weight": (5,)})


def test_architecture_does_not_import_torch():
    code = "import sys, lightx2v_wan21.architecture; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
