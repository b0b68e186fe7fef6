"""The folders of the official models with every header and no data. Writing them needs the plugins.

The text tower of CLIP, which no model reads, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.testing.headers import write_sparse_pth, write_sparse_safetensors, write_sparse_shards

Tensors = Mapping[str, tuple[int, ...]]

_SIZES = {
    "1.3B": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 16, "out_dim": 16},
    "5B": {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "in_dim": 48, "out_dim": 48},
    "14B": {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "in_dim": 16, "out_dim": 16},
}


@frozen(kw_only=True)
class Model:
    """An official model: what its folder holds, and what a plan must say of it."""

    #: plugin that knows it, and the variant it calls it
    plugin: str
    variant: str
    tasks: tuple[str, ...]
    size: str
    #: of one network: tensors and parameters, as published
    tensors: int
    parameters: int
    #: at the official size and length of the first task
    latent_shape: tuple[int, int, int, int]
    #: what ``config.json`` says beside the sizes
    config: Mapping[str, Any]
    shards: int
    dtype: str = "F32"
    image_encoder: bool = False
    image_positions: int = 0

    @property
    def networks(self) -> tuple[str, ...]:
        """Components that are transformers."""
        return ("high_noise", "low_noise") if self.variant.endswith("a14b") else ("dit",)


_I2V = {"model_type": "i2v", "in_dim": 36}
_HD, _SD = (16, 21, 90, 160), (16, 21, 60, 104)
MODELS: dict[str, Model] = {
    "Wan2.1-T2V-1.3B": Model(
        plugin="wan21", variant="wan2.1-t2v-1.3b", tasks=("t2v",), size="1.3B", tensors=825, shards=1,
        parameters=1_418_996_800, latent_shape=_SD, config={"model_type": "t2v"},
    ),
    "Wan2.1-T2V-14B": Model(
        plugin="wan21", variant="wan2.1-t2v-14b", tasks=("t2v",), size="14B", tensors=1095, shards=6,
        parameters=14_288_491_584, latent_shape=_HD, config={"model_type": "t2v"},
    ),
    "Wan2.1-I2V-14B-480P": Model(
        plugin="wan21", variant="wan2.1-i2v-14b", tasks=("i2v",), size="14B", tensors=1303, shards=7,
        parameters=16_394_878_784, latent_shape=_SD, config=_I2V, image_encoder=True,
    ),
    "Wan2.1-I2V-14B-720P": Model(
        plugin="wan21", variant="wan2.1-i2v-14b", tasks=("i2v",), size="14B", tensors=1303, shards=7,
        parameters=16_394_878_784, latent_shape=_HD, config=_I2V, image_encoder=True,
    ),
    "Wan2.1-FLF2V-14B-720P": Model(
        plugin="wan21", variant="wan2.1-flf2v-14b", tasks=("flf2v",), size="14B", tensors=1304, shards=7,
        parameters=16_395_536_704, latent_shape=_HD, config={"model_type": "flf2v", "in_dim": 36},
        image_encoder=True, image_positions=514,
    ),
    "Wan2.1-VACE-1.3B": Model(
        plugin="wan21", variant="wan2.1-vace-1.3b", tasks=("vace",), size="1.3B", tensors=1264, shards=1,
        parameters=2_153_972_032, latent_shape=_SD,
        config={"_class_name": "VaceWanModel", "model_type": "vace", "vace_layers": list(range(0, 30, 2)),
                "vace_in_dim": 96},
    ),
    "Wan2.1-VACE-14B": Model(
        plugin="wan21", variant="wan2.1-vace-14b", tasks=("vace",), size="14B", tensors=1331, shards=7,
        parameters=17_337_592_896, latent_shape=_HD,
        config={"_class_name": "VaceWanModel", "model_type": "vace", "vace_layers": list(range(0, 40, 5)),
                "vace_in_dim": 96},
    ),
    "Wan2.2-T2V-A14B": Model(
        plugin="wan22", variant="wan2.2-t2v-a14b", tasks=("t2v",), size="14B", tensors=1095, shards=6,
        parameters=14_288_491_584, latent_shape=_HD, config={"model_type": "t2v"},
    ),
    "Wan2.2-I2V-A14B": Model(
        plugin="wan22", variant="wan2.2-i2v-a14b", tasks=("i2v", "flf2v"), size="14B", tensors=1095, shards=6,
        parameters=14_288_901_184, latent_shape=_HD, config=_I2V,
    ),
    "Wan2.2-TI2V-5B": Model(
        plugin="wan22", variant="wan2.2-ti2v-5b", tasks=("t2v", "i2v"), size="5B", tensors=825, shards=3,
        parameters=4_999_787_712, latent_shape=(48, 31, 44, 80), config={"model_type": "ti2v"},
    ),
    "Wan2.2-Animate-14B": Model(
        plugin="wan22", variant="wan2.2-animate-14b", tasks=("animate",), size="14B", tensors=1441, shards=4,
        parameters=17_274_817_108, latent_shape=(16, 21, 90, 160), dtype="BF16", image_encoder=True,
        config={"_class_name": "WanAnimateModel", "in_dim": 36, "motion_encoder_dim": 512, "use_img_emb": True,
                "text_dim": 4096, "patch_size": [1, 2, 2], "qk_norm": True, "cross_attn_norm": True,
                "window_size": [-1, -1]},
    ),
}  # fmt: skip


def write_model(folder: Path, name: str) -> None:
    """Write the folder of an official model: headers and configuration, no weights."""
    from lightx2v_wan21 import api

    model = MODELS[name]
    for network in model.networks:
        place = folder if network == "dit" else folder / f"{network}_model"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(config_of(name)), encoding="utf-8")
        tensors = network_tensors(name)
        if model.shards == 1:
            write_sparse_safetensors(place / "diffusion_pytorch_model.safetensors", tensors, model.dtype)
        else:
            write_sparse_shards(place, tensors, model.shards, model.dtype)
    (folder / "google" / "umt5-xxl").mkdir(parents=True)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text("{}", encoding="utf-8")
    write_sparse_pth(folder / "models_t5_umt5-xxl-enc-bf16.pth", text_tensors())
    if model.image_encoder:
        clip = folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
        write_sparse_pth(clip, _image_tensors(), "FloatStorage")
    if model.size == "5B":
        from lightx2v_wan22.vae22.architecture import vae22_tensors

        vae = vae22_tensors(api.VaeArchitecture(dim=160, dec_dim=256, z_dim=48))
        write_sparse_pth(folder / "Wan2.2_VAE.pth", vae, "FloatStorage")
    else:
        vae = api.vae_tensors(api.VaeArchitecture(dim=96, dec_dim=96))
        write_sparse_pth(folder / "Wan2.1_VAE.pth", vae, "FloatStorage")


def config_of(name: str) -> dict[str, Any]:
    """The ``config.json`` of a model's network."""
    model = MODELS[name]
    common = {"_class_name": "WanModel", "freq_dim": 256, "text_len": 512, "eps": 1e-06}
    return {**common, **_SIZES[model.size], **model.config}


