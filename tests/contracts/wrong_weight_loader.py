"""Weight loaders with one mistake each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import evolve

from lightx2v_core.api import CheckpointError, Header, WeightLoaderSpec
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import WeightLoaderContract


class Wrong(WeightLoaderContract):
    use = "given/wrong"
    caught_by: ClassVar[str]
    suffix: ClassVar[str] = ".safetensors"
    source: ClassVar[Any] = SafetensorsSource

    def plugins(self) -> PluginSet:
        return plugin_set(
            WeightLoaderSpec(
                name="wrong",
                summary="a loader",
                suffixes=(self.suffix,),
                read_header=self.header_of,
                build=lambda _config, _ctx: self.source,
            )
        )

    def header_of(self, path: Path) -> Header:
        return read_header(path)


class TestRight(Wrong):
    """The one that is not wrong."""


class TestSuffixWithoutADot(Wrong):
    caught_by = "test_suffixes_are_those_of_files"
    suffix = "safetensors"


class TestHeaderLies(Wrong):
    caught_by = "test_the_header_tells_what_is_there"

    def header_of(self, path: Path) -> Header:
        found = read_header(path)
        return Header(
            tensors={name: evolve(info, shape=info.shape[::-1]) for name, info in found.tensors.items()}
        )


class Casts(SafetensorsSource):
    def read(self, name: str, device: str = "cpu") -> Any:
        return super().read(name, device).float()


class TestCasts(Wrong):
    caught_by = "test_tensors_are_read_bit_by_bit"
    source = Casts


class Remembers(SafetensorsSource):
    """Gives the same tensor to everybody."""

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.kept: dict[str, Any] = {}

    def read(self, name: str, device: str = "cpu") -> Any:
        if name not in self.kept:
            self.kept[name] = super().read(name, device)
        return self.kept[name]


class TestRemembers(Wrong):
    caught_by = "test_a_tensor_is_the_readers_own"
    source = Remembers


class ClosesForGood(SafetensorsSource):
    closed = False

    def close(self) -> None:
        super().close()
        self.closed = True

    def read(self, name: str, device: str = "cpu") -> Any:
        if self.closed:
            raise CheckpointError("closed")
        return super().read(name, device)


class TestClosesForGood(Wrong):
    caught_by = "test_a_tensor_is_the_readers_own"
    source = ClosesForGood


class KnowsEverything(SafetensorsSource):
    def info(self, name: str) -> Any:
        try:
            return super().info(name)
        except KeyError:
            return None


class TestKnowsEverything(Wrong):
    caught_by = "test_unknown_names_are_key_errors"
    source = KnowsEverything


class ReadsIntoNothing(SafetensorsSource):
    def read_into(self, name: str, out: Any, *, cached: bool = True) -> None:
        out.zero_()


class TestReadsIntoNothing(Wrong):
    caught_by = "test_reading_into_memory_is_the_same"
    source = ReadsIntoNothing


class FirstFileOnly(SafetensorsSource):
    def __init__(self, header: Header) -> None:
        file = next(iter(header.tensors.values())).file
        super().__init__(Header(tensors={n: i for n, i in header.tensors.items() if i.file == file}))


class TestFirstFileOnly(Wrong):
    caught_by = "test_several_files_are_one_source"
    source = FirstFileOnly


class ReadsItAll(SafetensorsSource):
    def read(self, name: str, device: str = "cpu") -> Any:
        self.info(name).file.read_bytes()
        return super().read(name, device)


class TestReadsItAll(Wrong):
    caught_by = "test_a_small_tensor_of_a_large_file_is_a_small_read"
    source = ReadsItAll


class FillsUp(SafetensorsSource):
    """Makes zeros of what it cannot read."""

    def read(self, name: str, device: str = "cpu") -> Any:
        info = self.info(name)
        try:
            return super().read(name, device)
        except Exception:
            return torch.zeros(info.shape, dtype=getattr(torch, info.dtype))


class TestFillsUp(Wrong):
    caught_by = "test_a_file_that_is_cut_later_is_an_error"
    source = FillsUp


class TestPatient(Wrong):
    """Treats a truncated file as complete."""

    caught_by = "test_cut_files_are_refused"

    def header_of(self, path: Path) -> Header:
        try:
            return read_header(path)
        except CheckpointError:
            return Header(tensors={})


class TestLeaksItsParser(Wrong):
    caught_by = "test_rubbish_is_refused"

    def header_of(self, path: Path) -> Header:
        try:
            return read_header(path)
        except CheckpointError as exc:
            raise ValueError(str(exc)) from None


class Unpickled:
    def __init__(self, header: Header) -> None:
        self.header = header


class TestUnpickles(Wrong):
    caught_by = "test_nothing_in_a_file_is_run"
    suffix = ".pth"
    source = Unpickled

    def header_of(self, path: Path) -> Header:
        torch.load(path, weights_only=False)
        raise CheckpointError("seen enough")
