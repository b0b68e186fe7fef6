"""Parsers of short forms on the command line and in files: ``832x480``, ``24GB``, ``4,3``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lightx2v_core.errors import ConfigError

N = TypeVar("N", int, float)


def parse_size(text: str) -> list[int]:
    """Parse ``832x480`` or ``832*480`` into [width, height]. Raises ``ConfigError`` for anything else."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX*\u00d7]\s*(\d{1,9})\s*", text)
    if match is None:
        raise ConfigError(f"size {text[:100]!r}: expected WIDTHxHEIGHT in pixels, such as 832x480")
    return [int(match.group(1)), int(match.group(2))]


def parse_bytes(text: str) -> int:
    """Parse ``24GB`` (10^9), ``24GiB`` (2^30), ``500MB``, ... or a plain number into bytes.

    Raises ``ConfigError`` for anything else.
    """
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*(?:([KMGT])(i?)B?|B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"memory size {text[:100]!r}: expected a number and a unit, such as 24GB or 16GiB")
    power = " KMGT".index((match.group(2) or " ").upper())
    return int(float(match.group(1)) * (1024 if match.group(3) else 1000) ** power)


def whole_number(text: str) -> int:
    """Parse an integer. Raises ``ConfigError`` for anything else."""
    return _number(int, "an integer", text)


def number(text: str) -> float:
    """Parse a number. Raises ``ConfigError`` for anything else."""
    return _number(float, "a number", text)


def _number(kind: Callable[[str], N], name: str, text: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"expected {name}, got {text!r}") from None


def numbers(text: str) -> list[float]:
    """Parse comma-separated numbers."""
    return [number(part) for part in text.split(",")]


def drawn_seed() -> int:
    """Draw a random seed, 0 to 2^32 - 1."""
    return secrets.randbelow(2**32)


def seed(text: str) -> int:
    """Parse an integer, or draw a seed for ``random``. The plan and the run record store the result."""
    return drawn_seed() if text.strip().lower() == "random" else whole_number(text)


def names(text: str) -> str | list[str]:
    """Parse one name, or comma-separated names."""
    parts = [name.strip() for name in text.split(",")]
    return parts[0] if len(parts) == 1 else parts


def listed(text: str) -> list[str]:
    """Split a comma-separated text, without empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_lora_option(text: str) -> dict[str, Any]:
    """Parse the value of ``--lora``, ``[high:|low:|both:]PATH[:STRENGTH]``, into keywords of a ``LoraConfig``.

    The prefix is the expert that the LoRA is for.
    """
    entry: dict[str, Any] = {}
    if match := re.match(r"(high|low|both):(?=.)", text):
        name = match.group(1)
        entry["name"], text = "both" if name == "both" else f"{name}_noise_model", text[match.end() :]
    path, colon, strength = text.rpartition(":")
    if colon and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", strength):
        return {**entry, "path": path, "strength": float(strength)}
    return {**entry, "path": text}


def either(words: Sequence[str]) -> str:
    """Join words as ``a, b or c``."""
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
