"""The Animate network against reference outputs of the official code, and its tensors against the official totals."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lightx2v_wan21.api import DitArchitecture
from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_from, animate_tensors
from lightx2v_wan22.animate.dit import AnimateDiT

TOLERANCE = {"atol": 5e-4, "rtol": 1e-3}
OFFICIAL = AnimateArchitecture(
    dit=DitArchitecture(
        dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=36, out_dim=16, image_dim=1280
    )
)


@pytest.fixture(scope="module")
def case(golden, load_checkpoint, read_json, sdpa):
    folder = golden("dit_wan22_animate")
    tensors = load_checkpoint(folder / "ckpt")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = animate_from(read_json(folder / "ckpt" / "config.json"), shapes)
    assert animate_tensors(arch) == shapes
    model = AnimateDiT(arch, attention=sdpa, dtype=torch.float32)
    model.load_state_dict({name: value for name, value in tensors.items() if not name.endswith(".kernel")})
    inputs = {
        name.removeprefix("single."): value
        for name, value in load_file(folder / "inputs.safetensors").items()
    }
    outputs = {
        name.removeprefix("single."): value
        for name, value in load_file(folder / "outputs.safetensors").items()
    }
    return model, inputs, outputs


@pytest.fixture(scope="module")
def motion(case):
    model, inputs, _ = case
    with torch.no_grad():
        return model.motion(faces(inputs))


def faces(inputs):
    return inputs["face_small"].repeat_interleave(32, dim=3).repeat_interleave(32, dim=4)


def test_output_equals_official(case, motion):
    model, inputs, outputs = case
    seen = {}
    for index, block in enumerate(model.face_adapter.fuser_blocks):
        block.register_forward_hook(lambda *args, index=index: seen.update({f"dbg.fuser_{index}": args[-1]}))
    context = inputs["context.0"]
    latents = torch.cat((inputs["x"], inputs["y"]), dim=1)
    out = model(
        latents,
        inputs["t"],
        F.pad(context, (0, 0, 0, model.arch.text_len - len(context)))[None],
        model.rope(latents.shape[1:], "cpu"),
        image_MSD=inputs["clip_fea"],
        pose_BCTHW=inputs["pose_latents"],
        motion_BTRD=motion,
    )
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, outputs["out"], **TOLERANCE)
    assert len(seen) == 2
    for name, value in seen.items():
        torch.testing.assert_close(value, outputs[name], **TOLERANCE)


def test_motion_equals_official(case, motion):
    model, inputs, outputs = case
    assert torch.equal(motion[:, 0], torch.zeros_like(motion[:, 0]))
    torch.testing.assert_close(motion[:, 1:], outputs["dbg.face_encoder"], **TOLERANCE)
    vectors = model.motion_encoder(faces(inputs)[0, :, :2].transpose(0, 1))
    torch.testing.assert_close(vectors, outputs["dbg.motion"][:2], **TOLERANCE)


def test_official_size():
    expected = animate_tensors(OFFICIAL)
    assert OFFICIAL.face_size == 512
    assert OFFICIAL.adapters == 8
    assert len(expected) == 1441
    assert sum("kernel" in name for name in expected) == 14
    assert sum(map(math.prod, expected.values())) == 17_274_817_108
    with torch.device("meta"):
        model = AnimateDiT(OFFICIAL, attention=F.scaled_dot_product_attention, dtype=torch.bfloat16)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        name: shape for name, shape in expected.items() if not name.endswith(".kernel")
    }


def test_other_lengths_are_refused(case, motion):
    model, inputs, _ = case
    latents = torch.cat((inputs["x"], inputs["y"]), dim=1)
    with pytest.raises(ValueError, match="3 latent frames need 2 of the pose and 3 of motion"):
        model(
            latents,
            inputs["t"],
            torch.zeros(1, 4, 64),
            model.rope(latents.shape[1:], "cpu"),
            image_MSD=inputs["clip_fea"],
            pose_BCTHW=inputs["pose_latents"],
            motion_BTRD=motion[:, 1:],
        )
    with pytest.raises(ValueError, match="faces are 256x256; the motion encoder needs 512x512"):
        model.motion(torch.zeros(1, 3, 1, 256, 256))


def test_a_checkpoint_without_a_face_encoder_is_refused():
    shapes = {name: shape for name, shape in animate_tensors(OFFICIAL).items() if "face_encoder" not in name}
    with pytest.raises(ValueError, match=r"not an Animate checkpoint: 'face_encoder.conv2.conv.weight'"):
        animate_from({}, shapes)
