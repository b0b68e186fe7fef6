"""The image encoder against reference outputs of the official code."""

import attrs
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightx2v_wan21.architecture import ClipArchitecture, clip_from, clip_tensors
from lightx2v_wan21.clip import ClipVision, preprocess
from lightx2v_wan21.media import image_tensor, open_image

OFFICIAL = ClipArchitecture(dim=1280, dim_mlp=5120, num_layers=31)


@pytest.fixture(scope="module")
def case(golden):
    folder = golden("clip_visual")
    file = folder / "ckpt" / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    return folder, torch.load(file, weights_only=True), load_file(folder / "outputs.safetensors")


def build(tensors, dtype):
    arch = clip_from({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    expected = clip_tensors(arch)
    assert {name: tuple(tensors[name].shape) for name in expected} == expected
    encoder = ClipVision(arch, dtype=dtype)
    encoder.load_state_dict({name: tensors[name] for name in expected})
    return encoder


@pytest.mark.parametrize("name", ["image_0", "image_1"])
def test_features_equal_official(name, case):
    folder, tensors, outputs = case
    image = image_tensor(open_image(folder / f"{name}.png"))
    features = build(tensors, torch.float32)(image[None])
    torch.testing.assert_close(features, outputs[f"{name}.features"], atol=1e-3, rtol=1e-3)


def test_preprocessing_equals_official(case):
    folder, _, outputs = case
    with Image.open(folder / "image_0.png") as image:
        got = preprocess(image_tensor(image.convert("RGB"))[None], 224)
    torch.testing.assert_close(got, outputs["image_0.clip_input"].float(), atol=2e-3, rtol=1e-3)


def test_bfloat16_is_close(case):
    folder, tensors, outputs = case
    features = build(tensors, torch.bfloat16)(image_tensor(open_image(folder / "image_1.png"))[None])
    assert features.dtype == torch.float32
    expected = outputs["image_1.features"]
    assert (features - expected).norm() < 0.05 * expected.norm()


def test_official_size():
    """393 tensors of the visual tower, without its last block (12), final norm, head and temperature."""
    expected = clip_tensors(OFFICIAL)
    assert len(expected) == 393 - 12 - 4
    with torch.device("meta"):
        module = ClipVision(OFFICIAL, dtype=torch.float16)
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == expected


def test_sizes_come_back_from_shapes():
    whole = clip_tensors(attrs.evolve(OFFICIAL, num_layers=32))
    assert clip_from(whole) == OFFICIAL


def test_wrong_files_are_named():
    with pytest.raises(
        ValueError, match="CLIP image encoder checkpoint: 'visual.patch_embedding.weight' is missing"
    ):
        clip_from({"a": (1,)})
    with pytest.raises(ValueError, match="dim 100 is not a multiple of the head size 80"):
        attrs.evolve(OFFICIAL, dim=100)
    with pytest.raises(ValueError, match="250 tokens are not a class token and a square"):
        attrs.evolve(OFFICIAL, num_tokens=250)
