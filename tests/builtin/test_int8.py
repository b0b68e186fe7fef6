"""The int8 product of PyTorch, and the one that stands in for it on processors where it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from lightx2v_core.builtin.quant import int_mm  # noqa: E402

#: multiplies two full ranges on a CPU, and says how far off PyTorch's product and that of the layers are
PROGRAM = """
import torch
from lightx2v_core.builtin.quant import int_mm
product = int_mm.linear_for("cpu").keywords["product"]
x, weight = torch.full((40, 96), 127, dtype=torch.int8), torch.full((16, 96), 127, dtype=torch.int8)
exact = (x.long() @ weight.long().t())
for given in (int_mm.int8_product, product):
    print(int((given(x, weight).long() - exact).abs().max()))
print(product.__name__)
"""


@pytest.mark.parametrize("inputs", [1, 63, 1024, 1025, 5120])
@pytest.mark.parametrize("kind", ["random", "largest", "least", "opposite"])
def test_the_product_in_float32_is_exact(inputs: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(inputs)
    x, weight = (torch.randint(-128, 128, (n, inputs), generator=generator).to(torch.int8) for n in (7, 5))
    if kind != "random":
        x.fill_(-128 if kind == "least" else 127)
        weight.fill_(127 if kind == "largest" else -128)
    assert torch.equal(int_mm.float_product(x, weight).long(), x.long() @ weight.long().t())


@pytest.mark.parametrize("isa", ["", "AVX2", "AVX512_CORE", "SSE41"])
def test_layers_are_right_whatever_the_processor_can_do(isa: str) -> None:
    """Without VNNI, oneDNN adds products in 16 bits; ``ONEDNN_MAX_CPU_ISA`` disables VNNI."""
    env = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
    )
    theirs, ours, name = done.stdout.split()
    assert ours == "0"
    assert name == ("int8_product" if theirs == "0" else "float_product")


def test_a_compiler_keeps_one_graph_of_either_product() -> None:
    from lightx2v_core.api import BuildContext, quantize_weight
    from lightx2v_core.runtime.proof.products import fill_layer, layer_of

    stored = quantize_weight(torch.randn(24, 40), "int8-channel")
    x, outputs = torch.randn(3, 40), []
    for product in (int_mm.int8_product, int_mm.float_product):
        layer = layer_of("int8-channel", stored, torch.zeros(24))
        plain = torch.nn.Linear(40, 24, device="meta")
        module = fill_layer(
            int_mm.Int8Linear(plain, layer, product=product), stored, torch.zeros(24), BuildContext()
        )
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), module(x))
        outputs.append(module(x))
    if int_mm._cpu_is_right():
        torch.testing.assert_close(*outputs)
