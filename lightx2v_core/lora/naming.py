"""The naming schemes of LoRA files as data: prefixes and suffixes of module names.

A stored name is prefix, module and suffix: ``diffusion_model.`` ``blocks.0.self_attn.q`` ``.lora_A.weight``. The suffix
identifies the part of the change (its role), the prefix depends on the program that wrote the file. To support another
family of names, add a line here.

Sources: the files and loaders of LightX2V, diffusers, PEFT, kohya-ss/musubi-tuner, ComfyUI and LyCORIS.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen(kw_only=True)
class Family:
    """A naming scheme for the parts of a change: role -> regular expression of the end of a name."""

    name: str
    suffixes: Mapping[str, str]


#: Roles: ``down`` [rank, in], ``up`` [out, rank] and ``mid`` [rank, rank, ...] of a low-rank pair; ``up_bias`` for the
#: bias of its second matrix; ``diff``, ``diff_b`` and ``diff_m`` are added to weight, bias and modulation.
#: A PEFT adapter may have a name, which is then part of the key.
FAMILIES = (
    Family(
        name="standard",
        suffixes={
            "down": r"\.lora_down\.weight",
            "up": r"\.lora_up\.weight",
            "mid": r"\.lora_mid\.weight",
        },
    ),
    Family(
        name="peft",
        suffixes={"down": r"\.lora_A\.weight", "up": r"\.lora_B\.weight", "up_bias": r"\.lora_B\.bias"},
    ),
    Family(
        name="peft, named adapter",
        suffixes={
            "down": r"\.lora_A\.(?P<adapter>[^.]+)\.weight",
            "up": r"\.lora_B\.(?P<adapter>[^.]+)\.weight",
            "up_bias": r"\.lora_B\.(?P<adapter>[^.]+)\.bias",
        },
    ),
    Family(name="peft, bare", suffixes={"down": r"\.lora_A", "up": r"\.lora_B"}),
    Family(name="diffusers", suffixes={"down": r"\.lora\.down\.weight", "up": r"\.lora\.up\.weight"}),
    Family(name="diffusers, old", suffixes={"down": r"_lora\.down\.weight", "up": r"_lora\.up\.weight"}),
    Family(
        name="transformers",
        suffixes={"down": r"\.lora_linear_layer\.down\.weight", "up": r"\.lora_linear_layer\.up\.weight"},
    ),
    Family(
        name="loha",
        suffixes={
            part: rf"\.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
        },
    ),
    Family(
        name="lokr",
        suffixes={
            part: rf"\.lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        },
    ),
    Family(
        name="difference", suffixes={"diff": r"\.diff", "diff_b": r"\.diff_b", "diff_m": r"\.diff_m"}
    ),
)  # fmt: skip

#: roles shared by all families: the alpha, and the magnitude of a DoRA
SHARED: Mapping[str, str] = {
    "alpha": r"\.alpha",
    "magnitude": r"\.dora_scale|\.lora_magnitude_vector(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?",
}

#: role of a difference -> name of the parameter it is added to
PARAMETERS: Mapping[str, str] = {
    "diff": "weight",
    "diff_b": "bias",
    "diff_m": "modulation",
    "up_bias": "bias",
}

#: prefixes of the first and of the second network of a pipeline that has two
FIRST = frozenset({"transformer_1", "high_noise_model", "high_noise", "dit1"})
SECOND = frozenset({"transformer_2", "low_noise_model", "low_noise", "dit2"})
#: parts that may precede the network's own names in a dotted name, in any number and order
PREFIXES = (
    frozenset(
        "base_model model diffusion_model transformer unet dit module pipe pipeline net denoiser generator lora "
        "lora_unet lora_transformer lora_dit lycoris _orig_mod _fsdp_wrapped_module _checkpoint_wrapped_module".split()
    )
    | FIRST
    | SECOND
)

#: prefixes of flat names, whose dots are underscores; more underscores may follow (VideoX-Fun writes ``lora_unet__``)
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lora_dit_", "lora_model_", "lycoris_")
#: prefixes that may follow these, like ``PREFIXES`` in dotted names
FLAT_NESTED = (
    "model_diffusion_model_", "diffusion_model_", "model_", "transformer_1_", "transformer_2_", "transformer_", "unet_",
    "dit_", "1_", "2_",
)  # fmt: skip
#: second prefix in flat names of the two networks of a pipeline that has two
FLAT_FIRST = ("1_", "transformer_1_", "diffusion_model_transformer_1_")
FLAT_SECOND = ("2_", "transformer_2_", "diffusion_model_transformer_2_")

#: first parts of names of text encoders, after prefixes such as ``base_model``, and the pattern of flat ones
TEXT_ENCODERS = (
    "text_encoder", "text_encoders", "te", "te1", "te2", "te3", "clip", "clip_l", "clip_g", "conditioner",
    "cond_stage_model", *(f"{kind}t5{size}" for kind in ("", "um") for size in ("", "xxl")),
)  # fmt: skip
FLAT_TEXT_ENCODERS = r"(?:lora|lycoris)_+(?:te\d?|text_encoders?|(?:um)?t5(?:xxl)?|clip)_"


#: module names of older versions of diffusers -> names in its networks
OLD_MODULES = ((r"\.processor\.", "."), (r"\.to_out$", ".to_out.0"))
