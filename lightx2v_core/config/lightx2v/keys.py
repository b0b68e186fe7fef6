"""The flat vocabulary of LightX2V's configuration files: a table with the treatment of each key.

A key is supported (translated into the nested vocabulary), refused unless its value disables it, or ignored with a
note. ``translate`` applies the table; the JSON Schema and docs/config.md are generated from it. ``null`` always means
not set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.config.declared import Setting, settings
from lightx2v_core.config.lightx2v.schemes import MM_TYPES as SCHEMES_BY_LONG_NAME
from lightx2v_core.config.model import Section
from lightx2v_core.discovery import catalog
from lightx2v_core.spec.specs import WILDCARD

BOOL, INTEGER, NUMBER, STRING, PATH, LIST, OBJECT = "boolean integer number string path array object".split()


@frozen(kw_only=True)
class LegacyKey:
    """One key: the types of its value, and its treatment."""

    #: JSON types, empty for any; a path is a string that may be empty
    types: tuple[str, ...] = ()
    #: short description, for editors and the documentation
    help: str = ""
    #: target keys in the nested vocabulary
    to: tuple[str, ...] = ()
    #: converter of the value (``ValueError`` if it is invalid); None if several keys are translated together
    read: Callable[[Any], object] | None = None
    #: newer name of the same key
    same_as: str = ""
    #: reason and alternative, for a refused key
    refused: str = ""
    #: values of a refused key without effect
    harmless: tuple[object, ...] = ()
    #: reason for ignoring it, given in a note
    ignored: str = ""


def _same(value: object) -> object:
    return value


def _dtype(value: str) -> str:
    """Convert ``BF16``, ``torch.bfloat16``, ... to the name in torch. Raises ``ValueError`` for any other text."""
    name = value.lower().removeprefix("torch.")
    names = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
    name = names.get(name, name)
    if name not in ("bfloat16", "float16", "float32"):
        raise ValueError(f"{value!r} is not a supported dtype; use BF16, FP16, FP32 or their names in torch")
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
    """Define the key that corresponds to a single field."""
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
#: granularities of all known offloaders
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
    "enable_cfg": _group("false disables guidance", BOOL, to="sampling.guide_scale"),
    "denoising_step_list": _group("training timesteps of a distilled model", LIST,
                                  to="scheduler.use scheduler.options.distill.denoising_steps"),
    "scheduler_type": _group("WanStepDistillScheduler (for distilled models)", STRING, to="scheduler.use"),
    "boundary": _group("fraction of the timesteps at or above which the high-noise expert is used", NUMBER,
                       to=f"{_OPTION}boundary"),
    "boundary_step_index": _group("first step of the low-noise expert", INTEGER, to=f"{_OPTION}boundary_step_index"),
    "refert_num": _direct(f"{_OPTION}overlap_frames", "frames that a segment shares with the previous one", INTEGER),
    "replace_flag": _group("replace the person in a video", BOOL, to="inputs.background_video inputs.mask_video"),
    "changing_resolution": _group("start at another resolution", BOOL, to=f"{_OPTION}changing_resolution_rates"),
    "resolution_rate": _group("scale of the side lengths, one for each stage before the last", LIST,
                              to=f"{_OPTION}changing_resolution_rates"),
    "changing_resolution_steps": _group("steps at which the resolution changes", LIST,
                                        to=f"{_OPTION}changing_resolution_steps"),
    "video_path": _direct("inputs.src_video", "source video, whose audio the result keeps", PATH),
}  # fmt: skip


def _weights(prefix: str, component: str, what: str) -> dict[str, LegacyKey]:
    """Define the keys that select the weights of a component."""
    path, precision = f"components.{component}.path", f"components.{component}.precision"
    return {
        f"{prefix}_original_ckpt": _group(
            f"file or folder of the {what} in its original precision", PATH, to=f"{path} {precision}"
        ),
        f"{prefix}_quantized": _group(f"whether the {what} is quantized", BOOL, to=precision),
        f"{prefix}_quant_scheme": _group(
            f"weight format and kernel of the {what}, such as fp8-vllm; fp8 or int8: the best available kernel",
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
    "mm_config": _group("mm_type: long name of the weight format and kernel of the network", OBJECT,
                        to="components.dit.precision components.dit.quantizer"),
    "weight_auto_quant": _group("quantize the network during loading", BOOL,
                                to="components.dit.precision components.dit.quantizer"),
    "t5_tokenizer_path": _direct("components.text_encoder.assets.tokenizer", "folder of the tokenizer", PATH),
    "vae_path": _direct("components.vae.path", "file of the VAE", PATH),
    "vae_pth": _older("vae_path"),
    "vae_dtype": _direct(f"{_OPTION}vae_dtype", "compute dtype of the VAE", STRING, read=_dtype),
    "vae_weight_dtype": _older("vae_dtype"),
    "use_tiling_vae": _group("decode in tiles", BOOL, to=f"{_OPTION}vae_tile"),
    "use_lightvae": _group("use the pruned VAE at vae_path; its sizes are read from the file", BOOL,
                           to="components.vae.path"),
    "use_tae": _group("decode with the tiny VAE", BOOL, to=f"{_OPTION}tiny_vae"),
    "use_tiny_vae": _older("use_tae"),
    "tae_path": _direct("components.tiny_vae.path", "file of the tiny VAE", PATH),
    "tae_pth": _older("tae_path"),
    "tiny_vae_path": _older("tae_path"),
    "need_scaled": _direct(f"{_OPTION}tiny_vae_scaled", "whether the tiny VAE expects latents that are not normalized",
                           BOOL),
    "lora_dynamic_apply": _group("keep LoRA factors separate from the weights", BOOL, to="lora_applier.use"),
    "cpu_offload": _group("keep idle weights in host memory", BOOL, to="offloader.use"),
    "offload_granularity": _group(f"unit of transfer ({', '.join(GRANULARITIES)})", STRING,
                                  to="offloader.options.cpu.granularity offloader.options.disk.granularity"),
    "t5_cpu_offload": _group("as cpu_offload, for the text encoder", BOOL, to="components.text_encoder.offloader"),
    "clip_cpu_offload": _group("as cpu_offload, for the image encoder", BOOL, to="components.image_encoder.offloader"),
    "vae_cpu_offload": _group("as cpu_offload, for the VAE", BOOL, to="components.vae.offloader"),
    "t5_lazy_load": _group("read blocks of the text encoder from disk when they are used", BOOL,
                           to="components.text_encoder.offloader"),
    "lazy_load": _group("read blocks from disk when they are used", BOOL, to="offloader.use"),
    "num_disk_workers": _group("threads that read from disk", INTEGER, to="offloader.options.disk.workers"),
    "unload_modules": _group("keep one component in memory at a time", BOOL, to="offloader.use"),
    "self_attn_1_type": _group("attention kernel", STRING, to="attention.use"),
    "cross_attn_1_type": _group("attention kernel of the text cross-attention", STRING, to="attention.use"),
    "cross_attn_2_type": _group("attention kernel of the image cross-attention", STRING, to="attention.use"),
    "adapter_attn_type": _group("attention kernel of the face adapter", STRING, to="attention.use"),
    "clip_attn_type": _group("attention kernel of the image encoder", STRING, to="attention.use"),
}  # fmt: skip

#: reason and alternative -> the keys that are refused unless their value is harmless
_REFUSED_FOR: Mapping[str, str] = {
    "a run uses one device; start a separate run for each device":
        "parallel seq_parallel cfg_parallel parallel_vae disagg_mode disagg_config load_from_rank0",
    "feature caching is not supported; omit it, or use \"NoCaching\"": "feature_caching",
    "frame interpolation is not supported; omit it and use another tool on the result": "video_frame_interpolation",
    "super-resolution is not supported; omit it and use another tool on the result": "video_super_resolution",
    "other servers are not supported; write the final prompt": "sub_servers",
    "autoregressive models are not supported": "ar_config",
    "audio-driven models are not supported":
        "adapter_model_path adapter_quantized adapter_quant_scheme audio_path infer_frames motion_frames "
        "drop_first_motion max_area",
    "networks with causal attention over frames are not supported":
        "num_frame_per_block causal_rope_type",
    "networks with sparse attention are not supported": "sparse_type",
    "networks with reference frames in their sequence (Animate 2) are not supported":
        "refer_stride refer_offset_t refer_offset_h refer_offset_w",
    "one network is loaded per run; start a separate run for each task": "dynamic_multimodel",
    "networks with guidance as an input are not supported; use sample_guide_scale": "enable_dynamic_cfg",
    "calibration of activations is not supported": "do_mm_calib",
    "create a small model with random weights instead: python -m lightx2v_core.testing tiny FOLDER": "dummy_model",
    "use lora_configs: [{\"path\": FILE, \"strength\": 1.0}]": "lora_path",
    "set the size of the video instead (target_height, target_width); an image keeps its aspect ratio at that area":
        "resize_mode bucket_shape fixed_area fixed_shape aspect_ratio",
    "networks with scales in their norms are not supported": "quant_method",
    "this VAE is not supported; use the official one, lightvaew2_1 (vae_path) or a tiny one (use_tae)":
        "vae_type lightvae_encoder_vae_pth lightvae_encoder_path",
    "use vae_path": "vae_name",
    "the image encoder always returns the features before its last block, as in training": "use_31_block",
    "the noise schedule always has 1000 training steps": "num_train_timesteps",
    "pass the configuration file as an argument of the command": "config_json",
}  # fmt: skip
#: harmless values of these keys; for the others see ``_OFF``
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "feature_caching": ("NoCaching",), "refer_stride": (0, 1), "use_31_block": (True,), "num_train_timesteps": (1000,),
    "vae_type": ("wan", "wan2.1", "wan2.2"), "vae_name": ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth"),
}  # fmt: skip
_OFF: tuple[object, ...] = (False, 0, "", [], {})

#: reason -> the keys that are ignored with a note
_IGNORED_FOR: Mapping[str, str] = {
    "read from the files of the model":
        "text_len num_channels_latents vae_stride patch_size dim ffn_dim num_heads num_layers in_dim out_dim eps "
        "freq_dim text_dim qk_norm cross_attn_norm window_size vace_layers use_image_encoder lightvae_pruning_rate",
    "belongs to keys of other networks, which are refused if enabled":
        "log_scale use_img_emb num_blocks num_fragments num_frames frame_seq_length num_repeat "
        "causal_rope_compute_dtype cfg_scale target_fps",
    "selects among LightX2V kernels with the same result":
        "rope_type rope_chunk rope_chunk_size modulate_type rms_norm_type layer_norm_type tp_rms_norm_type tp_mm_type "
        "clip_precast_patch_input mxfp8_fuse_enable nvfp4_ffn_split_n_workaround",
    "models are not compiled; this affects speed only": "use_compile",
    "memory is released without it": "clean_cuda_cache empty_cache_min_free_gib empty_cache_min_reclaimable_gib "
        "vae_offload_cache",
    "text embeddings are always cached for the next request": "enable_reuse",
    "there is no warm-up run; the first video may take longer": "warmup",
    "without a server (sub_servers) LightX2V does not change the prompt either": "use_prompt_enhancer",
    "frames are always decoded in chunks": "use_stream_vae",
    "the inputs determine the shape of the video": "auto_target_shape resolution",
    "audio is copied unchanged if the file format supports it": "audio_mux_prefer_copy",
    "belongs to feature_caching, which is off":
        "teacache_thresh use_ret_steps coefficients magcache_K magcache_calibration magcache_ratios "
        "magcache_retention_ratio magcache_thresh residual_diff_threshold downsample_factor",
    "belongs to attention kernels that are not available":
        "dynamic_sparse_attn_setting general_sparse_attn_setting nbhd_attn_setting rainfusion_attn_setting "
        "sol_attn_setting sparge_attn_setting spas_flash_attn4_setting spas_sage_attn2_setting spas_sage_attn3_setting "
        "draft_attn_sparsity_ratio parallel_attn_type",
    "not read by LightX2V either":
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

#: attention kernels of LightX2V with (nearly) the same result -> our name
ATTENTION: Mapping[str, str] = {
    "torch_sdpa": "sdpa", "flash_attn2": "flash-attn2", "flash_attn3": "flash-attn3", "flash_attn4": "flash-attn4",
    "sage_attn": "sage2", "sage_attn2": "sage2", "sage_attn3": "sage3",
}  # fmt: skip
#: kernels of unsupported accelerators, with the same result as sdpa
VENDOR_ATTENTION = frozenset(
    "npu_flash_attn aiter_attn iluvatar_flash_attn flash_attn_hygon_dcu metax_sage_attn2 flash_attn_enflame_gcu "
    "intel_xpu_flash_attn intel_xpu_cute_attn mlu_sage_attn mlu_flash_attn".split()
)
#: sparse attention kernels, which change the video
SPARSE_ATTENTION = frozenset(
    "spas_sage_attn spas_sage_attn2 spas_sage_attn3 spas_flash_attn4 sparge_attn sparge_ckpt dynamic_sparse_attn "
    "general_sparse_attn radial_attn nbhd_attn nbhd_attn_flashinfer draft_attn svg_attn svg2_attn sol_attn "
    "rainfusion_attn flex_attn sage_attn2_k_int8_v_fp8".split()
)
