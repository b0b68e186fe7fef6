"""The options of other programs: a table with the treatment of the options of Wan's ``generate.py``.

Every key of LightX2V's files is also an option of that name (``--warmup``), with the meaning of the key. The keys of
the table here are Wan's options with their dashes, so that no file can have them; ``translate`` applies both tables. An
option of both programs has Wan's meaning: a pair of guidance scales lists low noise first.

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

_ONE_DEVICE = "a run uses one device; start a separate run for each device"
_PROMPT = "prompt extension is not supported; write the final prompt"
_SOUND = "audio-driven models (S2V) are not supported"
_SOLVERS = {"unipc": "unipc", "dpm++": "dpm++"}


def _solver(name: str) -> list[str]:
    if name not in _SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known: {', '.join(_SOLVERS)}")
    return [_SOLVERS[name]]


def _direct(to: str, help: str, kind: str, read: Callable[[Any], object] = lambda value: value) -> LegacyKey:
    return LegacyKey(types=(kind,), help=help, to=(to,), read=read)


def _group(help: str, *types: str, to: str) -> LegacyKey:
    return LegacyKey(types=types, help=help, to=tuple(to.split()))


def _refused(hint: str, *harmless: object) -> LegacyKey:
    return LegacyKey(refused=hint, harmless=(False, *harmless))


#: Wan's task -> our task and the model class; an empty task: i2v with an image, else t2v
WAN_TASKS: Mapping[str, tuple[str, str]] = {
    "t2v-14B": ("t2v", "wan2.1"), "t2v-1.3B": ("t2v", "wan2.1"), "t2i-14B": ("t2v", "wan2.1"),
    "i2v-14B": ("i2v", "wan2.1"), "flf2v-14B": ("flf2v", "wan2.1"), "vace-1.3B": ("vace", "wan2.1"),
    "vace-14B": ("vace", "wan2.1"), "t2v-A14B": ("t2v", "wan2.2_moe"), "i2v-A14B": ("i2v", "wan2.2_moe"),
    "ti2v-5B": ("", "wan2.2"), "animate-14B": ("animate", "wan2.2_animate"),
}  # fmt: skip
#: refused tasks of Wan -> reason
WAN_TASKS_REFUSED: Mapping[str, str] = {"s2v-14B": _SOUND}
#: file written by the preprocessing of Animate -> input; the last two are for replacement
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
    "--sample_guide_scale": _group("guidance scale, or [low noise, high noise]", NUMBER, LIST,
                                   to="sampling.guide_scale"),
    "--sample_solver": _direct("scheduler.use", "unipc or dpm++", STRING, read=_solver),
    "--base_seed": _group("seed of the noise", INTEGER, to="sampling.seed"),
    "--save_file": _direct("output.path", "file to write", PATH),
    "--src_root_path": _group("output folder of Animate's preprocessing", PATH,
                              to=" ".join(f"inputs.{name}" for name in SRC_FILES.values())),
    "--refert_num": LegacyKey(same_as="refert_num"),
    "--replace_flag": _group("replace the person in a video", BOOL, to="inputs.background_video inputs.mask_video"),
    "--use_relighting_lora": _group("apply the relighting LoRA to a replaced person", BOOL, to="loras"),
    "--offload_model": _group("keep one component in memory at a time", BOOL, to="offloader.use"),
    "--t5_cpu": _group("keep the text encoder off the device while it is idle", BOOL,
                       to="components.text_encoder.offloader"),
    "--lora_path": _group("LoRA files", LIST, to="loras"),
    "--lora_strength": _group("LoRA strengths: one for all, or one for each", LIST, to="loras"),
    "--convert_model_dtype": LegacyKey(ignored="weights always use the dtype of the run"),
    "--ulysses_size": _refused(_ONE_DEVICE, 1),
    "--ring_size": _refused(_ONE_DEVICE, 1),
    "--dit_fsdp": _refused(_ONE_DEVICE),
    "--t5_fsdp": _refused(_ONE_DEVICE),
    "--use_prompt_extend": _refused(_PROMPT),
    **dict.fromkeys(
        ("--prompt_extend_method", "--prompt_extend_model", "--prompt_extend_target_lang"),
        LegacyKey(ignored="belongs to --use_prompt_extend"),
    ),
    **dict.fromkeys(
        ("--audio", "--enable_tts", "--tts_prompt_audio", "--tts_prompt_text", "--tts_text", "--pose_video",
         "--num_clip", "--infer_frames", "--start_from_ref"),
        _refused(_SOUND),
    ),
    "--action_path": _refused("action-conditioned models are not supported"),
    "--prompt_ref": _refused("networks with reference frames in their sequence (Animate 2) are not supported"),
    "--num_frames": LegacyKey(ignored="not read by LightX2V's Wan models; use --frames"),
    "--support_tasks": LegacyKey(ignored="determined from the model folder"),
    "--return_result_tensor": LegacyKey(ignored="use --dump-tensors FILE to save the tensors"),
}  # fmt: skip

#: all translated keys and options
TABLE: Mapping[str, LegacyKey] = {**LEGACY, **WAN}

#: options without a value that the table does not mark as boolean
_SWITCHES = frozenset(
    "--use_prompt_enhancer --warmup --convert_model_dtype --dit_fsdp --t5_fsdp --use_prompt_extend --enable_tts "
    "--start_from_ref --return_result_tensor".split()
)
#: options with any number of values
_MANY = frozenset("--support_tasks".split())
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def flag_key(flag: str) -> str:
    """Return the name in the table of an option of another program; empty if it is unknown."""
    if flag in WAN:
        return flag
    name = flag.removeprefix("--")
    return name if name in LEGACY and flag != name else ""


def takes_words(flag: str, following: list[str]) -> int:
    """Count the words after an option that are its values."""
    key = TABLE[flag_key(flag)]
    types = TABLE[key.same_as].types if key.same_as else key.types
    words = next((i for i, word in enumerate(following) if word.startswith("--")), len(following))
    if flag in _SWITCHES or types == (BOOL,):
        return int(words > 0 and following[0].lower() in (*_TRUE, *_FALSE))
    if LIST in types or flag in _MANY:
        return next((i for i in range(words) if following[i].endswith(".json")), words)
    return min(words, 1)


def flag_value(flag: str, texts: list[str]) -> object:
    """Convert the texts of an option to the value of its key. Raises ``ConfigError`` for invalid texts."""
    key = TABLE[flag_key(flag)]
    types = TABLE[key.same_as].types if key.same_as else key.types
    if flag in _SWITCHES or types == (BOOL,):
        return not texts or texts[0].lower() in _TRUE
    if not texts:
        raise ConfigError(f"{flag} requires a value")
    if LIST in types and (len(texts) > 1 or "," in texts[0] or types == (LIST,)):
        parts = texts if len(texts) > 1 else re.split(r"\s*,\s*", texts[0].strip("[]"))
        return [_scalar(part) for part in parts if part]
    if STRING in types or PATH in types:
        return texts[0]
    value = _scalar(texts[0]) if len(texts) == 1 else [_scalar(text) for text in texts]
    for kind, known, word in ((INTEGER, int, "an integer"), (NUMBER, (int, float), "a number")):
        if types[:1] == (kind,) and (not isinstance(value, known) or isinstance(value, bool)):
            raise ConfigError(f"{flag}: expected {word}, got {texts[0]!r}")
    if types == (OBJECT,) and not isinstance(value, dict):
        raise ConfigError(f"{flag}: expected a JSON object, got {texts[0]!r}")
    return value


def _scalar(text: str) -> object:
    """Parse JSON; return the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
