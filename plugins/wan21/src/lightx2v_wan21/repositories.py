"""Repositories with the files of Wan2.1, and the component that each file belongs to. Data only."""

from __future__ import annotations

from lightx2v_core.api import Repository, RepositoryFiles

TOKENIZER = RepositoryFiles(component="tokenizer", files=("google/umt5-xxl/tokenizer.json",))
TEXT_ENCODER = RepositoryFiles(
    component="text_encoder", files=("models_t5_umt5-xxl-enc-bf16.pth",), precision="original"
)
IMAGE_ENCODER = RepositoryFiles(
    component="image_encoder",
    files=("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",),
    precision="original",
)
VAE = RepositoryFiles(component="vae", files=("Wan2.1_VAE.pth",))
CONFIG = RepositoryFiles(component="config", files=("config.json",))
DIT = RepositoryFiles(
    component="dit",
    files=("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model*.safetensors.index.json"),
    precision="original",
)


def official(name: str, repo: str, task: str, summary: str) -> Repository:
    """Describe an official repository."""
    image = (IMAGE_ENCODER,) if task in ("i2v", "flf2v") else ()
    return Repository(
        name=name,
        repo=f"Wan-AI/{repo}",
        summary=summary,
        kind="official",
        tasks=(task,),
        files=(DIT, CONFIG, TEXT_ENCODER, TOKENIZER, *image, VAE),
        companions=("wan2.1-autoencoders",),
    )


def _single_file(name: str, stem: str, task: str, base: str) -> Repository:
    """Describe a distilled network in one file; the other components are those of the official model."""
    precisions = {
        "original": f"{stem}_lightx2v_4step",
        "fp8": f"{stem}_scaled_fp8_e4m3_lightx2v_4step",
        "int8": f"{stem}_int8_lightx2v_4step",
        "fp8-comfyui": f"{stem}_scaled_fp8_e4m3_lightx2v_4step_comfyui",
    }
    return Repository(
        name=name,
        repo="lightx2v/Wan2.1-Distill-Models",
        summary=f"Wan2.1 {task}, distilled to 4 steps, one file",
        kind="single-file",
        tasks=(task,),
        files=tuple(
            RepositoryFiles(component="dit", files=(f"{file}.safetensors",), single=True, precision=precision)
            for precision, file in precisions.items()
        ),
        distilled=True,
        companions=(base,),
    )


def _structured(name: str, repo: str, task: str, base: str, *, distilled: bool) -> Repository:
    """Describe a repository with a folder for each precision, each with the network, the encoders and the VAE."""
    mark, original = ("distill_", "distill_models") if distilled else ("", "original")
    files = []
    for precision, folder in (("original", original), ("fp8", f"{mark}fp8"), ("int8", f"{mark}int8")):
        word = "bf16" if precision == "original" else precision
        names = {
            "dit": ("*.safetensors", "*.safetensors.index.json"),
            "config": ("config.json",),
            "text_encoder": (f"models_t5_umt5-xxl-enc-{word}.pth",),
            "image_encoder": (
                ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",)
                if precision == "original"
                else (f"clip-{precision}.pth", f"models_clip*-{precision}.pth")
            ),
            "vae": ("Wan2.1_VAE.pth",),
            "tiny_vae": ("taew2_1.pth",),
        }
        files += [
            RepositoryFiles(
                component=component,
                files=tuple(f"{folder}/{pattern}" for pattern in patterns),
                precision=precision,
                single=component in ("image_encoder",),
                optional=component == "tiny_vae",
            )
            for component, patterns in names.items()
            if task == "i2v" or component != "image_encoder"
        ]
    if distilled:
        files.append(RepositoryFiles(component="lora", files=("loras/*.safetensors",), optional=True))
    return Repository(
        name=name,
        repo=f"lightx2v/{repo}",
        summary=f"Wan2.1 {task}{', distilled to 4 steps' if distilled else ''}, a folder for each precision",
        kind="structured",
        tasks=(task,),
        files=(*files, TOKENIZER),
        distilled=distilled,
        companions=(base,),
    )


