"""Whole runs of every variant: results with offload are bit-identical."""

import pytest
import torch
from safetensors.torch import save_file

from lightx2v_core import load
from lightx2v_core.api import RequestError

SMALL = {"size": (32, 32), "frames": 5, "steps": 2}
IMAGE = torch.linspace(-1, 1, 3 * 32 * 32).view(3, 32, 32)
#: variant -> task, and the inputs of a request
VARIANTS = {
    "t2v": ("t2v", {}),
    "i2v": ("i2v", {"image": IMAGE}),
    "flf2v": ("flf2v", {"image": IMAGE, "last_image": -IMAGE}),
    "vace": ("vace", {"ref_images": [IMAGE]}),
    "a14b": ("t2v", {}),
    "a14b-i2v": ("i2v", {"image": IMAGE}),
    "ti2v": ("i2v", {"image": IMAGE}),
    "animate": (
        "animate",
        {
            "ref_images": [IMAGE],
            "pose_video": IMAGE[:, None].repeat(1, 5, 1, 1),
            "face_video": -IMAGE[:, None].repeat(1, 5, 1, 1),
        },
    ),
}
WAYS = {
    "cpu-model": {"use": "cpu", "options": {"cpu": {"granularity": "model"}}},
    "cpu-block": {"use": "cpu", "options": {"cpu": {"granularity": "block"}}},
    "cpu-phase": {"use": "cpu", "options": {"cpu": {"granularity": "phase", "slots": 3}}},
    "disk-block": {"use": "disk", "options": {"disk": {"granularity": "block", "workers": 2}}},
    "disk-phase": {"use": "disk", "options": {"disk": {"granularity": "phase", "workers": 1, "ring": 2}}},
}


@pytest.fixture(scope="session")
def resident(models):
    """Results without offload, by variant and dtype."""
    known = {}

    def run(variant, dtype):
        if (variant, dtype) not in known:
            task, inputs = VARIANTS[variant]
            pipeline = load(models(variant), task=task, dtype=dtype, **SMALL)
            known[variant, dtype] = pipeline.generate(prompt="a fox", seed=7, **inputs)
        return known[variant, dtype]

    return run


def check(models, resident, variant, dtype, **more):
    task, inputs = VARIANTS[variant]
    expected = resident(variant, dtype)
    with load(models(variant), task=task, dtype=dtype, **SMALL, **more) as pipeline:
        for _ in range(2):  # the second request starts from the state of the first
            found = pipeline.generate(prompt="a fox", seed=7, **inputs)
            assert torch.equal(found.latents, expected.latents)
            assert torch.equal(found.frames, expected.frames)
        return pipeline.plan


@pytest.mark.parametrize("way", WAYS)
def test_every_granularity(way, models, resident):
    check(models, resident, "vace", "float32", offloader=WAYS[way])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_every_way(variant, way, dtype, models, resident):
    check(models, resident, variant, dtype, offloader=WAYS[way])


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "vace"])
def test_every_variant(variant, models, resident):
    check(models, resident, variant, "bfloat16", offloader=WAYS["disk-phase"])


def test_each_component_may_have_its_own(models, resident):
    components = {
        "text_encoder": {"offloader": WAYS["disk-block"]},
        "dit": {"offloader": WAYS["cpu-phase"]},
        "vae": {"offloader": "sequential"},
    }
    check(models, resident, "t2v", "bfloat16", components=components)
    check(models, resident, "a14b", "bfloat16", components={"dit": components["dit"]})


def test_the_least_that_is_planned_is_enough(models, resident):
    least = load(models("t2v"), dtype="float32", **SMALL, offloader="disk").plan.memory.host_peak
    plan = check(models, resident, "t2v", "float32", offloader="disk", ram_limit=least)
    assert plan.memory.host_peak <= plan.memory.host_limit == least
    with pytest.raises(RequestError, match="exceeds --ram-limit"):
        load(models("t2v"), dtype="float32", **SMALL, offloader="disk", ram_limit=least // 2)


def test_the_expert_that_comes_next_is_told(models, monkeypatch):
    from lightx2v_offload.offloader import BlockOffloader

    told, passes = [], []
    prepare, active = BlockOffloader.prepare, BlockOffloader.active
    monkeypatch.setattr(
        BlockOffloader, "prepare", lambda self, name: (told.append((name, len(passes))), prepare(self, name))
    )

    def counted(self, name):
        if name.endswith("noise"):
            passes.append(name)
        return active(self, name)

    monkeypatch.setattr(BlockOffloader, "active", counted)
    with load(models("a14b"), **{**SMALL, "steps": 4}, offloader="cpu") as pipeline:
        pipeline.generate(prompt="a fox", seed=7)
    last = passes.index("low_noise") - 1
    # before the second of the two passes of the last step of the high-noise expert
    assert passes == ["high_noise"] * (last + 1) + ["low_noise"] * (7 - last)
    assert told == [("low_noise", last)]


@pytest.fixture(scope="session")
def lora(tmp_path_factory):
    """A LoRA file for some linears of the tiny network."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in ("blocks.0.self_attn.q", "blocks.3.cross_attn.o", "blocks.4.ffn.0"):
        rows, columns = (128, 64) if layer.endswith("ffn.0") else (64, 64)
        name = f"diffusion_model.{layer}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, columns, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize("way", ["cpu-phase", "disk-block"])
@pytest.mark.parametrize(
    "changes",
    [
        {"lora_applier": "merge"},
        {"lora_applier": "dynamic"},
        {"components": {"dit": {"quantizer": "int8-torch"}}},
        {"components": {"dit": {"quantizer": "fp8-torch"}}, "lora_applier": "merge"},
    ],
    ids=["merged", "attached", "int8", "fp8-merged"],
)
def test_changed_weights(way, changes, models, lora):
    changes = {**changes, "loras": [lora]} if "lora_applier" in changes else changes
    request = {"prompt": "a fox", "seed": 7}
    plain = load(models("t2v"), dtype="bfloat16", **SMALL).generate(**request)
    expected = load(models("t2v"), dtype="bfloat16", **SMALL, **changes).generate(**request)
    assert not torch.equal(plain.latents, expected.latents)
    with load(models("t2v"), dtype="bfloat16", **SMALL, **changes, offloader=WAYS[way]) as pipeline:
        for _ in range(2):
            assert torch.equal(pipeline.generate(**request).latents, expected.latents)
