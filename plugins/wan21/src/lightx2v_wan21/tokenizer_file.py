"""Validation of a ``tokenizer.json``.

The library that reads the file applies every rule in it: 15 kB of rules can expand one prompt to gigabytes. Rules like
those of umT5 are accepted, each within a limit; others are refused. No torch here.

Format: https://huggingface.co/docs/tokenizers (the file is what ``Tokenizer.save`` writes).
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

END = "</s>"
#: largest file, in bytes: that of umT5, with 256,300 pieces, has 17 MB
MOST_BYTES = 100_000_000
#: limits for the pieces of the vocabulary and for the characters of one
MOST_PIECES, MOST_CHARACTERS = 1_000_000, 256
MOST_ADDED = 10_000
#: limits for the rules of one type and for their nesting
MOST_RULES, MOST_DEPTH = 16, 4
#: characters that a rule may prepend to a text, and tokens that it may add to one
_MOST_EXTRA = 16
#: longest replacement of one character in a table, in bytes; the longest of NFKC has 33
_MOST_REPLACED = 128
#: number of characters of a rule that a message shows
_SHOWN = 120
#: regular expressions that are searched in linear time; each matches spaces
_SPACES = frozenset({" {2,}", " +", r"\s+", r"\s{2,}"})
#: rules without parameters; applying one of them twice does not lengthen a text twice
_PLAIN_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt"})
_PRE_TOKENIZERS = frozenset({"Metaspace", "Whitespace", "WhitespaceSplit"})


def read_tokenizer(file: Path) -> dict[str, Any]:
    """Read a tokenizer's file, without its decoder, padding and truncation.

    ``ValueError`` if it is damaged or contains unsupported rules.
    """
    with file.open("rb") as opened:
        text = opened.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"the file is larger than {MOST_BYTES} bytes")
    try:
        data = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"invalid JSON: {exc}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ValueError("the file has no model")
    if END not in tokens(data):
        raise ValueError(f"the vocabulary has no token {END!r}; expected the tokenizer of umT5")
    _check_model(data["model"])
    added = data.get("added_tokens") or []
    if len(added) > MOST_ADDED:
        raise ValueError(f"the file has {len(added)} added tokens; the limit is {MOST_ADDED}")
    for rule in _rules(data.get("normalizer"), "normalizers"):
        _check_normalizer(rule)
    for rule in _rules(data.get("pre_tokenizer"), "pretokenizers"):
        if rule.get("type") not in _PRE_TOKENIZERS:
            raise _refused("pre_tokenizer", rule)
    if data.get("post_processor") is not None:
        _check_post_processor(data["post_processor"])
    return {**data, "decoder": None, "padding": None, "truncation": None}


def tokens(data: Mapping[str, Any]) -> set[str]:
    """Return the tokens of the vocabulary and the added tokens. ``ValueError`` if either list is malformed."""
    vocabulary, added = data["model"].get("vocab"), data.get("added_tokens") or []
    try:
        pieces = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
        return pieces | {token["content"] for token in added}
    except (TypeError, ValueError, KeyError):
        raise ValueError("the vocabulary or the list of added tokens is malformed") from None


def size(data: Mapping[str, Any]) -> int:
    """Return the number of embedding rows that the token ids need: the largest id plus 1."""
    added = [token["id"] for token in data.get("added_tokens") or [] if isinstance(token.get("id"), int)]
    return int(max([len(data["model"]["vocab"]) - 1, *added])) + 1


def _check_model(model: Mapping[str, Any]) -> None:
    if (kind := model.get("type", "Unigram")) != "Unigram":
        raise ValueError(f"the model type is {_short(kind)}; expected Unigram, the type of umT5")
    pieces = model["vocab"]
    if not isinstance(pieces, list) or len(pieces) > MOST_PIECES:
        raise ValueError(f"the vocabulary is not a list of at most {MOST_PIECES} pieces")
    for piece, score in pieces:
        if not isinstance(piece, str) or len(piece) > MOST_CHARACTERS:
            raise ValueError(
                f"piece {_short(piece)} of the vocabulary is not a text of at most {MOST_CHARACTERS} characters"
            )
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e30:
            raise ValueError(
                f"the score {_short(score)} of piece {piece!r} of the vocabulary is not a finite number"
            )
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(pieces):
        raise ValueError(
            f"the unknown token has id {_short(unknown)}, but the vocabulary has {len(pieces)} pieces"
        )


def _check_normalizer(rule: Mapping[str, Any]) -> None:
    kind = rule.get("type")
    if kind in _PLAIN_NORMALIZERS:
        return
    if kind == "Precompiled":
        try:
            table = base64.b64decode(rule["precompiled_charsmap"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise _refused("normalizer", rule) from None
        if _is_table(table):
            return
    elif kind == "Replace":
        pattern, content = rule.get("pattern"), rule.get("content")
        if isinstance(pattern, dict) and isinstance(content, str) and len(pattern) == 1:
            text = pattern.get("String")
            if isinstance(text, str) and text and len(content) <= len(text):
                return
            if pattern.get("Regex") in _SPACES and len(content) <= 1:
                return
    elif kind == "Prepend" and isinstance(rule.get("prepend"), str) and len(rule["prepend"]) <= _MOST_EXTRA:
        return
    raise _refused("normalizer", rule)


def _is_table(table: bytes) -> bool:
    """Return whether a table has only short replacements, and references only within itself.

    The library follows the references without checks. The table is a double array of 32-bit units
    (https://github.com/s-yata/darts-clone), followed by the texts that its values refer to.
    """
    length = int.from_bytes(table[:4], "little")
    texts = table[4 + length :]
    if (
        length % 4
        or length == 0
        or len(table) < 4 + length
        or max(map(len, texts.split(b"\0"))) > _MOST_REPLACED
    ):
        return False
    units = memoryview(table[4 : 4 + length]).cast("I") if sys.byteorder == "little" else ()
    for place, unit in enumerate(units):
        if unit >> 31:  # a value
            continue
        there = place ^ (unit >> 10 << ((unit & 512) >> 6))
        if there | 255 >= len(units):
            return False
        value = units[there] & 0x7FFFFFFF
        if unit & 256 and not (value < len(texts) and texts[value] & 0xC0 != 0x80):
            return False
    return True


def _check_post_processor(rule: Any) -> None:
    if not isinstance(rule, dict) or rule.get("type") != "TemplateProcessing":
        raise _refused("post_processor", rule)
    single, special = rule.get("single"), rule.get("special_tokens") or {}
    if not isinstance(single, list) or len(single) > _MOST_EXTRA or not isinstance(special, dict):
        raise _refused("post_processor", rule)
    if sum(isinstance(piece, dict) and "Sequence" in piece for piece in single) > 1:
        raise _refused("post_processor", rule)
    for token in special.values():
        if not isinstance(token, dict) or len(token.get("ids") or []) > _MOST_EXTRA:
            raise _refused("post_processor", rule)


def _rules(rule: Any, inside: str, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the rules of a sequence of rules; those that could lengthen a text occur at most once."""
    rules = list(_flat(rule, inside, depth))
    kinds = [entry.get("type") for entry in rules]
    if len(rules) > MOST_RULES or kinds.count("Precompiled") > 1:
        raise ValueError(
            f"too many {inside}: {len(rules)}; the limit is {MOST_RULES}, and one of type Precompiled"
        )
    yield from rules


def _flat(rule: Any, inside: str, depth: int) -> Iterator[Mapping[str, Any]]:
    if rule is None:
        return
    if not isinstance(rule, dict) or depth > MOST_DEPTH:
        raise ValueError(f"the {inside} are malformed or nested more than {MOST_DEPTH} levels deep")
    if rule.get("type") != "Sequence":
        yield rule
        return
    members = rule.get(inside)
    if not isinstance(members, list) or len(members) > MOST_RULES:
        raise ValueError(f"the {inside} are not a list of at most {MOST_RULES} rules")
    for member in members:
        yield from _flat(member, inside, depth + 1)


def _refused(part: str, rule: Any) -> ValueError:
    return ValueError(
        f"unsupported {part} {_short(rule)}, which could expand a prompt without limit; use the tokenizer.json of "
        "google/umt5-xxl"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
