"""Defaults of an animation: the official prompt, and guidance only where the official code applies it."""

import pytest
import torch

from lightx2v_core import load
from lightx2v_core.api import RequestError
from lightx2v_core.cli.show_plan import plan_text
from lightx2v_wan22.animate.variants import PROMPT
from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_animate

MODEL = {"model": {"use": ["wan2.2-animate"], "options": {"wan2.2-animate": {"segment_frames": 5}}}}


def pixels(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) * 2 - 1


@pytest.fixture(scope="module")
def animate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animate")
    write_tiny_animate(folder)
    pipeline = load(folder, dtype="float32", steps=2, config=MODEL)
    inputs = {
        "ref_images": [pixels(3, 40, 60)],
        "pose_video": pixels(3, 5, 32, 48),
        "face_video": pixels(3, 5, 32, 32),
    }

    def generate(**request):
        return pipeline.generate(**inputs, **request)

    return generate


@pytest.fixture(scope="module")
def t2v(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t2v")
    write_tiny_a14b(folder)
    return load(folder, dtype="float32", steps=2, size=(32, 32), frames=1)


@pytest.mark.parametrize("said", [{}, {"prompt": ""}, {"prompt": "  \n"}])
def test_without_a_prompt_it_is_the_official_one(said, animate):
    video, wanted = animate(**said), animate(prompt=PROMPT)
    assert torch.equal(video.latents, wanted.latents)
    assert not torch.equal(animate(prompt="a red fox").latents, wanted.latents)
    assert video.plan.request.prompt == video.record["request"]["prompt"] == PROMPT
    assert video.plan.origins["prompt"] == f"default of {video.plan.variant}"
    assert f"prompt    {PROMPT} (default of {video.plan.variant})" in plan_text(video.plan)


def test_models_without_a_prompt_of_their_own_ask_for_one(t2v):
    assert t2v.plan.request.prompt == ""
    with pytest.raises(RequestError, match="no prompt given"):
        t2v.generate()
    assert t2v.generate(prompt="").plan.request.prompt == ""  # the prompt of the request, and nothing else


@pytest.mark.parametrize("scale", [0.5, 0.0, 0.999])
def test_guidance_up_to_one_is_none(scale, animate):
    video, plain = animate(guide_scale=(scale,)), animate(guide_scale=(1.0,))
    assert torch.equal(video.latents, plain.latents)
    assert video.plan.request.guide_scale == (1.0,)
    assert not video.plan.request.guided
    assert video.plan.origins["guide_scale"].endswith("raised to the minimum of 1")
    assert "acts as" not in plain.plan.origins["guide_scale"]


def test_guidance_above_one_acts(animate):
    assert animate(guide_scale=(1.001,)).plan.request.guided
    assert not torch.equal(animate(guide_scale=(1.5,)).latents, animate(guide_scale=(1.0,)).latents)


def test_other_models_take_every_scale_as_it_is(t2v):
    video = t2v.generate(prompt="a red fox", guide_scale=(0.5,))
    assert video.plan.request.guide_scale == (0.5,)
    assert not torch.equal(video.latents, t2v.generate(prompt="a red fox", guide_scale=(1.0,)).latents)
