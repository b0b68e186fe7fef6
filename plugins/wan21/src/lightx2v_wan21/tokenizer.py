"""The umT5 tokenizer, read from the official ``tokenizer.json``."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from lightx2v_core.api import CheckpointError
from lightx2v_wan21.cut import clean
from lightx2v_wan21.tokenizer_file import END, read_tokenizer, size

PAD_ID = 0


class Tokenizer:
    """Tokenizer of prompts, with ids of fixed length."""

    def __init__(self, folder: Path, rows: int | None = None) -> None:
        """Load ``tokenizer.json`` from a folder such as ``google/umt5-xxl`` of an official checkpoint.

        ``rows`` is the number of rows of the text encoder's embedding.

        Raises:
            FileNotFoundError: the folder has no tokenizer.json.
            CheckpointError: the file is not a tokenizer with the token ``</s>``, contains rules that ``tokenizer_file``
                refuses, or has more tokens than there are rows.
        """
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} not found; the text encoder needs the tokenizer.json of google/umt5-xxl"
            )
        self._file = file
        try:
            data = read_tokenizer(file)
            self._tokenizer = FastTokenizer.from_str(json.dumps(data))
        except OSError as exc:
            raise CheckpointError(f"{file} cannot be read: {exc.strerror or exc}") from None
        except (
            BaseException
        ) as exc:  # parse errors are bare Exceptions; a panic of Rust is not even an Exception
            raise _failure(file, "is not a readable tokenizer", exc) from None
        if rows is not None and size(data) > rows:
            raise CheckpointError(
                f"the tokenizer has {size(data)} tokens, but the text encoder has {rows} rows: {file} belongs to "
                "another text encoder"
            )
        eos_id = self._tokenizer.token_to_id(END)
        assert eos_id is not None
        self._eos_id: int = eos_id

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Encode the cleaned texts to ids and a mask, int64 ``[len(texts), length]`` each.

        Padded with 0 at the end; a longer text is truncated so that its last token is still the end of text.
        ``CheckpointError`` for a tokenizer that fails.
        """
        ids = torch.full((len(texts), length), PAD_ID, dtype=torch.int64, device="cpu")
        mask = torch.zeros_like(ids)
        cleaned = [clean(text) for text in texts]
        try:
            encodings = self._tokenizer.encode_batch(cleaned)
        except BaseException as exc:  # as in __init__
            raise _failure(self._file, "cannot tokenize the prompt", exc) from None
        for row, encoding in enumerate(encodings):
            tokens = encoding.ids
            if len(tokens) > length:
                tokens = [*tokens[: length - 1], self._eos_id]
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64, device="cpu")
            mask[row, : len(tokens)] = 1
        return ids, mask


def _failure(file: Path, problem: str, exc: BaseException) -> BaseException:
    """Convert a failure of the tokenizer library to a ``CheckpointError``; interruptions are returned unchanged."""
    if isinstance(exc, KeyboardInterrupt | SystemExit | GeneratorExit):
        return exc
    return CheckpointError(f"{file} {problem}: {exc}")
