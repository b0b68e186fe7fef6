"""JSON objects that lie beside weights: ``config.json``, indexes of shards. A damaged or hostile one costs one message,
and no more memory than it has a right to."""

from __future__ import annotations

import json
from pathlib import Path

from lightx2v_core.checkpoint.stand_ins import stand_in
from lightx2v_core.errors import CheckpointError

#: bytes of a file; an index of 1,000,000 tensors takes less
MOST_BYTES = 100_000_000
#: brackets, braces and commas in it: each can cost a list of its own
MOST_TOKENS = 10_000_000


def read_object(path: Path, what: str) -> dict[str, object]:
    """Read the object that a file holds. ``CheckpointError`` says that the file is ``what``, such as ``is damaged``,
    and why it cannot be read."""
    if reason := stand_in(path):
        raise CheckpointError(f"{path} {what}: it {reason}")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES or sum(map(text.count, (b"[", b"{", b","))) > MOST_TOKENS:
            raise CheckpointError(f"{path} {what}: it is larger than any that is read here")
        value = json.loads(text.decode("utf-8"))
    except OSError as exc:
        raise CheckpointError(f"{path} {what}: {exc.strerror or exc}") from None
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path} {what}: {exc}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} {what}: it holds {type(value).__name__} where an object is expected")
    return value
