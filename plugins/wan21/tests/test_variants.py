"""Recognition of folders and their official defaults, from headers alone."""

import hashlib
from math import prod
from pathlib import Path

import attrs
import pytest
import torch

from lightx2v_core import load
from lightx2v_core.api import (
    CheckpointError,
    CheckpointFacts,
    Geometry,
    Header,
    RequestError,
    Target,
    TensorInfo,
)
from lightx2v_wan21 import architecture as arch
from lightx2v_wan21.memory import memory
from lightx2v_wan21.options import Wan21Options
from lightx2v_wan21.plugin import lightx2v_models
from lightx2v_wan21.prompts import NEGATIVE, NEGATIVE_FLF2V, NEGATIVE_I2V
from lightx2v_wan21.tiny import write_tiny
from lightx2v_wan21.variants import defaults, geometry, recognize

LARGE = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
SMALL = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "out_dim": 16}
DITS = {
    "t2v-1.3b": arch.DitArchitecture(**SMALL, in_dim=16),
    "t2v-14b": arch.DitArchitecture(**LARGE, in_dim=16),
    "i2v-14b": arch.DitArchitecture(**LARGE, in_dim=36, image_dim=1280),
    "flf2v-14b": arch.DitArchitecture(**LARGE, in_dim=36, image_dim=1280, image_positions=514),
    "vace-1.3b": arch.DitArchitecture(**SMALL, in_dim=16, vace_layers=tuple(range(0, 30, 2))),
    "vace-14b": arch.DitArchitecture(**LARGE, in_dim=16, vace_layers=tuple(range(0, 40, 5))),
}
UMT5 = arch.Umt5Architecture(
    vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24
)
TAE = arch.TaeArchitecture(
    enc_dim=64, dec_dims=(256, 128, 64, 64), z_dim=16, image_channels=3, grow_rows=(256, 256, 128)
)
ENCODERS = {
    "text_encoder": arch.umt5_tensors(UMT5),
    # its last block is in the file and not used
    "image_encoder": arch.clip_tensors(arch.ClipArchitecture(dim=1280, dim_mlp=5120, num_layers=32)),
    "vae": arch.vae_tensors(arch.VaeArchitecture(dim=96, dec_dim=96)),
    "tiny_vae": arch.tae_tensors(TAE),
}


def header(tensors, dtype="float32"):
    return Header(
        tensors={n: TensorInfo(name=n, shape=s, dtype=dtype, file=Path("f")) for n, s in tensors.items()}
    )


def facts(name, folder="model", options=None, **headers):
    dit = DITS[name] if isinstance(name, str) else name
    config = {field: getattr(dit, field) for field in (*LARGE, "in_dim")}
    found = {"dit": arch.dit_tensors(dit), **ENCODERS, **headers}
    return CheckpointFacts(
        folder=Path(folder),
        config=config,
        headers={part: header(tensors) for part, tensors in found.items()},
        options=options,
    )


@pytest.mark.parametrize("name", DITS)
def test_official_networks_are_recognized(name):
    found = recognize(facts(name))
    task = name.split("-")[0]
    assert (found.variant, found.tasks, found.head_dim) == (f"wan2.1-{name}", (task,), 128)
    images = ("image_encoder",) if task in ("i2v", "flf2v") else ()
    assert found.components == ("dit", "text_encoder", *images, "vae")
    assert set(found.expected) == set(found.components)


@pytest.mark.parametrize("name", DITS)
def test_a_tiny_vae_takes_the_place_of_the_full_one(name):
    """Only the tasks that encode need the full one."""
    found = recognize(facts(name, options=Wan21Options(tiny_vae=True)))
    vaes = tuple(part for part in found.components if part.endswith("vae"))
    assert vaes == (("tiny_vae",) if name.startswith("t2v") else ("vae", "tiny_vae"))
    assert set(found.expected) == set(found.components)


def test_what_is_not_needed_is_not_looked_at():
    broken = {"image_encoder": {"a": (1,)}, "tiny_vae": {"a": (1,)}}
    assert recognize(facts("t2v-14b", **broken)).variant == "wan2.1-t2v-14b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_dim": 48, "out_dim": 48}, "48 input channels; Wan2.1 networks have 16 or 36"),
        ({"in_dim": 36}, "a Wan2.2 image-to-video network"),
    ],
)
def test_other_networks_are_not_of_this_family(change, message):
    assert message in recognize(facts(attrs.evolve(DITS["t2v-14b"], **change)))


