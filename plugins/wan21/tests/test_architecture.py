"""Tensor lists against the modules and the known totals of the official files; inference of sizes."""

import json
import math
import subprocess
import sys

import attrs
import pytest
import torch

from lightx2v_wan21 import architecture as arch
from lightx2v_wan21.dit import WanDiT
from lightx2v_wan21.umt5 import Umt5Encoder
from lightx2v_wan21.vae import WanVae

DIT_1_3B = arch.DitArchitecture(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_dim=16, out_dim=16)
DIT_14B = arch.DitArchitecture(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=16, out_dim=16)
_LARGE = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
DIT_I2V = arch.DitArchitecture(**_LARGE, in_dim=36, image_dim=1280)
DIT_FLF2V = arch.DitArchitecture(**_LARGE, in_dim=36, image_dim=1280, image_positions=514)
DIT_A14B_I2V = arch.DitArchitecture(**_LARGE, in_dim=36)
DIT_VACE = arch.DitArchitecture(**_LARGE, in_dim=16, vace_layers=tuple(range(0, 40, 5)))
DIT_VACE_SMALL = attrs.evolve(DIT_1_3B, vace_layers=tuple(range(0, 30, 2)))
DIT_5B = arch.DitArchitecture(dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_dim=48, out_dim=48)
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
    [
        (DIT_TINY, 15 + 27 * 3, None),
        (DIT_1_3B, 825, 1_418_996_800),
        (DIT_14B, 1095, 14_288_491_584),
        (DIT_I2V, 1303, 16_394_878_784),
        (DIT_FLF2V, 1304, 16_395_536_704),
        (DIT_VACE_SMALL, 1264, 2_153_972_032),
        (DIT_VACE, 1331, 17_337_592_896),
        (DIT_5B, 825, 4_999_787_712),
        (DIT_A14B_I2V, 1095, 14_288_901_184),
    ],
    ids=["tiny", "1.3B", "14B", "i2v", "flf2v", "vace-1.3B", "vace-14B", "5B", "a14b-i2v"],
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


@pytest.mark.parametrize("size", [DIT_14B, DIT_FLF2V, DIT_VACE], ids=["t2v", "flf2v", "vace"])
def test_a_network_survives_json(size):
    """Plans pass the sizes on as plain data."""
    assert arch.DitArchitecture(**json.loads(json.dumps(attrs.asdict(size)))) == size


@pytest.mark.parametrize("size", [DIT_I2V, DIT_FLF2V, DIT_VACE, DIT_VACE_SMALL, DIT_A14B_I2V])
def test_branches_come_back_from_shapes(size):
    """No official configuration has the image branch, and third parties omit ``vace_layers``."""
    config = {name: getattr(size, name) for name in (*_LARGE, "in_dim")}
    assert arch.dit_from(config, arch.dit_tensors(size)) == size


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("0,5", "vace_layers = '0,5'; expected a list of block numbers"),
        ([0, 5], r"vace_layers = \[0, 5\], but the checkpoint has 8 vace_blocks"),
        ([1, 5, 10, 15, 20, 25, 30, 35], "must rise from 0"),
        ([0, 5, 10, 15, 20, 25, 30, 40], "below num_layers 40"),
    ],
)
def test_wrong_vace_layers_are_named(layers, message):
    config = {name: getattr(DIT_VACE, name) for name in (*_LARGE, "in_dim")}
    with pytest.raises(ValueError, match=message):
        arch.dit_from({**config, "vace_layers": layers}, arch.dit_tensors(DIT_VACE))


CONFIG = {"dim": 64, "ffn_dim": 128, "num_heads": 2, "num_layers": 3, "in_dim": 16, "out_dim": 16}


def test_dit_from_config_takes_text_dim_from_the_file():
    assert arch.dit_from(CONFIG, arch.dit_tensors(DIT_TINY)) == DIT_TINY
    assert arch.dit_from(CONFIG, {}).text_dim == 4096
    assert arch.dit_from({**CONFIG, "text_dim": 9}, arch.dit_tensors(DIT_TINY)).text_dim == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ffn_dim": None}, r"ffn_dim = None, the checkpoint has blocks.0.ffn.0.weight \[128, 64\]"),
        ({"num_layers": "3"}, r"num_layers = '3', the checkpoint has 3 blocks"),
        ({"num_heads": True}, "num_heads = True, the checkpoint does not determine it"),
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
    with pytest.raises(ValueError, match="config.json has no 'in_dim', the checkpoint has patch_embedding"):
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
