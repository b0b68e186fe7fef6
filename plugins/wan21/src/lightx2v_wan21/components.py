"""File names and signatures of the components of Wan models, as data; Wan2.2 shares most of them.

File names are those of the official repositories, LightX2V (single files, a folder for each precision), diffusers and
ComfyUI. A name only says where to look: tensors decide which component a file contains.
"""

from __future__ import annotations

from lightx2v_core.api import ComponentSpec
from lightx2v_wan21.key_maps import (
    CLIP_TRANSFORMERS,
    DIT_COMFYUI,
    DIT_DIFFUSERS,
    UMT5_EMBEDDING,
    UMT5_LLAMA,
    UMT5_TRANSFORMERS,
    VAE_DIFFUSERS,
)

#: tensors that every Wan transformer has
DIT_SIGNATURE = ("patch_embedding.weight", "head.modulation", "blocks.0.self_attn.norm_q.weight")
#: prefixes of a component's tensors in a checkpoint of the whole model, as ComfyUI and its predecessors save it
_T5_NAMES = r"(?=shared\.|encoder\.|block|token_embedding\.|norm\.)"
_CLIP_NAMES = r"(?=vision_model\.|visual)"
_PREFIXES = {
    "dit": (r"(?:model\.)?diffusion_model\.", r"(?:transformer|dit|unet)\."),
    "text_encoder": tuple(
        rf"{where}\.(?:[^.]+\.)??(?:(?:transformer|model)\.)?{_T5_NAMES}"
        for where in ("text_encoders?", "cond_stage_model", r"conditioner\.embedders\.\d+")
    ),
    "image_encoder": tuple(
        rf"{where}\.(?:model\.)?{_CLIP_NAMES}"
        for where in ("clip_vision", "image_encoder", r"conditioner\.embedders\.\d+")
    ),
    "vae": (r"(?:vae|first_stage_model|autoencoder)\.",),
}
#: files of any name, searched when none with a known name fits
ANY_FILE = ("*.safetensors", "*.pth", "*.pt", "*.ckpt")
_T5, _CLIP = "models_t5_umt5-xxl-enc", "models_clip_open-clip-xlm-roberta-large-vit-huge-14"

DIT = ComponentSpec(
    name="dit",
    summary="diffusion transformer",
    files=("diffusion_pytorch_model*.safetensors", "distill_model.*", "*.safetensors"),
    fallback=("*.pth", "*.pt", "*.ckpt", "*.gguf"),
    signature=DIT_SIGNATURE,
    quantize=(r"\.(self_attn|cross_attn|ffn)\.",),
    layouts=(DIT_COMFYUI, DIT_DIFFUSERS),
    prefixes=_PREFIXES["dit"],
    hint="download the model's repository again",
    main=True,
)
TEXT_ENCODER = ComponentSpec(
    name="text_encoder",
    summary="umT5-XXL text encoder",
    files=(
        f"{_T5}-bf16.pth",
        f"{_T5}-bf16.safetensors",
        *(
            f"{_T5}-{precision}.{suffix}"
            for precision in ("fp8", "int8")
            for suffix in ("pth", "safetensors")
        ),
        "umt5*.safetensors",
    ),
    fallback=(*ANY_FILE, "*.gguf"),
    signature=("token_embedding.weight", "blocks.0.attn.q.weight", "blocks.0.ffn.gate.0.weight"),
    layouts=(UMT5_TRANSFORMERS, UMT5_EMBEDDING, UMT5_LLAMA),
    prefixes=_PREFIXES["text_encoder"],
    assets={
        "tokenizer": (
            "google/umt5-xxl/tokenizer.json",
            "tokenizer/tokenizer.json",
            "umt5-xxl/tokenizer.json",
            "tokenizer.json",
        )
    },
    hint="it is part of every official Wan repository",
)
IMAGE_ENCODER = ComponentSpec(
    name="image_encoder",
    summary="CLIP ViT-H/14 image encoder",
    files=(
        f"{_CLIP}.pth",
        f"{_CLIP}.safetensors",
        *(
            f"{_CLIP}-{precision}.{suffix}"
            for precision in ("fp8", "int8")
            for suffix in ("pth", "safetensors")
        ),
        "clip-fp8.pth",
        "clip-int8.pth",
        "clip_vision*.safetensors",
    ),
    fallback=ANY_FILE,
    signature=("visual.cls_embedding", "visual.pos_embedding", "visual.transformer.0.attn.to_qkv.weight"),
    layouts=(CLIP_TRANSFORMERS,),
    prefixes=_PREFIXES["image_encoder"],
    hint="it is part of the official image-to-video repositories",
    whole=False,  # the text tower, the last block and the projection are not used
)
VAE = ComponentSpec(
    name="vae",
    summary="Wan2.1 VAE",
    files=(
        "Wan2.1_VAE.pth",
        "Wan2.1_VAE.safetensors",
        "wan_2.1_vae.safetensors",
        "lightvaew2_1.safetensors",
        "lightvaew2_1.pth",
    ),
    fallback=ANY_FILE,
    signature=("conv1.weight", "encoder.downsamples.0.residual.0.gamma", "decoder.middle.0.residual.0.gamma"),
    layouts=(VAE_DIFFUSERS,),
    prefixes=_PREFIXES["vae"],
    hint="it is part of every official Wan2.1 repository",
)
TINY_VAE = ComponentSpec(
    name="tiny_vae",
    summary="tiny VAE for decoding",
    files=("taew2_1.pth", "taew2_1.safetensors", "lighttaew2_1.safetensors", "lighttaew2_1.pth"),
    signature=("encoder.0.weight", "decoder.1.weight", "decoder.3.conv.0.weight"),
    hint="download taew2_1.pth or lighttaew2_1.safetensors",
)
