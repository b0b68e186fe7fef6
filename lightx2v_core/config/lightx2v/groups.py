"""Translation of flat keys that depend on each other: size, guidance, weights, offload, attention."""

from __future__ import annotations

from lightx2v_core.config.lightx2v.keys import ATTENTION, GRANULARITIES, SPARSE_ATTENTION, VENDOR_ATTENTION
from lightx2v_core.config.lightx2v.schemes import SCHEMES, family_of, format_of, wanted
from lightx2v_core.config.lightx2v.translate import Group, Reading
from lightx2v_core.errors import suggestion
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, WILDCARD

#: the tiles of LightX2V's tiled VAE, in pixels (runtime: tile 256, stride 192)
_TILE, _TILE_OVERLAP = 256, 64


def _option(name: str) -> tuple[str, ...]:
    """Return the path of an option of the recognized model."""
    return ("model", "options", WILDCARD, name)


def _size(reading: Reading) -> None:
    sides = {name: reading.value(name) for name in ("target_width", "target_height")}
    given = [name for name, value in sides.items() if value is not None]
    if len(given) == 1:
        missing = next(name for name in sides if name not in given)
        reading.refuse(given[0], f"a size needs both sides; also set {missing}")
    elif given:
        reading.say("sampling.size", list(sides.values()), *given)
    shape = reading.value("target_shape")
    if shape is not None:
        if len(shape) != 2:
            reading.refuse("target_shape", f"expected [height, width], got {shape!r}")
        else:
            reading.say("sampling.size", [shape[1], shape[0]], "target_shape")


def _guidance(reading: Reading) -> None:
    scale, enabled = reading.value("sample_guide_scale"), reading.value("enable_cfg")
    if enabled is False:
        reading.say("sampling.guide_scale", [1.0], "enable_cfg", "sample_guide_scale")
    elif enabled and scale is None:
        reading.note(
            "enable_cfg", "guidance is the default of the model, since sample_guide_scale is not set"
        )
    elif scale is not None:
        scales = list(scale) if isinstance(scale, list | tuple) else [scale]
        reading.say("sampling.guide_scale", scales, "sample_guide_scale", "enable_cfg")
        if enabled is None and scales != [1]:
            reading.warn(
                "sample_guide_scale",
                "guidance is on; LightX2V also requires enable_cfg and otherwise runs without guidance",
            )


def is_distilled_class(reading: Reading) -> bool | None:
    """Return whether the model class is that of a distilled network; None if no class is set."""
    name = reading.value("model_cls")
    return None if name is None else "distill" in name


def _scheduler(reading: Reading) -> None:
    """Translate the scheduler and ``denoising_step_list``.

    LightX2V reads the list for its distilled model classes only; the number of its entries is the number of steps.
    """
    steps, kind = reading.value("denoising_step_list"), reading.value("scheduler_type")
    names = ("denoising_step_list", "scheduler_type")
    if kind not in (None, "WanStepDistillScheduler"):
        reading.refuse(
            "scheduler_type", f'unknown scheduler_type {kind!r}; set scheduler instead, such as "unipc"'
        )
    if steps is not None and kind is None and is_distilled_class(reading) is False:
        said = reading.value("model_cls")
        reading.warn(
            "denoising_step_list",
            f"no effect, since the model class {said!r} is not that of a distilled network; use {said}_distill, or "
            "omit it",
        )
        return
    if steps is not None or kind is not None:
        reading.say("scheduler.use", ["distill"], *names)
    if steps is not None:
        path = ("scheduler", "options", "distill", "denoising_steps")
        reading.say(path, list(steps), "denoising_step_list")
        _count_of(reading, len(steps))


def _count_of(reading: Reading, number: int) -> None:
    """Set the number of steps to the length of the list, overriding ``infer_steps`` of the same layer."""
    given = reading.facts.get("infer_steps")
    if given is None or given.value == number or given.layer != reading.facts["denoising_step_list"].layer:
        return
    reading.warn("infer_steps", f"no effect, since denoising_step_list has {number} steps")
    reading.translated = [value for value in reading.translated if value.path != ("sampling", "steps")]


