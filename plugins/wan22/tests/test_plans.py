"""Plans, before any weight is read: recognition, official defaults, sizes and memory."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from attrs import evolve
from PIL import Image

from lightx2v_core.api import CheckpointError, CheckpointFacts, Header, RequestError, Target, TensorInfo
from lightx2v_wan21.api import (
    NEGATIVE,
    ClipArchitecture,
    DitArchitecture,
    TaeArchitecture,
    Umt5Architecture,
    VaeArchitecture,
    WanDiT,
    clip_tensors,
    dit_tensors,
    tae_tensors,
    umt5_tensors,
    vae_tensors,
)
from lightx2v_wan22.a14b.variants import FAMILY as a14b
from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_tensors
from lightx2v_wan22.animate.dit import AnimateDiT
from lightx2v_wan22.animate.variants import FAMILY as animate
from lightx2v_wan22.options import A14bOptions, AnimateOptions, Ti2vOptions
from lightx2v_wan22.plugin import lightx2v_models
from lightx2v_wan22.ti2v.variants import FAMILY as ti2v
from lightx2v_wan22.ti2v.variants import best_size
from lightx2v_wan22.vae22.architecture import vae22_tensors

UMT5 = Umt5Architecture(
    vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24
)
CLIP = ClipArchitecture(dim=1280, dim_mlp=5120, num_layers=32)
SMALL_CLIP = ClipArchitecture(dim=80, dim_mlp=160, num_layers=3)
WIDE = DitArchitecture(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=16, out_dim=16)
FIVE = DitArchitecture(dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_dim=48, out_dim=48)
VAE21 = VaeArchitecture(dim=96, dec_dim=96)
VAE22 = VaeArchitecture(dim=160, dec_dim=256, z_dim=48)
IMAGES = evolve(WIDE, in_dim=36)
ANIMATE = AnimateArchitecture(dit=evolve(IMAGES, image_dim=1280))


def header(shapes):
    tensors = {
        name: TensorInfo(name=name, shape=shape, dtype="bfloat16", file=Path("model.safetensors"))
        for name, shape in shapes.items()
    }
    return Header(tensors=tensors)


def facts(sizes=None, **components):
    config = {}
    if sizes is not None:
        names = ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim")
        config = {name: getattr(sizes, name) for name in names}
    headers = {name: header(shapes) for name, shapes in components.items()}
    return CheckpointFacts(folder=Path("models/some"), config=config, headers=headers)


def experts(dit):
    tensors = dit_tensors(dit)
    text, vae = umt5_tensors(UMT5), vae_tensors(VAE21)
    return facts(dit, high_noise=tensors, low_noise=tensors, text_encoder=text, vae=vae)


TI2V = facts(FIVE, dit=dit_tensors(FIVE), text_encoder=umt5_tensors(UMT5), vae=vae22_tensors(VAE22))
ANIMATED = facts(
    ANIMATE.dit,
    dit=animate_tensors(ANIMATE),
    text_encoder=umt5_tensors(UMT5),
    image_encoder=clip_tensors(CLIP),
    vae=vae_tensors(VAE21),
)


def target(task, size=(1280, 720), frames=81, **inputs):
    return Target(task=task, width=size[0], height=size[1], frames=frames, inputs=inputs)


@pytest.mark.parametrize(
    ("family", "found", "variant", "tasks", "total"),
    [
        (a14b, experts(WIDE), "wan2.2-t2v-a14b", ("t2v",), 1095),
        (a14b, experts(IMAGES), "wan2.2-i2v-a14b", ("i2v", "flf2v"), 1095),
        (ti2v, TI2V, "wan2.2-ti2v-5b", ("t2v", "i2v"), 825),
        (
            animate,
            ANIMATED,
            "wan2.2-animate-14b",
            ("animate",),
            1427,
        ),  # but for 14 blur kernels, which are computed
    ],
)
def test_official_checkpoints_are_recognized(family, found, variant, tasks, total):
    recognition = family.recognize(found)
    assert recognition.variant == variant
    assert recognition.tasks == tasks
    assert recognition.head_dim == 128
    assert len(recognition.expected[recognition.components[0]]) == total
    assert set(recognition.expected) == set(recognition.components)
    assert recognition.experts == (2 if family is a14b else 1)


@pytest.mark.parametrize(
    ("family", "found", "reason"),
    [
        (a14b, facts(high_noise=animate_tensors(ANIMATE)), "are an Animate network"),
        (a14b, facts(high_noise=dit_tensors(evolve(WIDE, vace_layers=(0, 5)))), "are a VACE network"),
        (a14b, facts(high_noise=dit_tensors(ANIMATE.dit)), "are a Wan2.1 image-to-video network"),
        (a14b, facts(high_noise=dit_tensors(FIVE)), "have 48 input channels; A14B has 16 or 36"),
        (ti2v, facts(dit=dit_tensors(WIDE)), "has 16 input channels; TI2V has 48"),
        (animate, facts(dit=dit_tensors(ANIMATE.dit)), "no tensor 'pose_patch_embedding.weight'"),
    ],
)
def test_other_networks_are_not(family, found, reason):
    assert reason in family.recognize(found)


def test_parts_of_different_models_are_refused():
    text = umt5_tensors(evolve(UMT5, dim=64))
    for family, found in ((a14b, experts(WIDE)), (ti2v, TI2V), (animate, ANIMATED)):
        wrong = evolve(found, headers={**found.headers, "text_encoder": header(text)})
        with pytest.raises(CheckpointError, match="expects width 4096 of the text encoder, which has 64"):
            family.recognize(wrong)
    wrong = evolve(TI2V, headers={**TI2V.headers, "vae": header(vae_tensors(VAE21))})
    with pytest.raises(CheckpointError, match="not a Wan2.2 VAE checkpoint: .* has 3 input channels"):
        ti2v.recognize(wrong)
    wrong = evolve(ANIMATED, headers={**ANIMATED.headers, "image_encoder": header(clip_tensors(SMALL_CLIP))})
    with pytest.raises(CheckpointError, match="expects width 1280 of the image encoder, which has 80"):
        animate.recognize(wrong)
    with pytest.raises(CheckpointError, match="config.json has no 'num_layers', the checkpoint has"):
        a14b.recognize(evolve(experts(WIDE), config={"dim": 5120}))


def test_a_network_without_a_configuration_is_read_off_its_tensors():
    alone = a14b.recognize(evolve(experts(WIDE), config={}))
    assert alone.architecture == a14b.recognize(experts(WIDE)).architecture


@pytest.mark.parametrize(
    ("family", "found", "task", "steps", "shift", "guide", "frames", "fps"),
    [
        (a14b, experts(WIDE), "t2v", 40, 12, (4, 3), 81, 16),
        (a14b, experts(IMAGES), "i2v", 40, 5, (3.5, 3.5), 81, 16),
        (a14b, experts(IMAGES), "flf2v", 40, 16, (3.5, 3.5), 81, 16),
        (ti2v, TI2V, "i2v", 50, 5, (5,), 121, 24),
        (animate, ANIMATED, "animate", 20, 5, (1,), 77, 30),
    ],
)
def test_official_values(family, found, task, steps, shift, guide, frames, fps):
    said = family.defaults(family.recognize(found), task, None)
    assert (said.steps, said.shift, said.guide_scale) == (steps, shift, guide)
    assert (said.frames, said.fps, said.negative_prompt) == (frames, fps, NEGATIVE)
    assert (said.width, said.height) == ((1280, 704) if family is ti2v else (1280, 720))
    assert family.defaults(family.recognize(found), task, (832, 480)).width == 832


def test_geometry_of_text():
    shape = a14b.geometry(a14b.recognize(experts(WIDE)), target("t2v"))
    assert (shape.latent_shape, shape.tokens) == ((16, 21, 90, 160), 75600)
    shape = ti2v.geometry(ti2v.recognize(TI2V), target("t2v", (1280, 704), 121))
    assert (shape.latent_shape, shape.tokens) == ((48, 31, 44, 80), 27280)


@pytest.mark.parametrize(("size", "frames"), [((1280, 720), 121), ((1264, 704), 121), ((1280, 704), 120)])
def test_indivisible_sizes_are_refused(size, frames):
    with pytest.raises(RequestError, match=r"wan2.2-ti2v-5b: (frames must be 4k|(width|height) must be div)"):
        ti2v.geometry(ti2v.recognize(TI2V), target("t2v", size, frames))


@pytest.mark.parametrize(("width", "height"), [(1280, 704), (700, 1300), (512, 512), (3000, 700), (33, 4000)])
def test_an_image_decides_the_aspect(width, height):
    image = torch.zeros(3, height, width)
    shape = ti2v.geometry(ti2v.recognize(TI2V), target("i2v", (1280, 704), 121, image=image))
    assert shape.width % 32 == shape.height % 32 == 0
    assert shape.width * shape.height <= 1280 * 704
    if max(width, height) < 2 * min(width, height):
        assert abs(shape.width / shape.height - width / height) < 0.1 * width / height
    shape = a14b.geometry(a14b.recognize(experts(IMAGES)), target("i2v", image=image))
    assert shape.width % 16 == shape.height % 16 == 0


def test_best_size_is_the_better_rounding():
    """Of the sizes within the area that fill one side, none is nearer to the aspect ratio of the image."""
    for width, height in product(range(100, 1500, 230), repeat=2):
        got = best_size((width, height), 1280 * 704, 32)
        assert got[0] * got[1] <= 1280 * 704
        ratio = width / height
        wide = (1280 * 704 * ratio) ** 0.5
        by_width = int(wide // 32) * 32
        other = (by_width, int(1280 * 704 / by_width // 32) * 32)

        def distance(size, ratio=ratio):
            return max(ratio * size[1] / size[0], size[0] / size[1] / ratio)

        assert distance(got) <= distance(other)


def test_two_images_need_five_frames():
    image = torch.zeros(3, 720, 1280)
    with pytest.raises(RequestError, match="at least 5: instead of 1 use 5"):
        a14b.geometry(
            a14b.recognize(experts(IMAGES)), target("flf2v", frames=1, image=image, last_image=image)
        )


def test_animate_takes_size_and_length_from_the_pose():
    recognition = animate.recognize(ANIMATED)
    video = torch.zeros(3, 153, 32, 48)
    shape = animate.geometry(recognition, target("animate", frames=77, pose_video=video))
    assert (shape.width, shape.height, shape.frames) == (48, 32, 153)
    assert (shape.latent_shape, shape.tokens) == ((16, 21, 4, 6), 126)
    shape = animate.geometry(recognition, target("animate", frames=77, pose_video=video[:, :100]))
    assert shape.frames == 100  # the last of two segments is cut


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_forecast_of_weights_is_exact(dtype, sdpa):
    with torch.device("meta"):
        networks = {
            "a14b": WanDiT(WIDE, attention=sdpa, dtype=getattr(torch, dtype)),
            "ti2v": WanDiT(FIVE, attention=sdpa, dtype=getattr(torch, dtype)),
            "animate": AnimateDiT(ANIMATE, attention=sdpa, dtype=getattr(torch, dtype)),
        }
    for family, found, options, task in (
        (a14b, experts(WIDE), A14bOptions(), "t2v"),
        (ti2v, TI2V, Ti2vOptions(), "t2v"),
        (animate, ANIMATED, AnimateOptions(), "animate"),
    ):
        recognition = family.recognize(found)
        size = (1280, 704)
        shape = family.geometry(
            recognition, target(task, size, family.defaults(recognition, task, None).frames)
        )
        needs = family.memory(recognition, shape, dtype, options)
        assert set(needs) == set(recognition.components)
        assert all(need.weights > 0 and need.activations > 0 for need in needs.values())
        network = networks[type(family).__module__.split(".")[-2]]
        stored = network.state_dict().values()
        assert needs[recognition.components[0]].weights == sum(t.numel() * t.element_size() for t in stored)
    tiled = ti2v.memory(
        ti2v.recognize(TI2V),
        ti2v.geometry(ti2v.recognize(TI2V), target("t2v", (1280, 704), 121)),
        dtype,
        Ti2vOptions(vae_tile=256),
    )
    assert tiled["vae"].activations < 2**31


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("wan2.2_i2v_A14b_high_noise_lightx2v_4step.safetensors", 4),
        ("wan2.2_i2v_A14b_high_noise_scaled_fp8_e4m3_lightx2v.safetensors", 4),
        ("distill_models/high_noise_model/diffusion_pytorch_model.safetensors", 4),
        ("high_noise_model/i2v-8-steps.safetensors", 8),
        ("high_noise_model/diffusion_pytorch_model.safetensors", 0),
        ("high_noise_model/diffusion_pytorch_model_step5000.safetensors", 0),
        ("high_noise_model/14steps.safetensors", 0),
    ],
)
@pytest.mark.parametrize("family", [a14b, ti2v])
def test_names_tell_of_distilled_networks(family, file, steps):
    found, main = (experts(IMAGES), "high_noise") if family is a14b else (TI2V, "dit")
    tensors = {
        key: evolve(info, file=found.folder / file) for key, info in found.headers[main].tensors.items()
    }
    recognition = family.recognize(evolve(found, headers={**found.headers, main: Header(tensors=tensors)}))
    said = family.defaults(recognition, "i2v", None)
    ordinary = ("unipc", 40, (3.5, 3.5)) if family is a14b else ("unipc", 50, (5.0,))
    assert (said.scheduler, said.steps, said.guide_scale) == (
        ("distill", steps, (1.0,)) if steps else ordinary
    )
    assert said.shift == 5.0
    assert recognition.variant.endswith("-distill") == bool(steps)
    if not steps:
        assert not recognition.notes
        return
    (note,) = recognition.notes
    assert ("to 8 steps" in note) == (steps == 8)
    assert f"--scheduler unipc --steps {ordinary[1]} --guide-scale {ordinary[2][0]:g}" in note


def test_a_tiny_vae_takes_the_place_of_the_full_one():
    tiny = tae_tensors(
        TaeArchitecture(
            enc_dim=64, dec_dims=(256, 128, 64, 64), z_dim=16, image_channels=3, grow_rows=(256, 256, 128)
        )
    )
    for dit, components in ((WIDE, ("tiny_vae",)), (IMAGES, ("vae", "tiny_vae"))):
        found = experts(dit)
        found = evolve(
            found, headers={**found.headers, "tiny_vae": header(tiny)}, options=A14bOptions(tiny_vae=True)
        )
        recognition = a14b.recognize(found)
        assert recognition.components[3:] == components
        task = recognition.tasks[0]
        shape = a14b.geometry(recognition, target(task))
        needs = a14b.memory(recognition, shape, "bfloat16", found.options)
        assert set(needs) == set(recognition.components)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: A14bOptions(boundary=0.9, boundary_step_index=2), "exclude each other"),
        (lambda: A14bOptions(boundary=1.5), "boundary"),
        (lambda: Ti2vOptions(vae_tile=100), "'vae_tile' must be"),
        (lambda: Ti2vOptions(vae_tile=128, vae_tile_overlap=128), "'vae_tile_overlap' must be"),
        (lambda: AnimateOptions(segment_frames=80), "'segment_frames' must be 4k"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        options()


def test_planning_imports_no_torch():
    assert len(lightx2v_models()) == 3
    code = (
        "import sys; import lightx2v_wan22.plugin as p; specs = p.lightx2v_models();"
        "import lightx2v_wan22.a14b.variants, lightx2v_wan22.ti2v.variants, lightx2v_wan22.animate.variants;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [(1280, 704), (832, 480), (64, 64)])
@pytest.mark.parametrize("image", [(5000, 1), (1, 5000), (20000, 3), (2000, 100), (33, 4000)])
def test_a_picture_of_an_extreme_shape_takes_no_more_than_the_area(image, size):
    """It is refused if no video of the area has its aspect ratio, and never larger than the request."""
    pixels = Image.new("RGB", image)
    for family, model in ((ti2v, TI2V), (a14b, experts(IMAGES))):
        try:
            found = family.geometry(family.recognize(model), target("i2v", size, 5, image=pixels))
        except RequestError as exc:
            assert "has the aspect ratio of image {}x{}".format(*image) in str(exc)  # noqa: PT017
            continue
        assert found.width * found.height <= 1.02 * size[0] * size[1]
        assert found.notes == (
            f"size {found.width}x{found.height}: aspect ratio of image {image[0]}x{image[1]}, "
            f"area of {size[0]}x{size[1]}",
        )
