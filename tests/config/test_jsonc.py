"""JSON with comments and trailing commas: equal to JSON wherever JSON can read it, and strict everywhere else."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightx2v_core.config import jsonc
from lightx2v_core.errors import ConfigError

texts = st.text(max_size=8) | st.sampled_from(["//", "/*", "*/", '"', "\\", ",]", ",}", "a // b", "{", '\\"'])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
BLANKS = (
    "",
    "",
    " ",
    "\n",
    "\t",
    "// note, with ] and }\n",
    "/* one */",
    "/* two\nlines, ] */",
    "//\n",
    '/* " */',
)


@given(value=values, indent=st.none() | st.integers(0, 3))
def test_every_json_reads_as_json(value: Any, indent: int | None) -> None:
    assert jsonc.loads(json.dumps(value, indent=indent)) == value
    assert jsonc.loads(json.dumps(value, indent=indent, ensure_ascii=False)) == value


def decorated(value: Any, rng: random.Random) -> str:
    """``value`` as JSON with comments everywhere and trailing commas."""

    def blank() -> str:
        return rng.choice(BLANKS)

    if isinstance(value, dict):
        parts = [
            f"{blank()}{json.dumps(key)}{blank()}:{blank()}{decorated(item, rng)}{blank()}"
            for key, item in value.items()
        ]
        opening, closing = "{", "}"
    elif isinstance(value, list):
        parts = [f"{blank()}{decorated(item, rng)}{blank()}" for item in value]
        opening, closing = "[", "]"
    else:
        return json.dumps(value)
    trailing = f",{blank()}" if parts and rng.random() < 0.5 else ""
    return f"{opening}{','.join(parts)}{trailing}{closing}" if parts else f"{opening}{blank()}{closing}"


@given(value=values, seed=st.integers(0, 10_000))
def test_comments_and_trailing_commas_change_nothing(value: Any, seed: int) -> None:
    rng = random.Random(seed)
    assert jsonc.loads(rng.choice(BLANKS) + decorated(value, rng) + rng.choice(BLANKS)) == value


def finite(text: str) -> float:
    """JSON reads 1e999 as infinity; we do not."""
    if math.isinf(float(text)):
        raise ValueError
    return float(text)


@given(text=st.text(alphabet='{}[]",:/*\\ \n1a-.e', max_size=20))
def test_any_text_is_read_as_json_reads_it_or_refused(text: str) -> None:
    try:
        value = jsonc.loads(text)
    except ConfigError:
        value = ConfigError
    try:
        expected = json.loads(text, parse_float=finite)
    except ValueError:
        return
    pairs = re.search(r'"[^"]*"\s*:', text)
    assert value is not ConfigError or pairs  # a repeated key is the one thing that JSON takes and we do not
    if not pairs:
        assert value == expected


@pytest.mark.parametrize(
    "text",
    ["", "   ", "// only a comment", "[,]", "[1,,]", "[,1]", "{,}", '{"a":,}', '{"a" 1}', "1,", "[1 2]", "[1]]",
     "/ 1", "[1 /]", "*/ 1", "'a'", "{a: 1}", "tru", "01", "+1", "1.", ".5", "0x1", '"a\nb"', '"a', "[1,/* */,]",
     "[1], // x", "[1]\n,", "1 // x\n2", "\ufeff1 2", '{"a": 1,,}', "{1: 2}"],
    ids=repr,
)  # fmt: skip
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ConfigError):
        jsonc.loads(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [("NaN", "line 1, column 1"), ("Infinity", "line 1, column 1"), ("-Infinity", "line 1, column 1"),
     ('{"NaN": NaN}', "line 1, column 9"), (" 1e999", "line 1, column 2"), ("-1e999", "line 1, column 1"),
     ('{"a": [1.5,\n 1e400]}', "line 2, column 2"), ("[1, " + "9" * 5000 + "]", "line 1, column 5")],
)  # fmt: skip
def test_numbers_that_are_none(text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=f"{place}: .*(not a JSON number|too large|limit)"):
        jsonc.loads(text)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{\n  "a": 1\n  "b": 2\n}', 3, 3),
        ('{\n  // a comment, with a comma\n  "a": tru,\n}', 3, 8),
        ('{ /* two\nlines */ "a": 1, "b" 2,\n}', 2, 22),
        ('{"a": [1, 2, /* , */ ,]}', 1, 22),
        ('\n\n  {"ä": "ö", // ü\n "b": }', 4, 7),
    ],
)
def test_positions_are_those_of_the_file(text: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError, match=f"^f.json: line {line}, column {column}: "):
        jsonc.loads(text, "f.json")


def test_where_an_endless_comment_starts() -> None:
    with pytest.raises(ConfigError, match=r"f.json: line 2, column 2: unclosed comment /\*"):
        jsonc.loads('{"a": 1,\n /* b', "f.json")


@pytest.mark.parametrize(
    ("text", "place", "first"),
    [
        ('{"k": 1, "k": 1}', "line 1, column 10", "line 1, column 2"),
        ('{"x": {"k": 1, /* */\n "k": 2}}', "line 2, column 2", "line 1, column 8"),
        ('[{"k": 1, "\\u006b": 1}]', "line 1, column 11", "line 1, column 3"),
    ],
)
def test_a_key_that_is_given_twice(text: str, place: str, first: str) -> None:
    with pytest.raises(ConfigError, match=f"f.json: {place}: duplicate key 'k', first at {first}"):
        jsonc.loads(text, "f.json")


def test_the_same_key_in_two_objects_is_fine() -> None:
    assert jsonc.loads('{"a": {"k": 1}, "b": {"k": 2}}') == {"a": {"k": 1}, "b": {"k": 2}}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000])
def test_sizes_that_no_parser_takes(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jsonc.loads(text, "f.json")
    assert len(str(caught.value)) < 300


def test_places_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{ // x, "y"\n  "a": {"b": [1, {"c": 2,\n "d": []}]},\n\t"e\\"": 0,\n}')
    document = jsonc.read_document(file)
    assert document.place(("a",)) == "line 2, column 3"
    assert document.place(("a", "b")) == "line 2, column 9"
    assert document.place(("a", "b", 1, "c")) == "line 2, column 19"
    assert document.place(("a", "b", 1, "d")) == "line 3, column 2"
    assert document.place(("a", "b", 0)) == "line 2, column 9"  # no key of its own: the one above
    assert document.place(('e"',)) == "line 4, column 2"
    assert document.place(("none",)) == ""


def paths(value: Any, path: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """The path of every key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = {(*path, key) for key, _ in items} if isinstance(value, dict) else set()
    return own.union(*(paths(item, (*path, key)) for key, item in items))


