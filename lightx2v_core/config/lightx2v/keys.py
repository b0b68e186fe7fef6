"""The flat vocabulary of LightX2V's configuration files, as data: what becomes of each of its keys.

A key is understood (it has a place in our own vocabulary), refused unless its value switches it off, or without a
meaning here and named in a warning. ``translate`` carries this out; the JSON Schema and docs/config.md are
made of the same table. ``null`` always means that nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.config.declared import Setting, settings
from lightx2v_core.config.lightx2v.schemes import MM_TYPES as SCHEMES_BY_LONG_NAME
from lightx2v_core.config.model import Section
from lightx2v_core.config.texts import either
from lightx2v_core.discovery import catalog
from lightx2v_core.spec.specs import WILDCARD

BOOL, INTEGER, NUMBER, STRING, PATH, LIST, OBJECT = "boolean integer number string path array object".split()


@frozen(kw_only=True)
class LegacyKey:
    """One key: what its value may be, and what becomes of it."""

    #: JSON types, empty for any; a path is a string that may be empty
    types: tuple[str, ...] = ()
    #: in a few words, for editors and the documentation
    help: str = ""
    #: keys of our own vocabulary that it is translated into
    to: tuple[str, ...] = ()
    #: the value as ours has it (``ValueError`` when it has none); without it several keys are translated together
    read: Callable[[Any], object] | None = None
    #: another key that it is an older name of
    same_as: str = ""
    #: what to do instead of it, for keys that are refused
    refused: str = ""
    #: values of a refused key that change nothing
    harmless: tuple[object, ...] = ()
    #: why it is passed over, with a warning
    ignored: str = ""


def _same(value: object) -> object:
    return value


def _dtype(value: str) -> str:
    """``BF16``, ``torch.bfloat16``, ... as torch's name."""
    name = value.lower().removeprefix("torch.")
    names = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
    name = names.get(name, name)
    if name not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"{value!r} is no dtype; known are BF16, FP16, FP32 and torch's names")
    return name


def _paths(value: str | Sequence[str]) -> list[str]:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)


def _direct(to: str, help: str, *types: str, read: Callable[[Any], object] = _same) -> LegacyKey:
    return LegacyKey(types=types, help=help, to=(to,), read=read)


def _group(help: str, *types: str, to: str) -> LegacyKey:
    return LegacyKey(types=types, help=help, to=tuple(to.split()))


def _older(name: str) -> LegacyKey:
    return LegacyKey(same_as=name)


def _of_field(setting: Setting) -> LegacyKey:
    """The key that means just one field."""
    kind = setting.kind
    types: tuple[str, ...] = _BY_TYPE.get(kind, (LIST,))
    if kind is str and setting.knob.option is not None and setting.knob.option.metavar in ("FILE", "DIR"):
        types = (PATH,)
    read = _paths if kind == tuple[str, ...] else _same
    return LegacyKey(types=types, help=setting.knob.help, to=(".".join(setting.path),), read=read)


_BY_TYPE: Mapping[object, tuple[str, ...]] = {
    int: (INTEGER,), float: (NUMBER,), str: (STRING,), Section: (STRING,), tuple[str, ...]: (PATH, LIST),
}  # fmt: skip
_OPTION = f"model.options.{WILDCARD}."
#: what moves at once, by the offloaders that can be had
GRANULARITIES = tuple(catalog.values("offloader", "granularity"))
_FIELDS: Mapping[str, LegacyKey] = {
    field.knob.flat: _of_field(field) for field in settings() if field.knob.flat
}
_REQUEST: Mapping[str, LegacyKey] = {
    "num_inference_steps": _older("infer_steps"),
    "target_height": _group("height in pixels; needs target_width", INTEGER, to="sampling.size"),
    "target_width": _group("width in pixels; needs target_height", INTEGER, to="sampling.size"),
    "target_shape": _group("height and width in pixels", LIST, to="sampling.size"),
    "sample_guide_scale": _group("guidance scale, or [high noise, low noise]", NUMBER, LIST, to="sampling.guide_scale"),
    "enable_cfg": _group("false switches guidance off", BOOL, to="sampling.guide_scale"),
    "denoising_step_list": _group("training timesteps that a distilled model visits", LIST,
                                  to="scheduler.use scheduler.options.distill.denoising_steps"),
    "scheduler_type": _group("WanStepDistillScheduler: the scheduler of distilled models", STRING, to="scheduler.use"),
    "boundary": _group("share of the timesteps from which on the high-noise expert works", NUMBER,
                       to=f"{_OPTION}boundary"),
    "boundary_step_index": _group("first step of the low-noise expert", INTEGER, to=f"{_OPTION}boundary_step_index"),
    "refert_num": _direct(f"{_OPTION}overlap_frames", "frames that a segment repeats of the one before", INTEGER),
    "replace_flag": _group("replace the person of a video", BOOL, to="inputs.background_video inputs.mask_video"),
    "changing_resolution": _group("start at another resolution", BOOL, to=f"{_OPTION}changing_resolution_rates"),
    "resolution_rate": _group("share of the full sides, one for each stage before the last", LIST,
                              to=f"{_OPTION}changing_resolution_rates"),
    "changing_resolution_steps": _group("steps at which the resolution changes", LIST,
                                        to=f"{_OPTION}changing_resolution_steps"),
    "video_path": _direct("inputs.src_video", "video whose sound the result carries on", PATH),
}  # fmt: skip


