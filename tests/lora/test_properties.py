"""Adapters on layers of every type: merging, attaching, switching and merging offline agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from lightx2v_core.api import BuildContext, Header, TensorInfo  # noqa: E402
from lightx2v_core.builtin.lora_dynamic import Dynamic  # noqa: E402
from lightx2v_core.builtin.lora_merge import Merge  # noqa: E402
from lightx2v_core.builtin.resident import Resident  # noqa: E402
from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header  # noqa: E402
from lightx2v_core.checkpoint.fill import SourceWeights  # noqa: E402
from lightx2v_core.checkpoint.serialize import serialize_safetensors  # noqa: E402
from lightx2v_core.lora.matching import match  # noqa: E402
from lightx2v_core.lora.scale import scaled  # noqa: E402
from lightx2v_core.spec.protocols import Adapter  # noqa: E402
from lightx2v_core.testing.profiles import examples  # noqa: E402

D = 8


class Norm(nn.Module):
    """Looks at its parameter itself, as many norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(D))

    def forward(self, x: Any) -> Any:
        return x / x.square().mean(-1, keepdim=True).add(1e-3).sqrt() * self.weight


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, D))
        self.norm = Norm()
        self.up = nn.Linear(D, 12)
        self.down = nn.Linear(12, D)

    def forward(self, x: Any) -> Any:
        shift, scale = self.modulation.unbind(1)
        return x + self.down(torch.tanh(self.up(self.norm(x) * (1 + scale) + shift)))


class Network(nn.Module):
    """A stranger's network, of which appliers know nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, (2, 1))
        self.words = nn.Embedding(5, D)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, 4)

    def forward(self, x: Any, words: Any) -> Any:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.words(words)[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens))


class Tensors:
    """A ``WeightSource`` of tensors in memory."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = tensors

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        tensor = self.tensors[name]
        return TensorInfo(name=name, shape=tuple(tensor.shape), dtype="float32", file=Path("memory"))

    def read(self, name: str, device: str = "cpu") -> Any:
        return self.tensors[name].clone()

    def close(self) -> None:
        """Nothing to close."""


def random_weights(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in Network().state_dict().items()
    }


BASE = random_weights(0)
SHAPES = {name: tuple(tensor.shape) for name, tensor in BASE.items()}


@frozen(kw_only=True)
class Lora:
    """A file in memory, and what it is to do, computed in another way than it is computed in the program."""

    tensors: Mapping[str, Any]
    added: Mapping[str, Any]
    strength: float
    config_alpha: float | None
    override: bool


