"""Other LoRA files on a loaded pipeline: speed, without recompiling, undone after a failure, and in batches."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.errors import ConfigError, LightX2VError, RequestError  # noqa: E402

SMALL: dict[str, Any] = {"prompt": "a fox", "size": (32, 32), "frames": 1, "steps": 1, "guide_scale": 1.0}
LINEARS = [
    f"blocks.{block}.{kind}_attn.{part}"
    for block in range(2)
    for kind in ("self", "cross")
    for part in "qkvo"
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lightx2v_wan21.tiny import write_tiny

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, 0)
    return folder


def write(path: Path, linears: Sequence[str] = LINEARS, *, rank: int, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in linears:
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, 64, generator=generator) * 0.2
        tensors[f"{name}.lora_up.weight"] = torch.randn(64, rank, generator=generator) * 0.2
    tensors["blocks.0.diff_m"] = torch.randn(1, 6, 64, generator=generator) * 0.2
    tensors["blocks.0.norm3.diff"] = torch.randn(64, generator=generator) * 0.2
    tensors["blocks.0.ffn.0.diff_b"] = torch.randn(128, generator=generator) * 0.2
    save_file(tensors, path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    few = [name for name in LINEARS if name.endswith("q")]
    return (
        write(tmp_path / "a.safetensors", rank=4, seed=1),
        write(tmp_path / "b.safetensors", rank=24, seed=2),
        write(tmp_path / "c.safetensors", few, rank=9, seed=3),
    )


def test_no_switch_compiles_anew(model: Path, files: tuple[str, str, str]) -> None:
    from torch._dynamo.testing import CompileCounter

    a, b, c = files
    pipeline = load(model, device="cpu", lora_applier="dynamic", loras=[a])
    counter = CompileCounter()
    for block in pipeline.module("dit").get_submodule("blocks").children():
        block.compile(backend=counter, fullgraph=True)
    pipeline.generate(**SMALL)
    first = counter.frame_count
    assert first >= 1
    for loras in ([b], [{"path": a, "strength": 0.3}], [a, b], [c], [{"path": b, "strength": -1}, c], [a]):
        pipeline.set_loras(loras)
        got = pipeline.generate(**SMALL).latents
        fresh = load(model, device="cpu", lora_applier="dynamic", loras=loras).generate(**SMALL).latents
        torch.testing.assert_close(got, fresh, atol=1e-5, rtol=1e-4)
    assert counter.frame_count == first


def test_with_a_reserve_not_even_the_first_or_the_last_one_does(
    model: Path, files: tuple[str, str, str]
) -> None:
    from torch._dynamo.testing import CompileCounter

    reserve = {"use": "dynamic", "options": {"dynamic": {"reserve": True}}}
    pipeline = load(model, device="cpu", lora_applier=reserve)
    plain = pipeline.generate(**SMALL).latents
    counter = CompileCounter()
    for block in pipeline.module("dit").get_submodule("blocks").children():
        block.compile(backend=counter, fullgraph=True)
    assert torch.equal(pipeline.generate(**SMALL).latents, plain)
    first = counter.frame_count
    for loras in ([files[0]], [], [files[1], files[2]], []):
        pipeline.set_loras(loras)
        assert torch.equal(pipeline.generate(**SMALL).latents, plain) == (not loras)
    assert counter.frame_count == first


@pytest.mark.load
@pytest.mark.alone
def test_switching_takes_a_small_part_of_loading(model: Path, files: tuple[str, str, str]) -> None:
    """Under 5 % of the time that loading takes; the best of several tries, on a machine that may be busy."""
    load(model, device="cpu")  # modules are imported, files are in memory

    def seconds(work: Any) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    pipeline = load(model, device="cpu", lora_applier="dynamic", loras=[files[0]])
    switches = [seconds(lambda name=name: pipeline.set_loras([name])) for name in (*files, *files, *files)]
    loads = [
        seconds(lambda: load(model, device="cpu", lora_applier="dynamic", loras=[files[0]])) for _ in range(3)
    ]
    assert min(switches) < 0.05 * min(loads), (switches, loads)


@pytest.mark.parametrize("applier", ["merge", "dynamic"])
def test_add_weigh_and_remove(applier: str, model: Path, files: tuple[str, str, str]) -> None:
    a, b, _ = files
    pipeline = load(model, device="cpu", lora_applier=applier)
    plain = pipeline.generate(**SMALL).latents
    assert pipeline.loras == ()
    pipeline.add_lora(a)
    pipeline.add_lora({"path": b, "strength": 0.25})
    plan = pipeline.set_lora_strength(a, -0.5)
    assert [(item.path, item.strength) for item in plan.adapters] == [(a, -0.5), (b, 0.25)]
    assert "outside the usual 0 to 1" in plan.notes[-1]
    loras = [{"path": a, "strength": -0.5}, {"path": b, "strength": 0.25}]
    fresh = load(model, device="cpu", lora_applier=applier, loras=loras).generate(**SMALL).latents
    video = pipeline.generate(**SMALL)
    assert torch.equal(video.latents, fresh)
    assert [lora["strength"] for lora in video.record["loras"]] == [-0.5, 0.25]
    pipeline.remove_lora(a)
    assert [lora.path for lora in pipeline.loras] == [b]
    plan = pipeline.remove_lora(b)
    assert not plan.adapters
    assert not any("outside" in note for note in plan.notes)
    assert torch.equal(pipeline.generate(**SMALL).latents, plain)


def test_what_is_refused_changes_nothing(model: Path, files: tuple[str, str, str], tmp_path: Path) -> None:
    a = files[0]
    pipeline = load(model, device="cpu", loras=[a])
    before = pipeline.generate(**SMALL).latents
    odd = tmp_path / "odd.safetensors"
    save_file(
        {"elsewhere.lora_A.weight": torch.zeros(2, 2), "elsewhere.lora_B.weight": torch.zeros(2, 2)}, odd
    )
    for loras, error, words in (
        ([odd], RequestError, "changes nothing"),
        (["nowhere.safetensors"], RequestError, "does not exist"),
        ([{"path": a, "strenght": 1}], ConfigError, "did you mean 'strength'"),
        (a, ConfigError, "expected a list"),
    ):
        with pytest.raises(error, match=words):
            pipeline.set_loras(loras)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="is not applied; did you mean"):
        pipeline.remove_lora(f"{a}s")
    assert [lora.path for lora in pipeline.loras] == [a]
    assert torch.equal(pipeline.generate(**SMALL).latents, before)


def test_a_distilled_one_brings_its_defaults_and_takes_them_along(model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "fox_4step_distill.safetensors", rank=2, seed=1)
    pipeline = load(model, device="cpu")
    assert (pipeline.plan.request.steps, pipeline.plan.request.scheduler) == (50, "unipc")
    pipeline.set_loras([path])
    assert (pipeline.plan.request.steps, pipeline.plan.request.guide_scale) == (4, (1.0,))
    video = pipeline.generate(prompt="a fox", size=(32, 32), frames=1)
    assert len(video.record["step_seconds"]) == 4
    plan = pipeline.set_loras([])
    assert (plan.request.steps, plan.request.scheduler, plan.request.guide_scale) == (50, "unipc", (5.0,))
    assert not any("distilled" in note for note in plan.notes)


@pytest.mark.parametrize("offloader", ["none", "sequential", "cpu", "disk"])
def test_a_switch_while_the_network_is_the_one_in_place(
    offloader: str, model: Path, files: tuple[str, str, str]
) -> None:
    """Nothing else was used since, so nothing has to come back but what the switch changed."""
    if offloader in ("cpu", "disk"):
        pytest.importorskip("lightx2v_offload", reason="needs the offload plugin")
    name = "blocks.0.self_attn.q"
    fresh = load(model, device="cpu", loras=[files[0]])
    wanted = fresh.module("dit").get_submodule(name).weight
    with load(model, device="cpu", offloader=offloader) as pipeline:
        layer = pipeline.module("dit").get_submodule(name)
        block = pipeline.module("dit").get_submodule("blocks.0")
        held = pipeline._loaded.offloaders["dit"]
        seen: list[Any] = []
        layer.register_forward_pre_hook(lambda module, _inputs: seen.append(module.weight.clone()))

        def use() -> None:
            rope = pipeline.module("dit").rope((16, 1, 4, 4), "cpu")
            inputs = torch.zeros(1, 4, 64), torch.zeros(1, 6, 64), torch.zeros(1, 5, 64), rope
            with held.active("dit"), torch.no_grad():
                block(*inputs)

        use()
        pipeline.set_loras([files[0]])
        use()
        pipeline.set_loras([])
        use()
    assert torch.equal(seen[1], wanted)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("applier", ["merge", "dynamic"])
def test_a_file_that_breaks_while_it_is_read_is_taken_back(
    applier: str, model: Path, files: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that were applied before are applied again."""
    from lightx2v_core.builtin.safetensors_file import SafetensorsSource

    a, b, _ = files
    pipeline = load(model, device="cpu", lora_applier=applier, loras=[a])
    before = pipeline.generate(**SMALL).latents
    read = SafetensorsSource.read
    broken = "blocks.1.cross_attn.o.lora_down.weight"

    def failing(self: Any, name: str, device: str = "cpu") -> Any:
        if name == broken and self.info(name).file.name == "b.safetensors":
            raise LightX2VError("b.safetensors became shorter while it was read")
        return read(self, name, device)

    monkeypatch.setattr(SafetensorsSource, "read", failing)
    with pytest.raises(LightX2VError, match="became shorter"):
        pipeline.set_loras([b])
    assert [lora.path for lora in pipeline.loras] == [a]
    assert torch.equal(pipeline.generate(**SMALL).latents, before)


