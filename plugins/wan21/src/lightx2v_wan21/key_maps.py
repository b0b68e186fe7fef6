"""Tensor names of diffusers, transformers and ComfyUI, mapped to the official ones. Nothing here imports torch.

The part of a name after the layer (``weight``, ``bias``, the scale of a stored format) is kept.
"""

from __future__ import annotations

from lightx2v_core.api import KeyMap
from lightx2v_wan21.foreign_configs import clip_config, dit_config, umt5_config, vae_config

#: a block of the transformer, or of its VACE branch
_BLOCK = r"^((?:vace_)?blocks\.\d+)\."
#: a block of the text encoder: layer 0 is attention, layer 1 the feed-forward network
_LAYER = r"^(?:encoder\.)?block\.(\d+)\.layer\."
#: prefix of the visual tower; files with only the visual tower may omit it
_VISION = r"^(?:vision_model\.)?"
_VISION_LAYER = _VISION + r"encoder\.layers\.(\d+)\."

#: blocks of a decoder stage in a file of diffusers: three residual ones and, but for the last stage, an upsampler.
#: The official list is flat.
_STAGES, _STAGE_BLOCKS = 4, 3

DIT_DIFFUSERS = KeyMap(
    name="diffusers",
    renames=(
        (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
        (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
        (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
        (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
        (r"^condition_embedder\.time_proj\.", "time_projection.1."),
        (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
        (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
        (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
        (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
        (r"^condition_embedder\.image_embedder\.pos_embed$", "img_emb.emb_pos"),
        (r"^proj_out\.", "head.head."),
        (r"^scale_shift_table$", "head.modulation"),
        (_BLOCK + r"scale_shift_table$", r"\1.modulation"),
        (_BLOCK + r"attn1\.", r"\1.self_attn."),
        (_BLOCK + r"attn2\.", r"\1.cross_attn."),
        (_BLOCK + r"(self|cross)_attn\.to_([qkv])\.", r"\1.\2_attn.\3."),
        (_BLOCK + r"(self|cross)_attn\.to_out\.0\.", r"\1.\2_attn.o."),
        (_BLOCK + r"cross_attn\.add_([kv])_proj\.", r"\1.cross_attn.\2_img."),
        (_BLOCK + r"cross_attn\.norm_added_k\.", r"\1.cross_attn.norm_k_img."),
        # the norm before cross-attention: third in the official code, second in use
        (_BLOCK + r"norm2\.", r"\1.norm3."),
        (_BLOCK + r"ffn\.net\.0\.proj\.", r"\1.ffn.0."),
        (_BLOCK + r"ffn\.net\.2\.", r"\1.ffn.2."),
        (_BLOCK + r"proj_in\.", r"\1.before_proj."),
        (_BLOCK + r"proj_out\.", r"\1.after_proj."),
    ),
    # early conversions contain a norm that no network uses
    drops=(r"\.norm_added_q\.",),
    reverse=(
        (_BLOCK + r"norm3\.", r"\1.norm2."),
        (_BLOCK + r"(self|cross)_attn\.([qkv])\.", r"\1.\2_attn.to_\3."),
        (_BLOCK + r"(self|cross)_attn\.o\.", r"\1.\2_attn.to_out.0."),
        (_BLOCK + r"cross_attn\.([kv])_img\.", r"\1.cross_attn.add_\2_proj."),
        (_BLOCK + r"cross_attn\.norm_k_img\.", r"\1.cross_attn.norm_added_k."),
        (_BLOCK + r"self_attn\.", r"\1.attn1."),
        (_BLOCK + r"cross_attn\.", r"\1.attn2."),
        (_BLOCK + r"ffn\.0\.", r"\1.ffn.net.0.proj."),
        (_BLOCK + r"ffn\.2\.", r"\1.ffn.net.2."),
        (_BLOCK + r"before_proj\.", r"\1.proj_in."),
        (_BLOCK + r"after_proj\.", r"\1.proj_out."),
        (_BLOCK + r"modulation$", r"\1.scale_shift_table"),
        (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
        (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
        (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
        (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
        (r"^time_projection\.1\.", "condition_embedder.time_proj."),
        (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
        (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
        (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
        (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
        (r"^img_emb\.emb_pos$", "condition_embedder.image_embedder.pos_embed"),
        (r"^head\.head\.", "proj_out."),
        (r"^head\.modulation$", "scale_shift_table"),
    ),
    config=dit_config,
)

DIT_COMFYUI = KeyMap(
    name="comfyui",
    renames=((r"^(?:model\.)?diffusion_model\.", ""),),
    # marks the file as fp8, which the dtype of each tensor shows too
    drops=(r"^(?:(?:model\.)?diffusion_model\.)?scaled_fp8$",),
)

VAE_DIFFUSERS = KeyMap(
    name="diffusers",
    renames=(
        (r"\.norm1\.", ".residual.0."),
        (r"\.conv1\.", ".residual.2."),
        (r"\.norm2\.", ".residual.3."),
        (r"\.conv2\.", ".residual.6."),
        (r"\.conv_shortcut\.", ".shortcut."),
        (r"\.mid_block\.resnets\.0\.", ".middle.0."),
        (r"\.mid_block\.attentions\.0\.", ".middle.1."),
        (r"\.mid_block\.resnets\.1\.", ".middle.2."),
        (r"^encoder\.down_blocks\.", "encoder.downsamples."),
        *(
            (
                rf"^decoder\.up_blocks\.{stage}\.resnets\.{block}\.",
                f"decoder.upsamples.{stage * (_STAGE_BLOCKS + 1) + block}.",
            )
            for stage in range(_STAGES)
            for block in range(_STAGE_BLOCKS)
        ),
        *(
            (
                rf"^decoder\.up_blocks\.{stage}\.upsamplers\.0\.",
                f"decoder.upsamples.{stage * (_STAGE_BLOCKS + 1) + _STAGE_BLOCKS}.",
            )
            for stage in range(_STAGES - 1)
        ),
        (r"\.norm_out\.", ".head.0."),
        (r"\.conv_out\.", ".head.2."),
        (r"\.conv_in\.", ".conv1."),
        (r"^quant_conv\.", "conv1."),
        (r"^post_quant_conv\.", "conv2."),
    ),
    reverse=(
        (r"^conv1\.", "quant_conv."),
        (r"^conv2\.", "post_quant_conv."),
        (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
        (r"\.head\.0\.", ".norm_out."),
        (r"\.head\.2\.", ".conv_out."),
        (r"\.residual\.0\.", ".norm1."),
        (r"\.residual\.2\.", ".conv1."),
        (r"\.residual\.3\.", ".norm2."),
        (r"\.residual\.6\.", ".conv2."),
        (r"\.shortcut\.", ".conv_shortcut."),
        (r"\.middle\.0\.", ".mid_block.resnets.0."),
        (r"\.middle\.1\.", ".mid_block.attentions.0."),
        (r"\.middle\.2\.", ".mid_block.resnets.1."),
        (r"^encoder\.downsamples\.", "encoder.down_blocks."),
        *(
            (
                rf"^decoder\.upsamples\.{stage * (_STAGE_BLOCKS + 1) + block}\.",
                f"decoder.up_blocks.{stage}."
                + (f"resnets.{block}." if block < _STAGE_BLOCKS else "upsamplers.0."),
            )
            for stage in range(_STAGES)
            for block in range(_STAGE_BLOCKS + 1)
        ),
    ),
    config=vae_config,
)

#: the encoder of transformers; ComfyUI's files have the same names
UMT5_TRANSFORMERS = KeyMap(
    name="transformers",
    renames=(
        (r"^shared\.", "token_embedding."),
        (r"^(?:encoder\.)?final_layer_norm\.", "norm."),
        (_LAYER + r"0\.layer_norm\.", r"blocks.\1.norm1."),
        (_LAYER + r"0\.SelfAttention\.relative_attention_bias\.", r"blocks.\1.pos_embedding.embedding."),
        (_LAYER + r"0\.SelfAttention\.([qkvo])\.", r"blocks.\1.attn.\2."),
        (_LAYER + r"1\.layer_norm\.", r"blocks.\1.norm2."),
        (_LAYER + r"1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
        (_LAYER + r"1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
        (_LAYER + r"1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
    ),
    # a copy of the embedding, and additions of ComfyUI: the tokenizer and the fp8 marker
    drops=(r"^(?:encoder\.)?embed_tokens\.", r"^spiece_model$", r"^scaled_fp8$"),
    reverse=(
        (r"^token_embedding\.", "shared."),
        (r"^norm\.", "encoder.final_layer_norm."),
        (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
        (
            r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
            r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
        ),
        (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
        (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
        (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
        (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    ),
    config=umt5_config,
)

#: the same for files that have the embedding only under the encoder's name
UMT5_EMBEDDING = KeyMap(
    name="transformers",
    renames=((r"^(?:encoder\.)?embed_tokens\.", "token_embedding."), *UMT5_TRANSFORMERS.renames),
    drops=UMT5_TRANSFORMERS.drops[1:],
)

#: the encoder in GGUF files, by llama.cpp's names
UMT5_LLAMA = KeyMap(
    name="llama.cpp",
    renames=(
        (r"^token_embd\.", "token_embedding."),
        (r"^enc\.output_norm\.", "norm."),
        (r"^enc\.blk\.(\d+)\.attn_norm\.", r"blocks.\1.norm1."),
        (r"^enc\.blk\.(\d+)\.attn_rel_b\.", r"blocks.\1.pos_embedding.embedding."),
        (r"^enc\.blk\.(\d+)\.attn_([qkvo])\.", r"blocks.\1.attn.\2."),
        (r"^enc\.blk\.(\d+)\.ffn_norm\.", r"blocks.\1.norm2."),
        (r"^enc\.blk\.(\d+)\.ffn_gate\.", r"blocks.\1.ffn.gate.0."),
        (r"^enc\.blk\.(\d+)\.ffn_up\.", r"blocks.\1.ffn.fc1."),
        (r"^enc\.blk\.(\d+)\.ffn_down\.", r"blocks.\1.ffn.fc2."),
    ),
)

#: The class token and the positions are ``[D]`` and ``[L, D]`` there, ``[1, 1, D]`` and ``[1, L, D]`` officially.
CLIP_TRANSFORMERS = KeyMap(
    name="transformers",
    renames=(
        (_VISION + r"embeddings\.class_embedding$", "visual.cls_embedding"),
        (_VISION + r"embeddings\.position_embedding\.weight$", "visual.pos_embedding"),
        (_VISION + r"embeddings\.patch_embedding\.", "visual.patch_embedding."),
        # the name is misspelt in transformers
        (_VISION + r"pre_layrnorm\.", "visual.pre_norm."),
        (_VISION + r"post_layernorm\.", "visual.post_norm."),
        (_VISION_LAYER + r"layer_norm([12])\.", r"visual.transformer.\1.norm\2."),
        (_VISION_LAYER + r"self_attn\.([qkv])_proj\.(.+)$", r"visual.transformer.\1.attn.to_qkv.\3#\2"),
        (_VISION_LAYER + r"self_attn\.out_proj\.", r"visual.transformer.\1.attn.proj."),
        (_VISION_LAYER + r"mlp\.fc1\.", r"visual.transformer.\1.mlp.0."),
        (_VISION_LAYER + r"mlp\.fc2\.", r"visual.transformer.\1.mlp.2."),
    ),
    # a table of 0..L-1, and the projection to the space shared by images and texts
    drops=(_VISION + r"embeddings\.position_ids$", r"^visual_projection\."),
    joins=("q", "k", "v"),
    reverse=(
        (r"^visual\.cls_embedding$", "vision_model.embeddings.class_embedding"),
        (r"^visual\.pos_embedding$", "vision_model.embeddings.position_embedding.weight"),
        (r"^visual\.patch_embedding\.", "vision_model.embeddings.patch_embedding."),
        (r"^visual\.pre_norm\.", "vision_model.pre_layrnorm."),
        (r"^visual\.post_norm\.", "vision_model.post_layernorm."),
        (r"^visual\.transformer\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
        (
            r"^visual\.transformer\.(\d+)\.attn\.to_qkv\.",
            r"vision_model.encoder.layers.\1.self_attn.#_proj.",
        ),
        (r"^visual\.transformer\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.out_proj."),
        (r"^visual\.transformer\.(\d+)\.mlp\.0\.", r"vision_model.encoder.layers.\1.mlp.fc1."),
        (r"^visual\.transformer\.(\d+)\.mlp\.2\.", r"vision_model.encoder.layers.\1.mlp.fc2."),
    ),
    # the text tower, and the projection to the space shared by images and texts
    omits=(r"^textual\.", r"^log_scale$", r"^visual\.head$"),
    squeezes=(r"class_embedding$", r"position_embedding\.weight$"),
    config=clip_config,
)
