"""The contract of models, on the three families of Wan2.2."""

import torch

from lightx2v_core.testing.contracts import ModelContract


def pixels(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


class TestA14b(ModelContract):
    use = "wan22/wan2.2-a14b"


class TestTi2v(ModelContract):
    use = "wan22/wan2.2-ti2v"
    inputs = {"i2v": {"image": lambda: pixels(3, 64, 64)}}  # noqa: RUF012


class TestAnimate(ModelContract):
    use = "wan22/wan2.2-animate"
    options = {"segment_frames": 5}  # noqa: RUF012
    inputs = {  # noqa: RUF012
        "animate": {
            "ref_images": lambda: pixels(3, 64, 64),
            "pose_video": lambda: pixels(5, 64, 64, 3),
            "face_video": lambda: pixels(5, 32, 32, 3),
        }
    }