def test_animate_and_strangers_are_not_of_this_family():
    animate = arch.dit_tensors(DITS["i2v-14b"]) | {"pose_patch_embedding.weight": (5120, 16, 1, 2, 2)}
    assert "Animate" in recognize(facts("i2v-14b", dit=animate))
    assert "not a Wan transformer" in recognize(facts("t2v-14b", dit={"a": (1,)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text_encoder": arch.umt5_tensors(attrs.evolve(UMT5, dim=64))},
            "needs text embeddings of width 4096",
        ),
        (
            {"image_encoder": arch.clip_tensors(arch.ClipArchitecture(dim=160, dim_mlp=1, num_layers=2))},
            "needs image features of width 1280, the image encoder produces 160",
        ),
        ({"vae": arch.vae_tensors(arch.VaeArchitecture(dim=96, dec_dim=96, z_dim=48))}, "vae needs 48"),
        ({"image_encoder": {"a": (1,)}}, "not a CLIP image encoder checkpoint"),
    ],
)
def test_parts_of_another_model_are_named(change, message):
    with pytest.raises(CheckpointError, match=message):
        recognize(facts("i2v-14b", **change))


@pytest.mark.parametrize(
    ("name", "folder", "size", "expected"),
    [
        ("t2v-1.3b", "m", None, (832, 480, 50, 5.0)),
        ("t2v-14b", "m", None, (1280, 720, 50, 5.0)),
        ("t2v-14b", "m", (832, 480), (832, 480, 50, 5.0)),
        ("i2v-14b", "Wan2.1-I2V-14B-720P", None, (1280, 720, 40, 5.0)),
        ("i2v-14b", "Wan2.1-I2V-14B-480P", None, (832, 480, 40, 3.0)),
        ("i2v-14b", "m", (480, 832), (480, 832, 40, 3.0)),
        ("flf2v-14b", "m", None, (1280, 720, 50, 16.0)),
        ("vace-1.3b", "m", None, (832, 480, 50, 16.0)),
        ("vace-14b", "m", None, (1280, 720, 50, 16.0)),
    ],
)
def test_official_defaults(name, folder, size, expected):
    task = name.split("-")[0]
    got = defaults(recognize(facts(name, folder)), task, size)
    assert (got.width, got.height, got.steps, got.shift) == expected
    assert (got.frames, got.fps, got.guide_scale, got.scheduler) == (81, 16, (5.0,), "unipc")
    assert got.negative_prompt == {"i2v": NEGATIVE_I2V, "flf2v": NEGATIVE_FLF2V}.get(task, NEGATIVE)


def test_negative_prompts_are_the_official_ones():
    digest = hashlib.sha256(NEGATIVE.encode()).hexdigest()
    assert (len(NEGATIVE), digest[:12]) == (137, "ce96e0324e4b")
    assert (len(NEGATIVE_I2V), len(NEGATIVE_FLF2V)) == (137 + 5, 137 + 10)


def test_the_480p_and_720p_networks_are_told_apart_by_name():
    assert "have the same tensors" in recognize(facts("i2v-14b")).notes[0]
    assert recognize(facts("i2v-14b", "Wan2.1-I2V-14B-480P")).notes == ()


@pytest.mark.parametrize(
    ("file", "folder", "width"),
    [
        ("wan2.1_i2v_480p_lightx2v_4step.safetensors", "foo", 832),
        ("wan2.1_i2v_720p_scaled_fp8_e4m3_lightx2v_4step.safetensors", "foo", 1280),
        # the nearest name counts
        ("Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors", "Wan2.1-I2V-14B-720P", 832),
        ("Wan2.1-I2V-14B-480P/model.safetensors", "models", 832),
        ("original/model.safetensors", "Wan2.1-I2V-14B-480P-Lightx2v", 832),
        # neither, both, and what only looks like one
        ("model.safetensors", "foo", 1280),
        ("i2v_480p_and_720p.safetensors", "foo", 1280),
        ("i2v_1480p.safetensors", "foo", 1280),
        ("i2v_480px.safetensors", "foo", 1280),
    ],
)
def test_the_name_of_the_network_tells_its_size(file, folder, width):
    found = recognize(named("i2v-14b", file, folder))
    assert defaults(found, "i2v", None).width == width
    untold = folder == "foo" and not ("i2v_480p_l" in file or "i2v_720p_s" in file)
    assert any("have the same tensors" in note for note in found.notes) == untold