def test_a_file_that_was_replaced_is_read_again(model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", rank=4, seed=1)
    pipeline = load(model, device="cpu", loras=[path])
    first = pipeline.generate(**SMALL).latents
    write(tmp_path / "a.safetensors", rank=5, seed=9)
    pipeline.set_loras([path])
    fresh = load(model, device="cpu", loras=[path]).generate(**SMALL).latents
    assert torch.equal(pipeline.generate(**SMALL).latents, fresh)
    assert not torch.equal(first, fresh)


def test_jobs_of_a_batch_have_their_own(model: Path, files: tuple[str, str, str], tmp_path: Path) -> None:
    a, b, _ = files
    jobs = tmp_path / "jobs.jsonl"
    lines: list[dict[str, Any]] = [
        {"prompt": "a fox", "output": "base.png"},
        {"prompt": "a fox", "output": "b.png", "loras": [{"path": b, "strength": 0.5}]},
        {"prompt": "a fox", "output": "none.png", "loras": []},
        {"prompt": "a fox", "output": "bad.png", "loras": ["nowhere.safetensors"]},
        {"prompt": "a fox", "output": "again.png"},
    ]
    jobs.write_text("\n".join(map(json.dumps, lines)))

    def run() -> tuple[list[str], str]:
        done = subprocess.run(
            [sys.executable, "-m", "lightx2v_core", "run", "--model-path", str(model), "--prompt-file", str(jobs),
             "--output", f"{tmp_path}/out/", "--size", "32x32", "--frames", "1", "--steps", "1", "--lora", a, "--json"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return [event["state"] for event in events if event["event"] == "job_done"], done.stderr

    states, errors = run()
    assert states == ["done", "done", "done", "failed", "done"]
    assert "line 4: LoRA file 'nowhere.safetensors' does not exist" in errors
    picture = {
        name: (tmp_path / "out" / f"{name}.png").read_bytes() for name in ("base", "b", "none", "again")
    }
    assert picture["base"] == picture["again"]
    assert len({picture["base"], picture["b"], picture["none"]}) == 3
    records = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text())["loras"] for name in picture}
    assert [lora["file"] for lora in records["b"]] == ["b.safetensors"]
    assert records["none"] == []
    # a line whose LoRA changed is not done yet
    lines[1]["loras"][0]["strength"] = 0.75
    jobs.write_text("\n".join(map(json.dumps, lines)))
    assert run()[0] == ["done before", "done", "done before", "failed", "done before"]