def _weights(prefix: str, component: str, what: str) -> dict[str, LegacyKey]:
    """The five keys that say which weights a component has."""
    path, precision = f"components.{component}.path", f"components.{component}.precision"
    return {
        f"{prefix}_original_ckpt": _group(
            f"file or folder of the {what} in its original precision", PATH, to=f"{path} {precision}"
        ),
        f"{prefix}_quantized": _group(f"whether the {what} is quantized", BOOL, to=precision),
        f"{prefix}_quant_scheme": _group(
            f"weight format and kernel of the {what}, such as fp8-vllm; fp8 or int8 alone take the best kernel",
            STRING, to=f"{precision} components.{component}.quantizer",
        ),
        f"{prefix}_quantized_ckpt": _group(
            f"file or folder of the quantized {what}; needs {prefix}_quantized", PATH, to=f"{path} {precision}"
        ),
    }  # fmt: skip


_WEIGHTS: Mapping[str, LegacyKey] = {
    **_weights("dit", "dit", "network"),
    **_weights("t5", "text_encoder", "text encoder"),
    **_weights("clip", "image_encoder", "image encoder"),
    **{
        f"{expert}_{kind}_ckpt": _group(
            f"file or folder of the {expert.replace('_', '-')} expert, {kind}", PATH,
            to=f"components.{expert}.path components.{expert}.precision",
        )
        for expert in ("high_noise", "low_noise") for kind in ("original", "quantized")
    },
    "dit_distill_ckpt": _direct("components.dit.path", "file or folder of the distilled network", PATH),
    "dit_distill_ckpt_high": _older("high_noise_original_ckpt"),
    "dit_distill_ckpt_low": _older("low_noise_original_ckpt"),
    "mm_config": _group("mm_type: weight format and kernel of the network by their long name", OBJECT,
                        to="components.dit.precision components.dit.quantizer"),
    "weight_auto_quant": _group("quantize the original network while it is loaded", BOOL,
                                to="components.dit.precision components.dit.quantizer"),
    "t5_tokenizer_path": _direct("components.text_encoder.assets.tokenizer", "folder of the tokenizer", PATH),
    "vae_path": _direct("components.vae.path", "file of the VAE", PATH),
    "vae_pth": _older("vae_path"),
    "vae_dtype": _direct(f"{_OPTION}vae_dtype", "compute dtype of the VAE", STRING, read=_dtype),
    "vae_weight_dtype": _older("vae_dtype"),
    "use_tiling_vae": _group("decode in tiles", BOOL, to=f"{_OPTION}vae_tile"),
    "use_lightvae": _group("a pruned VAE, given by vae_path; its sizes are read off the file", BOOL,
                           to="components.vae.path"),
    "use_tae": _group("decode with the tiny VAE", BOOL, to=f"{_OPTION}tiny_vae"),
    "use_tiny_vae": _older("use_tae"),
    "tae_path": _direct("components.tiny_vae.path", "file of the tiny VAE", PATH),
    "tae_pth": _older("tae_path"),
    "tiny_vae_path": _older("tae_path"),
    "need_scaled": _direct(f"{_OPTION}tiny_vae_scaled", "whether the tiny VAE takes latents that are not normalized",
                           BOOL),
    "lora_dynamic_apply": _group("keep LoRA factors apart from the weights", BOOL, to="lora_applier.use"),
    "cpu_offload": _group("keep weights in host memory while they are not used", BOOL, to="offloader.use"),
    "offload_granularity": _group(either(GRANULARITIES), STRING,
                                  to="offloader.options.cpu.granularity offloader.options.disk.granularity"),
    "t5_cpu_offload": _group("the same for the text encoder", BOOL, to="components.text_encoder.offloader"),
    "clip_cpu_offload": _group("the same for the image encoder", BOOL, to="components.image_encoder.offloader"),
    "vae_cpu_offload": _group("the same for the VAE", BOOL, to="components.vae.offloader"),
    "t5_lazy_load": _group("read the text encoder's blocks from disk when they are used", BOOL,
                           to="components.text_encoder.offloader"),
    "lazy_load": _group("read blocks from disk when they are used", BOOL, to="offloader.use"),
    "num_disk_workers": _group("threads that read from disk", INTEGER, to="offloader.options.disk.workers"),
    "unload_modules": _group("hold one component at a time", BOOL, to="offloader.use"),
    "self_attn_1_type": _group("attention kernel", STRING, to="attention.use"),
    "cross_attn_1_type": _group("attention kernel for the text", STRING, to="attention.use"),
    "cross_attn_2_type": _group("attention kernel for the image", STRING, to="attention.use"),
    "adapter_attn_type": _group("attention kernel of the face adapter", STRING, to="attention.use"),
    "clip_attn_type": _group("attention kernel of the image encoder", STRING, to="attention.use"),
}  # fmt: skip

