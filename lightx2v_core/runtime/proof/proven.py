"""A plan whose kernels have proved themselves on this machine, or an error that says which one is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.plan.quantization import uses_of
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.resolve import with_proof, with_warnings
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.runtime.proof.verdict import wrong


def proven(resolved: Resolution) -> Resolution:
    """The plan itself where every kernel that it chose is right. Where one is wrong, what the configuration leaves to
    the machine (``auto``, a list) is chosen anew among the right ones, and the plan has a warning of it; what it names
    is a ``PluginError`` with the figures. Runs kernels on small tensors; no weight is read."""
    faults = [
        (kind, chosen, reasons)
        for kind, chosen, uses in _kernels(resolved)
        if (reasons := wrong(chosen.selection.chosen, chosen.config, resolved.location.ctx, uses))
    ]
    if not faults:
        return resolved
    again = with_proof(resolved, wrong)
    used = {kind: chosen.selection.chosen.qualified for kind, chosen, _ in _kernels(again)}
    warnings = tuple(
        f"{kind} {chosen.selection.chosen.qualified} is {'; '.join(reasons)}; {used[kind]} is used in its place"
        for kind, chosen, reasons in faults
    )
    return with_warnings(again, warnings)


def _kernels(resolved: Resolution) -> Iterator[tuple[str, Implementation, tuple[KernelUse, ...]]]:
    """The kernels of a plan: their kind, and for quantizers the component, what was chosen and what is asked of it."""
    recognition = resolved.setup.match.recognition
    yield "attention", resolved.setup.attention, (KernelUse(head_dim=recognition.head_dim),)
    for name, quantized in resolved.setup.quantization.items():
        if (chosen := quantized.chosen) is not None:
            stored = {**quantized.kept, **quantized.decoded}
            yield f"quantizer of {name}", chosen, uses_of(stored, chosen.spec, chosen.config)
    if resolved.setup.adaptation.applier is not None:
        yield "lora_applier", resolved.setup.adaptation.applier, (KernelUse(),)
