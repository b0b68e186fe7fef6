"""What can be configured, under ``model.options.pebble`` and ``attention.options.chunked``."""

from __future__ import annotations

from attrs import field, frozen
from attrs import validators as v


@frozen(kw_only=True)
class PebbleOptions:
    """Options of the model."""

    #: frames that are decoded at once
    decode_frames: int = field(default=8, validator=v.ge(1))


@frozen(kw_only=True)
class ChunkedOptions:
    """Options of the attention kernel."""

    #: queries whose scores are held at once
    chunk: int = field(default=1024, validator=v.ge(1))
