"""The options of other programs, as data: what becomes of those of Wan's own ``generate.py``.

A key of LightX2V's files is an option of its name too (``--warmup``), and means what the key means. Wan's options are
here, under their names with the dashes, so that no file has them; ``translate`` carries both tables out. Where
both programs have an option, it is Wan's: its pairs of guidance are for low noise first.

Source: the options of ``generate.py`` in Wan-Video/Wan2.1 and Wan-Video/Wan2.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from lightx2v_core.config.lightx2v.keys import (
    BOOL,
    INTEGER,
    LEGACY,
    LIST,
    NUMBER,
    OBJECT,
    PATH,
    STRING,
    LegacyKey,
)
from lightx2v_core.errors import ConfigError

_ONE_DEVICE = "a run uses one device; start one run for each of several devices"
_PROMPT = "no other model writes the prompt anew; write it as it should be"
_SOUND = "models driven by sound (S2V) are none that this program runs"
_SOLVERS = {"unipc": "unipc", "dpm++": "dpm++"}


def _solver(name: str) -> list[str]:
    if name not in _SOLVERS:
        raise ValueError(f"{name!r} is not known; known are {', '.join(_SOLVERS)}")
    return [_SOLVERS[name]]


def _direct(to: str, help: str, kind: str, read: Callable[[Any], object] = lambda value: value) -> LegacyKey:
    return LegacyKey(types=(kind,), help=help, to=(to,), read=read)


def _group(help: str, *types: str, to: str) -> LegacyKey:
    return LegacyKey(types=types, help=help, to=tuple(to.split()))


def _refused(hint: str, *harmless: object) -> LegacyKey:
    return LegacyKey(refused=hint, harmless=(False, *harmless))


#: Wan's tasks -> ours, the model class, and what else they say; no task: it is i2v with an image, else t2v
WAN_TASKS: Mapping[str, tuple[str, str]] = {
    "t2v-14B": ("t2v", "wan2.1"), "t2v-1.3B": ("t2v", "wan2.1"), "t2i-14B": ("t2v", "wan2.1"),
    "i2v-14B": ("i2v", "wan2.1"), "flf2v-14B": ("flf2v", "wan2.1"), "vace-1.3B": ("vace", "wan2.1"),
    "vace-14B": ("vace", "wan2.1"), "t2v-A14B": ("t2v", "wan2.2_moe"), "i2v-A14B": ("i2v", "wan2.2_moe"),
    "ti2v-5B": ("", "wan2.2"), "animate-14B": ("animate", "wan2.2_animate"),
}  # fmt: skip
#: tasks of Wan that are refused -> why
WAN_TASKS_REFUSED: Mapping[str, str] = {"s2v-14B": _SOUND}
#: the files of its preprocessing -> the input that each is; the last two are for replacement
SRC_FILES: Mapping[str, str] = {
    "src_ref.png": "ref_images", "src_pose.mp4": "pose_video", "src_face.mp4": "face_video",
    "src_bg.mp4": "background_video", "src_mask.mp4": "mask_video",
}  # fmt: skip
RELIGHTING_LORA = "relighting_lora.ckpt"

WAN: Mapping[str, LegacyKey] = {
    "--task": _group("task and model, such as t2v-A14B", STRING, to="task model sampling.frames"),
    "--ckpt_dir": _direct("model_path", "folder of the model", PATH),
    "--image": _direct("inputs.image", "first image", PATH),
    "--first_frame": _direct("inputs.image", "first image", PATH),
    "--last_frame": _direct("inputs.last_image", "last image", PATH),
    "--frame_num": _direct("sampling.frames", "number of frames, 4k + 1", INTEGER),
    "--sample_steps": _direct("sampling.steps", "denoising steps", INTEGER),
    "--sample_shift": _direct("sampling.shift", "flow shift", NUMBER),
    "--sample_guide_scale": _group("guidance scale; of two the first is for low noise", NUMBER, LIST,
                                   to="sampling.guide_scale"),
    "--sample_solver": _direct("scheduler.use", "unipc or dpm++", STRING, read=_solver),
    "--base_seed": _group("seed of the noise", INTEGER, to="sampling.seed"),
    "--save_file": _direct("output.path", "file to write", PATH),
    "--src_root_path": _group("folder that Animate's preprocessing wrote", PATH,
                              to=" ".join(f"inputs.{name}" for name in SRC_FILES.values())),
    "--refert_num": LegacyKey(same_as="refert_num"),
    "--replace_flag": _group("replace the person of a video", BOOL, to="inputs.background_video inputs.mask_video"),
    "--use_relighting_lora": _group("the LoRA that lights a replaced person", BOOL, to="loras"),
    "--offload_model": _group("hold one component at a time", BOOL, to="offloader.use"),
    "--t5_cpu": _group("keep the text encoder off the device", BOOL, to="components.text_encoder.offloader"),
    "--lora_path": _group("LoRA files", LIST, to="loras"),
    "--lora_strength": _group("their strengths: one for all, or one for each", LIST, to="loras"),
    "--convert_model_dtype": LegacyKey(ignored="weights always get the dtype of the run"),
    "--ulysses_size": _refused(_ONE_DEVICE, 1),
    "--ring_size": _refused(_ONE_DEVICE, 1),
    "--dit_fsdp": _refused(_ONE_DEVICE),
    "--t5_fsdp": _refused(_ONE_DEVICE),
    "--use_prompt_extend": _refused(_PROMPT),
    **dict.fromkeys(
        ("--prompt_extend_method", "--prompt_extend_model", "--prompt_extend_target_lang"),
        LegacyKey(ignored="it belongs to --use_prompt_extend"),
    ),
    **dict.fromkeys(
        ("--audio", "--enable_tts", "--tts_prompt_audio", "--tts_prompt_text", "--tts_text", "--pose_video",
         "--num_clip", "--infer_frames", "--start_from_ref"),
        _refused(_SOUND),
    ),
    "--action_path": _refused("models that are steered by actions are none that this program runs"),
    "--prompt_ref": _refused("networks with a reference among their frames (Animate 2) are none that can be run"),
    "--num_frames": LegacyKey(ignored="LightX2V's Wan models do not read it; use --frames"),
    "--support_tasks": LegacyKey(ignored="the model's folder says what it does"),
    "--return_result_tensor": LegacyKey(ignored="--dump-tensors FILE stores the tensors"),
}  # fmt: skip

#: every key and option that is translated
TABLE: Mapping[str, LegacyKey] = {**LEGACY, **WAN}

#: options without a value, which no kind of value tells
_SWITCHES = frozenset(
    "--use_prompt_enhancer --warmup --convert_model_dtype --dit_fsdp --t5_fsdp --use_prompt_extend --enable_tts "
    "--start_from_ref --return_result_tensor".split()
)
#: options with as many values as there are
_MANY = frozenset("--support_tasks".split())
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def flag_key(flag: str) -> str:
    """The name in the table of an option of another program; empty when none has it."""
    if flag in WAN:
        return flag
    name = flag.removeprefix("--")
    return name if name in LEGACY and flag != name else ""


def takes_words(flag: str, following: list[str]) -> int:
    """How many of the words behind an option are its values."""
    key = TABLE[flag_key(flag)]
    types = TABLE[key.same_as].types if key.same_as else key.types
    words = next((i for i, word in enumerate(following) if word.startswith("--")), len(following))
    if flag in _SWITCHES or types == (BOOL,):
        return int(words > 0 and following[0].lower() in (*_TRUE, *_FALSE))
    if LIST in types or flag in _MANY:
        return next((i for i in range(words) if following[i].endswith(".json")), words)
    return min(words, 1)


def flag_value(flag: str, words: list[str]) -> object:
    """The value of an option as its key has it. ``ConfigError`` when its words are none."""
    key = TABLE[flag_key(flag)]
    types = TABLE[key.same_as].types if key.same_as else key.types
    if flag in _SWITCHES or types == (BOOL,):
        return not words or words[0].lower() in _TRUE
    if not words:
        raise ConfigError(f"{flag} needs a value")
    if LIST in types and (len(words) > 1 or "," in words[0] or types == (LIST,)):
        parts = words if len(words) > 1 else re.split(r"\s*,\s*", words[0].strip("[]"))
        return [_scalar(part) for part in parts if part]
    if STRING in types or PATH in types:
        return words[0]
    value = _scalar(words[0]) if len(words) == 1 else [_scalar(word) for word in words]
    for kind, known, word in ((INTEGER, int, "a whole number"), (NUMBER, (int, float), "a number")):
        if types[:1] == (kind,) and (not isinstance(value, known) or isinstance(value, bool)):
            raise ConfigError(f"{flag}: expected {word}, got {words[0]!r}")
    if types == (OBJECT,) and not isinstance(value, dict):
        raise ConfigError(f"{flag}: expected an object in JSON, got {words[0]!r}")
    return value


def _scalar(text: str) -> object:
    """JSON where it is some, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
