"""The process in which kernels are tested, see ``trial``. Importing this module imports torch, which all of them need,
so that the time limit of the first kernel does not include it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch  # noqa: F401
from attrs import asdict

from lightx2v_core.discovery.plugins import Provided, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.runtime.proof.claim import Verdict
from lightx2v_core.runtime.proof.verdict import usual_uses, verdict
from lightx2v_core.spec.context import BuildContext, Device
from lightx2v_core.spec.specs import AttentionSpec


def answer(job: Mapping[str, Any]) -> None:
    """Run the proofs of a job and write their verdicts to the original standard output; other output goes to standard
    error. Ends the process, even if a kernel left threads running."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as out:
        os.dup2(2, 1)
        where = {**job["device"], "capability": tuple(job["device"]["capability"])}
        registry = Registry(load_plugins())
        for index, (kind, name) in enumerate(job["kernels"]):
            out.write(json.dumps({"index": index}) + "\n")
            whole = whole_verdict(
                registry.find(kind, name), BuildContext(device=Device(**where), dtype=job["dtype"])
            )
            out.write(json.dumps({"index": index, **asdict(whole)}) + "\n")
    os._exit(0)


def whole_verdict(provided: Provided, ctx: BuildContext) -> Verdict:
    """Combine the verdicts over all usual uses of an implementation with its default options: the first wrong one, else
    the proved formats and those that were inconclusive."""
    ctx = _with_supported_dtype(provided, ctx)
    spec = provided.spec
    verdicts = [(use, verdict(provided, spec.config(), ctx, use)) for use in usual_uses(spec)]
    for _, result in verdicts:
        if result.state == "wrong":
            return result
    proved = [use.format for use, result in verdicts if result.state == "proved" and use.format]
    inconclusive = [use.format for use, result in verdicts if result.state == "open" and use.format]
    if not any(result.state == "proved" for _, result in verdicts):
        return Verdict(state="open", text=verdicts[0][1].text if verdicts else "it has no formats")
    text = ", ".join(proved)
    return Verdict(state="proved", text=f"{text}; not {', '.join(inconclusive)}" if inconclusive else text)


def _with_supported_dtype(provided: Provided, ctx: BuildContext) -> BuildContext:
    """Return the context with a dtype that the implementation supports."""
    dtypes = provided.spec.dtypes if isinstance(provided.spec, AttentionSpec) else {ctx.dtype}
    return BuildContext(device=ctx.device, dtype=ctx.dtype if ctx.dtype in dtypes else min(dtypes))