def _lora(name: str, file: str, task: str, summary: str) -> Repository:
    return Repository(
        name=name,
        repo="lightx2v/Wan2.1-Distill-Loras",
        summary=summary,
        kind="lora",
        tasks=(task,),
        files=(RepositoryFiles(component="lora", files=(file,), single=True, folder="loras"),),
        distilled=True,
    )


REPOSITORIES = (
    official("wan2.1-t2v-1.3b", "Wan2.1-T2V-1.3B", "t2v", "Wan2.1 text to video, 1.3B"),
    official("wan2.1-t2v-14b", "Wan2.1-T2V-14B", "t2v", "Wan2.1 text to video, 14B"),
    official("wan2.1-i2v-14b-480p", "Wan2.1-I2V-14B-480P", "i2v", "Wan2.1 image to video, 14B, 480P"),
    official("wan2.1-i2v-14b-720p", "Wan2.1-I2V-14B-720P", "i2v", "Wan2.1 image to video, 14B, 720P"),
    official("wan2.1-flf2v-14b-720p", "Wan2.1-FLF2V-14B-720P", "flf2v", "Wan2.1 first and last frame, 14B, 720P"),
    official("wan2.1-vace-1.3b", "Wan2.1-VACE-1.3B", "vace", "Wan2.1 video creation and editing, 1.3B"),
    official("wan2.1-vace-14b", "Wan2.1-VACE-14B", "vace", "Wan2.1 video creation and editing, 14B"),
    _single_file("wan2.1-t2v-14b-distill", "wan2.1_t2v_14b", "t2v", "wan2.1-t2v-14b"),
    _single_file("wan2.1-i2v-14b-480p-distill", "wan2.1_i2v_480p", "i2v", "wan2.1-i2v-14b-480p"),
    _single_file("wan2.1-i2v-14b-720p-distill", "wan2.1_i2v_720p", "i2v", "wan2.1-i2v-14b-720p"),
    _structured(
        "wan2.1-t2v-14b-lightx2v", "Wan2.1-T2V-14B-Lightx2v", "t2v", "wan2.1-t2v-14b", distilled=False
    ),
    _structured(
        "wan2.1-i2v-14b-480p-lightx2v", "Wan2.1-I2V-14B-480P-Lightx2v", "i2v", "wan2.1-i2v-14b-480p", distilled=False
    ),
    _structured(
        "wan2.1-i2v-14b-720p-lightx2v", "Wan2.1-I2V-14B-720P-Lightx2v", "i2v", "wan2.1-i2v-14b-720p", distilled=False
    ),
    _structured(
        "wan2.1-t2v-14b-stepdistill", "Wan2.1-T2V-14B-StepDistill-CfgDistill-Lightx2v", "t2v", "wan2.1-t2v-14b",
        distilled=True,
    ),
    _structured(
        "wan2.1-i2v-14b-480p-stepdistill", "Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v", "i2v",
        "wan2.1-i2v-14b-480p", distilled=True,
    ),
    _structured(
        "wan2.1-i2v-14b-720p-stepdistill", "Wan2.1-I2V-14B-720P-StepDistill-CfgDistill-Lightx2v", "i2v",
        "wan2.1-i2v-14b-720p", distilled=True,
    ),
    _lora(
        "wan2.1-i2v-14b-lora", "wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors", "i2v",
        "LoRA that distils Wan2.1 image to video to 4 steps",
    ),
    _lora(
        "wan2.1-t2v-14b-lora", "wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors", "t2v",
        "LoRA that distils Wan2.1 text to video 14B to 4 steps",
    ),
    Repository(
        name="wan2.1-autoencoders",
        repo="lightx2v/Autoencoders",
        summary="tiny and light VAEs of Wan2.1",
        kind="part",
        tasks=("t2v", "i2v", "flf2v", "vace", "animate"),
        files=(
            RepositoryFiles(component="tiny_vae", files=("taew2_1.pth",), optional=True),
            RepositoryFiles(component="light_tiny_vae", files=("lighttaew2_1.safetensors",), optional=True),
            RepositoryFiles(component="light_vae", files=("lightvaew2_1.safetensors",), optional=True),
        ),
    ),
)  # fmt: skip
