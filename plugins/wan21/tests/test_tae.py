"""The tiny VAEs against reference outputs, and their streaming."""

import attrs
import pytest
import torch
from safetensors.torch import load_file

from lightx2v_wan21.architecture import TaeArchitecture, tae_from, tae_tensors
from lightx2v_wan21.tae import TinyVae
from lightx2v_wan21.vae import STATISTICS

TOLERANCE = {"atol": 1e-3, "rtol": 1e-3}
OFFICIAL = TaeArchitecture(
    enc_dim=64, dec_dims=(256, 128, 64, 64), z_dim=16, image_channels=3, grow_rows=(256, 256, 128)
)


def load_case(folder, file, **options):
    tensors = torch.load(folder / "ckpt" / file, weights_only=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = tae_from(shapes)
    assert tae_tensors(arch) == shapes
    vae = TinyVae(arch, **options)
    vae.load_state_dict(tensors)
    return vae, load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


CASES = {"tae_wan21": "taew2_1.pth", "tae_wan22": "taew2_2.pth"}


@pytest.mark.parametrize("chunk", [1, 2, 99])
@pytest.mark.parametrize("case", CASES)
def test_decode_equals_published_code(case, chunk, golden):
    vae, inputs, outputs = load_case(golden(case), CASES[case])
    for run in ("dec_t1", "dec_t3"):
        chunks = list(vae.decode(inputs[f"{run}.latent"], chunk=chunk))
        video = torch.cat(chunks, dim=1)
        assert video.dtype == torch.float32
        torch.testing.assert_close(video, outputs[f"{run}.video"], **TOLERANCE)
    if chunk == 1:
        assert [part.shape[1] for part in chunks] == [1, 4, 4]


def test_scaled_latents_equal_published_code(golden):
    vae, inputs, outputs = load_case(golden("tae_wan21"), "taew2_1.pth", statistics=STATISTICS)
    for run in ("dec_t1", "dec_t3"):
        video = torch.cat(list(vae.decode(inputs[f"{run}.latent"])), dim=1)
        torch.testing.assert_close(video, outputs[f"{run}.video_need_scaled"], **TOLERANCE)


@pytest.mark.parametrize("chunk", [4, 8, 40])
@pytest.mark.parametrize("case", CASES)
def test_encode_equals_published_code(case, chunk, golden):
    vae, inputs, outputs = load_case(golden(case), CASES[case])
    for run in ("enc_t9", "enc_t8"):
        if f"{run}.video01" in inputs:
            latents = vae.encode(inputs[f"{run}.video01"], chunk=chunk)
            torch.testing.assert_close(latents, outputs[f"{run}.latent"], **TOLERANCE)


def test_two_clips_can_be_decoded_at_once(golden):
    """Modules have no state: interleaved streams are independent."""
    vae, inputs, outputs = load_case(golden("tae_wan21"), "taew2_1.pth")
    streams = [vae.decode(inputs["dec_t3.latent"]) for _ in range(2)]
    pairs = list(zip(*streams, strict=True))
    for i in range(2):
        video = torch.cat([pair[i] for pair in pairs], dim=1)
        torch.testing.assert_close(video, outputs["dec_t3.video"], **TOLERANCE)


def test_spare_rows_are_left_out(golden):
    """A file may have layers that produce more frames; the last rows are used."""
    folder = golden("tae_wan21")
    vae, inputs, outputs = load_case(folder, "taew2_1.pth")
    state = vae.state_dict()
    for name in ("decoder.7.conv.weight", "decoder.19.conv.weight"):
        state[name] = torch.cat((torch.full_like(state[name], 9.0), state[name]))
    arch = tae_from({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert arch.grow_rows == (48, 32, 48)
    other = TinyVae(arch)
    other.load_state_dict(state)
    video = torch.cat(list(other.decode(inputs["dec_t3.latent"])), dim=1)
    torch.testing.assert_close(video, outputs["dec_t3.video"], **TOLERANCE)


def test_official_size():
    expected = tae_tensors(OFFICIAL)
    with torch.device("meta"):
        module = TinyVae(OFFICIAL, dtype=torch.bfloat16)
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == expected
    assert tae_from(expected) == OFFICIAL
    # the published list counts the layers of the decoder and the encoder; both together are a file
    assert len(expected) == 128


def test_wrong_files_are_named():
    with pytest.raises(ValueError, match="tiny VAE .TAEHV. file: 'encoder.0.weight' is missing"):
        tae_from({"a": (1,)})
    with pytest.raises(ValueError, match="5 image channels"):
        attrs.evolve(OFFICIAL, image_channels=5)
    with pytest.raises(ValueError, match="a layer that produces 2 frames of width 128 has only 128 rows"):
        attrs.evolve(OFFICIAL, grow_rows=(256, 128, 128))
    with pytest.raises(ValueError, match="expected a multiple of 4 frames"):
        TinyVae(attrs.evolve(OFFICIAL)).encode(torch.zeros(3, 4, 8, 8), chunk=3)
