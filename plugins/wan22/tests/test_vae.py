"""The VAE against reference outputs of the official code, and its streaming and tiling."""

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_wan21.api import VaeArchitecture
from lightx2v_wan22.vae22.architecture import vae22_from, vae22_tensors
from lightx2v_wan22.vae22.layers import patchify, unpatchify
from lightx2v_wan22.vae22.network import Wan22Vae

TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def case(golden):
    folder = golden("vae_wan22")
    tensors = torch.load(folder / "ckpt" / "Wan2.2_VAE.pth", weights_only=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = vae22_from(shapes)
    assert vae22_tensors(arch) == shapes
    vae = Wan22Vae(arch)
    vae.load_state_dict(tensors)
    return vae, load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def skip_unless_there(run, inputs):
    """Skip lengths that the compact fixtures in tests/golden do not have."""
    if not any(name.startswith(f"{run}.") for name in inputs):
        pytest.skip(f"{run} is in the full set of fixtures only")


@pytest.mark.parametrize("run", ["enc_t1", "enc_t5", "enc_t9", "enc_t17"])
def test_encode_equals_official(run, case):
    vae, inputs, outputs = case
    skip_unless_there(run, inputs)
    latents = vae.encode(inputs[f"{run}.video"])
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, outputs[f"{run}.latent"], **TOLERANCE)


@pytest.mark.parametrize("run", ["dec_t1", "dec_t2", "dec_t3", "dec_t5"])
def test_decode_equals_official(run, case):
    vae, inputs, outputs = case
    skip_unless_there(run, inputs)
    chunks = list(vae.decode(inputs[f"{run}.latent"]))
    assert [chunk.shape[1] for chunk in chunks] == [1] + [4] * (len(chunks) - 1)
    torch.testing.assert_close(torch.cat(chunks, dim=1), outputs[f"{run}.video_raw"], **TOLERANCE)


def test_encode_keeps_a_batch_axis(case):
    vae, inputs, outputs = case
    video = inputs["enc_t5.video"]
    latents = vae.encode(torch.stack((video.flip(1), video)))
    torch.testing.assert_close(latents[1], outputs["enc_t5.latent"], **TOLERANCE)


def test_two_clips_can_be_decoded_at_once(case):
    """Modules have no state: interleaved streams are independent."""
    vae, inputs, outputs = case
    streams = [vae.decode(inputs["dec_t3.latent"]), vae.decode(inputs["dec_t3.latent"])]
    pairs = list(zip(*streams, strict=True))
    for i in range(2):
        video = torch.cat([pair[i] for pair in pairs], dim=1)
        torch.testing.assert_close(video, outputs["dec_t3.video_raw"], **TOLERANCE)


@pytest.mark.parametrize("frames", [0, 2, 4, 8])
def test_encode_refuses_other_frame_counts(frames):
    with torch.device("meta"):
        vae = Wan22Vae(VaeArchitecture(dim=4, dec_dim=4, z_dim=48))
        with pytest.raises(ValueError, match=rf"{frames} frames; the VAE needs 4k \+ 1"):
            vae.encode(torch.zeros(3, frames, 32, 32))
        with pytest.raises(ValueError, match="24x32 are not divisible by 16"):
            vae.encode(torch.zeros(3, 1, 24, 32))


def test_other_latent_channels_are_refused():
    with pytest.raises(ValueError, match="z_dim is 16"), torch.device("meta"):
        Wan22Vae(VaeArchitecture(dim=4, dec_dim=4))


@pytest.mark.parametrize("tile", [(5, 7), (9, 9)])
def test_one_tile_equals_plain_decode(tile, case):
    vae, inputs, _ = case
    latents = inputs["dec_t2.latent"]
    plain = list(vae.decode(latents))
    tiled = list(vae.decode_tiled(latents, tile=tile, overlap=1))
    assert len(plain) == len(tiled)
    assert all(torch.equal(a, b) for a, b in zip(plain, tiled, strict=True))


def test_tiles_equal_plain_decode_away_from_seams(case):
    vae = Wan22Vae(VaeArchitecture(dim=4, dec_dim=6, z_dim=48))
    vae.load_state_dict(case[0].state_dict())
    # Without the frame-wide attention a pixel depends on a limited neighbourhood.
    vae.decoder.middle[1].proj.weight.data.zero_()
    latents = torch.randn(48, 2, 2, 36, generator=torch.Generator().manual_seed(1))
    plain = list(vae.decode(latents))
    tiled = list(vae.decode_tiled(latents, tile=(2, 28), overlap=20))
    assert [chunk.shape for chunk in tiled] == [chunk.shape for chunk in plain]
    plain, tiled = torch.cat(plain, dim=1), torch.cat(tiled, dim=1)
    for zone in (slice(0, 128), slice(-128, None)):
        torch.testing.assert_close(tiled[..., zone], plain[..., zone], atol=1e-4, rtol=1e-4)
    assert (tiled - plain).norm() < 0.2 * plain.norm()


def test_folding_orders_columns_before_rows():
    video = torch.arange(2 * 4.0).view(1, 1, 1, 2, 4)
    folded = patchify(video)
    assert folded[0, :, 0, 0, 0].tolist() == [0, 4, 1, 5]
    assert torch.equal(unpatchify(folded), video)