def _boundary(reading: Reading) -> None:
    """Translate the boundary of the experts.

    Files of distilled models often set both keys; LightX2V reads the one that its scheduler uses.
    """
    index, share = "boundary_step_index", "boundary"
    used = [name for name in (index, share) if reading.value(name) is not None]
    if len(used) == 2:
        distilled = (
            reading.value("denoising_step_list") is not None and is_distilled_class(reading) is not False
        )
        used, unused = ([index], share) if distilled else ([share], index)
        reading.note(unused, f"not used, since {used[0]} determines when the experts change")
    for name in used:
        reading.say(_option(name), reading.value(name), name)


def _changing_resolution(reading: Reading) -> None:
    rates, steps = reading.value("resolution_rate"), reading.value("changing_resolution_steps")
    if not reading.value("changing_resolution"):
        for name in ("resolution_rate", "changing_resolution_steps"):
            if name in reading.facts:
                reading.note(name, "not used, since changing_resolution is not true")
        return
    keys = ("changing_resolution", "resolution_rate", "changing_resolution_steps")
    reading.say(_option("changing_resolution_rates"), list(rates or [0.75]), *keys)
    if steps is not None:  # otherwise half of all steps, the default of the models too
        reading.say(_option("changing_resolution_steps"), list(steps), *keys)


def _replacement(reading: Reading) -> None:
    if reading.value("replace_flag"):
        reading.note(
            "replace_flag",
            "no effect by itself; a person is replaced if the inputs include background_video and mask_video",
        )


def _network(reading: Reading) -> None:
    automatic = reading.value("weight_auto_quant")
    if automatic and not reading.value("dit_quantized"):
        reading.refuse("weight_auto_quant", "set the target format with dit_quantized and dit_quant_scheme")
        return
    if automatic:
        reading.say("components.dit.precision", "original", "weight_auto_quant", "dit_quantized")
        if (scheme := reading.value("dit_quant_scheme")) is not None:
            reading.say("components.dit.quantizer.use", wanted(scheme), "dit_quant_scheme")
            if family_of(
                scheme
            ):  # the weights are quantized to its format even if none of its kernels is available
                made = ("components", "dit", "quantizer", "options", "dequant", "format")
                reading.say(made, format_of(scheme), "dit_quant_scheme", "weight_auto_quant")
    quantized = not automatic and _precision(reading, "components.dit", "dit")
    for prefix in ("dit", "high_noise", "low_noise"):
        flag = "weight_auto_quant" if automatic else "dit_quantized"
        _paths(reading, f"components.{prefix}", prefix, flag, quantized)
    if "dit_distill_ckpt" in reading.facts:
        reading.say("components.dit.distilled", True, "dit_distill_ckpt")
    for expert in ("high_noise", "low_noise"):
        if (name := f"{expert}_original_ckpt") in reading.facts and "distill" in reading.facts[name].name:
            reading.say("components.dit.distilled", True, name)


def _encoders(reading: Reading) -> None:
    for prefix, component in (("t5", "text_encoder"), ("clip", "image_encoder")):
        at = f"components.{component}"
        _paths(reading, at, prefix, f"{prefix}_quantized", _precision(reading, at, prefix))


