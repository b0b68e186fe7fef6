"""Tensor names of the Wan2.2 VAE and the Animate network in diffusers, mapped to the official ones. No torch here.

The plain transformer, the text encoder and the image encoder are those of ``lightx2v_wan21``, with its maps.
"""

from __future__ import annotations

from lightx2v_core.api import KeyMap
from lightx2v_wan21.api import DIT_DIFFUSERS, VAE_DIFFUSERS
from lightx2v_wan22.animate.tensor_names import BLUR_KERNELS
from lightx2v_wan22.foreign_configs import animate_config, vae22_config

_CONVS = "motion_encoder.enc.net_app.convs"
_RESIDUAL = r"^motion_encoder\.res_blocks\.(\d+)\."
#: residual blocks of the released motion encoder, for faces of 512x512
_RESIDUALS = 7
_ADAPTER = r"^face_adapter\.(\d+)\."
_FUSER = r"^face_adapter\.fuser_blocks\.(\d+)\."
_CONVS_PATTERN = _CONVS.replace(".", r"\.")

#: Both layouts have lists of stages. The layer that changes the size comes last: after two residual blocks in the
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
    reverse=(
        (r"^encoder\.downsamples\.(\d+)\.downsamples\.([01])\.", r"encoder.down_blocks.\1.resnets.\2."),
        (r"^encoder\.downsamples\.(\d+)\.downsamples\.2\.", r"encoder.down_blocks.\1.downsampler."),
        (r"^decoder\.upsamples\.(\d+)\.upsamples\.([012])\.", r"decoder.up_blocks.\1.resnets.\2."),
        (r"^decoder\.upsamples\.(\d+)\.upsamples\.3\.", r"decoder.up_blocks.\1.upsampler."),
        *VAE_DIFFUSERS.reverse,
    ),
    config=vae22_config,
)


def animate_diffusers(residuals: int) -> KeyMap:
    """Build the map for a motion encoder with a given number of residual blocks.

    The index of its last convolution depends on that number. In the official list the first convolution has index 0, so
    the residual blocks start at 1.
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
        reverse=(
            (r"^motion_encoder\.enc\.fc\.", "motion_encoder.motion_network."),
            (r"^motion_encoder\.dec\.direction\.weight$", "motion_encoder.motion_synthesis_weight"),
            (rf"^{_CONVS_PATTERN}\.0\.0\.weight$", "motion_encoder.conv_in.weight"),
            (rf"^{_CONVS_PATTERN}\.0\.1\.bias$", "motion_encoder.conv_in.act_fn.bias"),
            (rf"^{_CONVS_PATTERN}\.{residuals + 1}\.", "motion_encoder.conv_out."),
            *(
                (rf"^{_CONVS_PATTERN}\.{i + 1}\.", f"motion_encoder.res_blocks.{i}.")
                for i in range(residuals)
            ),
            (_RESIDUAL + r"conv1\.0\.weight$", r"motion_encoder.res_blocks.\1.conv1.weight"),
            (_RESIDUAL + r"conv1\.1\.bias$", r"motion_encoder.res_blocks.\1.conv1.act_fn.bias"),
            (_RESIDUAL + r"conv2\.1\.weight$", r"motion_encoder.res_blocks.\1.conv2.weight"),
            (_RESIDUAL + r"conv2\.2\.bias$", r"motion_encoder.res_blocks.\1.conv2.act_fn.bias"),
            (_RESIDUAL + r"skip\.1\.weight$", r"motion_encoder.res_blocks.\1.conv_skip.weight"),
            (r"^face_encoder\.(conv1_local|conv2|conv3)\.conv\.", r"face_encoder.\1."),
            (_FUSER + r"linear1_kv\.", r"face_adapter.\1.to_#."),
            (_FUSER + r"linear1_q\.", r"face_adapter.\1.to_q."),
            (_FUSER + r"linear2\.", r"face_adapter.\1.to_out."),
            (_FUSER + r"([qk])_norm\.", r"face_adapter.\1.norm_\2."),
            *DIT_DIFFUSERS.reverse,
        ),
        omits=BLUR_KERNELS,
        squeezes=(r"^motion_encoder\..*act_fn\.bias$",),
        config=animate_config,
    )


#: The biases of the motion encoder are ``[C]`` in diffusers, ``[1, C, 1, 1]`` officially; blur kernels are not stored.
ANIMATE_DIFFUSERS = animate_diffusers(_RESIDUALS)
