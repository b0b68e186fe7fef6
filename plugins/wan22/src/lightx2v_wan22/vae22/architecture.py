"""Sizes of the Wan2.2 VAE, and the tensors of an official checkpoint of a given size.

Nothing here imports torch, so a plan can be checked against a file header before any network is built. Shapes are
tuples in checkpoint order: linear weights are ``(out, in)``, convolutions ``(out, in, *kernel)``. The text encoder, the
Wan2.1 VAE and the plain transformer are those of ``lightx2v_wan21``.
"""

from itertools import pairwise

from lightx2v_wan21.api import (
    Shapes,
    VaeArchitecture,
    VaeLayer,
    affine,
    axis,
    vae_from,
    vae_layer_tensors,
    vae_middle_tensors,
)

Tensors = dict[str, tuple[int, ...]]

#: strides and latent channels of the Wan2.2 VAE
SPATIAL_STRIDE, TEMPORAL_STRIDE, LATENT_CHANNELS = 16, 4, 48
#: channels of 2x2 folded RGB pixels
FOLDED_CHANNELS = 12


def encoder_stages(arch: VaeArchitecture) -> list[tuple[VaeLayer, ...]]:
    """Return the layers of each ``encoder.downsamples.N.downsamples``; all but the last end with downsampling."""
    widths = [arch.dim * m for m in (1, *arch.multipliers)]
    stages = []
    for number, (width, out_width) in enumerate(pairwise(widths)):
        layers = [VaeLayer("residual", width, out_width)]
        layers += [VaeLayer("residual", out_width, out_width)] * (arch.num_res_blocks - 1)
        if number < len(arch.temporal_downsample):
            layers.append(VaeLayer("down", out_width, out_width, arch.temporal_downsample[number]))
        stages.append(tuple(layers))
    return stages


def decoder_stages(arch: VaeArchitecture) -> list[tuple[VaeLayer, ...]]:
    """Return the layers of each ``decoder.upsamples.N.upsamples``; unlike Wan2.1, upsampling keeps the channels."""
    temporal_upsample = arch.temporal_downsample[::-1]
    widths = [arch.dec_dim * m for m in (arch.multipliers[-1], *reversed(arch.multipliers))]
    stages = []
    for number, (width, out_width) in enumerate(pairwise(widths)):
        layers = [VaeLayer("residual", width, out_width)]
        layers += [VaeLayer("residual", out_width, out_width)] * arch.num_res_blocks
        if number < len(temporal_upsample):
            layers.append(VaeLayer("up", out_width, out_width, temporal_upsample[number]))
        stages.append(tuple(layers))
    return stages


def vae22_tensors(arch: VaeArchitecture) -> Tensors:
    """Return the name and shape of every tensor of an official Wan2.2 VAE checkpoint of this size."""
    encoder_top = arch.dim * arch.multipliers[-1]
    decoder_top = arch.dec_dim * arch.multipliers[-1]
    decoder_end = arch.dec_dim * arch.multipliers[0]
    tensors: Tensors = {
        **affine("encoder.conv1", arch.dim, FOLDED_CHANNELS, 3, 3, 3),
        **vae_middle_tensors("encoder.middle", encoder_top),
        "encoder.head.0.gamma": (encoder_top, 1, 1, 1),
        **affine("encoder.head.2", 2 * arch.z_dim, encoder_top, 3, 3, 3),
        **affine("conv1", 2 * arch.z_dim, 2 * arch.z_dim, 1, 1, 1),
        **affine("conv2", arch.z_dim, arch.z_dim, 1, 1, 1),
        **affine("decoder.conv1", decoder_top, arch.z_dim, 3, 3, 3),
        **vae_middle_tensors("decoder.middle", decoder_top),
        "decoder.head.0.gamma": (decoder_end, 1, 1, 1),
        **affine("decoder.head.2", FOLDED_CHANNELS, decoder_end, 3, 3, 3),
    }
    for side, name, stages in (
        ("encoder", "downsamples", encoder_stages(arch)),
        ("decoder", "upsamples", decoder_stages(arch)),
    ):
        for stage, layers in enumerate(stages):
            for index, layer in enumerate(layers):
                tensors |= vae_layer_tensors(f"{side}.{name}.{stage}.{name}.{index}", layer)
    return tensors


def vae22_from(shapes: Shapes) -> VaeArchitecture:
    """Infer the VAE size from the tensor shapes of a checkpoint.

    Raises:
        ValueError: the tensors are not those of a Wan2.2 VAE.
    """
    arch = vae_from(shapes)
    if (channels := axis(shapes, "encoder.conv1.weight", 1, "a Wan2.2 VAE checkpoint")) != FOLDED_CHANNELS:
        raise ValueError(
            f"not a Wan2.2 VAE checkpoint: 'encoder.conv1.weight' has {channels} input channels, "
            f"that of the Wan2.2 VAE has {FOLDED_CHANNELS}"
        )
    return arch
