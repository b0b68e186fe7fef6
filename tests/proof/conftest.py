"""A distribution that brings kernels that are wrong, and ones that are right, beside those of the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightx2v_core.testing import write_dist

pytest.importorskip("torch")

FAULTY = """
import os
from pathlib import Path

from lightx2v_core.api import AttentionSpec, LoraApplierSpec, QuantizerOptions, QuantizerSpec, hookimpl


def _built(make):
    def build(options, ctx):
        with Path(os.environ["FAULTY_MARK"]).open("a") as file:
            file.write("built" + chr(10))
        import faulty_kernels

        return make(faulty_kernels)

    return build


def _codes(name):
    from lightx2v_core.api import CodeQuantizer

    return _built(lambda kernels: CodeQuantizer(getattr(kernels, name)))


@hookimpl
def lightx2v_attention_backends():
    return [
        AttentionSpec(name="fast", summary="wrong", priority=50, build=_built(lambda kernels: kernels.unscaled)),
        AttentionSpec(name="sound", summary="right", priority=10, build=_built(lambda kernels: kernels.right)),
        AttentionSpec(name="leaves", summary="exits", build=_built(lambda kernels: kernels.exiting)),
    ]


@hookimpl
def lightx2v_quantizers():
    def make(name, layer, **more):
        return QuantizerSpec(name=name, summary="a product", config=QuantizerOptions,
                             formats=frozenset({"int8-channel"}), makes=lambda _options: "int8-channel",
                             build=_codes(layer), **more)

    return [make("fast-int8", "Saturating", priority=20), make("sound-int8", "Int8"), make("killed", "Killed"),
            make("exact-int8", "Unscaled", exact=True)]


@hookimpl
def lightx2v_lora_appliers():
    return [
        LoraApplierSpec(name="fast-lora", summary="wrong",
                        build=_built(lambda kernels: kernels.Applying(kernels.Clamping))),
        LoraApplierSpec(name="sound-lora", summary="right",
                        build=_built(lambda kernels: kernels.Applying(kernels.Merged))),
    ]
"""


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed distribution; its kernels write a line into the file ``FAULTY_MARK`` when built."""
    kernels = Path(__file__).with_name("kernels.py").read_text(encoding="utf-8")
    return write_dist(
        tmp_path_factory.mktemp("faulty"),
        "lightx2v-faulty",
        modules={"faulty_plugin.py": FAULTY, "faulty_kernels.py": kernels},
        plugins={"faulty": "faulty_plugin"},
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of Wan2.1."""
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    folder = tmp_path_factory.mktemp("tiny") / "model"
    writer.write_tiny(folder, 0)
    return Path(folder)
