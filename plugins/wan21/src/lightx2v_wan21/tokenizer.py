"""Prompt cleaning and the umT5 tokenizer, read from the official ``tokenizer.json``."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

PAD_ID = 0
EOS_TOKEN = "</s>"


def clean(text: str) -> str:
    """The official clean-up: mended unicode, HTML entities resolved twice, runs of whitespace collapsed."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """Turns prompts into token ids of fixed length."""

    def __init__(self, folder: Path) -> None:
        """Load ``tokenizer.json`` from a folder such as ``google/umt5-xxl`` of an official checkpoint.

        Raises:
            FileNotFoundError: the folder has no tokenizer.json.
            ValueError: the file is not a tokenizer with the token ``</s>``.
        """
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} not found; the text encoder needs the tokenizer.json of google/umt5-xxl"
            )
        try:
            self._tokenizer = FastTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for every parse error
            raise ValueError(f"{file} is not a readable tokenizer: {error}") from error
        eos_id = self._tokenizer.token_to_id(EOS_TOKEN)
        if eos_id is None:
            raise ValueError(f"{file} has no token {EOS_TOKEN!r}; expected the tokenizer of umT5")
        self._eos_id: int = eos_id
        # Padding and truncation are done here, whatever the file asks for.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask of the cleaned texts, int64 ``[len(texts), length]`` each.

        Padded with 0 at the end; a longer text is cut so that its last token is still the end of text.
        """
        ids = torch.full((len(texts), length), PAD_ID, dtype=torch.int64, device="cpu")
        mask = torch.zeros_like(ids)
        for row, encoding in enumerate(self._tokenizer.encode_batch([clean(text) for text in texts])):
            tokens = encoding.ids
            if len(tokens) > length:
                tokens = [*tokens[: length - 1], self._eos_id]
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64, device="cpu")
            mask[row, : len(tokens)] = 1
        return ids, mask
