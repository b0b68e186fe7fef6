"""The hook implementations of Wan2.2. Imported at discovery, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from lightx2v_core.api import ComponentSpec, ModelSpec, TaskSpec, hookimpl
from lightx2v_wan22.options import A14bOptions, AnimateOptions, Ti2vOptions

#: tensors that every Wan transformer has
SIGNATURE = ("patch_embedding.weight", "head.modulation", "blocks.0.self_attn.norm_q.weight")

TEXT_ENCODER = ComponentSpec(
    name="text_encoder",
    summary="umT5-XXL text encoder",
    files=("models_t5_umt5-xxl-enc-bf16.pth",),
    assets={"tokenizer": "google/umt5-xxl/tokenizer.json"},
    hint="it is part of every official Wan repository",
)
VAE21 = ComponentSpec(
    name="vae",
    summary="Wan2.1 VAE",
    files=("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors"),
    hint="it is part of every official Wan repository but that of TI2V-5B",
)
VAE22 = ComponentSpec(
    name="vae",
    summary="Wan2.2 VAE",
    files=("Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors"),
    hint="it is part of the official repository of TI2V-5B",
)
TINY_VAE21 = ComponentSpec(
    name="tiny_vae",
    summary="tiny VAE for decoding",
    files=("taew2_1.pth", "taew2_1.safetensors", "lighttaew2_1.safetensors", "lighttaew2_1.pth"),
    hint="download taew2_1.pth or lighttaew2_1.safetensors",
)
TINY_VAE22 = ComponentSpec(
    name="tiny_vae",
    summary="tiny VAE for decoding",
    files=("taew2_2.pth", "taew2_2.safetensors", "lighttaew2_2.safetensors", "lighttaew2_2.pth"),
    hint="download taew2_2.pth or lighttaew2_2.safetensors",
)
DIT = ComponentSpec(
    name="dit",
    summary="diffusion transformer",
    files=("diffusion_pytorch_model*.safetensors",),
    signature=SIGNATURE,
    hint="download the model's repository again",
)
IMAGE_ENCODER = ComponentSpec(
    name="image_encoder",
    summary="CLIP image encoder",
    files=("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",),
    hint="it is part of the official repository of Animate-14B",
    whole=False,  # the text tower, the last block and the projection are not used
)


def _expert(name: str) -> ComponentSpec:
    """An expert in a folder of its own; distilled ones are single files there."""
    return ComponentSpec(
        name=name,
        summary=f"{name.replace('_', '-')} expert",
        files=(
            f"{name}_model/diffusion_pytorch_model*.safetensors",
            f"{name}_model/*.safetensors",
            f"distill_models/{name}_model/*.safetensors",
        ),
        signature=SIGNATURE,
        hint="download the model's repository again",
        group="dit",
    )


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of this package that is imported when it is called."""

    def call(*args: Any) -> Any:
        return getattr(import_module(f"lightx2v_wan22.{module}"), name)(*args)

    return call


def _functions(family: str) -> dict[str, Any]:
    """What every family has: ``variants`` answers from headers alone, ``pipeline`` runs."""
    names = ("recognise", "defaults", "geometry", "memory")
    return {
        **{name: _late(f"{family}.variants", name) for name in names},
        "build": _late(f"{family}.pipeline", "build"),
        "write_tiny": _late("tiny", f"write_tiny_{family}"),
    }


@hookimpl
def lightx2v_models() -> list[ModelSpec[Any]]:
    return [
        ModelSpec(
            name="wan2.2-a14b",
            summary="Wan2.2 A14B: text, image, or first and last image to video by two experts",
            config=A14bOptions,
            tasks={
                "t2v": TaskSpec(),
                "i2v": TaskSpec(required=frozenset({"image"})),
                "flf2v": TaskSpec(required=frozenset({"image", "last_image"})),
            },
            components=(_expert("high_noise"), _expert("low_noise"), TEXT_ENCODER, VAE21, TINY_VAE21),
            aliases={"wan2.2_moe": None, "wan2.2_moe_distill": True},
            **_functions("a14b"),
        ),
        ModelSpec(
            name="wan2.2-ti2v",
            summary="Wan2.2 TI2V-5B: text, or text and an image, to video",
            config=Ti2vOptions,
            tasks={"t2v": TaskSpec(), "i2v": TaskSpec(required=frozenset({"image"}))},
            components=(DIT, TEXT_ENCODER, VAE22, TINY_VAE22),
            aliases={"wan2.2": None},
            **_functions("ti2v"),
        ),
        ModelSpec(
            name="wan2.2-animate",
            summary="Wan2.2 Animate-14B: a person in an image moves like the one in a video, or replaces that one",
            config=AnimateOptions,
            tasks={
                "animate": TaskSpec(
                    required=frozenset({"ref_images", "pose_video", "face_video"}),
                    # the driving video gives its sound; what its pictures say is in the other inputs
                    optional=frozenset({"background_video", "mask_video", "src_video"}),
                    audio="src_video",
                )
            },
            components=(DIT, TEXT_ENCODER, IMAGE_ENCODER, VAE21, TINY_VAE21),
            aliases={"wan2.2_animate": None},
            **_functions("animate"),
        ),
    ]
