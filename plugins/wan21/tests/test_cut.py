"""Remarks on prompts that exceed the limit of the text encoder."""

import pytest

from lightx2v_wan21.cut import _most_tokens, clean, cut, cut_prompts
from lightx2v_wan21.tiny import write_tiny
from lightx2v_wan21.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, 0)
    return next(folder.rglob("tokenizer.json"))


TEXTS = (
    "a red fox runs through the snow, " * 40,
    "色调艳丽，过曝，静态，细节模糊不清，" * 30,
    "ﷺ" * 60,
    "🦊 &amp;amp; ½ ﬁne " * 50,
    "x" * 900,
    "a\n\n  b\t" * 300,
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("length", [8, 512])
def test_it_says_what_the_tokenizer_does(text, length, file):
    tokenizer = Tokenizer(file.parent)
    tokens = int(tokenizer.encode([text], 20_000)[1].sum())
    found, beyond = cut(text, file, length)
    assert found == tokens <= _most_tokens(text)
    assert bool(beyond) == (tokens > length)
    if tokens > length:
        assert clean(text).endswith(beyond)
    if tokens > length and text == TEXTS[0]:  # unknown characters in a row have one place, that of the first
        seen = clean(text)[: len(clean(text)) - len(beyond)]
        assert (
            abs(int(tokenizer.encode([seen], 20_000)[1].sum()) - length) <= 1
        )  # a joint may be one token or two


def test_only_what_is_too_long_is_told(file):
    assert cut_prompts("a fox", "blurry", file, 512) == []
    long = "a red fox in the snow " * 200
    told = cut_prompts(long, "blurry", file, 512)
    assert len(told) == 1
    assert told[0].startswith("the prompt has ")
    assert cut_prompts("a fox", long, file, 512)[0].startswith("the negative prompt has ")
    assert cut_prompts("a fox", None, file, 512) == []
    assert len(cut_prompts(long, long, file, 512)) == 2


def test_short_prompts_need_no_tokenizer(tmp_path):
    assert cut_prompts("a fox " * 80, "blurry", tmp_path / "none.json", 512) == []
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{", encoding="utf-8")
    assert cut_prompts("a fox " * 800, "blurry", broken, 512) == []  # building the model reports it
