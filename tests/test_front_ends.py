"""What a front end stands on: plans, events with previews, cancelling, writing, and what of it is public."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from lightx2v_core import api  # noqa: E402
from lightx2v_core.api import (  # noqa: E402
    Cancelled,
    Event,
    Pipeline,
    Planner,
    Progress,
    RequestError,
    StepDone,
    load,
    plan_run,
    read_config,
)
from lightx2v_core.discovery.catalog import commands, first_party, missing  # noqa: E402

SMALL: dict[str, Any] = {"size": (32, 32), "frames": 5, "steps": 3, "guide_scale": 1.0, "scheduler": "euler"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lightx2v_wan21.tiny import write_tiny

    found = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(found, 0)
    return found


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return load(folder, dtype="float32")


def test_every_public_name_is_there() -> None:
    for name in api.__all__:
        assert getattr(api, name) is not None


def test_a_step_shows_the_clean_latents_that_it_predicts(pipeline: Pipeline) -> None:
    seen = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            assert event.clean is not None
            seen.append(event.clean())

    video = pipeline.generate(prompt="a fox", on_event=listen, **SMALL)
    assert [item.shape for item in seen] == [video.latents.shape] * 3
    # Euler's last step ends at noise level 0, where the prediction is the result
    assert torch.allclose(seen[-1], video.latents, atol=1e-5)
    assert not torch.allclose(seen[0], video.latents, atol=1e-2)


def test_looking_changes_nothing(pipeline: Pipeline) -> None:
    plain = pipeline.generate(prompt="a fox", **SMALL)
    watched = pipeline.generate(
        prompt="a fox",
        on_event=lambda event: isinstance(event, StepDone) and event.clean and event.clean(),
        **SMALL,
    )
    assert torch.equal(plain.latents, watched.latents)


def test_events_that_are_kept_keep_no_latents(pipeline: Pipeline) -> None:
    events: list[Event] = []
    pipeline.generate(prompt="a fox", on_event=events.append, **SMALL)
    step = next(event for event in events if isinstance(event, StepDone))
    assert step.clean is not None
    with pytest.raises(RuntimeError, match="until its listener returns"):
        step.clean()
    assert set(json.loads(json.dumps(step.to_json()))) == {
        "event", "index", "count", "timestep", "expert", "seconds"
    }  # fmt: skip


@pytest.mark.parametrize("when", ["encode", "denoise", "decode"])
def test_a_listener_ends_a_run_and_nothing_is_left(pipeline: Pipeline, tmp_path: Path, when: str) -> None:
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, StepDone)
        phase = (
            "denoise" if isinstance(event, StepDone) else event.phase if isinstance(event, Progress) else ""
        )
        if phase == when:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        pipeline.write(tmp_path / "fox.mp4", prompt="a fox that nobody wants", on_event=listen, **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert steps == {"encode": 0, "denoise": 1, "decode": 3}[when]
    pipeline.write(tmp_path / "fox.mp4", prompt="a fox", **SMALL)  # it can be used afterwards
    assert {path.name for path in tmp_path.iterdir()} == {"fox.mp4", "fox.json"}


def test_a_load_can_be_cancelled(folder: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        load(folder, on_event=listen)


def test_writing_is_what_generating_gives(pipeline: Pipeline, tmp_path: Path) -> None:
    import av

    path = pipeline.write(tmp_path / "fox.mp4", prompt="a fox", seed=3, **SMALL)
    with av.open(str(path)) as container:
        assert [frame.width for frame in container.decode(video=0)] == [32] * 5
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["request"]["seed"] == 3
    pipeline.write(tmp_path / "one.png", record=False, prompt="a fox", **{**SMALL, "frames": 1})
    assert not (tmp_path / "one.json").exists()
    with pytest.raises(RequestError, match="no prompt"):
        pipeline.write(tmp_path / "no.mp4", **SMALL)
    with pytest.raises(RequestError, match="single image, but the request has 5 frames"):
        pipeline.write(tmp_path / "five.png", prompt="a fox", **SMALL)


def test_decoding_latents_again(pipeline: Pipeline) -> None:
    video = pipeline.generate(prompt="a fox", **SMALL)
    frames = pipeline.decode(video.latents)
    assert torch.equal(frames, video.frames)
    assert not frames.is_inference()


def test_a_plan_from_python(folder: Path) -> None:
    plan = plan_run(folder, steps=4, config={"sampling": {"frames": 9}})
    assert (plan.request.steps, plan.request.frames, plan.task) == (4, 9, "t2v")
    assert plan.experts == 1
    assert plan.sizes.step == (16, 16)
    with pytest.raises(RequestError, match="no prompt given"):
        plan_run(folder, ready=True)
    with pytest.raises(RequestError, match="does not accept image"):
        plan_run(folder, image="fox.png")
    with pytest.raises(RequestError, match="unknown argument 'step'; did you mean 'steps'"):
        plan_run(folder, step=3)


def test_a_planner_reads_each_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightx2v_core.plan import planner as planning

    reads: list[Path] = []

    def reading(registry: Any, path: Path) -> Any:
        reads.append(path)
        return original(registry, path)

    original = planning.read_header
    monkeypatch.setattr(planning, "read_header", reading)
    planner = Planner()
    first = planner.plan(folder, steps=3)
    count = len(reads)
    assert count == len(set(reads)) > 0
    assert planner.plan(folder, steps=3).to_json() == first.to_json()
    assert len(reads) == count


def test_a_configuration_as_data(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"infer_steps": 7, "sample_guide_scale": 3, /* flat */ }', encoding="utf-8")
    config = read_config(file)
    assert config == {"sampling": {"steps": 7, "guide_scale": [3]}}
    assert plan_run(folder, config=config).request.guide_scale == (3.0,)


def test_what_is_not_installed() -> None:
    lines = missing("attention", ["sdpa", "xformers"])
    (line,) = lines
    said, _, asked = line.rpartition(": pip install ")
    assert said == "lightx2v-flash-attn provides flash-attn2, flash-attn3, sage2"
    assert asked in ("-e plugins/flash_attn", "'lightx2v-core[flash-attn]'")
    assert missing("attention", first_party("attention")) == []
    assert "ui" in commands()
