"""Hook implementation. Imported at discovery, so kernel packages and torch are only imported when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from lightx2v_core.api import AttentionSpec, BuildContext, NoOptions, hookimpl

if TYPE_CHECKING:
    from lightx2v_core.api import Attention

#: dtypes supported by the kernels
DTYPES = frozenset({"float16", "bfloat16"})


def _importable(module: str, *names: str) -> Callable[[BuildContext], Sequence[str]]:
    """Build a check that ``module`` imports, which a build for another torch does not, and has ``names``."""

    def unusable(_ctx: BuildContext) -> Sequence[str]:
        try:
            package = import_module(module)
        except Exception as exc:  # an extension built for another torch fails in many ways
            return [f"{module} cannot be imported: {exc}"]
        return [
            f"{module} has no {name}; its version is not supported"
            for name in names
            if not hasattr(package, name)
        ]

    return unusable


def _hopper(ctx: BuildContext) -> Sequence[str]:
    if ctx.device.kind == "cuda" and ctx.device.capability[0] != 9:
        return [
            f"FlashAttention 3 requires Hopper (compute capability 9.x); {ctx.device.name} is another architecture"
        ]
    return _importable("flash_attn_interface", "flash_attn_func")(ctx)


def _flash2(_options: NoOptions, _ctx: BuildContext) -> Attention:
    from lightx2v_flash_attn.kernels import flash2

    return flash2()


def _flash3(_options: NoOptions, _ctx: BuildContext) -> Attention:
    from lightx2v_flash_attn.kernels import flash3

    return flash3()


def _sage2(_options: NoOptions, _ctx: BuildContext) -> Attention:
    from lightx2v_flash_attn.kernels import sage2

    return sage2()


@hookimpl
def lightx2v_attention_backends() -> list[AttentionSpec[NoOptions]]:
    # not benchmarked against PyTorch's kernels, and one of them rounds: used by name only
    return [
        AttentionSpec(
            name="flash-attn2",
            summary="FlashAttention 2, package flash_attn",
            extra="flash2",
            devices=frozenset({"cuda"}),
            min_capability=(8, 0),
            head_dims=frozenset(range(8, 257, 8)),
            dtypes=DTYPES,
            unusable=_importable("flash_attn", "flash_attn_func"),
            build=_flash2,
            priority=-10,
        ),
        AttentionSpec(
            name="flash-attn3",
            summary="FlashAttention 3 for Hopper, package flash_attn_interface",
            extra="flash3",
            devices=frozenset({"cuda"}),
            min_capability=(9, 0),
            head_dims=frozenset(range(8, 257, 8)),
            dtypes=DTYPES,
            unusable=_hopper,
            build=_flash3,
            priority=-10,
        ),
        AttentionSpec(
            name="sage2",
            summary="SageAttention 2: queries and keys in int8, so results differ a little",
            extra="sage2",
            devices=frozenset({"cuda"}),
            min_capability=(8, 0),
            head_dims=frozenset({64, 96, 128}),
            dtypes=DTYPES,
            unusable=_importable("sageattention", "sageattn"),
            build=_sage2,
            priority=-20,
        ),
    ]
