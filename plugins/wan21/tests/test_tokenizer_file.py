"""A tokenizer's file contains rules: unbounded or broken ones are refused with one message before any step."""

import base64
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightx2v_core.api import CheckpointError
from lightx2v_core.testing.profiles import examples
from lightx2v_wan21.tokenizer import Tokenizer
from lightx2v_wan21.tokenizer_file import END, MOST_ADDED, read_tokenizer, size

PIECES = [["<pad>", 0.0], [END, 0.0], ["<unk>", 0.0], ["\u2581", -2.0], ["a", -1.0], ["\u2581a", -1.5]]


def written(folder, **changes):
    """Write a small tokenizer like that of umT5, with changes; a name such as ``model__unk_id`` is a nested key."""
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 1, "content": END, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, replace(Regex=" {2,}", content=" ")]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": template(),
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False, "vocab": PIECES},
    }  # fmt: skip
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        if inner:
            data[outer][inner] = value
        else:
            data[outer] = value
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(texts=1, ids=(1,)):
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * texts + [{"SpecialToken": {"id": END, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {END: {"id": END, "ids": list(ids), "tokens": [END] * len(ids)}},
    }  # fmt: skip


def sequence(key, *members):
    return {"type": "Sequence", key: list(members)}


def table(longest, units=256, unit=0):
    """Build a table of replacements; one has ``longest`` bytes, and ``unit`` is the first unit of the double array."""
    data = struct.pack("<II", 4 * units, unit) + bytes(4 * units - 4) + b"x" * longest + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


GROWS = replace(String="a", content="aa")
REFUSED = {
    "a text that grows": {"normalizer": sequence("normalizers", *[GROWS] * 24)},
    "a text that grows once": {"normalizer": GROWS},
    "nothing is replaced by something": {"normalizer": replace(String="", content="a")},
    "an expression that backtracks": {"normalizer": replace(Regex="(a+)+$", content=" ")},
    "an expression of nothing": {"normalizer": replace(Regex="", content="a")},
    "a table that makes much of one character": {"normalizer": table(1_000_000)},
    "two tables": {"normalizer": sequence("normalizers", table(100), table(100))},
    "a table that leads out of itself": {"normalizer": table(9, unit=9 << 10 | 512)},
    "a table that is too short": {"normalizer": table(9, units=1)},
    "a table whose value leads out of it": {"normalizer": table(0, unit=256 | 1 << 9 | 0)},
    "a table that is none": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}},
    "much in front": {"normalizer": {"type": "Prepend", "prepend": "a" * 10_000}},
    "bytes as letters": {"normalizer": {"type": "ByteLevel"}},
    "rules in rules": {
        "normalizer": sequence("normalizers", sequence("normalizers", *[{"type": "NFKC"}] * 9, *[{"type": "NFC"}] * 9))
    },
    "a split by an expression": {
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False
        }
    },
    "many splits": {"pre_tokenizer": sequence("pretokenizers", *[{"type": "WhitespaceSplit"}] * 99)},
    "the text many times": {"post_processor": template(texts=10)},
    "many tokens behind it": {"post_processor": template(ids=[1] * 100_000)},
    "processors one after the other": {"post_processor": sequence("processors", *[template()] * 9)},
    "another processor": {"post_processor": {"type": "BertProcessing", "sep": [END, 1], "cls": [END, 1]}},
    "many added tokens": {"added_tokens": [{"id": 1, "content": END}] * (MOST_ADDED + 1)},
    "another model": {
        "model": {"type": "BPE", "vocab": {END: 1, "<unk>": 0}, "merges": [], "unk_token": "<unk>"}
    },
    "a long piece": {"model__vocab": [*PIECES, ["a" * 100_000, -1.0]]},
    "no unknown token": {"model__unk_id": None},
    "an unknown token that is none": {"model__unk_id": 6},
    "an unknown token below zero": {"model__unk_id": -1},
    "a score that is none": {"model__vocab": [*PIECES, ["b", "x"]]},
    "a score that is endless": {"model__vocab": [*PIECES, ["b", 1e300]]},
    "a piece that is none": {"model__vocab": [*PIECES, [7, -1.0]]},
    "a piece alone": {"model__vocab": [*PIECES, ["b"]]},
    "no vocabulary": {"model__vocab": None},
    "no model": {"model": []},
    "an added token without text": {"added_tokens": [{"id": 1}]},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_refused(tmp_path, case):
    with pytest.raises(CheckpointError) as caught:
        Tokenizer(written(tmp_path, **REFUSED[case]))
    message = str(caught.value)
    assert str(tmp_path / "tokenizer.json") in message
    assert len(message) < 800
    assert "\n" not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": None, "pre_tokenizer": None},
        {"normalizer": sequence("normalizers", table(33), {"type": "Strip", "strip_left": False, "strip_right": True},
                                replace(Regex=" {2,}", content="\u2581"))},
        {"normalizer": {"type": "Prepend", "prepend": "\u2581"}},
        {"normalizer": sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"})},
        {"normalizer": replace(String=" ", content="\u2581"), "pre_tokenizer": None},
        {"pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"},
                                   {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
                                    "split": True})},
        {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
        {"padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "<pad>"}},
    ],
)  # fmt: skip
def test_a_file_that_is_taken(tmp_path, changes):
    ids, mask = Tokenizer(written(tmp_path, **changes), rows=len(PIECES)).encode(["a a", "a" * 3000], 8)
    assert ids[0, int(mask[0].sum()) - 1] == 1
    assert mask[1].all()


def test_more_tokens_than_rows(tmp_path):
    """Tokens of the vocabulary, or an added token with a large id."""
    written(tmp_path)
    assert Tokenizer(tmp_path, rows=6).encode(["a"], 4)[1].sum() == 2
    with pytest.raises(CheckpointError, match="the tokenizer has 6 tokens, but the text encoder has 5 rows"):
        Tokenizer(tmp_path, rows=5)
    more = [[f"z{number}", -9.0] for number in range(100)]
    with pytest.raises(
        CheckpointError, match="the tokenizer has 106 tokens, but the text encoder has 6 rows"
    ):
        Tokenizer(written(tmp_path, model__vocab=[*PIECES, *more]), rows=6)


def test_a_prompt_that_cannot_be_tokenized(tmp_path):
    """The library fails only at a certain character, here because its byte tokens are missing."""
    tokenizer = Tokenizer(written(tmp_path, post_processor=None))

    class Failing:
        def encode_batch(self, texts):
            raise BaseException("a panic")

    tokenizer._tokenizer = Failing()
    with pytest.raises(CheckpointError, match="cannot tokenize the prompt: a panic"):
        tokenizer.encode(["b"], 4)


def test_a_vocabulary_as_large_as_that_of_umt5_is_read(tmp_path):
    pieces = [*PIECES, *([f"z{number}", -9.0] for number in range(300_000))]
    assert size(read_tokenizer(written(tmp_path, model__vocab=pieces) / "tokenizer.json")) == len(pieces)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "Sequence", "normalizers", "ids", "vocab", "a"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)
PLACES = ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "padding", "model",
          "model__vocab", "model__unk_id", "model__type", "model__byte_fallback"]  # fmt: skip


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_in_any_place(tmp_path, place, value):
    try:
        tokenizer = Tokenizer(written(tmp_path, **{place: value}), rows=100)
        ids, _ = tokenizer.encode(["a b"], 8)
    except CheckpointError:
        return
    assert int(ids.max()) < 100
