"""Testing the kernels of a plan on this machine before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.plan.quantization import uses_of
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.resolve import with_proof, with_warnings
from lightx2v_core.plan.selection import Implementation
from lightx2v_core.runtime.proof.verdict import wrong


def proven(resolved: Resolution) -> Resolution:
    """Test the kernels of a plan on small tensors; no weight is read. Returns the plan itself if all are correct.

    A wrong kernel that was chosen automatically (``auto``, a list) is replaced by a correct one, and the plan has a
    warning about it. Raises ``PluginError`` with the figures for a wrong kernel that the configuration names.
    """
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
        f"{kind} {chosen.selection.chosen.qualified} is {'; '.join(reasons)}; using {used[kind]} instead"
        for kind, chosen, reasons in faults
    )
    return with_warnings(again, warnings)


def _kernels(resolved: Resolution) -> Iterator[tuple[str, Implementation, tuple[KernelUse, ...]]]:
    """Yield the kernels of a plan: their kind, with the component for quantizers, the implementation and its uses."""
    recognition = resolved.setup.match.recognition
    yield "attention", resolved.setup.attention, (KernelUse(head_dim=recognition.head_dim),)
    for name, quantized in resolved.setup.quantization.items():
        if (chosen := quantized.chosen) is not None:
            stored = {**quantized.kept, **quantized.decoded}
            yield f"quantizer of {name}", chosen, uses_of(stored, chosen.spec, chosen.config)
    if resolved.setup.adaptation.applier is not None:
        yield "lora_applier", resolved.setup.adaptation.applier, (KernelUse(),)
