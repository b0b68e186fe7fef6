"""Whether a kernel of another package is right on this machine: its tests are skipped where it is not."""

from __future__ import annotations

from collections.abc import Iterable

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.runtime.proof.claim import KERNELS
from lightx2v_core.runtime.proof.verdict import usual_uses, wrong
from lightx2v_core.spec.context import BuildContext


def wrong_here(kind: str, use: str, dtypes: Iterable[str] = ("float32",)) -> str:
    """Why the tests of an installed kernel (``name`` or ``plugin/name``) say nothing on this machine: it cannot be used
    or, computing a small product with a known answer, it is wrong, with the figures. Empty when it is right::

        @pytest.fixture(autouse=True)
        def _right() -> None:
            if why := wrong_here("quantizer", "acme/acme-int8"):
                pytest.skip(why)
    """
    assert kind in KERNELS, f"{kind} has no proof; these have: {', '.join(KERNELS)}"
    provided = Registry(load_plugins()).find(kind, use)
    for dtype in dtypes:
        ctx = BuildContext(dtype=dtype)
        if reasons := provided.reasons(ctx) or wrong(
            provided, provided.spec.config(), ctx, usual_uses(provided.spec)
        ):
            return f"{provided.qualified}: {'; '.join(reasons)}"
    return ""