#: what to do instead -> the keys that are refused unless their value is harmless
_REFUSED_FOR: Mapping[str, str] = {
    "a run uses one device; start one run for each of several devices":
        "parallel seq_parallel cfg_parallel parallel_vae disagg_mode disagg_config load_from_rank0",
    "steps are not cached here; leave it out, or say \"NoCaching\"": "feature_caching",
    "frames are not interpolated here; leave it out and use another tool on the result": "video_frame_interpolation",
    "videos are not upscaled here; leave it out and use another tool on the result": "video_super_resolution",
    "no other servers are asked; write the prompt as it should be": "sub_servers",
    "autoregressive models are none that this program runs": "ar_config",
    "models driven by sound are none that this program runs":
        "adapter_model_path adapter_quantized adapter_quant_scheme audio_path infer_frames motion_frames "
        "drop_first_motion max_area",
    "networks that attend to frames before them alone are none that this program runs":
        "num_frame_per_block causal_rope_type",
    "networks that leave out parts of the attention are none that this program runs": "sparse_type",
    "networks that take a reference among their frames (Animate 2) are none that this program runs":
        "refer_stride refer_offset_t refer_offset_h refer_offset_w",
    "one network is loaded for a task; start one run for each": "dynamic_multimodel",
    "networks with guidance as an input are none that this program runs; use sample_guide_scale": "enable_dynamic_cfg",
    "activations are not calibrated here": "do_mm_calib",
    "make a small model with random weights instead: python -m lightx2v_core.testing tiny FOLDER": "dummy_model",
    "give the LoRA as lora_configs: [{\"path\": FILE, \"strength\": 1.0}]": "lora_path",
    "give the size of the video instead (target_height and target_width); an image keeps its shape at that area":
        "resize_mode bucket_shape fixed_area fixed_shape aspect_ratio",
    "networks with scales in their norms are none that this program runs": "quant_method",
    "such a VAE is none that this program runs; use the official one, lightvaew2_1 (vae_path) or a tiny one (use_tae)":
        "vae_type lightvae_encoder_vae_pth lightvae_encoder_path",
    "give the file as vae_path": "vae_name",
    "the image encoder always gives the features before its last block, as the networks were trained": "use_31_block",
    "the noise levels have 1000 steps, as the networks were trained": "num_train_timesteps",
    "the configuration file is an argument of the command": "config_json",
}  # fmt: skip
#: values that these keys may have; the others may be off
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "feature_caching": ("NoCaching",), "refer_stride": (0, 1), "use_31_block": (True,), "num_train_timesteps": (1000,),
    "vae_type": ("wan", "wan2.1", "wan2.2"), "vae_name": ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth"),
}  # fmt: skip
_OFF: tuple[object, ...] = (False, 0, "", [], {})

