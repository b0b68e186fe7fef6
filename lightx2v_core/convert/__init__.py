"""Conversion of checkpoints: quantized, split, in another layout or dtype, with LoRA files merged; tensor by tensor."""