@st.composite
def loras(draw: st.DrawFn) -> Lora:
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    config_alpha = draw(st.none() | st.floats(0.1, 8))
    override = config_alpha is not None and draw(st.booleans())
    names = draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, max_size=6, unique=True))
    tensors: dict[str, Any] = {}
    added: dict[str, Any] = {}

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * 0.3

    for name in names:
        base, _, parameter = name.rpartition(".")
        shape = SHAPES[name]
        kinds = ["diff"]
        if len(shape) > 1 and parameter == "weight":
            kinds += ["low-rank", "low-rank", "loha", "lokr"] + (["mid"] if len(shape) > 2 else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "diff":
            suffix = {"bias": "diff_b", "modulation": "diff_m"}.get(parameter, "diff")
            added[name] = tensors[f"{base}.{suffix}"] = random(*shape)
            continue
        rank, alpha = draw(st.integers(1, 5)), draw(st.none() | st.floats(0.25, 16))
        inner = shape[1:]
        if kind == "low-rank":
            down, up = random(rank, *inner), random(shape[0], rank, *(1,) * (len(inner) - 1))
            tensors |= {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}
            delta = torch.einsum("or,ri->oi", up.flatten(1).double(), down.flatten(1).double())
        elif kind == "mid":
            down, up, mid = (
                random(rank, inner[0], 1, 1),
                random(shape[0], rank, 1, 1),
                random(rank, rank, *inner[1:]),
            )
            tensors |= {f"{base}.lora_{k}.weight": t for k, t in (("down", down), ("up", up), ("mid", mid))}
            delta = torch.einsum(
                "oa,abyx,bi->oiyx", up.flatten(1).double(), mid.double(), down.flatten(1).double()
            )
        elif kind == "loha":
            columns = torch.Size(inner).numel()
            parts = {
                "w1_a": (shape[0], rank),
                "w1_b": (rank, columns),
                "w2_a": (shape[0], rank),
                "w2_b": (rank, columns),
            }
            made = {part: random(*size) for part, size in parts.items()}
            tensors |= {f"{base}.hada_{part}": tensor for part, tensor in made.items()}
            w = {part: tensor.double() for part, tensor in made.items()}
            delta = (w["w1_a"] @ w["w1_b"]) * (w["w2_a"] @ w["w2_b"])
        else:
            first, second = random(shape[0], 1), random(1, *inner)
            tensors |= {f"{base}.lokr_w1": first, f"{base}.lokr_w2": second}
            delta = torch.kron(first.double(), second.flatten(1).double())
            added[name] = delta.float().reshape(shape)
            continue
        if alpha is not None:
            tensors[f"{base}.alpha"] = torch.tensor(alpha)
        used = config_alpha if override else (alpha if alpha is not None else config_alpha)
        added[name] = (
            (delta * (1 if used is None else float(torch.tensor(used)) / rank)).float().reshape(shape)
        )
    strength = draw(st.floats(-2, 2).filter(lambda s: s == 0 or abs(s) > 0.01))
    return Lora(tensors=tensors, added=added, strength=strength, config_alpha=config_alpha, override=override)


def adapter(lora: Lora) -> Adapter:
    source = Tensors(lora.tensors)
    header = Header(tensors={name: source.info(name) for name in source.names()})
    found = match(header, SHAPES)
    assert found.whole, found
    changes = scaled(found.changes, source, stated={}, alpha=lora.config_alpha, override=lora.override)
    return Adapter(source=source, changes=changes, strength=lora.strength)


def filled(source: Any) -> tuple[Network, SourceWeights]:
    with torch.device("meta"):
        network = Network()
    weights = SourceWeights(network, source, lambda _count, _name: None)
    weights.fill("", "cpu")
    return network.eval(), weights


def run(network: Network) -> Any:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        return network(torch.randn(2, 3, 3, 4, generator=generator), torch.tensor([1, 3]))


def near(got: Any, wanted: Any) -> None:
    assert (got - wanted).norm() <= 1e-5 * wanted.norm() + 1e-7


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stack=st.lists(loras(), min_size=1, max_size=3))
def test_merged_attached_and_merged_offline_agree(stack: list[Lora], tmp_path_factory: Any) -> None:
    expected = {name: tensor.double() for name, tensor in BASE.items()}
    for lora in stack:
        for name, tensor in lora.added.items():
            expected[name] = expected[name] + lora.strength * tensor.double()
    adapters = [adapter(lora) for lora in stack]

    source = Merge().merged(Tensors(BASE), adapters)
    merged, _ = filled(source)
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=2e-6, rtol=2e-5)
    wanted = run(merged)

    attached, _ = filled(Tensors(BASE))
    Dynamic(BuildContext(), rank=4, reserve=False).attach(attached, adapters)
    near(run(attached), wanted)
    assert {name: tuple(t.shape) for name, t in attached.state_dict().items()} == SHAPES

    path = tmp_path_factory.mktemp("offline") / "merged.safetensors"
    path.write_bytes(b"".join(serialize_safetensors({name: source.read(name) for name in source.names()})))
    offline, _ = filled(SafetensorsSource(read_header(path)))
    assert torch.equal(run(offline), wanted)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sequence=st.lists(st.lists(loras(), max_size=3), min_size=2, max_size=4),
    rank=st.sampled_from([1, 4, 64]),
    reserve=st.booleans(),
)
def test_a_sequence_of_switches_ends_where_a_fresh_load_is(
    sequence: list[list[Lora]], rank: int, reserve: bool
) -> None:
    stacks = [[adapter(lora) for lora in stack] for stack in sequence]
    applier = Dynamic(BuildContext(), rank=rank, reserve=reserve)
    switched, _ = filled(Tensors(BASE))
    merged, offloader, base = Network(), Resident("cpu"), Tensors(BASE)
    with torch.device("meta"):
        merged = Network()
    weights = SourceWeights(merged, base, lambda _count, _name: None)
    offloader.place("dit", merged, weights, ())
    before = set(SHAPES)
    for stack in stacks:
        applier.attach(switched, stack)
        weights.source = Merge().merged(base, stack)
        offloader.refresh("dit", before)
        fresh, _ = filled(Merge().merged(base, stack))
        assert torch.equal(run(merged), run(fresh))
        near(run(switched), run(fresh))
    fresh, _ = filled(Tensors(BASE))
    Dynamic(BuildContext(), rank=rank, reserve=False).attach(fresh, stacks[-1])
    near(run(switched), run(fresh))
    applier.attach(switched, [])
    weights.source = base
    offloader.refresh("dit", before)
    plain, _ = filled(base)
    assert torch.equal(run(merged), run(plain))
    if not reserve:
        assert [type(module) for module in switched.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(run(switched), run(plain))


def test_magnitudes_bring_rows_to_their_length() -> None:
    """DoRA: of strength 1 the rows of the result have the lengths that the file says; in between it is on the way."""
    generator = torch.Generator().manual_seed(3)
    magnitude = torch.rand(12, generator=generator) + 0.5
    tensors = {
        "blocks.0.up.lora_A.weight": torch.randn(2, D, generator=generator),
        "blocks.0.up.lora_B.weight": torch.randn(12, 2, generator=generator),
        "blocks.0.up.lora_magnitude_vector": magnitude,
        "blocks.1.down.lora_A.weight": torch.randn(2, 12, generator=generator),
        "blocks.1.down.lora_B.weight": torch.randn(D, 2, generator=generator),
        "blocks.1.down.dora_scale": magnitude[None],
    }
    lora = Lora(tensors=tensors, added={}, strength=1.0, config_alpha=None, override=False)
    whole = Merge().merged(Tensors(BASE), [adapter(lora)])
    weight = BASE["blocks.0.up.weight"] + (
        tensors["blocks.0.up.lora_B.weight"] @ tensors["blocks.0.up.lora_A.weight"]
    )
    up = whole.read("blocks.0.up.weight")
    torch.testing.assert_close(up.norm(dim=1), magnitude)
    torch.testing.assert_close(up, weight / weight.norm(dim=1, keepdim=True) * magnitude[:, None])
    torch.testing.assert_close(whole.read("blocks.1.down.weight").norm(dim=0), magnitude)
    half = Merge().merged(Tensors(BASE), [adapter(Lora(**{**_fields(lora), "strength": 0.5}))])
    middle = (up + BASE["blocks.0.up.weight"]) / 2
    torch.testing.assert_close(half.read("blocks.0.up.weight"), middle)


def _fields(lora: Lora) -> dict[str, Any]:
    names = ("tensors", "added", "strength", "config_alpha", "override")
    return {name: getattr(lora, name) for name in names}


def test_an_alpha_of_zero_is_none_and_one_that_is_no_number_is_refused() -> None:
    from lightx2v_core.errors import CheckpointError

    def scale(alpha: float) -> float:
        tensors = {
            "head.lora_A.weight": torch.zeros(2, D), "head.lora_B.weight": torch.zeros(4, 2),
            "head.alpha": torch.tensor(alpha),
        }  # fmt: skip
        lora = Lora(tensors=tensors, added={}, strength=1.0, config_alpha=None, override=False)
        return adapter(lora).changes[0].scale

    assert scale(1.0) == 0.5
    assert scale(0.0) == 1.0
    with pytest.raises(CheckpointError, match=r"head\.alpha is nan"):
        scale(float("nan"))


@pytest.mark.parametrize(
    ("file", "config", "override", "scale"),
    [(4.0, None, False, 2.0), (4.0, 8.0, False, 2.0), (4.0, 8.0, True, 4.0), (None, 8.0, False, 4.0),
     (None, None, False, 1.0), (0.0, 8.0, False, 4.0)],
)  # fmt: skip
def test_whose_alpha_counts(file: float | None, config: float | None, override: bool, scale: float) -> None:
    """The file's, else the configuration's, else none; the configuration's first when it is to override."""
    tensors = {"head.lora_A.weight": torch.zeros(2, D), "head.lora_B.weight": torch.zeros(4, 2)}
    if file is not None:
        tensors["head.alpha"] = torch.tensor(file)
    lora = Lora(tensors=tensors, added={}, strength=1.0, config_alpha=config, override=override)
    assert adapter(lora).changes[0].scale == scale


def test_parts_of_a_joined_tensor_change_their_rows_only() -> None:
    from lightx2v_core.spec.components import KeyMap

    parts = KeyMap(name="other", renames=((r"^head\.to_([ab])\.(.+)$", r"head.\2#\1"),), joins=("a", "b"))
    tensors = {"head.to_b.lora_A.weight": torch.ones(1, D), "head.to_b.lora_B.weight": torch.ones(2, 1)}
    source = Tensors(tensors)
    header = Header(tensors={name: source.info(name) for name in tensors})
    found = Adapter(source=source, changes=match(header, SHAPES, (parts,)).changes)
    merged = Merge().merged(Tensors(BASE), [found])
    torch.testing.assert_close(
        merged.read("head.weight") - BASE["head.weight"], torch.tensor([0.0, 0, 1, 1])[:, None].expand(4, D)
    )
    attached, _ = filled(Tensors(BASE))
    Dynamic(BuildContext(), rank=4, reserve=False).attach(attached, [found])
    near(run(attached), run(filled(merged)[0]))
