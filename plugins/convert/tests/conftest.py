"""Fixtures: where the reference set of quantized networks lies, and a tiny model that its networks fit into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")


def pytest_configure() -> None:
    from lightx2v_core.testing.signals import hear_signals

    hear_signals()


#: folders of the reference set -> the file to name, where it is not the folder itself
LAYOUTS = {
    "int8_single": "wan2.1_t2v_int8.safetensors",
    "int8_blocks": "",
    "fp8_single": "wan2.1_t2v_fp8.safetensors",
    "fp8_blocks": "",
    "comfy_fp8_scaled": "wan2.1_t2v_fp8_scaled.safetensors",
    "ckpt": "",
}


def _repository() -> Path:
    for folder in Path(__file__).resolve().parents:
        if (folder / "constraints.txt").is_file():
            return folder
    return Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """``golden(case)`` is the folder of a case of reference data; the test is skipped without it."""
    repository = _repository()
    places = (repository.parent / "shared" / "golden", repository / "tests" / "golden")

    def find(case: str) -> Path:
        for place in places:
            if (place / case).is_dir():
                return place / case
        pytest.skip(f"golden case {case!r} is in neither ../shared/golden nor tests/golden")

    return find


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; its text encoder and VAE fit the networks of the reference set."""
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    folder = tmp_path_factory.mktemp("tiny") / "model"
    writer.write_tiny(folder, 0)
    return Path(folder)


@pytest.fixture(scope="session")
def case(golden: Callable[[str], Path]) -> Path:
    """The folder of the reference set."""
    return golden("quant_wan21_t2v")


@pytest.fixture(scope="session")
def path_of(case: Path) -> Callable[[str], Path]:
    """The file or folder of a layout; the test is skipped where it is not available."""

    def find(layout: str) -> Path:
        path = case / layout / LAYOUTS[layout]
        if not path.exists():
            pytest.skip(f"{layout} is in the full set of fixtures only")
        return path

    return find
