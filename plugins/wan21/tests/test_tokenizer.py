"""Prompt cleaning and token ids against the official tokenizer."""

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_core.api import CheckpointError
from lightx2v_wan21.cut import clean
from lightx2v_wan21.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def case(golden):
    return golden("t5_umt5")


@pytest.fixture(scope="module")
def tokenizer(case):
    return Tokenizer(case / "ckpt" / "google" / "umt5-xxl")


def test_cleaning_equals_official(case, read_json):
    for entry in read_json(case / "prompts.json"):
        assert clean(entry["prompt"]) == entry["cleaned"]


@pytest.mark.parametrize("length", [512, 32])
def test_ids_and_mask_equal_official(length, case, tokenizer, read_json):
    outputs = load_file(case / "outputs.safetensors")
    prompts = [entry["prompt"] for entry in read_json(case / "prompts.json")]
    ids, mask = tokenizer.encode(prompts, length)
    assert ids.dtype == mask.dtype == torch.int64
    assert torch.equal(ids, outputs[f"len{length}.ids"])
    assert torch.equal(mask, outputs[f"len{length}.mask"])


def test_empty_prompt_is_only_the_end(tokenizer):
    ids, mask = tokenizer.encode([""], 4)
    assert ids.tolist() == [[1, 0, 0, 0]]
    assert mask.tolist() == [[1, 0, 0, 0]]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json not found"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_broken_file_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer.json is not a readable tokenizer"):
        Tokenizer(tmp_path)


def test_foreign_tokenizer_is_refused(tmp_path):
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import WordLevel

    FastTokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="no token '</s>'"):
        Tokenizer(tmp_path)
