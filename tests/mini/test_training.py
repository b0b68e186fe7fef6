"""The training scripts, for a few steps at tiny sizes: what they write is what the runtime loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("lightx2v_wan21", reason="the mini checkpoints are Wan2.1 and Wan2.2 ones")
import evaluate
import flow
import latents
import networks
import optimizer
import train_decoder
import train_distill
import train_experts
import train_i2v
import train_lora
import train_t2v
import train_text
import train_vae
from lightx2v_core import load
from loop import Settings, averages, part
from prompts import prompt
from sizes import BOUNDARY, TEXT_LENGTH, Sizes
from world import render, scenes

TOOLS = Path(__file__).parents[2] / "tools" / "mini"
SIZES = Sizes(side=32, frames=5, vae=4, dim=64, layers=1, text=32)
SETTINGS = Settings(sizes=SIZES, steps=2, batch=2, log_every=1, warmup=1)
REQUEST = {
    "size": (32, 32),
    "frames": 5,
    "steps": 2,
    "negative_prompt": "",
    "device": "cpu",
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Everything trained for two steps."""
    folder = tmp_path_factory.mktemp("mini")
    train_vae.train(folder, SETTINGS, sharpen=2, measured=2)
    for kind in ("none", "framed", latents.FIRST_FRAMES):
        latents.encode(folder, SETTINGS, 3, kind)
    for script in (train_text, train_t2v, train_i2v, train_experts, train_lora):
        script.train(folder, SETTINGS)
    train_distill.train(folder, SETTINGS, guide_scale=3.0)
    return folder


@pytest.mark.parametrize("name", ["t2v", "i2v", "experts", "t2v-4step"])
def test_the_runtime_takes_what_is_written(work, name):
    if name == "experts":
        pytest.importorskip("lightx2v_wan22")
    scene = next(scenes(0))
    inputs = {"image": render(scene, side=32, frames=1)[:, 0]} if name == "i2v" else {}
    steps = 4 if name == "t2v-4step" else 2
    pipeline = load(work / "checkpoints" / name, **{**REQUEST, "steps": steps})
    variant = {"t2v": "wan2.1-t2v", "i2v": "wan2.1-i2v", "experts": "wan2.2-t2v", "t2v-4step": "wan2.1-t2v"}[
        name
    ]
    assert pipeline.plan.variant.startswith(variant)
    assert pipeline.plan.variant.endswith("-distill") == (name == "t2v-4step")
    video = pipeline.generate(prompt=prompt(scene, 0), seed=1, **inputs)
    assert video.frames.shape == (3, 5, 32, 32)
    assert video.frames.isfinite().all()


def test_the_lora_has_an_effect_on_every_linear_of_the_blocks(work):
    folder = work / "checkpoints"
    text = "a red circle moves to the right on a blue background"
    plain = load(folder / "t2v", **REQUEST).generate(prompt=text, seed=1).latents
    looks = load(
        folder / "t2v", **REQUEST, loras=[str(folder / "loras" / "framed.safetensors")], strict_lora=True
    )
    assert not torch.equal(plain, looks.generate(prompt=text, seed=1).latents)
    assert len(load_file(folder / "loras" / "framed.safetensors")) == 3 * 10


