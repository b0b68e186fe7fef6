"""Hypothesis profiles: ``dev`` takes seconds, ``ci`` all examples.

Call ``register_profiles()`` in a ``conftest.py`` and choose with ``pytest --hypothesis-profile=dev``.
"""

from __future__ import annotations

from hypothesis import settings

_DEV = 10


def register_profiles() -> None:
    """Register the profiles ``dev`` and ``ci``, and load ``ci``.

    Neither has a deadline: an example may be the first to import torch, on a machine that is busy.
    """
    settings.register_profile("dev", max_examples=_DEV, deadline=None)
    settings.register_profile("ci", max_examples=100, deadline=None, print_blob=True)
    settings.load_profile("ci")


def examples(count: int) -> int:
    """Return the number of examples of a test: ``count``, or at most 10 under the profile ``dev``."""
    return (
        min(count, _DEV) if settings.default is not None and settings.default.max_examples <= _DEV else count
    )
