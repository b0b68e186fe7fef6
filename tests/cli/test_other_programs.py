"""Command lines of Wan's own ``generate.py`` and of LightX2V's scripts, given to ``run``: one word changes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.cli.foreign import divided, repeat_options
from lightx2v_core.cli.run import command
from lightx2v_core.config.lightx2v.flags import TABLE, WAN, WAN_TASKS, flag_key
from lightx2v_core.config.lightx2v.keys import LEGACY
from lightx2v_core.config.load import LoadedConfig, load_config
from lightx2v_core.errors import ConfigError

Cli = Callable[..., Any]
OWN = {name: option for option in command.params for name in option.opts if name.startswith("-")}


def read(line: str, source: dict[str, Any] | None = None) -> LoadedConfig:
    """What a line of another program means; our own options in it are left out."""
    values, _ = divided(shlex.split(line), OWN)
    return load_config(source or {}, values)


def said(loaded: LoadedConfig) -> dict[str, Any]:
    """Every value that somebody set, by its dotted key."""
    found: dict[str, Any] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), json.loads(json.dumps(loaded.to_json())))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [((*path, key), inner) for key, inner in value.items()]
        elif loaded.origin(*path) != "default":
            found[".".join(path)] = value
    return found


#: the lines of one process without prompt extension in the READMEs of Wan2.1 and Wan2.2, and others of their kinds
MEANINGS: list[tuple[str, dict[str, Any]]] = [
    ("--task t2v-14B --size 1280*720 --ckpt_dir M --prompt x",
     {"task": "t2v", "model.use": ["wan2.1"], "model_path": "M"}),
    ("--task t2v-1.3B --ckpt_dir M --offload_model True --t5_cpu --sample_shift 8 --sample_guide_scale 6",
     {"task": "t2v", "model.use": ["wan2.1"], "model_path": "M", "offloader.use": ["sequential"],
      "sampling.shift": 8.0, "sampling.guide_scale": [6.0]}),
    ("--task i2v-14B --ckpt_dir M --image a.png",
     {"task": "i2v", "model.use": ["wan2.1"], "model_path": "M", "inputs.image": "a.png"}),
    ("--task flf2v-14B --ckpt_dir=M --first_frame a.png --last_frame b.png",
     {"task": "flf2v", "model.use": ["wan2.1"], "model_path": "M", "inputs.image": "a.png",
      "inputs.last_image": "b.png"}),
    ("--task vace-1.3B --ckpt_dir M", {"task": "vace", "model.use": ["wan2.1"], "model_path": "M"}),
    ("--task t2i-14B --ckpt_dir M", {"task": "t2v", "model.use": ["wan2.1"], "model_path": "M", "sampling.frames": 1}),
    ("--task t2i-14B --frame_num 1", {"task": "t2v", "model.use": ["wan2.1"], "sampling.frames": 1}),
    ("--task t2v-A14B --ckpt_dir M --offload_model True --convert_model_dtype",
     {"task": "t2v", "model.use": ["wan2.2_moe"], "model_path": "M", "offloader.use": ["sequential"]}),
    ("--task t2v-A14B --offload_model False", {"task": "t2v", "model.use": ["wan2.2_moe"]}),
    ("--task ti2v-5B --t5_cpu", {"task": "t2v", "model.use": ["wan2.2"],
                                 "components.text_encoder.offloader.use": ["sequential"]}),
    ("--task ti2v-5B --image a.png", {"task": "i2v", "model.use": ["wan2.2"], "inputs.image": "a.png"}),
    ("--image a.png --task=ti2v-5B", {"task": "i2v", "model.use": ["wan2.2"], "inputs.image": "a.png"}),
    ("--task animate-14B --src_root_path R --refert_num 5",
     {"task": "animate", "model.use": ["wan2.2_animate"], "model.options.*.overlap_frames": 5,
      "inputs.ref_images": ["R/src_ref.png"], "inputs.pose_video": "R/src_pose.mp4",
      "inputs.face_video": "R/src_face.mp4"}),
    ("--task animate-14B --src_root_path R/ --replace_flag",
     {"task": "animate", "model.use": ["wan2.2_animate"], "inputs.ref_images": ["R/src_ref.png"],
      "inputs.pose_video": "R/src_pose.mp4", "inputs.face_video": "R/src_face.mp4",
      "inputs.background_video": "R/src_bg.mp4", "inputs.mask_video": "R/src_mask.mp4"}),
    ("--frame_num 81 --sample_steps 40 --sample_solver dpm++ --base_seed 7 --save_file o.mp4",
     {"sampling.frames": 81, "sampling.steps": 40, "scheduler.use": ["dpm++"], "sampling.seed": 7,
      "output.path": "o.mp4"}),
    # of a pair the first is for low noise there, and for high noise here
    ("--sample_guide_scale 3.0 4.0", {"sampling.guide_scale": [4.0, 3.0]}),
    ("--sample_guide_scale 3,4", {"sampling.guide_scale": [4.0, 3.0]}),
    ("--ulysses_size 1 --ring_size 1", {}),
    # LightX2V's
    ("--model_cls wan2.1_distill", {"model.use": ["wan2.1_distill"]}),
    ("--target_shape 720 1280 --warmup", {"sampling.size": [1280, 720]}),
    ("--video_path v.mp4 --infer_steps 8", {"inputs.src_video": "v.mp4", "sampling.steps": 8}),
    ("--cpu_offload true --offload_granularity block",
     {"offloader.use": ["cpu"], "offloader.options.cpu.granularity": "block"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "meaning"), MEANINGS, ids=[line for line, _ in MEANINGS])
def test_what_a_line_means(line: str, meaning: dict[str, Any]) -> None:
    assert said(read(line)) == meaning


def test_loras_with_strengths_of_their_own() -> None:
    loras = read("--lora_path a.safetensors b.safetensors --lora_strength 1.0 0.8").config.loras
    assert [(lora.path, lora.strength) for lora in loras] == [("a.safetensors", 1.0), ("b.safetensors", 0.8)]
    loras = read("--lora_path a b --lora_strength 0.5").config.loras
    assert [lora.strength for lora in loras] == [0.5, 0.5]


REFUSED: list[tuple[str, str]] = [
    ("--task s2v-14B --image a.png --audio t.wav", "audio-driven models (S2V)"),
    ("--task t2v-15B", "--task: unknown task 't2v-15B'; did you mean"),
    ("--task t2v-14B --ulysses_size 8", "--ulysses_size: 8 is refused: a run uses one device"),
    ("--task t2v-14B --dit_fsdp --t5_fsdp", "--t5_fsdp: true is refused: a run uses one device"),
    ("--task t2v-14B --ring_size 2", "--ring_size: 2 is refused"),
    (
        "--use_prompt_extend --prompt_extend_method dashscope",
        "--use_prompt_extend: true is refused: prompt extension",
    ),
    ("--enable_tts --tts_text x", "audio-driven"),
    ("--sample_solver euler", "--sample_solver: unknown solver 'euler'; known: unipc, dpm++"),
    ("--sample_guide_scale 1 2 3", "expected one number or two"),
    ("--lora_path a b c --lora_strength 1 2", "--lora_strength: 2 strengths for 3 files"),
    ("--audio_path talk.wav", "--audio_path: 'talk.wav' is refused: audio-driven models"),
    ("--frame_num many", "--frame_num: expected an integer, got 'many'"),
    ("--sample_steps", "--sample_steps requires a value"),
    ("--num_frame_per_block 3", "causal attention over frames"),
    ("--feature_caching Tea", "--feature_caching: 'Tea' is refused: feature caching is not supported"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_refused_names_what_it_is(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(line)
    assert words in str(caught.value)


NOTED: list[tuple[str, str]] = [
    ("--warmup", "--warmup: ignored, there is no warm-up run"),
    ("--use_compile true", "--use_compile: ignored, models are not compiled"),
    ("--use_prompt_enhancer", "--use_prompt_enhancer: ignored, without a server"),
    ("--convert_model_dtype", "--convert_model_dtype: ignored, weights always"),
    ("--offload_model True --t5_cpu", "--t5_cpu: no effect"),
    ("--task animate-14B --use_relighting_lora", "--use_relighting_lora: not used, since --replace_flag"),
    ("--replace_flag", "--replace_flag: no effect by itself; a person is replaced if"),
]


@pytest.mark.parametrize(("line", "words"), NOTED, ids=[line for line, _ in NOTED])
def test_ignored_options_are_named(line: str, words: str) -> None:
    told = [*read(line).warnings, *read(line).notes]
    assert any(words in text for text in told), told


def test_a_seed_below_0_is_any_seed() -> None:
    drawn = {read("--base_seed -1").config.sampling.seed for _ in range(3)}
    assert len(drawn) == 3
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_every_option_of_the_tables_is_known() -> None:
    """An option takes its words and is one of: supported, refused, ignored."""
    for name in TABLE:
        flag = name if name.startswith("--") else f"--{name}"
        assert flag_key(flag) == (flag if flag in WAN else name)
    assert all(sum(map(bool, (k.to, k.same_as, k.refused, k.ignored))) == 1 for k in WAN.values())
    assert not set(WAN) & set(LEGACY)
    assert set(WAN_TASKS.values()) >= {("t2v", "wan2.1"), ("animate", "wan2.2_animate")}


def test_words_of_our_own_options_are_theirs() -> None:
    values, rest = divided(
        ["cfg.json", "--prompt", "--warmup", "--warmup", "--steps", "4", "--", "--t5_cpu"], OWN
    )
    assert [value.origin for value in values] == ["--warmup"]
    assert rest == ["cfg.json", "--prompt", "--warmup", "--steps", "4", "--", "--t5_cpu"]
    assert divided(["--task", "t2v", "--image", "a"], OWN) == ((), ["--task", "t2v", "--image", "a"])
    assert divided(["--lora_path", "a", "b", "cfg.json"], OWN)[1] == ["cfg.json"]


def test_an_option_lies_over_the_file_and_set_over_both() -> None:
    loaded = read("--infer_steps 9", {"infer_steps": 4, "warmup": False})
    assert loaded.config.sampling.steps == 9
    assert loaded.origin("sampling", "steps") == "--infer_steps"


def test_options_that_are_given_several_values_at_once() -> None:
    line = ["--lora_path", "a", "b", "--lora_strength", "1.0", "-0.5", "-o", "x", "y"]
    found = [
        "--lora_path",
        "a",
        "--lora_path",
        "b",
        "--lora_strength",
        "1.0",
        "--lora_strength",
        "-0.5",
        "-o",
        "x",
        "y",
    ]
    assert repeat_options(line, ("--lora_path", "--lora_strength")) == found


# ---------------------------------------------------------------- with a model


def test_lines_plan_and_are_in_no_help(cli: Cli, tiny: Path, out: Path) -> None:
    line = ("--task", "t2v-1.3B", "--ckpt_dir", tiny, "--prompt", "x", "--size", "32*32", "--frame_num", 5)
    done = cli(
        "run", *line, "--offload_model", "True", "--sample_solver", "dpm++", "--base_seed", 3, "--dry-run"
    )
    done.succeeded()
    for words in ("(--frame_num", "dpm++", "seed", "wan2.1"):
        assert words in done.out
    cli("plan", *line).succeeded()
    cli("config", "show", *line).succeeded()
    cli("plan", *line, "--dit_fsdp").failed(2, "--dit_fsdp", "one device")
    assert "ckpt_dir" not in cli("run", "--help").out


def test_a_picture_from_a_video_model(cli: Cli, tiny: Path, out: Path) -> None:
    line = ("--task", "t2i-14B", "--ckpt_dir", tiny, "--prompt", "x", "--size", "32*32", "--sample_steps", 1)
    cli("run", *line, "--save_file", out / "o.png").succeeded()
    assert (out / "o.png").is_file()


def test_a_lora_that_is_not_there_stops_a_run_and_no_plan(cli: Cli, tiny: Path, out: Path) -> None:
    line = ("--ckpt_dir", tiny, "--prompt", "x", "--size", "32*32", "--replace_flag", "--use_relighting_lora")
    done = cli("run", *line, "--dry-run")
    done.succeeded()
    assert "has no relighting_lora.ckpt" in done.unfolded
    cli("run", *line).failed(2, "has no relighting_lora.ckpt", "download it")