def test_the_runtime_predicts_what_was_trained(work):
    """The same latents, time and text give the same velocity through the written files as in training."""
    trained = averages(work, "t2v")
    dit, text = (
        networks.dit(SIZES.dit, 5),
        networks.umt5(SIZES.umt5(networks.tokenizer().get_vocab_size()), 5),
    )
    dit.load_state_dict({name: tensor.bfloat16() for name, tensor in part(trained, "dit").items()})
    text.load_state_dict(
        {name: tensor.bfloat16() for name, tensor in part(averages(work, "text"), "text").items()}
    )
    words, seed = prompt(next(scenes(0)), 0), 3
    video = load(
        work / "checkpoints" / "t2v", **{**REQUEST, "steps": 1, "guide_scale": (1.0,), "scheduler": "euler"}
    )
    found = video.generate(prompt=words, seed=seed).latents
    noise = torch.randn(SIZES.latent, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        context = networks.texts(text, *flow.tokenizer().encode([words], TEXT_LENGTH))
        velocity = dit(noise[None], torch.tensor([1000.0]), context, dit.rope(SIZES.latent, "cpu"))[0]
    torch.testing.assert_close(found, noise - velocity, rtol=1e-4, atol=1e-4)


def test_logs_say_what_was_done(work):
    log = json.loads((work / "t2v.json").read_text())
    assert log["steps_done"] == 2
    assert [step for step, _ in log["losses"]] == [1, 2]
    assert log["settings"] == {"seed": 0, "batch": 2, "steps": 2, "rate": 1e-3, "matrix_rate": 0.02,
                               "side": 32, "frames": 5, "vae": 4,
                               "dim": 64, "layers": 1, "text": 32}  # fmt: skip
    assert log["torch"] == torch.__version__


def test_going_on_gives_what_one_run_gives(work, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        shutil.copytree(work / "latents", folder / "latents")
        for name in ("Wan2.1_VAE.pth", "text.state.safetensors"):
            shutil.copy(work / name, folder)
    settings = Settings(sizes=SIZES, steps=3, batch=2, log_every=1, warmup=1)
    train_t2v.train(whole, settings)
    hurried = Settings(sizes=SIZES, steps=3, batch=2, log_every=1, warmup=1, minutes=1e-9)
    for done in (1, 2, 3):
        train_t2v.train(resumed, hurried)
        assert json.loads((resumed / "t2v.json").read_text())["steps_done"] == done
    one, other = averages(whole, "t2v"), averages(resumed, "t2v")
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    with pytest.raises(ValueError, match="other settings \\(seed\\)"):
        train_t2v.train(resumed, Settings(sizes=SIZES, steps=3, batch=2, seed=1))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run latents\.py"):
        train_t2v.train(tmp_path, SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"run train_vae\.py first"):
        latents.encode(tmp_path, SETTINGS, 1)
    with pytest.raises(FileNotFoundError, match=r"run train_text\.py first"):
        train_text.trained(tmp_path, SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"run train_t2v\.py first"):
        train_i2v.train(tmp_path, SETTINGS)


def test_the_text_encoder_learns_what_a_prompt_says(tmp_path):
    """Every attribute that a prompt says, at every token: from 1.4 nats to near what cannot be known, 0.09."""
    text = Settings(sizes=Sizes(text=48), steps=200, batch=32, log_every=50)
    train_text.train(tmp_path, text)
    losses = [loss for _step, loss in json.loads((tmp_path / "text.json").read_text())["losses"]]
    assert losses[-1] < 0.7 * losses[0]


def test_with_gradients_the_modules_do_what_they_do_without():
    """The functions for training against the methods that the runtime calls, on values and on gradients."""
    vae = networks.vae(SIZES.vae_architecture, 0)
    video = render(next(scenes(0)), side=32, frames=5)
    mean, _ = networks.encode(vae, video[None])
    statistics = [torch.tensor(values).view(-1, 1, 1, 1) for values in networks.STATISTICS]
    torch.testing.assert_close((mean[0] - statistics[0]) / statistics[1], vae.encode(video))
    decoded = networks.decode(vae, mean)
    torch.testing.assert_close(
        decoded[0], torch.cat(list(vae.decode(vae.encode(video))), 1), rtol=1e-4, atol=1e-5
    )
    decoded.square().mean().backward()
    text = networks.umt5(SIZES.umt5(networks.tokenizer().get_vocab_size()), 0)
    ids, mask = flow.tokenizer().encode(["a red circle", "红色圆形"], TEXT_LENGTH)
    embedded = networks.texts(text, ids, mask)
    torch.testing.assert_close(embedded, text(ids, mask))
    embedded.square().mean().backward()
    clip = networks.clip(SIZES.clip, 0)
    seen = networks.features(clip, video[None, :, 0])
    torch.testing.assert_close(seen, clip(video[None, :, 0]))
    seen.square().mean().backward()
    for network in (vae, text, clip):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    # the moments' lower half is the variance, which the runtime does not use
    assert vae.conv1.weight.grad[:16].abs().sum() > 0 == vae.conv1.weight.grad[16:].abs().sum()


def test_a_grey_video_has_gradients_that_are_numbers():
    vae = networks.vae(SIZES.vae_architecture, 0)
    mean, _ = networks.encode(vae, torch.zeros(1, 3, 5, 32, 32))
    networks.decode(vae, mean).square().mean().backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in vae.parameters())
    assert 0 < largest < 1e4


def test_new_statistics_leave_videos_as_they_are():
    vae = networks.vae(SIZES.vae_architecture, 0)
    clips = torch.stack(
        [render(scene, side=32, frames=5) for scene, _ in zip(scenes(0), range(4), strict=False)]
    )
    with torch.no_grad():
        mean, log_variance = networks.encode(vae, clips)
        before = networks.decode(vae, mean)
        deviation = mean.std((0, 2, 3, 4))
        networks.normalize(vae, mean.mean((0, 2, 3, 4)), deviation)
        again, changed = networks.encode(vae, clips)
        torch.testing.assert_close(networks.decode(vae, again), before, rtol=1e-3, atol=1e-3)
    normal = vae.encode(clips)
    torch.testing.assert_close(normal.mean((0, 2, 3, 4)), torch.zeros(16), rtol=0, atol=1e-3)
    torch.testing.assert_close(normal.std((0, 2, 3, 4)), torch.ones(16), rtol=1e-3, atol=0)
    grown = torch.tensor(networks.STATISTICS[1]) / deviation
    torch.testing.assert_close(changed - log_variance, (2 * grown.log()).view(1, -1, 1, 1, 1).expand_as(changed),
                               rtol=1e-3, atol=1e-3)  # fmt: skip


def test_image_to_video_begins_as_text_to_video():
    base, wide = networks.dit(SIZES.dit, 1), networks.dit(SIZES.dit_i2v, 2)
    with torch.no_grad():
        base.head.head.weight.normal_(0, 0.1)
        train_i2v.widen(wide, base.state_dict())
        # the image branch begins with the bias of its last norm, which is zero
        noise, known = torch.randn(1, *SIZES.latent), torch.randn(1, 20, *SIZES.latent[1:])
        context, rope = torch.randn(1, TEXT_LENGTH, SIZES.text), base.rope(SIZES.latent, "cpu")
        time, image = torch.tensor([500.0]), torch.randn(1, 37, 80)
        expected = base(noise, time, context, rope)
        found = wide(torch.cat((noise, known), 1), time, context, rope, image_MSD=image)
    assert expected.abs().mean() > 0.01
    torch.testing.assert_close(found, expected)


def test_a_better_decoder_leaves_the_latents_as_they_are(work, tmp_path):
    shutil.copytree(work / "latents", tmp_path / "latents")
    shutil.copy(work / "Wan2.1_VAE.pth", tmp_path)
    before = latents.load_vae(tmp_path, SETTINGS)
    train_decoder.train(tmp_path, SETTINGS)
    after = latents.load_vae(tmp_path, SETTINGS)
    clip = render(next(scenes(0)), side=32, frames=5)
    assert torch.equal(before.encode(clip), after.encode(clip))
    known = before.encode(clip)
    assert not torch.equal(*(torch.cat(list(vae.decode(known)), 1) for vae in (before, after)))


def test_muon_makes_matrices_orthogonal():
    """Five steps bring all singular values near one, for every initial value and either longer side."""
    for shape in ((16, 48), (48, 16), (32, 32)):
        gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(
            -2, 2, shape[1]
        )
        values = torch.linalg.svdvals(optimizer.orthogonal(gradient))
        # the smallest of a square matrix may be next to nothing, and stay small
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_muon_takes_matrices_and_adam_the_rest():
    """Both find the minimum of a quadratic, tables and vectors by Adam's first step of one rate."""
    goal = torch.randn(12, 10, generator=torch.Generator().manual_seed(2))
    trained = {"blocks.0.weight": torch.zeros(12, 10), "token_embedding.weight": torch.zeros(12, 10)}
    parameters = {name: torch.nn.Parameter(value) for name, value in trained.items()}
    muon = optimizer.Muon(parameters, rate=0.1, matrix_rate=0.3)
    for step in range(200):
        muon.schedule(1 - step / 200)
        muon.zero_grad()
        sum(((parameter - goal) ** 2).sum() for parameter in parameters.values()).backward()
        muon.step()
        if step == 0:
            torch.testing.assert_close(parameters["token_embedding.weight"].detach(), 0.1 * goal.sign())
            assert torch.linalg.matrix_norm(parameters["blocks.0.weight"].detach(), 2) < 0.3 * 1.1 * 1.3
    for parameter in parameters.values():
        torch.testing.assert_close(parameter.detach(), goal, atol=0.05, rtol=0)
    assert not optimizer.is_matrix("blocks.0.bias", torch.zeros(12))
    assert not optimizer.is_matrix("blocks.0.modulation", torch.zeros(1, 6, 64))


def test_batches_keep_to_their_span_and_can_be_drawn_again(work):
    known = latents.read(work, SETTINGS)
    settings = Settings(sizes=SIZES, batch=16)
    for span in ((0.0, 1.0), (BOUNDARY, 1.0), (0.0, BOUNDARY)):
        draw = flow.Sampler(known, settings, span=span)
        sigmas = torch.cat([draw(step).sigmas for step in range(8)])
        assert span[0] <= sigmas.min() < sigmas.max() <= span[1]
        assert sigmas.max() - sigmas.min() > 0.9 * (span[1] - span[0])
        assert torch.equal(draw(3).noise, flow.Sampler(known, settings, span=span)(3).noise)
        assert not torch.equal(draw(3).noise, draw(4).noise)


def test_the_objective_is_the_velocity_of_the_schedulers():
    """A network that knows the answer has no loss, and the core's solver then finds the clip."""
    from lightx2v_core.builtin.schedulers.unipc import FlowUniPC

    batch = flow.Batch(
        clips=[0], ids=torch.zeros(1, 1), mask=torch.zeros(1, 1), clean=torch.randn(1, *SIZES.latent),
        noise=torch.randn(1, *SIZES.latent), sigmas=torch.tensor([0.7]),
    )  # fmt: skip

    def knows(noisy, timesteps, batch):
        return (noisy - batch.clean) / (timesteps / 1000)

    assert flow.flow_loss(knows, batch) < 1e-10
    solver = FlowUniPC(8, 3.0)
    state = torch.lerp(batch.clean, batch.noise, solver.sigmas[0])
    for index in range(8):
        state = solver.step((state - batch.clean) / solver.sigmas[index], index, state)
    torch.testing.assert_close(state, batch.clean, rtol=1e-4, atol=1e-4)


def test_evaluation_of_a_perfect_network_is_perfect(tmp_path):
    """The drawn scenes: what the figures can reach at most. Held-out combinations only."""
    done = subprocess.run(
        [sys.executable, TOOLS / "evaluate.py", tmp_path, "--truth", "--work", tmp_path / "out", "--prompts", "6",
         "--seeds", "1", "--least", "colour=100", "--least", "direction=100"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {report[name] for name in ("colour", "shape", "direction", "ground", "look")} == {100}
    assert (tmp_path / "out" / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_an_untrained_network_fails_the_evaluation(work):
    import argparse

    args = argparse.Namespace(side=32, frames=5, steps=2, shift=3.0, guide_scale=1.0, scheduler=None, lora=None,
                              images=False)  # fmt: skip
    make = evaluate._generated(work / "checkpoints" / "t2v", args)
    report, sheet = evaluate.evaluate(evaluate.jobs(2, 2), make, make)
    assert report["clips"] == 4
    assert report["colour"] < 95
    assert report["psnr_same"] == 99
    assert len(sheet) == 4
    assert evaluate._missed(report, ["colour=95"]) == 1
    with pytest.raises(SystemExit, match="unknown figure 'hue'"):
        evaluate._missed(report, ["hue=1"])
