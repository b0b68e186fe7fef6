"""Translation of options of Wan's ``generate.py`` that depend on each other: task, inputs, guidance, memory."""

from __future__ import annotations

from pathlib import Path

from lightx2v_core.config.lightx2v.flags import RELIGHTING_LORA, SRC_FILES, WAN_TASKS, WAN_TASKS_REFUSED
from lightx2v_core.config.lightx2v.translate import Group, Reading
from lightx2v_core.config.texts import drawn_seed
from lightx2v_core.errors import suggestion


def _task(reading: Reading) -> None:
    name = reading.value("--task")
    if name is None:
        return
    if name in WAN_TASKS_REFUSED:
        reading.refuse("--task", f"{name} is not supported: {WAN_TASKS_REFUSED[name]}")
        return
    if name not in WAN_TASKS:
        known = ", ".join(WAN_TASKS)
        reading.refuse("--task", f"unknown task {name!r}{suggestion(name, WAN_TASKS)}; known: {known}")
        return
    task, model = WAN_TASKS[name]
    reading.say("task", task or ("i2v" if "--image" in reading.facts else "t2v"), "--task")
    reading.say("model.use", [model], "--task")
    if name.startswith("t2i") and "--frame_num" not in reading.facts:
        reading.say("sampling.frames", 1, "--task")


def _guidance(reading: Reading) -> None:
    scale = reading.value("--sample_guide_scale")
    if scale is None:
        return
    scales = list(scale) if isinstance(scale, list | tuple) else [scale]
    if len(scales) > 2 or not all(type(value) in (int, float) for value in scales):
        reading.refuse("--sample_guide_scale", f"expected one number or two, got {scale!r}")
        return
    # Wan's pairs are (low noise, high noise)
    reading.say("sampling.guide_scale", scales[::-1], "--sample_guide_scale")


def _seed(reading: Reading) -> None:
    seed = reading.value("--base_seed")
    if seed is not None:  # a negative seed means a random one; the plan and the record store it
        reading.say("sampling.seed", seed if seed >= 0 else drawn_seed(), "--base_seed")


def _animate(reading: Reading) -> None:
    root, replace = reading.value("--src_root_path"), bool(reading.value("--replace_flag"))
    if root is None:
        if replace:
            text = "no effect by itself; a person is replaced if the inputs include background_video and mask_video"
            reading.warn("--replace_flag", text)
    else:
        for file, name in SRC_FILES.items():
            where: object = str(Path(root) / file)
            if name in ("background_video", "mask_video"):
                if replace:
                    reading.say(f"inputs.{name}", where, "--src_root_path", "--replace_flag")
            else:
                reading.say(f"inputs.{name}", [where] if name == "ref_images" else where, "--src_root_path")
    if reading.value("--use_relighting_lora"):
        _relighting(reading, replace)


def _relighting(reading: Reading, replace: bool) -> None:
    if not replace:
        reading.warn("--use_relighting_lora", "not used, since --replace_flag is not given")
        return
    folder = reading.value("--ckpt_dir")
    if folder is not None and (Path(folder).expanduser() / RELIGHTING_LORA).is_file():
        reading.say("loras", [{"path": RELIGHTING_LORA}], "--use_relighting_lora")
        return
    reading.lacking.append(
        f"--use_relighting_lora: {folder or 'the model folder'} has no {RELIGHTING_LORA}, which is part of "
        "Wan2.2-Animate-14B; download it, or omit the option"
    )


def _memory(reading: Reading) -> None:
    offload, text = reading.value("--offload_model"), reading.value("--t5_cpu")
    if offload is not None:
        reading.say(
            "offloader.use", ["sequential" if offload else "none"], "--offload_model", soft=not offload
        )
    if text and offload:
        reading.warn("--t5_cpu", "no effect; --offload_model already keeps one component in memory at a time")
    elif text:
        reading.say("components.text_encoder.offloader.use", ["sequential"], "--t5_cpu")


def _loras(reading: Reading) -> None:
    paths, strengths = reading.value("--lora_path"), reading.value("--lora_strength")
    if paths is None:
        if strengths is not None:
            reading.refuse("--lora_strength", "requires --lora_path")
        return
    strengths = strengths or [1.0]
    if len(strengths) not in (1, len(paths)) or not all(type(value) in (int, float) for value in strengths):
        reading.refuse(
            "--lora_strength",
            f"{len(strengths)} strengths for {len(paths)} files; pass one for all, or one for each",
        )
        return
    each = strengths if len(strengths) == len(paths) else strengths * len(paths)
    loras = [{"path": str(path), "strength": float(s)} for path, s in zip(paths, each, strict=True)]
    reading.say("loras", loras, "--lora_path", "--lora_strength")


FLAG_GROUPS: tuple[Group, ...] = (_task, _guidance, _seed, _animate, _memory, _loras)
