"""The contract of weight loaders: correct headers, reads of single tensors, and safety with untrusted files."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.checkpoint.derived import is_direct
from lightx2v_core.discovery.plugins import CORE, Provided
from lightx2v_core.errors import CheckpointError, LightX2VError
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import WeightSource
from lightx2v_core.spec.specs import WeightLoaderSpec
from lightx2v_core.spec.tensors import Header
from lightx2v_core.testing.contracts.common import Contract, same_imports
from lightx2v_core.testing.imports import heavy_imports

_PICKLED = frozenset({".pth", ".pt", ".bin", ".ckpt"})


class WeightLoaderContract(Contract):
    """Reading files written by ``write``. Override it for suffixes other than those of safetensors and torch."""

    kind = "weight_loader"

    def write(self, path: Path, tensors: Mapping[str, Any]) -> None:
        """Write tensors to a file of this format."""
        import torch
        from safetensors.torch import save_file

        if path.suffix == ".safetensors":
            save_file(dict(tensors), path)
        elif path.suffix in _PICKLED:
            torch.save(dict(tensors), path)
        else:
            pytest.fail(f"override {type(self).__name__}.write to write {path.suffix} files")

    def tensors(self) -> dict[str, Any]:
        """Return the tensors to write: every dtype and shape that the format supports."""
        import torch

        generator = torch.Generator().manual_seed(0)
        values = torch.randn(6, 4, generator=generator)
        return {
            "blocks.0.weight": values,
            "blocks.0.bias": values[0].to(torch.bfloat16).clone(),
            "blocks.1.weight": values.half(),
            "scales": values[:, :1].abs().double().clone(),
            "codes": (values * 40).to(torch.int8),
            "scalar": torch.tensor(3.5),
        }

    @pytest.fixture
    def path(self, spec: WeightLoaderSpec[Any], tmp_path: Path) -> Path:
        return tmp_path / f"model{spec.suffixes[0]}"

    @pytest.fixture
    def written(self, path: Path, usable: None) -> dict[str, Any]:
        tensors = self.tensors()
        self.write(path, tensors)
        return tensors

    @pytest.fixture
    def header(self, spec: WeightLoaderSpec[Any], path: Path, written: Any) -> Header:
        return spec.read_header(path)

    def opened(
        self, spec: WeightLoaderSpec[Any], config: Any, context: BuildContext, header: Header
    ) -> WeightSource:
        return spec.build(config, context)(header)

    def test_suffixes_are_those_of_files(self, spec: WeightLoaderSpec[Any]) -> None:
        assert spec.suffixes, "WeightLoaderSpec.suffixes is empty; a loader is selected by file suffix"
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in spec.suffixes)

    def test_the_header_tells_what_is_there(
        self, header: Header, path: Path, written: dict[str, Any]
    ) -> None:
        assert set(header.tensors) == set(written)
        for name, tensor in written.items():
            info = header.tensors[name]
            assert info.name == name
            assert info.shape == tuple(tensor.shape), name
            assert info.dtype == str(tensor.dtype).removeprefix("torch."), name
            assert info.nbytes == tensor.numel() * tensor.element_size(), name
            assert info.file == path

    def test_the_header_needs_no_torch(
        self, spec: WeightLoaderSpec[Any], provided: Provided, path: Path, written: Any
    ) -> None:
        """Check that reading a header imports no torch, as planning reads headers."""
        if provided.dist is None and provided.plugin != CORE:
            pytest.skip("no installed distribution brings it")
        heavy = heavy_imports(
            "import sys, pathlib\n"
            "from lightx2v_core.discovery.plugins import load_plugins\n"
            "from lightx2v_core.discovery.registry import Registry\n"
            "spec = Registry(load_plugins()).find('weight_loader', sys.argv[1]).spec\n"
            "spec.read_header(pathlib.Path(sys.argv[2]))\n",
            forbidden=("torch", "numpy"),
            arguments=(provided.qualified, str(path)),
            env=same_imports(),
        )
        assert not heavy, f"read_header imports {', '.join(heavy)}"

    def test_tensors_are_read_bit_by_bit(
        self, spec: Any, config: Any, context: BuildContext, header: Header, written: dict[str, Any]
    ) -> None:
        import torch

        source = self.opened(spec, config, context, header)
        assert set(source.names()) == set(written)
        for name in sorted(written, reverse=True):  # in another order than in the file
            tensor = source.read(name)
            assert tensor.dtype == written[name].dtype, name
            assert tensor.shape == written[name].shape, name
            assert torch.equal(tensor, written[name]), f"{name} is read with different values"
            assert source.info(name) == header.tensors[name]
        source.close()

    def test_a_tensor_is_the_readers_own(
        self, spec: Any, config: Any, context: BuildContext, header: Header, written: dict[str, Any]
    ) -> None:
        """Check that tensors are independent of the source and survive its closing, and that reading reopens it."""
        import torch

        name = "blocks.0.weight"
        source = self.opened(spec, config, context, header)
        first = source.read(name)
        first.zero_()
        assert torch.equal(source.read(name), written[name]), "modifying a tensor changes the source"
        second = source.read(name)
        source.close()
        assert torch.equal(second, written[name]), "closing the source invalidated a tensor"
        assert torch.equal(source.read(name), written[name]), "a closed source cannot be reopened"
        source.close()

    def test_unknown_names_are_key_errors(
        self, spec: Any, config: Any, context: BuildContext, header: Header
    ) -> None:
        source = self.opened(spec, config, context, header)
        for ask in (source.info, source.read):
            with pytest.raises(KeyError):
                ask("no.such.tensor")
        source.close()

    def test_reading_into_memory_is_the_same(
        self, spec: Any, config: Any, context: BuildContext, header: Header, written: dict[str, Any]
    ) -> None:
        import torch

        source = self.opened(spec, config, context, header)
        if not is_direct(source):
            pytest.skip("it does not implement DirectSource, which is optional")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file system may not support uncached reads
            for name, tensor in written.items():
                for cached in (True, False):
                    out = torch.empty_like(tensor)
                    source.read_into(name, out, cached=cached)
                    assert torch.equal(out, tensor), name
        source.close()

    def test_several_files_are_one_source(
        self, spec: Any, config: Any, context: BuildContext, path: Path, written: dict[str, Any]
    ) -> None:
        import torch

        other = path.with_name(f"other{path.suffix}")
        more = {"blocks.2.weight": written["blocks.0.weight"] + 1}
        self.write(other, more)
        tensors = {**spec.read_header(path).tensors, **spec.read_header(other).tensors}
        source = self.opened(spec, config, context, Header(tensors=tensors))
        assert torch.equal(source.read("blocks.2.weight"), more["blocks.2.weight"])
        assert torch.equal(source.read("blocks.0.weight"), written["blocks.0.weight"])
        source.close()

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts bytes with /proc/self/io")
    def test_a_small_tensor_of_a_large_file_is_a_small_read(
        self, spec: Any, config: Any, context: BuildContext, path: Path, usable: None
    ) -> None:
        import torch

        large = 16 * 2**20
        self.write(path, {"large": torch.zeros(large // 4), "small": torch.ones(4)})
        before = _bytes_read()
        source = self.opened(spec, config, context, spec.read_header(path))
        assert torch.equal(source.read("small"), torch.ones(4))
        read = _bytes_read() - before
        source.close()
        assert read < large // 4, f"{read} bytes were read for a tensor of 16 bytes"

    def test_cut_files_are_refused(
        self, spec: Any, config: Any, context: BuildContext, path: Path, written: dict[str, Any]
    ) -> None:
        """Truncate a file at any length: the header or the read raises ``LightX2VError``, or the tensors are right."""
        import torch

        data = path.read_bytes()
        for length in {0, 1, 7, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:length])
            try:
                source = self.opened(spec, config, context, spec.read_header(path))
                values = {name: source.read(name) for name in source.names()}
            except LightX2VError:
                continue
            same = set(values) == set(written) and all(torch.equal(values[n], written[n]) for n in values)
            assert same, f"a file truncated to {length} of {len(data)} bytes is read as if complete"

    def test_a_file_that_is_cut_later_is_an_error(
        self, spec: Any, config: Any, context: BuildContext, path: Path, header: Header
    ) -> None:
        os.truncate(path, 16)
        source = self.opened(spec, config, context, header)
        with pytest.raises(LightX2VError):
            [source.read(name) for name in source.names()]

    def test_rubbish_is_refused(self, spec: Any, path: Path, usable: None) -> None:
        for rubbish in (b"not a checkpoint " * 99, bytes(4096), b"\xff" * 4096):
            path.write_bytes(rubbish)
            with pytest.raises(CheckpointError):
                spec.read_header(path)

    def test_nothing_in_a_file_is_run(
        self, spec: Any, config: Any, context: BuildContext, path: Path, tmp_path: Path, usable: None
    ) -> None:
        """Check that opening a pickle calls none of its functions."""
        import torch

        mark = tmp_path / "was-run"
        torch.save({"weight": _Calls(mark)}, path)
        with pytest.raises(LightX2VError):
            self.opened(spec, config, context, spec.read_header(path)).read("weight")
        assert not mark.exists(), "opening the file executed code from it"


class _Calls:
    """An object that creates a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _bytes_read() -> int:
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("rchar")))
