"""Prompts as the text encoder reads them: cleaned, and cut where they are longer than it reads. No torch here."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightx2v_wan21.tokenizer_file import read_tokenizer

#: characters of what is cut that a message shows
_SHOWN = 40


def clean(text: str) -> str:
    """The official clean-up: mended unicode, HTML entities resolved twice, runs of whitespace collapsed."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def cut_prompts(prompt: str, negative: str | None, tokenizer: Path | None, length: int) -> Sequence[str]:
    """What to say of the prompts of a request that are cut to ``length`` tokens. ``tokenizer`` is its file."""
    texts = [("the prompt", prompt), *([("the negative prompt", negative)] if negative is not None else [])]
    remarks = []
    for what, text in texts:
        if tokenizer is None or _most_tokens(text) <= length:
            continue
        tokens, beyond = cut(text, tokenizer, length)
        if tokens > length:
            remarks.append(
                f"{what} has {tokens} tokens and {length} are read: the last {tokens - length} are not seen, from "
                f"{beyond[:_SHOWN]!r} on"
            )
    return remarks


def cut(text: str, tokenizer: Path, length: int) -> tuple[int, str]:
    """How many tokens a text has, the end of text among them, and what of it is behind the first ``length``. (0, "")
    where there is no such tokenizer, which is told when the model is built."""
    cleaned = clean(text)
    try:
        encoding = _loaded(tokenizer, tokenizer.stat().st_mtime_ns).encode(cleaned)
    except Exception:  # bare Exception for every parse error
        return 0, ""
    if len(encoding.ids) <= length:
        return len(encoding.ids), ""
    return len(encoding.ids), cleaned[encoding.offsets[length - 1][0] :].strip()


def _most_tokens(text: str) -> int:
    """The most tokens that a text can have: one for each byte, once characters are taken apart, one in front and one
    behind. It spares reading the tokenizer of all but the longest prompts."""
    return len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")) + 2


@lru_cache(maxsize=1)
def _loaded(file: Path, _changed: int) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(read_tokenizer(file)))
