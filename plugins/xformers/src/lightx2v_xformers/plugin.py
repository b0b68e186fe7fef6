"""Hook implementation. Imported at discovery, so xformers and torch are only imported when needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from lightx2v_core.api import AttentionSpec, BuildContext, hookimpl

if TYPE_CHECKING:
    from lightx2v_core.api import Attention


@frozen(kw_only=True)
class XformersOptions:
    """Options of the ``xformers`` attention backend."""

    #: operator; ``auto``: xformers chooses one for each call
    op: Literal["auto", "cutlass", "flash", "flash3", "triton"] = "auto"


def _build(options: XformersOptions, ctx: BuildContext) -> Attention:
    from lightx2v_xformers.attention import build

    return build(options, ctx)


def _unusable(ctx: BuildContext) -> Sequence[str]:
    if ctx.device.kind != "cuda":
        return [f"xformers has no operator for {ctx.device.kind}"]
    from lightx2v_xformers.operators import reasons

    return reasons(ctx)


@hookimpl
def lightx2v_attention_backends() -> list[AttentionSpec[XformersOptions]]:
    return [
        AttentionSpec(
            name="xformers",
            summary="xformers' memory_efficient_attention",
            config=XformersOptions,
            extra="kernels",
            devices=frozenset({"cuda"}),
            min_capability=(7, 5),
            # every operator supports head dims in steps of 8; all but one support at most 256
            head_dims=frozenset(range(8, 257, 8)),
            unusable=_unusable,
            build=_build,
            # not benchmarked against PyTorch's kernels yet, so only used by name
            priority=-10,
        )
    ]
