"""Prompts as the text encoder reads them: cleaned, and truncated to its maximum length. No torch here."""

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

#: number of truncated characters that a message shows
_SHOWN = 40


def clean(text: str) -> str:
    """Clean a prompt as the official code does: fix unicode, unescape HTML entities twice, collapse whitespace."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def cut_prompts(prompt: str, negative: str | None, tokenizer: Path | None, length: int) -> Sequence[str]:
    """Return a remark for each prompt of a request that exceeds ``length`` tokens. ``tokenizer`` is its file."""
    texts = [("the prompt", prompt), *([("the negative prompt", negative)] if negative is not None else [])]
    remarks = []
    for name, text in texts:
        if tokenizer is None or _most_tokens(text) <= length:
            continue
        tokens, beyond = cut(text, tokenizer, length)
        if tokens > length:
            remarks.append(
                f"{name} has {tokens} tokens, the limit is {length}: the last {tokens - length} are ignored, from "
                f"{beyond[:_SHOWN]!r} on"
            )
    return remarks


def cut(text: str, tokenizer: Path, length: int) -> tuple[int, str]:
    """Return the number of tokens of a text, with the end of text, and the text after the first ``length`` tokens.

    (0, "") for an unreadable tokenizer, which is reported when the model is built.
    """
    cleaned = clean(text)
    try:
        encoding = _loaded(tokenizer, tokenizer.stat().st_mtime_ns).encode(cleaned)
    except Exception:  # bare Exception for every parse error
        return 0, ""
    if len(encoding.ids) <= length:
        return len(encoding.ids), ""
    return len(encoding.ids), cleaned[encoding.offsets[length - 1][0] :].strip()


def _most_tokens(text: str) -> int:
    """Return an upper bound of the tokens of a text: one per byte of its NFKC form, one before and one after.

    Avoids reading the tokenizer for all but the longest prompts.
    """
    return len(unicodedata.normalize("NFKC", text).encode("utf-8", "replace")) + 2


@lru_cache(maxsize=1)
def _loaded(file: Path, _changed: int) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(read_tokenizer(file)))
