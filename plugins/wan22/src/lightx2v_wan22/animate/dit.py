"""The Animate transformer: Wan's image-to-video network, additionally conditioned on a pose and a face.

Parameter names are those of the official checkpoint, so a file loads without renaming.

Shape legend: B batch, C latent channels, T latent frames with the reference frame first, H W latent rows and columns, L
video tokens, S text tokens, D model width, F face frames, R motion tokens of a latent frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightx2v_core.api import Attention
from lightx2v_wan21.api import Rope, WanDiT
from lightx2v_wan22.animate.architecture import ADAPTER_INTERVAL, AnimateArchitecture
from lightx2v_wan22.animate.face import FaceAdapter, FaceEncoder
from lightx2v_wan22.animate.motion import MotionEncoder

#: batch size of faces in the motion encoder
FACE_BATCH = 8


class AnimateDiT(WanDiT):
    """Predicts the flow of a noisy latent video whose first latent frame is the reference image."""

    def __init__(self, arch: AnimateArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__(arch.dit, attention=attention, dtype=dtype)
        size = arch.dit.patch_size
        self.pose_patch_embedding = nn.Conv3d(
            arch.pose_dim, arch.dit.dim, kernel_size=size, stride=size, dtype=dtype
        )
        self.motion_encoder = MotionEncoder(arch)
        self.face_encoder = FaceEncoder(arch, dtype=dtype)
        self.face_adapter = FaceAdapter(arch, attention=attention, dtype=dtype)

    def motion(self, faces_BCFHW: Tensor) -> Tensor:
        """Compute the motion tokens ``[B, T, R, D]`` of faces ``[B, 3, F, 512, 512]`` in [-1, 1], T = ceil(F/4) + 1.

        The same for every step of a request. The reference frame comes first and has no motion: zeros.
        """
        batch = faces_BCFHW.shape[0]
        faces = faces_BCFHW.transpose(1, 2).flatten(0, 1)
        vectors = torch.cat([self.motion_encoder(part) for part in torch.split(faces, FACE_BATCH)])
        tokens: Tensor = self.face_encoder(vectors.view(batch, -1, vectors.shape[1]))
        return torch.cat((torch.zeros_like(tokens[:, :1]), tokens), dim=1)

    def forward(  # type: ignore[override]  # more conditions than text
        self,
        latents_BCTHW: Tensor,
        timesteps_B: Tensor,
        context_BSD: Tensor,
        rope: Rope,
        *,
        image_MSD: Tensor,
        pose_BCTHW: Tensor,
        motion_BTRD: Tensor,
    ) -> Tensor:
        """Predict the flow, float32 ``[B, 16, T, H, W]``.

        Args:
            latents_BCTHW: noisy latents and their condition, 36 channels.
            timesteps_B: timesteps, 0..1000.
            context_BSD: text embeddings, zero-padded.
            rope: table of ``self.rope`` for this latent size.
            image_MSD: CLIP features of the reference, ``[B, 257, 1280]``.
            pose_BCTHW: latents of the pose video, one frame less than ``latents_BCTHW``: the reference has no pose.
            motion_BTRD: motion tokens of ``self.motion``.
        """
        grid = self.grid(latents_BCTHW.shape[2:])
        if pose_BCTHW.shape[2] != grid[0] - 1 or motion_BTRD.shape[1] != grid[0]:
            raise ValueError(
                f"{grid[0]} latent frames need {grid[0] - 1} of the pose and {grid[0]} of motion, not "
                f"{pose_BCTHW.shape[2]} and {motion_BTRD.shape[1]}"
            )
        pose = self.pose_patch_embedding(pose_BCTHW.to(self.dtype)).flatten(2).transpose(1, 2)
        x_BLD = self.embed(latents_BCTHW)
        x_BLD[:, -pose.shape[1] :] += pose
        time_BD, modulation_B6D, _ = self.time(timesteps_B)
        context_BSD, image = self.text(context_BSD), self.image(image_MSD)
        for index, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, modulation_B6D, context_BSD, rope, None, image)
            if index % ADAPTER_INTERVAL == 0:
                adapter = self.face_adapter.fuser_blocks[index // ADAPTER_INTERVAL]
                x_BLD = x_BLD + adapter(x_BLD, motion_BTRD)
        return self.finish(x_BLD, time_BD, grid)