@pytest.mark.parametrize(("size", "frames", "tokens"), [((832, 480), 81, 32760), ((1280, 720), 81, 75600)])
def test_tokens_of_official_sizes(size, frames, tokens):
    found = recognize(facts("i2v-14b"))
    target = Target(task="i2v", width=size[0], height=size[1], frames=frames)
    assert geometry(found, target) == Geometry(
        latent_shape=(16, 21, size[1] // 8, size[0] // 8),
        tokens=tokens,
        width=size[0],
        height=size[1],
        frames=frames,
    )


def test_reference_images_take_latent_frames(tmp_path):
    found = recognize(facts("vace-14b"))
    images = (torch.zeros(3, 9, 9), torch.zeros(3, 9, 9))
    target = Target(task="vace", width=832, height=480, frames=81, inputs={"ref_images": images})
    assert geometry(found, target).latent_shape == (16, 23, 60, 104)
    assert geometry(found, target).tokens == 23 * 30 * 52


@pytest.mark.parametrize(
    ("size", "frames", "message"),
    [
        ((833, 480), 81, "width must be divisible by 16: instead of 833 use 832 or 848"),
        ((832, 8), 81, "height must be divisible by 16: instead of 8 use 16 or 32"),
        ((832, 480), 80, "frames must be 4k . 1: instead of 80 use 77 or 81"),
    ],
)
def test_impossible_sizes_name_possible_ones(size, frames, message):
    with pytest.raises(RequestError, match=message):
        target = Target(task="i2v", width=size[0], height=size[1], frames=frames)
        geometry(recognize(facts("i2v-14b")), target)


@pytest.mark.parametrize("options", [Wan21Options(), Wan21Options(tiny_vae=True), Wan21Options(vae_tile=256)])
@pytest.mark.parametrize("name", DITS)
def test_memory_counts_every_component(name, options):
    found = recognize(facts(name, options=options))
    target = Target(task=name.split("-")[0], width=1280, height=720, frames=81)
    needs = memory(found, geometry(found, target), "bfloat16", options)
    assert set(needs) == set(found.components)
    weights = sum(need.weights for need in needs.values())
    stored = sum(prod(shape) for tensors in found.expected.values() for shape in tensors.values())
    assert 2 * stored <= weights <= 2.2 * stored
    assert all(need.activations > 0 for need in needs.values() if need is not needs.get("vae"))
    if options.tiny_vae:
        assert needs["tiny_vae"].weights < 30 * 2**20
    if "vae" in needs and name.startswith("t2v"):
        full = memory(found, geometry(found, target), "bfloat16", Wan21Options())["vae"].activations
        assert (needs["vae"].activations < full) == bool(options.vae_tile)


def test_the_tiny_vae_decodes_when_it_is_asked_for(tmp_path):
    """It replaces the full one, which t2v then does not need; the file's name tells how latents are scaled."""
    write_tiny(tmp_path, task="t2v")
    small = {"size": (32, 32), "frames": 5, "steps": 2, "prompt": "a fox"}
    full = load(tmp_path, **small).generate()
    (tmp_path / "Wan2.1_VAE.pth").unlink()
    options = {"use": ["wan2.1"], "options": {"wan2.1": {"tiny_vae": True}}}
    tiny = load(tmp_path, **small, config={"model": options}).generate()
    assert torch.equal(tiny.latents, full.latents)
    assert tiny.frames.shape == full.frames.shape
    assert not torch.allclose(tiny.frames, full.frames, atol=0.1)
    (tmp_path / "taew2_1.pth").rename(tmp_path / "lighttaew2_1.pth")
    scaled = load(tmp_path, **small, config={"model": options}).generate()
    assert not torch.allclose(tiny.frames, scaled.frames, atol=0.01)
    options["options"]["wan2.1"]["tiny_vae_scaled"] = False
    assert torch.equal(load(tmp_path, **small, config={"model": options}).generate().frames, tiny.frames)
    with pytest.raises(CheckpointError, match="no Wan2.1 VAE"):
        load(tmp_path, **small)


def test_a_task_that_encodes_needs_the_full_vae_too(tmp_path):
    write_tiny(tmp_path, task="i2v")
    options = {"use": ["wan2.1"], "options": {"wan2.1": {"tiny_vae": True}}}
    pipeline = load(tmp_path, size=(32, 32), frames=5, steps=1, config={"model": options})
    assert [part.name for part in pipeline.plan.components][-2:] == ["vae", "tiny_vae"]
    video = pipeline.generate(prompt="a fox", image=torch.zeros(3, 16, 16))
    assert video.frames.shape == (3, 5, 32, 32)


def test_tiny_checkpoints_are_of_their_variant(tmp_path):
    (spec,) = lightx2v_models()
    for task in spec.tasks:
        write_tiny(tmp_path / task, task=task)
        plan = load(tmp_path / task).plan
        assert (plan.task, plan.variant.split("-")[1]) == (task, task)
        assert not plan.warnings


def named(name, file, folder="model"):
    """Facts of a network whose tensors are in ``file``."""
    found = facts(name, folder)
    tensors = {
        key: attrs.evolve(info, file=Path(folder) / file)
        for key, info in found.headers["dit"].tensors.items()
    }
    return attrs.evolve(found, headers={**found.headers, "dit": Header(tensors=tensors)})


ORDINARY = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("name", "file", "folder", "shift"),
    [
        ("t2v-14b", "wan2.1_t2v_14b_lightx2v_4step.safetensors", "models", 5.0),
        ("i2v-14b", "wan2.1_i2v_480p_scaled_fp8_e4m3_lightx2v.safetensors", "Wan2.1-I2V-14B-480P", 5.0),
        ("i2v-14b", ORDINARY, "Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v", 5.0),
        ("t2v-1.3b", "distill_models/model.safetensors", "models", 5.0),
        ("t2v-14b", ORDINARY, "my-4-steps", 5.0),
        ("flf2v-14b", "flf2v_4steps.safetensors", "models", 16.0),
        ("vace-14b", "vace_distill.safetensors", "models", 5.0),
    ],
)
def test_a_distilled_network_is_known_by_its_name(name, file, folder, shift):
    found = recognize(named(name, file, folder))
    task = name.split("-")[0]
    got = defaults(found, task, None)
    assert found.variant == f"wan2.1-{name}-distill"
    assert (got.scheduler, got.steps, got.shift, got.guide_scale) == ("distill", 4, shift, (1.0,))
    (note,) = (note for note in found.notes if "distilled" in note)
    assert f"--scheduler unipc --steps {40 if task == 'i2v' else 50} --guide-scale 5" in note
    assert ("--shift 3" in note) == ("480P" in folder)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        (ORDINARY, "lightx2v"),
        (ORDINARY, "Wan2.1-T2V-14B"),
        ("diffusion_pytorch_model_step5000.safetensors", "m"),
        ("model_14steps.safetensors", "finetune-1000-steps"),
    ],
)
def test_ordinary_names_do_not_say_distilled(file, folder):
    found = recognize(named("t2v-14b", file, folder))
    got = defaults(found, "t2v", None)
    assert (found.variant, got.scheduler, got.steps, got.guide_scale) == (
        "wan2.1-t2v-14b",
        "unipc",
        50,
        (5.0,),
    )
    assert not found.notes