@given(value=values, seed=st.integers(0, 10_000))
def test_every_key_has_a_place(value: Any, seed: int) -> None:
    rng = random.Random(seed)
    document = jsonc._document(decorated(value, rng), "text")
    assert set(document.offsets) == paths(value)
    for path, offset in document.offsets.items():
        assert json.JSONDecoder().raw_decode(document.text, offset)[0] == path[-1]


def test_a_long_file_is_read_in_no_time() -> None:
    text = "[" + '{"a": [1, 2, "b"], /* c */ }, // d\n' * 20_000 + "]"
    assert len(jsonc.loads(text)) == 20_000


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for content in (b'{"a": 1}', b'\xef\xbb\xbf{"a": 1}', b'{"a": 1, // x\r\n}\r\n'):
        path.write_bytes(content)
        assert jsonc.read(path) == {"a": 1}
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match=re.escape(f"{str(path)!r} cannot be read")):
        jsonc.read(path)
    path.write_bytes(b"[1]")
    with pytest.raises(ConfigError, match=r"expected an object \{...\} at the top, got a list"):
        jsonc.read(path)
    with pytest.raises(ConfigError, match="does not exist"):
        jsonc.read(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        jsonc.read(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        jsonc.read(Path("x" * 5000))
    with pytest.raises(ConfigError, match="cannot be read|does not exist"):
        jsonc.read(Path("a\0b"))