def network_tensors(name: str) -> Tensors:
    """Every tensor of the transformer of a model; of one expert where there are two."""
    from lightx2v_wan21 import api

    model = MODELS[name]
    config = config_of(name)
    dit = api.DitArchitecture(
        **{field: config[field] for field in _SIZES[model.size]},
        image_dim=1280 if model.image_encoder else 0,
        image_positions=model.image_positions,
        vace_layers=config.get("vace_layers", ()),
    )
    if "animate" not in model.variant:
        return api.dit_tensors(dit)
    from lightx2v_wan22.animate.architecture import AnimateArchitecture, animate_tensors

    return animate_tensors(AnimateArchitecture(dit=dit))


def text_tensors() -> Tensors:
    """The umT5-XXL encoder."""
    from lightx2v_wan21 import api

    return api.umt5_tensors(
        api.Umt5Architecture(
            vocab_size=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24
        )
    )


def _image_tensors() -> dict[str, tuple[int, ...]]:
    """The visual tower of CLIP with the tensors after it, which are in the file and not used."""
    from lightx2v_wan21 import api

    return {
        "log_scale": (),
        **api.clip_tensors(api.ClipArchitecture(dim=1280, dim_mlp=5120, num_layers=32)),
        **api.affine("visual.post_norm", 1280),
        "visual.head": (1280, 1024),
    }


def has_no_holes(folder: Path) -> bool:
    """Whether this file system wrote the data out, so that the files are as large as they look."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*")) > 2**30
