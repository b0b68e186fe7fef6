"""Other names of the same tensors: the Wan2.2 VAE and the Animate network in files of diffusers. No torch here.

The plain transformer, the text encoder and the image encoder are those of ``lightx2v_wan21``, and so are their maps.
"""

from __future__ import annotations

from lightx2v_core.api import KeyMap
from lightx2v_wan21.api import DIT_DIFFUSERS, VAE_DIFFUSERS

_CONVS = "motion_encoder.enc.net_app.convs"
_RESIDUAL = r"^motion_encoder\.res_blocks\.(\d+)\."
#: residual blocks of the released motion encoder, for faces of 512x512
_RESIDUALS = 7
_ADAPTER = r"^face_adapter\.(\d+)\."

#: Stages are lists here and officially. The layer that changes the size comes last: after two residual blocks in the
#: encoder, after three in the decoder.
VAE22_DIFFUSERS = KeyMap(
    name="diffusers",
    renames=(
        (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.downsamples.\1.downsamples.\2."),
        (r"^encoder\.down_blocks\.(\d+)\.downsampler\.", r"encoder.downsamples.\1.downsamples.2."),
        (r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r"decoder.upsamples.\1.upsamples.\2."),
        (r"^decoder\.up_blocks\.(\d+)\.upsampler\.", r"decoder.upsamples.\1.upsamples.3."),
        *VAE_DIFFUSERS.renames,
    ),
)


def animate_diffusers(residuals: int) -> KeyMap:
    """The map for a motion encoder with so many residual blocks, which the number of its last convolution depends on.

    In the official list the first convolution is number 0, so the residual blocks count from 1.
    """
    return KeyMap(
        name="diffusers",
        renames=(
            (r"^motion_encoder\.motion_network\.", "motion_encoder.enc.fc."),
            (r"^motion_encoder\.motion_synthesis_weight$", "motion_encoder.dec.direction.weight"),
            (r"^motion_encoder\.conv_in\.weight$", f"{_CONVS}.0.0.weight"),
            (r"^motion_encoder\.conv_in\.act_fn\.bias$", f"{_CONVS}.0.1.bias"),
            (r"^motion_encoder\.conv_out\.", f"{_CONVS}.{residuals + 1}."),
            (_RESIDUAL + r"conv1\.weight$", r"motion_encoder.res_blocks.\1.conv1.0.weight"),
            (_RESIDUAL + r"conv1\.act_fn\.bias$", r"motion_encoder.res_blocks.\1.conv1.1.bias"),
            (_RESIDUAL + r"conv2\.weight$", r"motion_encoder.res_blocks.\1.conv2.1.weight"),
            (_RESIDUAL + r"conv2\.act_fn\.bias$", r"motion_encoder.res_blocks.\1.conv2.2.bias"),
            (_RESIDUAL + r"conv_skip\.weight$", r"motion_encoder.res_blocks.\1.skip.1.weight"),
            *((rf"^motion_encoder\.res_blocks\.{i}\.", f"{_CONVS}.{i + 1}.") for i in range(residuals)),
            (r"^face_encoder\.(conv1_local|conv2|conv3)\.", r"face_encoder.\1.conv."),
            (_ADAPTER + r"to_([kv])\.(.+)$", r"face_adapter.fuser_blocks.\1.linear1_kv.\3#\2"),
            (_ADAPTER + r"to_q\.", r"face_adapter.fuser_blocks.\1.linear1_q."),
            (_ADAPTER + r"to_out\.", r"face_adapter.fuser_blocks.\1.linear2."),
            (_ADAPTER + r"norm_([qk])\.", r"face_adapter.fuser_blocks.\1.\2_norm."),
            *DIT_DIFFUSERS.renames,
        ),
        drops=DIT_DIFFUSERS.drops,
        joins=("k", "v"),
    )


#: all the same, 1 3 3 1 along both axes: they are computed, and files may leave them out
BLUR_KERNELS = (r"^motion_encoder\..*\.kernel$",)
#: The biases of the motion encoder are ``[C]`` there, ``[1, C, 1, 1]`` officially; its blur kernels are not stored.
ANIMATE_DIFFUSERS = animate_diffusers(_RESIDUALS)
