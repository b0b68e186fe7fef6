"""Values as people write them, on a command line and in short in a file: ``832x480``, ``24GB``, ``4,3``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lightx2v_core.errors import ConfigError

N = TypeVar("N", int, float)


def parse_size(text: str) -> list[int]:
    """``832x480`` (or ``832*480``) as [width, height]. ``ConfigError`` for anything else."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX*\u00d7]\s*(\d{1,9})\s*", text)
    if match is None:
        raise ConfigError(f"size {text[:100]!r}: expected WIDTHxHEIGHT in pixels, such as 832x480")
    return [int(match.group(1)), int(match.group(2))]


def parse_bytes(text: str) -> int:
    """``24GB`` (10^9), ``24GiB`` (2^30), ``500MB``, ... or a plain number, in bytes. ``ConfigError`` for anything
    else."""
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*(?:([KMGT])(i?)B?|B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(
            f"size of memory {text[:100]!r}: expected a number and a unit, such as 24GB or 16GiB"
        )
    power = " KMGT".index((match.group(2) or " ").upper())
    return int(float(match.group(1)) * (1024 if match.group(3) else 1000) ** power)


def whole_number(text: str) -> int:
    """A number without a fraction. ``ConfigError`` for anything else."""
    return _number(int, "a whole number", text)


def number(text: str) -> float:
    """A number. ``ConfigError`` for anything else."""
    return _number(float, "a number", text)


def _number(kind: Callable[[str], N], name: str, text: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"expected {name}, got {text!r}") from None


def numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [number(part) for part in text.split(",")]


def drawn_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(2**32)


def seed(text: str) -> int:
    """A number, or ``random``: one is drawn, and the plan and the record keep it."""
    return drawn_seed() if text.strip().lower() == "random" else whole_number(text)


def names(text: str) -> str | list[str]:
    """One name, or several with commas between them."""
    parts = [name.strip() for name in text.split(",")]
    return parts[0] if len(parts) == 1 else parts


def listed(text: str) -> list[str]:
    """Texts with commas between them; empty ones are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_lora_option(text: str) -> dict[str, Any]:
    """Read the value of ``--lora`` into keywords of a ``LoraConfig``: ``PATH``, ``PATH:STRENGTH``, and ``high:``,
    ``low:`` or ``both:`` in front for the expert that it is for."""
    entry: dict[str, Any] = {}
    if match := re.match(r"(high|low|both):(?=.)", text):
        name = match.group(1)
        entry["name"], text = "both" if name == "both" else f"{name}_noise_model", text[match.end() :]
    path, colon, strength = text.rpartition(":")
    if colon and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", strength):
        return {**entry, "path": path, "strength": float(strength)}
    return {**entry, "path": text}


def either(words: Sequence[str]) -> str:
    """``a, b or c``"""
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
