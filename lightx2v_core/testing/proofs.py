"""Self-checks of kernels from other packages, to skip their tests on machines with wrong results."""

from __future__ import annotations

from collections.abc import Iterable

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.runtime.proof.claim import KERNELS
from lightx2v_core.runtime.proof.verdict import usual_uses, wrong
from lightx2v_core.spec.context import BuildContext


def wrong_here(kind: str, use: str, dtypes: Iterable[str] = ("float32",)) -> str:
    """Return why an installed kernel (``name`` or ``plugin/name``) cannot be tested on this machine; empty if it can.

    Either the kernel is unusable, or its result for a small known problem is wrong; the text contains the figures::

        @pytest.fixture(autouse=True)
        def _right() -> None:
            if why := wrong_here("quantizer", "acme/acme-int8"):
                pytest.skip(why)
    """
    assert kind in KERNELS, f"{kind} has no self-check; available for {', '.join(KERNELS)}"
    provided = Registry(load_plugins()).find(kind, use)
    for dtype in dtypes:
        ctx = BuildContext(dtype=dtype)
        if reasons := provided.reasons(ctx) or wrong(
            provided, provided.spec.config(), ctx, usual_uses(provided.spec)
        ):
            return f"{provided.qualified}: {'; '.join(reasons)}"
    return ""
