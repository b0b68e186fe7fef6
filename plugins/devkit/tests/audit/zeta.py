"""The plugin that is checked, as it is right, and what a check of it gives."""

from __future__ import annotations

from collections.abc import Callable

from lightx2v_devkit.audit.findings import Finding

ABOUT = {"Summary": "a plugin", "License-Expression": "MIT"}
HEAD = """
import attrs
from attrs import field, frozen
from typing import Literal

from lightx2v_core.api import AttentionSpec, ModelSpec, QuantizerSpec, SchedulerSpec, hookimpl


def build(options, ctx):
    raise AssertionError("nobody asked for it")
"""
RIGHT = """
@frozen(kw_only=True)
class Options:
    #: how much is done
    # in one go
    #: at once
    tile: int = 64


@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="zeta-kernel", summary="a kernel", config=Options, build=build)]
"""
Look = Callable[..., list[Finding]]
EXACT = """
def build(options, ctx):
    def attention(q, k, v, *, scale=None):
        import torch
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=SCALE).transpose(1, 2)
    return attention
"""


def only(found: list[Finding], level: str, *texts: str) -> None:
    """There is one finding besides notes, with this level and these texts."""
    (finding,) = [finding for finding in found if finding.level != "note"]
    assert finding.level == level, finding
    assert finding.plugins == ("zeta",)
    for text in texts:
        assert text in finding.text, finding.text
