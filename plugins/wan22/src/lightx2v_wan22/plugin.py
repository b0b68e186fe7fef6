"""The hook implementations of Wan2.2. Imported at discovery, so heavy imports are inside functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from lightx2v_core.api import ComponentSpec, ModelSpec, TaskSpec, hookimpl
from lightx2v_wan21.api import ANY_FILE, DIT, DIT_COMFYUI, IMAGE_ENCODER, TEXT_ENCODER, TINY_VAE, VAE
from lightx2v_wan22.animate.tensor_names import BLUR_KERNELS
from lightx2v_wan22.key_maps import ANIMATE_DIFFUSERS, VAE22_DIFFUSERS
from lightx2v_wan22.options import A14bOptions, AnimateOptions, Ti2vOptions, Vae22Options

if TYPE_CHECKING:
    from pathlib import Path

    from lightx2v_core.api import ModelParts, Recognition, Request, VideoModel
    from lightx2v_wan22.family import Family

C = TypeVar("C", bound=Vae22Options)

VAE21 = evolve(VAE, hint="it is part of every official Wan repository except that of TI2V-5B")
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
    # the adapters too: LightX2V's loader requires their scales
    quantize=(*(DIT.quantize or ()), r"^face_adapter\."),
    layouts=(DIT_COMFYUI, ANIMATE_DIFFUSERS),
    spare=BLUR_KERNELS,
)
CLIP = evolve(IMAGE_ENCODER, hint="it is part of the official repository of Animate-14B")


EXPERT_NAMES = ("high_noise", "low_noise")


def _expert(name: str, diffusers: str) -> ComponentSpec:
    """Describe an expert in a folder of its own, or one identified by its file name: both have the same tensors."""
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
            # ordinary file and folder names; the name decides which expert it is
            *(f"{folder}*.{suffix}" for suffix in suffixes for folder in ("", "*/")),
        ),
        group="dit",
        experts=EXPERT_NAMES,
    )


EXPERTS = (_expert(EXPERT_NAMES[0], "transformer"), _expert(EXPERT_NAMES[1], "transformer_2"))


def _a14b() -> Family[A14bOptions]:
    from lightx2v_wan22.a14b.variants import FAMILY

    return FAMILY


def _ti2v() -> Family[Ti2vOptions]:
    from lightx2v_wan22.ti2v.variants import FAMILY

    return FAMILY


def _animate() -> Family[AnimateOptions]:
    from lightx2v_wan22.animate.variants import FAMILY

    return FAMILY


def _build_a14b(options: A14bOptions, parts: ModelParts) -> VideoModel:
    from lightx2v_wan22.a14b.pipeline import TwoExperts

    return TwoExperts(options, parts)


def _build_ti2v(options: Ti2vOptions, parts: ModelParts) -> VideoModel:
    from lightx2v_wan22.ti2v.pipeline import TextImageToVideo

    return TextImageToVideo(options, parts)


def _build_animate(options: AnimateOptions, parts: ModelParts) -> VideoModel:
    from lightx2v_wan22.animate.pipeline import Animate

    return Animate(options, parts)


def _write_a14b(folder: Path, seed: int) -> None:
    from lightx2v_wan22.tiny import write_tiny_a14b

    write_tiny_a14b(folder, seed)


def _write_ti2v(folder: Path, seed: int) -> None:
    from lightx2v_wan22.tiny import write_tiny_ti2v

    write_tiny_ti2v(folder, seed)


def _write_animate(folder: Path, seed: int) -> None:
    from lightx2v_wan22.tiny import write_tiny_animate

    write_tiny_animate(folder, seed)


def _remarks(
    recognition: Recognition, request: Request, assets: Mapping[str, Mapping[str, Path]]
) -> Sequence[str]:
    from lightx2v_wan21.api import cut_prompts

    dit = recognition.architecture["dit"]
    length = dit.get("dit", dit)["text_len"]  # Animate's transformer is a part of its architecture
    negative = request.negative_prompt if request.guided else None
    return cut_prompts(request.prompt, negative, assets["text_encoder"].get("tokenizer"), length)


def _with_loras(recognition: Recognition, loras: Mapping[str, Sequence[str]]) -> Recognition:
    from lightx2v_wan21.api import with_loras

    return with_loras(recognition, loras)


def _model(
    family: Callable[[], Family[C]],
    build: Callable[[C, ModelParts], VideoModel],
    write_tiny: Callable[[Path, int], None],
    *,
    name: str,
    summary: str,
    config: type[C],
    tasks: Mapping[str, TaskSpec],
    components: tuple[ComponentSpec, ...],
    aliases: Mapping[str, bool | None],
) -> ModelSpec[C]:
    """Describe a model planned by ``family``, which is imported on first use."""
    return ModelSpec(
        name=name,
        summary=summary,
        config=config,
        tasks=tasks,
        components=components,
        aliases=aliases,
        recognize=lambda facts: family().recognize(facts),
        defaults=lambda recognition, task, size: family().defaults(recognition, task, size),
        geometry=lambda recognition, target: family().geometry(recognition, target),
        sizes=lambda recognition, task: family().size_rules(recognition, task),
        stages=lambda recognition, request, shape, options: family().stages(
            recognition, request, shape, options
        ),
        memory=lambda recognition, shape, dtype, options: family().memory(recognition, shape, dtype, options),
        repositories=lambda: family().repositories,
        with_loras=_with_loras,
        remarks=_remarks,
        build=build,
        write_tiny=write_tiny,
    )


@hookimpl
def lightx2v_models() -> list[ModelSpec[Any]]:
    return [
        _model(
            _a14b,
            _build_a14b,
            _write_a14b,
            name="wan2.2-a14b",
            summary="Wan2.2 A14B: text, image, or first and last image to video by two experts",
            config=A14bOptions,
            tasks={
                "t2v": TaskSpec(),
                "i2v": TaskSpec(required=frozenset({"image"})),
                "flf2v": TaskSpec(required=frozenset({"image", "last_image"})),
            },
            components=(*EXPERTS, TEXT_ENCODER, VAE21, TINY_VAE),
            aliases={"wan2.2_moe": None, "wan2.2_moe_distill": True},
        ),
        _model(
            _ti2v,
            _build_ti2v,
            _write_ti2v,
            name="wan2.2-ti2v",
            summary="Wan2.2 TI2V-5B: text, or text and an image, to video",
            config=Ti2vOptions,
            tasks={"t2v": TaskSpec(), "i2v": TaskSpec(required=frozenset({"image"}))},
            components=(DIT, TEXT_ENCODER, VAE22, TINY_VAE22),
            aliases={"wan2.2": None},
        ),
        _model(
            _animate,
            _build_animate,
            _write_animate,
            name="wan2.2-animate",
            summary="Wan2.2 Animate-14B: a person in an image moves like the one in a video, or replaces that person",
            config=AnimateOptions,
            tasks={
                "animate": TaskSpec(
                    required=frozenset({"ref_images", "pose_video", "face_video"}),
                    # the driving video is used for its sound; its images are in the other inputs
                    optional=frozenset({"background_video", "mask_video", "src_video"}),
                    audio="src_video",
                )
            },
            components=(ANIMATE, TEXT_ENCODER, CLIP, VAE21, TINY_VAE),
            aliases={"wan2.2_animate": None},
        ),
    ]
