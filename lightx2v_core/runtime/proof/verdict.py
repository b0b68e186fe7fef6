"""Verdicts on implementations: correct on this machine or not, tested once per process for each use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lightx2v_core.discovery.isolation import called
from lightx2v_core.discovery.plugins import Provided
from lightx2v_core.errors import LightX2VError, PluginError
from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.runtime.proof.claim import KERNELS, Claim, Inconclusive, Proof, Verdict
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import AttentionSpec, QuantizerSpec, Spec

#: head dim of Wan's networks
_HEAD_DIM = 128


def verdict(provided: Provided, config: object, ctx: BuildContext, use: KernelUse) -> Verdict:
    """Return the verdict on a use of an implementation. The proof runs on the first call; an exception of the
    implementation counts as wrong."""
    spec: Any = provided.spec
    if provided.kind not in KERNELS:
        return Verdict(state="open", text="this kind has no proof")
    return _cached_verdict(
        Claim(
            kind=provided.kind,
            build=spec.build,
            options=repr(config),
            device=ctx.device.torch_name,
            dtype=ctx.dtype,
            use=use,
            spec=spec,
            config=config,
            ctx=ctx,
        )
    )


def wrong(
    provided: Provided, config: object, ctx: BuildContext, uses: Sequence[KernelUse]
) -> tuple[str, ...]:
    """Return the reason why an implementation must not be used on this machine: the figures of the first wrong use;
    empty if all uses are correct."""
    for use in uses:
        if (result := verdict(provided, config, ctx, use)).state == "wrong":
            return (f"wrong on this machine: {result.text}",)
    return ()


def refuse_wrong(provided: Provided, config: object, ctx: BuildContext, uses: Sequence[KernelUse]) -> None:
    """Raise ``PluginError`` with the figures if an implementation is wrong on this machine."""
    if reasons := wrong(provided, config, ctx, uses):
        raise PluginError(f"{provided.kind} {provided.qualified} cannot be used: {'; '.join(reasons)}")


def usual_uses(spec: Spec[Any]) -> tuple[KernelUse, ...]:
    """List the uses to test an implementation with outside of a run: all its formats, or the head dim of the large
    models."""
    if isinstance(spec, QuantizerSpec):
        return tuple(KernelUse(format=format) for format in sorted(spec.formats))
    if isinstance(spec, AttentionSpec):
        dims = spec.head_dims
        return (KernelUse(head_dim=_HEAD_DIM if dims is None or _HEAD_DIM in dims else max(dims)),)
    return (KernelUse(),)


@lru_cache(maxsize=512)
def _cached_verdict(claim: Claim) -> Verdict:
    try:
        return called("its proof", _prove, claim)
    except LightX2VError as exc:
        return Verdict(state="wrong", text=" ".join(str(exc).split()))


def _prove(claim: Claim) -> Verdict:
    try:
        fault = _PROOFS[claim.kind](claim)
    except Inconclusive as exc:
        return Verdict(state="open", text=str(exc))
    return Verdict(state="proved") if fault is None else Verdict(state="wrong", text=fault)


def _attention(claim: Claim) -> str | None:
    from lightx2v_core.runtime.proof.attention import attention_proof

    return attention_proof(claim)


def _quantizer(claim: Claim) -> str | None:
    from lightx2v_core.runtime.proof.products import quantizer_proof

    return quantizer_proof(claim)


def _lora_applier(claim: Claim) -> str | None:
    from lightx2v_core.runtime.proof.adapters import applier_proof

    return applier_proof(claim)


#: kind of implementation -> its proof; the results of other kinds are not uniquely defined
_PROOFS: Mapping[str, Proof] = {
    "attention": _attention,
    "quantizer": _quantizer,
    "lora_applier": _lora_applier,
}
