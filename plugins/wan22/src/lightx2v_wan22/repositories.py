"""Repositories with the files of Wan2.2, and the component that each file belongs to. Data only."""

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
VAE21 = RepositoryFiles(component="vae", files=("Wan2.1_VAE.pth",))
VAE22 = RepositoryFiles(component="vae", files=("Wan2.2_VAE.pth",))
CONFIG = RepositoryFiles(component="config", files=("config.json",))
_SHARDS = ("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model*.safetensors.index.json")
_EXPERTS = ("high_noise", "low_noise")


def _a14b(name: str, repo: str, tasks: tuple[str, ...], summary: str) -> Repository:
    """Describe an official repository of two experts, each in a folder with its own config.json."""
    files = []
    for expert in _EXPERTS:
        shards = tuple(f"{expert}_model/{pattern}" for pattern in _SHARDS)
        files.append(RepositoryFiles(component=expert, files=shards, precision="original"))
        files.append(RepositoryFiles(component=f"{expert}_config", files=(f"{expert}_model/config.json",)))
    return Repository(
        name=name,
        repo=f"Wan-AI/{repo}",
        summary=summary,
        kind="official",
        tasks=tasks,
        files=(*files, TEXT_ENCODER, TOKENIZER, VAE21),
        companions=("wan2.2-a14b-autoencoders",),
    )


def _distilled(name: str, task: str, base: str) -> Repository:
    """Describe both distilled experts as single files; they are downloaded to the folders of the experts."""
    files = []
    for expert in _EXPERTS:
        stem = f"wan2.2_{task}_A14b_{expert}"
        # later versions have a date after the name; the one without is the version that the guides name
        for precision, names in {
            "original": ("_lightx2v_4step", "_lightx2v_4step_[0-9]*"),
            "fp8": (
                "_scaled_fp8_e4m3_lightx2v_4step",
                "_fp8_e4m3_lightx2v_4step",
                "_scaled_fp8_e4m3_lightx2v_4step_[0-9]*",
            ),
            "int8": ("_int8_lightx2v_4step", "_int8_lightx2v_4step_[0-9]*"),
            "fp8-comfyui": (
                "_scaled_fp8_e4m3_lightx2v_4step_comfyui",
                "_scaled_fp8_e4m3_lightx2v_4step_*comfyui*",
            ),
        }.items():
            files.append(
                RepositoryFiles(
                    component=expert,
                    files=tuple(f"{stem}{name}.safetensors" for name in names),
                    single=True,
                    precision=precision,
                    folder=f"{expert}_model",
                )
            )
    return Repository(
        name=name,
        repo="lightx2v/Wan2.2-Distill-Models",
        summary=f"Wan2.2 A14B {task}, distilled to 4 steps, one file an expert",
        kind="single-file",
        tasks=(task,),
        files=tuple(files),
        distilled=True,
        companions=(base,),
    )


def _lora(name: str, task: str) -> Repository:
    """Describe the LoRAs, one for each expert."""
    return Repository(
        name=name,
        repo="lightx2v/Wan2.2-Distill-Loras",
        summary=f"LoRAs that distil both experts of Wan2.2 A14B {task} to 4 steps",
        kind="lora",
        tasks=(task,),
        files=tuple(
            RepositoryFiles(
                component=f"{expert}_lora",
                files=(
                    f"wan2.2_{task}_A14b_{expert}_lora_rank64_lightx2v_4step.safetensors",
                    f"wan2.2_{task}_A14b_{expert}_lora_rank64_lightx2v_4step_[0-9]*.safetensors",
                ),
                single=True,
                folder="loras",
            )
            for expert in _EXPERTS
        ),
        distilled=True,
    )


def _autoencoders(name: str, tasks: tuple[str, ...], version: str, *, light: bool) -> Repository:
    """Describe the tiny VAE, its better-trained version, and the light VAE if there is one."""
    parts = {"tiny_vae": f"taew{version}.pth", "light_tiny_vae": f"lighttaew{version}.safetensors"}
    if light:
        parts["light_vae"] = f"lightvaew{version}.safetensors"
    return Repository(
        name=name,
        repo="lightx2v/Autoencoders",
        summary="tiny VAEs of these models",
        kind="part",
        tasks=tasks,
        files=tuple(
            RepositoryFiles(component=component, files=(file,), optional=True)
            for component, file in parts.items()
        ),
    )


A14B = (
    _a14b("wan2.2-t2v-a14b", "Wan2.2-T2V-A14B", ("t2v",), "Wan2.2 text to video, two experts"),
    _a14b("wan2.2-i2v-a14b", "Wan2.2-I2V-A14B", ("i2v", "flf2v"), "Wan2.2 image to video, two experts"),
    _distilled("wan2.2-i2v-a14b-distill", "i2v", "wan2.2-i2v-a14b"),
    _distilled("wan2.2-t2v-a14b-distill", "t2v", "wan2.2-t2v-a14b"),
    _lora("wan2.2-i2v-a14b-lora", "i2v"),
    _lora("wan2.2-t2v-a14b-lora", "t2v"),
    _autoencoders("wan2.2-a14b-autoencoders", ("t2v", "i2v", "flf2v"), "2_1", light=True),
)
TI2V = (
    Repository(
        name="wan2.2-ti2v-5b",
        repo="Wan-AI/Wan2.2-TI2V-5B",
        summary="Wan2.2 text, or text and an image, to video, 5B",
        kind="official",
        tasks=("t2v", "i2v"),
        files=(
            RepositoryFiles(component="dit", files=_SHARDS, precision="original"),
            CONFIG,
            TEXT_ENCODER,
            TOKENIZER,
            VAE22,
        ),
        companions=("wan2.2-ti2v-autoencoders",),
    ),
    _autoencoders("wan2.2-ti2v-autoencoders", ("t2v", "i2v"), "2_2", light=False),
)
ANIMATE = (
    Repository(
        name="wan2.2-animate-14b",
        repo="Wan-AI/Wan2.2-Animate-14B",
        summary="Wan2.2 Animate, 14B",
        kind="official",
        tasks=("animate",),
        files=(
            RepositoryFiles(component="dit", files=_SHARDS, precision="original"),
            CONFIG,
            TEXT_ENCODER,
            TOKENIZER,
            IMAGE_ENCODER,
            VAE21,
        ),
        companions=("wan2.2-animate-autoencoders",),
    ),
    _autoencoders("wan2.2-animate-autoencoders", ("animate",), "2_1", light=False),
)
