"""The contract of commands, on both that the plugin brings."""

from __future__ import annotations

from lightx2v_core.testing.contracts import CommandContract


class TestConvert(CommandContract):
    use = "convert/convert"


class TestExtractLora(CommandContract):
    use = "convert/extract-lora"
