"""The VAE against reference outputs of the official code, and its streaming and tiling."""

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_wan21.architecture import VaeArchitecture, vae_from, vae_tensors
from lightx2v_wan21.vae import WanVae
from lightx2v_wan21.vae_tiling import tile_weights

TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def case(golden):
    folder = golden("vae_wan21")
    tensors = torch.load(folder / "ckpt" / "Wan2.1_VAE.pth", weights_only=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = vae_from(shapes)
    assert vae_tensors(arch) == shapes
    vae = WanVae(arch)
    vae.load_state_dict(tensors)
    return vae, load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def skip_unless_there(run, inputs):
    """Skip lengths that the compact fixtures in tests/golden do not have."""
    if not any(name.startswith(f"{run}.") for name in inputs):
        pytest.skip(f"{run} is in the full set of fixtures only")


@pytest.fixture
def random_vae():
    vae = WanVae(VaeArchitecture(dim=4, dec_dim=4))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in vae.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        value = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        parameter.data = torch.ones_like(value) if name.endswith("gamma") else value
    return vae


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


def test_bfloat16_decode_is_close(case):
    vae, inputs, outputs = case
    half = WanVae(VaeArchitecture(dim=6, dec_dim=6), dtype=torch.bfloat16)
    half.load_state_dict(vae.state_dict())
    video = torch.cat(list(half.decode(inputs["dec_t2.latent"])), dim=1)
    assert video.dtype == torch.float32
    expected = outputs["dec_t2.video_raw"]
    assert (video - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("frames", [0, 2, 4, 8])
def test_encode_refuses_other_frame_counts(frames, random_vae):
    with pytest.raises(ValueError, match=rf"{frames} frames; the VAE needs 4k \+ 1"):
        random_vae.encode(torch.zeros(3, frames, 16, 16))


def test_encode_refuses_uneven_frames(random_vae):
    with pytest.raises(ValueError, match="20x16 are not divisible by 8"):
        random_vae.encode(torch.zeros(3, 1, 20, 16))


def test_other_latent_channels_are_refused():
    with pytest.raises(ValueError, match="z_dim is 48"), torch.device("meta"):
        WanVae(VaeArchitecture(dim=4, dec_dim=4, z_dim=48))


@pytest.mark.parametrize("tile", [(5, 7), (9, 9)])
def test_one_tile_equals_plain_decode(tile, case):
    vae, inputs, _ = case
    latents = inputs["dec_t2.latent"]
    plain = list(vae.decode(latents))
    tiled = list(vae.decode_tiled(latents, tile=tile, overlap=1))
    assert len(plain) == len(tiled)
    assert all(torch.equal(a, b) for a, b in zip(plain, tiled, strict=True))


def test_tiles_equal_plain_decode_away_from_seams(random_vae):
    # Without the frame-wide attention a pixel depends on 18 latent pixels to each side at most.
    random_vae.decoder.middle[1].proj.weight.data.zero_()
    latents = torch.randn(16, 2, 3, 36, generator=torch.Generator().manual_seed(1))
    plain = list(random_vae.decode(latents))
    tiled = list(random_vae.decode_tiled(latents, tile=(3, 28), overlap=20))
    assert [chunk.shape for chunk in tiled] == [chunk.shape for chunk in plain]
    plain, tiled = torch.cat(plain, dim=1), torch.cat(tiled, dim=1)
    for zone in (slice(0, 64), slice(-64, None)):
        torch.testing.assert_close(tiled[..., zone], plain[..., zone], atol=1e-4, rtol=1e-4)
    assert (tiled - plain).norm() < 0.2 * plain.norm()


@pytest.mark.parametrize(("size", "tile", "overlap"), [(36, 28, 20), (37, 10, 3), (12, 4, 0), (5, 9, 2)])
def test_tile_weights_cover_the_axis(size, tile, overlap):
    tiles = tile_weights(size, tile, overlap, 8)
    total = torch.zeros(size * 8)
    for (start, weight), following in zip(tiles, [*tiles[1:], None], strict=True):
        assert weight.min() > 0
        total[start * 8 :][: len(weight)] += weight
        if following is not None:
            assert overlap <= start + len(weight) // 8 - following[0]
    torch.testing.assert_close(total, torch.ones_like(total))


def test_bad_overlap_is_refused(random_vae):
    for overlap in (4, -1):
        with pytest.raises(ValueError, match=f"overlap {overlap} of tiles"):
            next(random_vae.decode_tiled(torch.zeros(16, 1, 8, 8), tile=(4, 8), overlap=overlap))


@pytest.mark.parametrize(("dim", "dec_dim"), [(24, 24), (4, 6)])
def test_other_widths_come_from_the_file(dim, dec_dim):
    """The light VAE is the same network at a quarter of the width; encoder and decoder may differ."""
    with torch.device("meta"):
        shapes = {
            n: tuple(t.shape)
            for n, t in WanVae(VaeArchitecture(dim=dim, dec_dim=dec_dim)).state_dict().items()
        }
    arch = vae_from(shapes)
    assert (arch.dim, arch.dec_dim) == (dim, dec_dim)
    assert vae_tensors(arch) == shapes
    vae = WanVae(arch)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    latents = vae.encode(torch.zeros(3, 5, 16, 24))
    assert latents.shape == (16, 2, 2, 3)
    video = torch.cat(list(vae.decode(latents)), dim=1)
    assert video.shape == (3, 5, 16, 24)
    assert video.isfinite().all()
