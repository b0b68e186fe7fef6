"""Conversion of checkpoints: quantized, split, in another layout or dtype, with LoRA files merged; tensor by tensor.

``lightx2v_convert.conversion.convert`` is the function behind ``lightx2v-core convert``, and
``lightx2v_convert.extract_lora.extract`` the one behind ``lightx2v-core extract-lora``.
"""

from __future__ import annotations

__version__ = "0.1.0"
