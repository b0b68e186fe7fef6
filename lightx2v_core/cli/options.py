"""The options that commands share, as data: each run option is a configuration key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from attrs import frozen

from lightx2v_core.cli.foreign import foreign_values
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig, load_config, parse_bytes, parse_set, parse_size
from lightx2v_core.config.model import drawn_seed
from lightx2v_core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@frozen(kw_only=True)
class RunOption:
    """An option of ``run`` and ``plan``: its spellings, help, the key it sets, and how its text is read."""

    names: tuple[str, ...]
    key: tuple[str, ...]
    help: str
    metavar: str = "TEXT"
    read: Callable[[str], Any] = str
    multiple: bool = False
    flag: bool = False
    #: what a flag sets its key to
    sets: bool = False

    @property
    def parameter(self) -> str:
        return self.names[0].lstrip("-").replace("-", "_")


def _number(kind: type[Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise ConfigError(f"expected {word}, got {text!r}") from None

    return read


def _seed(text: str) -> int:
    """A number, or ``random``: one is drawn, and the plan and the record keep it."""
    if text.strip().lower() == "random":
        return drawn_seed()
    return int(_number(int)(text))


def _numbers(text: str) -> list[float]:
    return [_number(float)(part) for part in text.split(",")]


def _names(text: str) -> str | list[str]:
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else names


def parse_lora_option(text: str) -> dict[str, Any]:
    """Read the value of ``--lora`` into keywords of a ``LoraConfig``: ``PATH``, ``PATH:STRENGTH``, and ``high:``,
    ``low:`` or ``both:`` in front for the expert that it is for."""
    found: dict[str, Any] = {}
    if match := re.match(r"(high|low|both):(?=.)", text):
        name = match.group(1)
        found["name"], text = "both" if name == "both" else f"{name}_noise_model", text[match.end() :]
    path, colon, strength = text.rpartition(":")
    if colon and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", strength):
        return {**found, "path": path, "strength": float(strength)}
    return {**found, "path": text}


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


RUN_OPTIONS = (
    RunOption(names=("--model-path", "--model_path"), key=("model_path",), help="Folder of the model.", metavar="DIR"),
    RunOption(names=("--model", "--model_cls"), key=("model",), help="Model family; absent: recognized.",
              metavar="NAME", read=_names),
    RunOption(names=("--task",), key=("task",), help="t2v, i2v, flf2v, vace or animate.", metavar="TASK"),
    RunOption(names=("--prompt",), key=("prompt",), help="Prompt: what the video shows."),
    RunOption(names=("--negative-prompt", "--negative_prompt"), key=("negative_prompt",),
              help="Negative prompt: what it should not show; absent: the model's official one, empty: none."),
    RunOption(names=("--image", "--image_path"), key=("inputs", "image"), metavar="FILE",
              help="Image that the video begins with: its first frame."),
    RunOption(names=("--last-image", "--last_frame_path"), key=("inputs", "last_image"), metavar="FILE",
              help="Image that it ends with: its last frame."),
    RunOption(names=("--src-video", "--src_video"), key=("inputs", "src_video"), help="Video to edit.", metavar="FILE"),
    RunOption(names=("--src-mask", "--src_mask"), key=("inputs", "src_mask"), help="Mask of what to change.",
              metavar="FILE"),
    RunOption(names=("--ref-image", "--src_ref_images"), key=("inputs", "ref_images"), read=_list, multiple=True,
              help="Reference image; give it again for more.", metavar="FILE"),
    RunOption(names=("--pose-video", "--src_pose_path"), key=("inputs", "pose_video"), help="Pose video.",
              metavar="FILE"),
    RunOption(names=("--face-video", "--src_face_path"), key=("inputs", "face_video"), help="Face video.",
              metavar="FILE"),
    RunOption(names=("--background-video", "--src_bg_path"), key=("inputs", "background_video"), metavar="FILE",
              help="Background video."),
    RunOption(names=("--mask-video", "--src_mask_path"), key=("inputs", "mask_video"), metavar="FILE",
              help="Video of the mask."),
    RunOption(names=("--size",), key=("sampling", "size"), help="Width and height in pixels, such as 832x480.",
              metavar="WxH", read=parse_size),
    RunOption(names=("--frames",), key=("sampling", "frames"), help="Frames of the video, 4k+1 for Wan.", metavar="N",
              read=_number(int)),
    RunOption(names=("--fps",), key=("sampling", "fps"), help="Frames per second (FPS) of the file.", metavar="N",
              read=_number(float)),
    RunOption(names=("--steps",), key=("sampling", "steps"), help="Steps of denoising.", metavar="N",
              read=_number(int)),
    RunOption(names=("--guide-scale",), key=("sampling", "guide_scale"), metavar="F[,F]", read=_numbers,
              help="Guidance scale (CFG); two values are high-noise expert first; 1 switches it off."),
    RunOption(names=("--shift",), key=("sampling", "shift"), metavar="F", read=_number(float),
              help="Shift of the noise levels (flow shift)."),
    RunOption(names=("--scheduler",), key=("scheduler",), help="Timesteps and update rule.", metavar="NAME",
              read=_names),
    RunOption(names=("--seed",), key=("sampling", "seed"), metavar="N", read=_seed,
              help="Seed; the same one makes the same video. random: one is drawn, and the record keeps it."),
    RunOption(names=("--dtype",), key=("dtype",), help="bfloat16, float16 or float32.", metavar="NAME"),
    RunOption(names=("--device",), key=("device",), help="auto, cpu, cuda or cuda:N.", metavar="NAME"),
    RunOption(names=("--attention",), key=("attention",), help="Attention kernel, or several to try in order.",
              metavar="NAME[,NAME]", read=_names),
    RunOption(names=("--quantizer",), key=("quantizer",), metavar="NAME[,NAME]", read=_names,
              help="Kernel for weights in fp8 or int8; plain weights are quantized with it while they are read."),
    RunOption(names=("--offloader",), key=("offloader",), metavar="NAME[,NAME]", read=_names,
              help="Where weights live while they are not used; auto: the least costly that fits the limits."),
    RunOption(names=("--vram-limit",), key=("memory", "vram_limit"), help="Device memory to use, such as 24GB.",
              metavar="SIZE", read=parse_bytes),
    RunOption(names=("--ram-limit",), key=("memory", "ram_limit"), help="Memory of the machine to use, such as 32GB.",
              metavar="SIZE", read=parse_bytes),
    RunOption(names=("--lora",), key=("loras",), metavar="[high:|low:|both:]PATH[:STRENGTH]",
              read=parse_lora_option, multiple=True,
              help="LoRA file; give it again for more. In front: which of two experts it is for."),
    RunOption(names=("--lora-applier",), key=("lora_applier",), metavar="NAME[,NAME]", read=_names,
              help="merge: LoRA files become part of the weights; dynamic: they stay beside them."),
    RunOption(names=("--strict-lora",), key=("strict_lora",), flag=True, sets=True,
              help="Refuse a LoRA file of which a part has no effect."),
    RunOption(names=("--output", "--save_result_path"), key=("output", "path"), metavar="FILE",
              help="An .mp4, a .png for one frame, or a folder (ending in /) of PNGs."),
    RunOption(names=("--no-overwrite",), key=("output", "overwrite"), flag=True,
              help="Refuse an output that is there already; else it is replaced, as a whole."),
    RunOption(names=("--no-record",), key=("output", "record"), help="Write no run record.", flag=True),
)  # fmt: skip


def run_options(command: F) -> F:
    """Add CONFIG, every run option and ``--set`` to a command; it receives ``loaded_config``."""
    for option in reversed(RUN_OPTIONS):
        command = click.option(
            *option.names,
            option.parameter,
            help=option.help,
            metavar=None if option.flag else option.metavar,
            multiple=option.multiple,
            is_flag=option.flag or None,  # False would make every value optional
        )(command)
    command = click.option(
        "--set", "set_", metavar="KEY=JSON", multiple=True, help="Set any configuration key."
    )(command)
    command = click.option("--config_json", metavar="FILE", hidden=True)(command)
    return click.argument("config", required=False)(command)


def config_from(parameters: dict[str, Any]) -> LoadedConfig:
    """The configuration of a command line; options lie over the file, ``--set`` over both. Takes its parameters out
    of ``parameters``."""
    config, alias = parameters.pop("config"), parameters.pop("config_json")
    if config is not None and alias is not None:
        raise ConfigError("the configuration file is given twice, as an argument and as --config_json")
    if config is not None and not os.path.isfile(config) and not config.endswith((".json", ".jsonc")):
        what = "is a folder" if os.path.isdir(config) else "does not exist"
        raise ConfigError(
            f"configuration file {config[:200]!r} {what}; a model goes with --model-path, and what the video shows "
            "with --prompt"
        )
    values = []
    for option in RUN_OPTIONS:
        given = parameters.pop(option.parameter)
        # an empty value of a path or name means "not given", as in the scripts of the original command
        if given in (None, (), False) or (
            given == "" and option.key not in (("prompt",), ("negative_prompt",))
        ):
            continue
        values.append(Value(path=option.key, value=_read(option, given), origin=option.names[0]))
    values += foreign_values()
    values += [parse_set(text) for text in parameters.pop("set_")]
    return load_config(config or alias, values)


def _read(option: RunOption, given: Any) -> Any:
    if option.flag:
        return option.sets
    try:
        if not option.multiple:
            return option.read(given)
        read = [option.read(item) for item in given]
        return [part for item in read for part in item] if option.read is _list else read
    except ConfigError as exc:
        raise ConfigError(f"{option.names[0]}: {exc}") from None