def _precision(reading: Reading, at: str, prefix: str) -> bool:
    """Translate the precision and quantizer of a component. Returns whether it is quantized.

    ``fp8-vllm`` is a precision and a kernel; ``fp8`` alone stands for any kernel (see ``schemes``).
    """
    flag, key = f"{prefix}_quantized", f"{prefix}_quant_scheme"
    quantized, scheme = reading.value(flag), reading.value(key)
    if scheme == "Default":
        scheme = None
    if quantized:
        prefixes = ("dit", "high_noise", "low_noise") if prefix == "dit" else (prefix,)
        path = any(f"{name}_quantized_ckpt" in reading.facts for name in prefixes)
        if family := family_of(
            scheme or ""
        ):  # for other formats the quantizer accepts the name of the scheme
            reading.say(f"{at}.precision", family, flag, key)
        elif (
            (scheme or "").startswith("gguf-")
            and not path
            and (known := SCHEMES.get(scheme or "")) is not None
        ):
            reading.say(f"{at}.precision", known.format or "gguf", flag, key)
        if scheme is not None:
            reading.say(f"{at}.quantizer.use", wanted(scheme), flag, key)
        elif not path:
            reading.refuse(flag, f'set the target format with {key}, such as "fp8-vllm"')
        return True
    if quantized is False:
        reading.say(f"{at}.precision", "original", flag, soft=prefix == "clip")
    if scheme is not None:
        if quantized is None:
            reading.refuse(key, f"requires {flag}: true; with false it has no effect")
        else:
            reading.note(key, f"not used, since {flag} is false")
    return False


def _paths(reading: Reading, at: str, prefix: str, flag: str, quantized: bool) -> None:
    """Translate the file of the chosen precision. The file of the other precision is ignored with a note."""
    used, unused = f"{prefix}_original_ckpt", f"{prefix}_quantized_ckpt"
    if quantized:
        used, unused = unused, used
    said = reading.value(flag)
    if unused in reading.facts and said is None:
        reading.refuse(unused, f"requires {flag}: true; with false it is not used")
    elif unused in reading.facts:
        reading.note(unused, f"not used, since {flag} is {str(said).lower()}")
    if used in reading.facts:
        reading.say(f"{at}.path", reading.value(used), used, flag)
        if not quantized and prefix in ("dit", "t5", "clip"):
            reading.say(f"{at}.precision", "original", used)


def _vae(reading: Reading) -> None:
    tiling = reading.value("use_tiling_vae")
    if tiling is not None:
        reading.say(_option("vae_tile"), _TILE if tiling else 0, "use_tiling_vae", soft=not tiling)
        if tiling:
            reading.say(_option("vae_tile_overlap"), _TILE_OVERLAP, "use_tiling_vae")
    tiny = reading.value("use_tae")
    if tiny is not None:
        reading.say(_option("tiny_vae"), tiny, "use_tae", soft=not tiny)
    if not tiny and "tae_path" in reading.facts:
        reading.note("tae_path", "not used, the full VAE decodes, since use_tae is not true")
    if reading.value("use_lightvae"):
        if "vae_path" in reading.facts:
            reading.say("components.vae.path", reading.value("vae_path"), "vae_path", "use_lightvae")
        else:
            reading.refuse("use_lightvae", "set vae_path to the pruned VAE, such as lightvaew2_1.safetensors")


def _loras(reading: Reading) -> None:
    dynamic = reading.value("lora_dynamic_apply")
    if dynamic is not None:
        applier = ["dynamic" if dynamic else "merge"]
        reading.say("lora_applier.use", applier, "lora_dynamic_apply", soft=not dynamic)


def _offload(reading: Reading) -> None:
    whole, lazy = reading.value("cpu_offload"), reading.value("lazy_load")
    if lazy and whole is False:
        reading.refuse("lazy_load", "requires cpu_offload: true")
        return
    names = ("lazy_load", "cpu_offload")
    used = "disk" if lazy else "cpu" if whole else "none"
    if used != "none":
        reading.say("offloader.use", [used], *names)
    elif reading.value("unload_modules"):
        reading.say("offloader.use", ["sequential"], "unload_modules")
    elif whole is False:
        reading.say("offloader.use", ["none"], "cpu_offload", soft=True)
    if used != "none" and reading.value("unload_modules"):
        reading.note(
            "unload_modules", f"no effect, since the offloader {used!r} already loads weights on demand"
        )
    granularity = reading.value("offload_granularity")
    if granularity is not None and granularity not in GRANULARITIES:
        reading.refuse(
            "offload_granularity",
            f"{granularity!r} is not one of {', '.join(GRANULARITIES)}{suggestion(granularity, GRANULARITIES)}",
        )
        return
    for name, option, by in (
        ("offload_granularity", "granularity", used != "none"),
        ("num_disk_workers", "workers", used == "disk"),
    ):
        if name in reading.facts and by:
            reading.say(("offloader", "options", used, option), reading.value(name), name)
        elif name in reading.facts:
            needs = "cpu_offload" if name == "offload_granularity" else "lazy_load"
            reading.note(name, f"no effect, since {needs} is not true")
    _offload_each(reading, used)