#: why they mean nothing here -> the keys that are passed over, with a warning
_IGNORED_FOR: Mapping[str, str] = {
    "the files of the model say it":
        "text_len num_channels_latents vae_stride patch_size dim ffn_dim num_heads num_layers in_dim out_dim eps "
        "freq_dim text_dim qk_norm cross_attn_norm window_size vace_layers use_image_encoder lightvae_pruning_rate",
    "it belongs to keys of other networks, which are refused where they are on":
        "log_scale use_img_emb num_blocks num_fragments num_frames frame_seq_length num_repeat "
        "causal_rope_compute_dtype cfg_scale target_fps",
    "a switch between LightX2V's kernels, which compute the same":
        "rope_type rope_chunk rope_chunk_size modulate_type rms_norm_type layer_norm_type tp_rms_norm_type tp_mm_type "
        "clip_precast_patch_input mxfp8_fuse_enable nvfp4_ffn_split_n_workaround",
    "nothing is compiled here, which changes the speed alone": "use_compile",
    "memory is handed back without it": "clean_cuda_cache empty_cache_min_free_gib empty_cache_min_reclaimable_gib "
        "vae_offload_cache",
    "text embeddings are always kept for the next request": "enable_reuse",
    "nothing runs ahead of the first video here, which may take longer for it": "warmup",
    "without a server for it (sub_servers) LightX2V leaves the prompt as it is too": "use_prompt_enhancer",
    "frames are always decoded in chunks": "use_stream_vae",
    "the inputs decide the shape of the video": "auto_target_shape resolution",
    "sound is carried over as it is where the file can hold it": "audio_mux_prefer_copy",
    "it belongs to feature_caching, which is off":
        "teacache_thresh use_ret_steps coefficients magcache_K magcache_calibration magcache_ratios "
        "magcache_retention_ratio magcache_thresh residual_diff_threshold downsample_factor",
    "it belongs to attention kernels that are not here":
        "dynamic_sparse_attn_setting general_sparse_attn_setting nbhd_attn_setting rainfusion_attn_setting "
        "sol_attn_setting sparge_attn_setting spas_flash_attn4_setting spas_sage_attn2_setting spas_sage_attn3_setting "
        "draft_attn_sparsity_ratio parallel_attn_type",
    "LightX2V does not read it either":
        "rotary_chunk rotary_chunk_size sparge sparge_ckpt convert_model_dtype use_bfloat16 strength_model "
        "warm_up_cpu_buffers t5_offload_granularity offload_ratio max_memory offload_to_disk",
}  # fmt: skip

LEGACY: Mapping[str, LegacyKey] = {
    **_FIELDS,
    **_REQUEST,
    **_WEIGHTS,
    **{
        name: LegacyKey(refused=hint, harmless=_HARMLESS.get(name, _OFF))
        for hint, names in _REFUSED_FOR.items()
        for name in names.split()
    },
    **{name: LegacyKey(ignored=reason) for reason, names in _IGNORED_FOR.items() for name in names.split()},
}

#: the long names of weight format and kernel -> the short ones; empty: not quantized
MM_TYPES: Mapping[str, str] = {
    "Default": "",
    **SCHEMES_BY_LONG_NAME,
    "W-fp8-channel-sym-A-fp8-channel-sym-dynamic-Torchao": "fp8-torchao",
}

#: attention kernels of LightX2V that compute (nearly) the same as ours -> our name
ATTENTION: Mapping[str, str] = {
    "torch_sdpa": "sdpa", "flash_attn2": "flash-attn2", "flash_attn3": "flash-attn3", "flash_attn4": "flash-attn4",
    "sage_attn": "sage2", "sage_attn2": "sage2", "sage_attn3": "sage3",
}  # fmt: skip
#: kernels of accelerators that are not supported; they compute the same
VENDOR_ATTENTION = frozenset(
    "npu_flash_attn aiter_attn iluvatar_flash_attn flash_attn_hygon_dcu metax_sage_attn2 flash_attn_enflame_gcu "
    "intel_xpu_flash_attn intel_xpu_cute_attn mlu_sage_attn mlu_flash_attn".split()
)
#: kernels that leave out parts of the attention, so that the video changes
SPARSE_ATTENTION = frozenset(
    "spas_sage_attn spas_sage_attn2 spas_sage_attn3 spas_flash_attn4 sparge_attn sparge_ckpt dynamic_sparse_attn "
    "general_sparse_attn radial_attn nbhd_attn nbhd_attn_flashinfer draft_attn svg_attn svg2_attn sol_attn "
    "rainfusion_attn flex_attn sage_attn2_k_int8_v_fp8".split()
)
