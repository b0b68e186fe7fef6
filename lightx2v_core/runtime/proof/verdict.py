"""Whether an implementation computes on this machine what it should, asked once for each use of it in a process."""

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

#: that of Wan's networks
_HEAD_DIM = 128


def verdict(provided: Provided, config: object, ctx: BuildContext, use: KernelUse) -> Verdict:
    """The verdict on an implementation that is used so. The proof runs the first time it is asked for; whatever
    foreign code raises in it is an answer."""
    spec: Any = provided.spec
    if provided.kind not in KERNELS:
        return Verdict(state="open", text="there is nothing to prove")
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
    """Why an implementation must not be used so on this machine: the figures of the first use that is wrong."""
    for use in uses:
        if (result := verdict(provided, config, ctx, use)).state == "wrong":
            return (f"wrong on this machine: {result.text}",)
    return ()


def refuse_wrong(provided: Provided, config: object, ctx: BuildContext, uses: Sequence[KernelUse]) -> None:
    """``PluginError`` with the figures when an implementation is wrong on this machine."""
    if reasons := wrong(provided, config, ctx, uses):
        raise PluginError(f"{provided.kind} {provided.qualified} cannot be used: {'; '.join(reasons)}")


def usual_uses(spec: Spec[Any]) -> tuple[KernelUse, ...]:
    """What an implementation is tried with where no run says: all its formats, or the head dim of the large models."""
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


#: kind of implementation -> its proof; what is of another kind computes nothing that has one answer
_PROOFS: Mapping[str, Proof] = {
    "attention": _attention,
    "quantizer": _quantizer,
    "lora_applier": _lora_applier,
}
