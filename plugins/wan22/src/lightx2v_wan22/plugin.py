"""The hook implementations of Wan2.2. Imported at discovery, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attrs import evolve

from lightx2v_core.api import ComponentSpec, ModelSpec, TaskSpec, hookimpl
from lightx2v_wan21.api import ANY_FILE, DIT, DIT_COMFYUI, IMAGE_ENCODER, TEXT_ENCODER, TINY_VAE, VAE
from lightx2v_wan22.key_maps import ANIMATE_DIFFUSERS, BLUR_KERNELS, VAE22_DIFFUSERS
from lightx2v_wan22.options import A14bOptions, AnimateOptions, Ti2vOptions

if TYPE_CHECKING:
    from pathlib import Path

    from lightx2v_core.api import Recognition, Repository, Request

VAE21 = evolve(VAE, hint="it is part of every official Wan repository but that of TI2V-5B")
VAE22 = ComponentSpec(
    name="vae",
    summary="Wan2.2 VAE",
    files=("Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors", "wan2.2_vae.safetensors"),
    fallback=ANY_FILE,
    signature=(
        "conv1.weight",
        "encoder.downsamples.0.downsamples.0.residual.0.gamma",
        "decoder.middle.0.residual.0.gamma",
    ),
    layouts=(VAE22_DIFFUSERS,),
    prefixes=VAE.prefixes,
    hint="it is part of the official repository of TI2V-5B",
)
TINY_VAE22 = evolve(
    TINY_VAE,
    files=("taew2_2.pth", "taew2_2.safetensors", "lighttaew2_2.safetensors", "lighttaew2_2.pth"),
    hint="download taew2_2.pth or lighttaew2_2.safetensors",
)
ANIMATE = evolve(
    DIT,
    signature=(*DIT.signature, "pose_patch_embedding.weight"),
    # of the adapters too: the original's loader asks for their scales
    quantize=(*(DIT.quantize or ()), r"^face_adapter\."),
    layouts=(DIT_COMFYUI, ANIMATE_DIFFUSERS),
    spare=BLUR_KERNELS,
)
CLIP = evolve(IMAGE_ENCODER, hint="it is part of the official repository of Animate-14B")


EXPERT_NAMES = ("high_noise", "low_noise")


def _expert(name: str, diffusers: str) -> ComponentSpec:
    """An expert in a folder of its own, or one that its file's name tells from the other: both look alike."""
    suffixes = ("safetensors", "pth", "pt", "ckpt", "gguf")
    return evolve(
        DIT,
        name=name,
        summary=f"{name.replace('_', '-')} expert",
        files=(
            f"{name}_model/diffusion_pytorch_model*.safetensors",
            f"{name}_model/*.safetensors",
            f"{diffusers}/diffusion_pytorch_model*.safetensors",
            f"*{name}*.safetensors",
        ),
        fallback=(
            *(f"{name}_model/*.{suffix}" for suffix in suffixes[1:]),
            f"*{name}*.gguf",
            # everyday names of files and folders: whether they are this one's is for the name to say
            *(f"{folder}*.{suffix}" for suffix in suffixes for folder in ("", "*/")),
        ),
        group="dit",
        experts=EXPERT_NAMES,
    )


EXPERTS = (_expert(EXPERT_NAMES[0], "transformer"), _expert(EXPERT_NAMES[1], "transformer_2"))


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of this package that is imported when it is called."""

    def call(*args: Any) -> Any:
        return getattr(import_module(f"lightx2v_wan22.{module}"), name)(*args)

    return call


def _remarks(
    recognition: Recognition, request: Request, assets: Mapping[str, Mapping[str, Path]]
) -> Sequence[str]:
    from lightx2v_wan21.api import cut_prompts

    dit = recognition.architecture["dit"]
    length = dit.get("dit", dit)["text_len"]  # that of Animate is a part of its architecture
    negative = request.negative_prompt if request.guided else None
    return cut_prompts(request.prompt, negative, assets["text_encoder"].get("tokenizer"), length)


def _with_loras(*args: Any) -> Any:
    from lightx2v_wan21.api import with_loras

    return with_loras(*args)


def _repositories(name: str) -> Callable[[], Sequence[Repository]]:
    """The repositories of a model, imported when they are asked for."""

    def listed() -> Sequence[Repository]:
        found: Sequence[Repository] = getattr(import_module("lightx2v_wan22.repositories"), name)
        return found

    return listed


def _functions(family: str) -> dict[str, Any]:
    """What every family has: ``variants`` answers from headers alone, ``pipeline`` runs."""
    names = ("recognize", "defaults", "geometry", "memory")
    return {
        **{name: _late(f"{family}.variants", name) for name in names},
        "sizes": _late(f"{family}.variants", "size_rules"),
        "build": _late(f"{family}.pipeline", "build"),
        "with_loras": _with_loras,
        "remarks": _remarks,
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
            components=(*EXPERTS, TEXT_ENCODER, VAE21, TINY_VAE),
            repositories=_repositories("A14B"),
            aliases={"wan2.2_moe": None, "wan2.2_moe_distill": True},
            stages=_late("a14b.variants", "stages"),
            **_functions("a14b"),
        ),
        ModelSpec(
            name="wan2.2-ti2v",
            summary="Wan2.2 TI2V-5B: text, or text and an image, to video",
            config=Ti2vOptions,
            tasks={"t2v": TaskSpec(), "i2v": TaskSpec(required=frozenset({"image"}))},
            components=(DIT, TEXT_ENCODER, VAE22, TINY_VAE22),
            repositories=_repositories("TI2V"),
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
            components=(ANIMATE, TEXT_ENCODER, CLIP, VAE21, TINY_VAE),
            repositories=_repositories("ANIMATE"),
            aliases={"wan2.2_animate": None},
            **_functions("animate"),
        ),
    ]
