"""Reading JSON files next to weights: ``config.json``, indexes of shards. A damaged or hostile file causes one error
message, and uses bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

from lightx2v_core.checkpoint.stand_ins import stand_in
from lightx2v_core.errors import CheckpointError

#: largest file in bytes; an index of 1,000,000 tensors is smaller
MOST_BYTES = 100_000_000
#: most brackets, braces and commas in a file: each can need a list of its own
MOST_TOKENS = 10_000_000


def read_object(path: Path, what: str) -> dict[str, object]:
    """Read the JSON object in a file. Raises ``CheckpointError`` with ``what``, such as ``is damaged``, and the
    reason."""
    if reason := stand_in(path):
        raise CheckpointError(f"{path} {what}: it {reason}")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES or sum(map(text.count, (b"[", b"{", b","))) > MOST_TOKENS:
            raise CheckpointError(f"{path} {what}: it is too large ({MOST_BYTES} bytes at most)")
        value = json.loads(text.decode("utf-8"))
    except OSError as exc:
        raise CheckpointError(f"{path} {what}: {exc.strerror or exc}") from None
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} {what}: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} {what}: expected a JSON object, found {type(value).__name__}")
    return value
