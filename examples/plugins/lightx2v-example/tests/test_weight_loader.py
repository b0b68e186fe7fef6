"""The contract of weight loaders, and features specific to archives."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from lightx2v_core.api import CheckpointError

from lightx2v_example.archive import ArchiveSource, read_header
from lightx2v_example.contracts import ArchiveContract


class TestWeightLoader(ArchiveContract):
    """The contract with archives written by numpy."""


def test_compressed_and_transposed_arrays(tmp_path: Path) -> None:
    values = numpy.arange(24, dtype="f4").reshape(2, 3, 4)
    numpy.savez_compressed(
        tmp_path / "a.npz", plain=values, turned=numpy.asfortranarray(values), empty=values[:0]
    )
    source = ArchiveSource(read_header(tmp_path / "a.npz"))
    wanted = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(source.read("plain"), wanted)
    assert torch.equal(source.read("turned"), wanted)
    assert source.read("empty").shape == (0, 3, 4)
    source.close()


def test_objects_are_refused(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "a.npz", thing=numpy.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"'\|O' is not a tensor"):
        read_header(tmp_path / "a.npz")
