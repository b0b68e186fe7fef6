"""What a ``tokenizer.json`` may say. The library that reads it does whatever it says: 15 kB of rules can make gigabytes
of one prompt. The rules of umT5 and their like are taken, each within a limit; others are refused. No torch here.

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
#: bytes of the file: that of umT5, with 256,300 pieces, has 17 MB
MOST_BYTES = 100_000_000
#: pieces of the vocabulary, and characters of one
MOST_PIECES, MOST_CHARACTERS = 1_000_000, 256
MOST_ADDED = 10_000
#: rules of a kind, and rules in rules
MOST_RULES, MOST_DEPTH = 16, 4
#: characters that a rule may put in front of a text, tokens that it may put around one
_MOST_EXTRA = 16
#: bytes that a table of replacements may put in the place of one character; NFKC has 33
_MOST_REPLACED = 128
#: characters of a rule that a message shows
_SHOWN = 120
#: expressions that are found in time that grows with the text; each stands for spaces
_SPACES = frozenset({" {2,}", " +", r"\s+", r"\s{2,}"})
#: rules without any numbers or texts, of which none makes a text longer again that it has made longer before
_PLAIN_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt"})
_PRE_TOKENIZERS = frozenset({"Metaspace", "Whitespace", "WhitespaceSplit"})


def read_tokenizer(file: Path) -> dict[str, Any]:
    """The content of a tokenizer's file, without what turns tokens back into text, pads and truncates. ``ValueError``
    when it is damaged, or says what is not taken here."""
    with file.open("rb") as opened:
        text = opened.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    try:
        data = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"it is no readable tokenizer: {exc}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ValueError("it is no readable tokenizer: it has no model")
    if END not in tokens(data):
        raise ValueError(f"it has no token {END!r}; expected the tokenizer of umT5")
    _check_model(data["model"])
    added = data.get("added_tokens") or []
    if len(added) > MOST_ADDED:
        raise ValueError(f"it adds {len(added)} tokens to its vocabulary; at most {MOST_ADDED} are taken")
    for rule in _rules(data.get("normalizer"), "normalizers"):
        _check_normalizer(rule)
    for rule in _rules(data.get("pre_tokenizer"), "pretokenizers"):
        if rule.get("type") not in _PRE_TOKENIZERS:
            raise _refused("pre_tokenizer", rule)
    if data.get("post_processor") is not None:
        _check_post_processor(data["post_processor"])
    return {**data, "decoder": None, "padding": None, "truncation": None}


def tokens(data: Mapping[str, Any]) -> set[str]:
    """Every token, of the vocabulary and added ones. ``ValueError`` for lists that are none."""
    vocabulary, added = data["model"].get("vocab"), data.get("added_tokens") or []
    try:
        pieces = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
        return pieces | {token["content"] for token in added}
    except (TypeError, ValueError, KeyError):
        raise ValueError("it is no readable tokenizer: its vocabulary is none") from None


def size(data: Mapping[str, Any]) -> int:
    """How many rows an embedding needs for every token that it can give: the largest number of one, and one more."""
    added = [token["id"] for token in data.get("added_tokens") or [] if isinstance(token.get("id"), int)]
    return int(max([len(data["model"]["vocab"]) - 1, *added])) + 1


def _check_model(model: Mapping[str, Any]) -> None:
    if (kind := model.get("type", "Unigram")) != "Unigram":
        raise ValueError(f"its model is {_short(kind)}; that of umT5 is Unigram")
    pieces = model["vocab"]
    if not isinstance(pieces, list) or len(pieces) > MOST_PIECES:
        raise ValueError(f"it has no list of at most {MOST_PIECES} pieces")
    for piece, score in pieces:
        if not isinstance(piece, str) or len(piece) > MOST_CHARACTERS:
            raise ValueError(
                f"{_short(piece)} of its vocabulary is no text of at most {MOST_CHARACTERS} characters"
            )
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e30:
            raise ValueError(f"the score {_short(score)} of {piece!r} in its vocabulary is no number")
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(pieces):
        raise ValueError(f"its unknown token, number {_short(unknown)}, is none of its {len(pieces)} pieces")


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
    """Whether replacements are short and all references of a table lead into it: the library follows them blindly. It
    is a double array of 32-bit units (https://github.com/s-yata/darts-clone) and the texts that its values point at."""
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
    """The rules in a sequence of rules, of each kind once at most where it could make a text longer."""
    rules = list(_flat(rule, inside, depth))
    kinds = [entry.get("type") for entry in rules]
    if len(rules) > MOST_RULES or kinds.count("Precompiled") > 1:
        raise ValueError(f"it has {len(rules)} {inside}; at most {MOST_RULES} are taken")
    yield from rules


def _flat(rule: Any, inside: str, depth: int) -> Iterator[Mapping[str, Any]]:
    if rule is None:
        return
    if not isinstance(rule, dict) or depth > MOST_DEPTH:
        raise ValueError(f"its {inside} are no rules, or rules in rules in rules")
    if rule.get("type") != "Sequence":
        yield rule
        return
    members = rule.get(inside)
    if not isinstance(members, list) or len(members) > MOST_RULES:
        raise ValueError(f"its {inside} are no list of at most {MOST_RULES}")
    for member in members:
        yield from _flat(member, inside, depth + 1)


def _refused(what: str, rule: Any) -> ValueError:
    return ValueError(
        f"its {what} {_short(rule)} is none that is taken here, where it could make a prompt endless; use the "
        "tokenizer.json of google/umt5-xxl"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