def _offload_each(reading: Reading, used: str) -> None:
    """Translate the offloaders of components other than the network."""
    for prefix, components in (
        ("t5", ("text_encoder",)),
        ("clip", ("image_encoder",)),
        ("vae", ("vae", "tiny_vae") if reading.value("use_tae") else ("vae",)),
    ):
        name = f"{prefix}_cpu_offload"
        wanted = {True: used if used != "none" else "cpu", False: "none", None: used}[reading.value(name)]
        names = [name]
        if prefix == "t5" and reading.value("t5_lazy_load") is not None:
            names.append("t5_lazy_load")
            wanted = "disk" if reading.value("t5_lazy_load") else wanted
        for component in components:
            if any(other in reading.facts for other in names):
                path = f"components.{component}.offloader.use"
                reading.say(path, [wanted], *names, soft=wanted == used)


_CALLS = ("self_attn_1_type", "cross_attn_1_type", "cross_attn_2_type")
_OTHER_CALLS = ("adapter_attn_type", "clip_attn_type")


def _attention(reading: Reading) -> None:
    """Translate the attention kernels.

    One kernel is used for all calls: that of the key for self-attention. Nearly every LightX2V file names a kernel by
    default, so the name is optional, with ``sdpa`` as the fallback.
    """
    given = [name for name in _CALLS if name in reading.facts]
    others = [name for name in _OTHER_CALLS if name in reading.facts]
    for name in [*given, *others]:
        kind = reading.value(name)
        if kind in SPARSE_ATTENTION:
            reading.refuse(
                name,
                f"sparse attention kernel {kind!r} is not supported (it changes the video); use a dense one such as "
                "flash_attn3, or torch_sdpa",
            )
        elif kind not in ATTENTION and kind not in VENDOR_ATTENTION:
            known = [*ATTENTION, *sorted(VENDOR_ATTENTION)]
            reading.refuse(
                name,
                f"unknown attention kernel {kind!r}{suggestion(kind, known)}; known: {', '.join(ATTENTION)}",
            )
    if reading.errors:
        return
    if not given:
        for name in others:
            reading.note(name, "not used; one kernel computes all attention: the one chosen as attention")
        return
    kind = reading.value(given[0])
    kernel = ATTENTION.get(kind, "sdpa")
    wanted = ["sdpa"] if kernel == "sdpa" else [f"{kernel}{OPTIONAL_SUFFIX}", "sdpa"]
    reading.say("attention.use", wanted, *(n for n in [*given, *others] if reading.value(n) == kind))
    if kind in VENDOR_ATTENTION:
        reading.note(
            given[0],
            f"{kind!r} is a kernel of an unsupported accelerator; sdpa is used, with the same result",
        )
    elif kernel != "sdpa":
        reading.note(given[0], f"{kind!r} is used if it is installed and usable, otherwise sdpa")
    for name in [*given, *others]:
        if reading.value(name) != kind:
            reading.note(name, f"not used; one kernel computes all attention: {kind!r} of {given[0]}")


GROUPS: tuple[Group, ...] = (
    _size, _guidance, _scheduler, _boundary, _changing_resolution, _replacement, _network, _encoders, _vae, _loras,
    _offload, _attention,
)  # fmt: skip