def test_what_a_name_says_can_be_overridden(tmp_path):
    folder = tmp_path / "tiny-4step"
    folder.mkdir()
    write_tiny(folder)
    small = {"size": (32, 32), "frames": 5}
    plan = load(folder, **small).plan
    assert (plan.request.scheduler, plan.request.steps, plan.request.guide_scale) == ("distill", 4, (1.0,))
    assert any("'tiny-4step'" in note for note in plan.notes)
    plan = load(folder, **small, scheduler="unipc", steps=50, guide_scale=5).plan
    assert (plan.request.scheduler, plan.request.steps, plan.request.guide_scale) == ("unipc", 50, (5.0,))


def vace(frames, **inputs):
    target = Target(task="vace", width=832, height=480, frames=frames, inputs=inputs)
    return geometry(recognize(facts("vace-14b")), target)


def test_a_video_that_is_shorter_than_asked_says_why():
    video = torch.zeros(3, 7, 480, 832)
    short = vace(81, src_video=video, src_mask=torch.ones(1, 4, 480, 832))
    assert short.frames == 1
    assert short.notes == (
        "1 frame instead of 81: src_video has 7 and src_mask 4, and frames must be 4k + 1",
    )
    assert vace(81, src_video=video).notes == (
        "5 frames instead of 81: src_video has 7, and frames must be 4k + 1",
    )
    assert vace(5, src_video=video, src_mask=torch.ones(1, 1, 480, 832)).notes == ()
    assert vace(1, src_video=video, src_mask=torch.ones(1, 4, 480, 832)).notes == ()


def test_a_size_that_an_input_decides_is_told():
    wide = vace(5, src_video=torch.zeros(3, 5, 240, 832))
    assert wide.notes == (
        f"size {wide.width}x{wide.height}: aspect ratio of src_video 832x240, area of 832x480",
    )
    target = Target(task="i2v", width=832, height=480, frames=5, inputs={"image": torch.zeros(3, 480, 640)})
    found = geometry(recognize(facts("i2v-14b")), target)
    assert found.notes == (
        f"size {found.width}x{found.height}: aspect ratio of image 640x480, area of 832x480",
    )
    target = Target(task="i2v", width=512, height=512, frames=5, inputs={"image": torch.zeros(3, 64, 64)})
    assert geometry(recognize(facts("i2v-14b")), target).notes == ()
