"""Kernels that are right, and kernels with one fault each, in plain arithmetic: wrong on every machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from lightx2v_core.api import (
    AttentionSpec,
    CodeQuantizer,
    LoraApplierSpec,
    QuantizerOptions,
    QuantizerSpec,
    StoredLinear,
    changed,
    dequantize_weight,
    quantize_tokens,
)


class Int8(StoredLinear):
    """Codes of activations times codes of weights, exactly."""

    def product(self, x: Any, weight: Any) -> Any:
        return (x.long() @ weight.long().t()).double()

    def forward(self, x: Any) -> Any:
        codes, scale = quantize_tokens(x.reshape(-1, self.in_features), torch.int8)
        out = self.product(codes, self.weight) * scale * self.scales()
        out = out if self.bias is None else out + self.bias
        return out.to(self.dtype).view(*x.shape[:-1], self.out_features)


class Saturating(Int8):
    """As processors without VNNI multiply: codes of activations moved to 0..255, products of two neighbours added in 16
    bits, which do not hold two large ones."""

    def product(self, x: Any, weight: Any) -> Any:
        moved = x.long() + 128
        pairs = moved[:, None, 0::2] * weight[None, :, 0::2].long()
        pairs += moved[:, None, 1::2] * weight[None, :, 1::2].long()
        added = pairs.clamp(-(2**15), 2**15 - 1).sum(-1)
        return (added - 128 * weight.long().sum(1)).double()


class Wrapping(Int8):
    """Adds in 16 bits that wrap around."""

    def product(self, x: Any, weight: Any) -> Any:
        return super().product(x, weight).long().to(torch.int16).double()


class OneRow(Int8):
    """Wrong where there is a single row, which is often another kernel's."""

    def product(self, x: Any, weight: Any) -> Any:
        return super().product(x, weight) * (0.5 if len(x) == 1 else 1)


class Unscaled(Int8):
    """Takes one scale for all channels."""

    def scales(self) -> Any:
        return super().scales().mean().expand(self.out_features)


class Biasless(Int8):
    """Forgets the bias."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) - (0 if self.bias is None else self.bias)


class Dividing(Int8):
    """Divides a row of zeros by its largest value."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) + 0 * (x / x.abs().amax(dim=-1, keepdim=True)).mean(dim=-1, keepdim=True)


class Last(Int8):
    """Leaves the last inputs out, as a kernel with a wrong tail does."""

    def product(self, x: Any, weight: Any) -> Any:
        return super().product(x[:, :-16], weight[:, :-16])


class Raising(Int8):
    def forward(self, x: Any) -> Any:
        raise NotImplementedError("no kernel image is available\nfor execution on the device")


class Leaving(Int8):
    def forward(self, x: Any) -> Any:
        raise SystemExit(3)


class Speechless(Int8):
    def forward(self, x: Any) -> Any:
        class Mute(BaseException):
            def __str__(self) -> str:
                raise ValueError("no words")

        raise Mute


class Killed(Int8):
    """Ends its process, as an instruction does that the processor lacks."""

    def forward(self, x: Any) -> Any:
        os.kill(os.getpid(), signal.SIGILL)


class Exact(StoredLinear):
    """Decodes, in every format."""

    def forward(self, x: Any) -> Any:
        stored = {"weight": self.weight}
        if self.weight_scale is not None:
            stored["weight_scale"] = self.weight_scale
        return linear(x, dequantize_weight(stored, self.format).to(self.dtype), self.bias)


class Coarse(Exact):
    """Rounds activations to three bits and a sign: coarse, and no fault."""

    def forward(self, x: Any) -> Any:
        step = x.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-9) / 8
        return super().forward(((x.float() / step).round() * step).to(x.dtype))


def quantizer(layer: type[StoredLinear], *, formats: Sequence[str] = ("int8-channel",), **more: Any) -> Any:
    given = {
        "name": layer.__name__.lower(), "summary": "a product", "config": QuantizerOptions,
        "formats": frozenset(formats), "build": lambda _options, _ctx: CodeQuantizer(layer), **more,
    }  # fmt: skip
    return QuantizerSpec(**given)


def right(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    scores = torch.einsum("blhd,bshd->bhls", q.float(), k.float()) * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    return torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v.float()).to(q.dtype)


def unscaled(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    return right(q, k, v, scale=1.0)


def deaf(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """Does not listen to a scale that it is given."""
    return right(q, k, v)


def overflowing(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """Takes exp() of scores as they are."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    weights = (torch.einsum("blhd,bshd->bhls", q.float(), k.float()) * scale).exp()
    return torch.einsum("bhls,bshd->blhd", weights / weights.sum(-1, keepdim=True), v.float()).to(q.dtype)


def saturating(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """Holds scores in a type that ends at 16."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = (torch.einsum("blhd,bshd->bhls", q.float(), k.float()) * scale).clamp(-16, 16)
    return torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v.float()).to(q.dtype)


def mixing(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """Every element of the batch gets the keys of the first."""
    return right(q, k[:1].expand_as(k), v, scale=scale)


def forgetful(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """Leaves the keys behind the last whole tile out."""
    return right(q, k[:, : len(k[0]) // 32 * 32], v[:, : len(k[0]) // 32 * 32], scale=scale)


def exiting(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    raise SystemExit("this build is for another device")


def attention(function: Any, **more: Any) -> Any:
    given = {
        "name": function.__name__, "summary": "attention", "build": lambda _options, _ctx: function, **more,
    }  # fmt: skip
    return AttentionSpec(**given)


class Merged:
    """A source with the changes of adapters."""

    def __init__(self, base: Any, adapters: Sequence[Any]) -> None:
        self.base, self.adapters = base, adapters
        self.names, self.info, self.close = base.names, base.info, base.close

    def read(self, name: str, device: str = "cpu") -> Any:
        tensor = self.base.read(name, device)
        steps = [(a, c) for a in self.adapters for c in a.changes if c.target == name]
        return self.finished(changed(tensor, steps), tensor) if steps else tensor

    def finished(self, tensor: Any, plain: Any) -> Any:
        return tensor


class Clamping(Merged):
    """Holds what it merged in 8 bits."""

    def finished(self, tensor: Any, plain: Any) -> Any:
        return tensor.clamp(-128, 127)


class Twice(Merged):
    """Adds at twice the strength."""

    def finished(self, tensor: Any, plain: Any) -> Any:
        return 2 * tensor - plain


class Applying:
    def __init__(self, source: type[Merged]) -> None:
        self.source = source

    def merged(self, base: Any, adapters: Sequence[Any]) -> Any:
        return self.source(base, adapters) if adapters else base

    def attach(self, module: Any, adapters: Sequence[Any]) -> None:
        pass


class Sticking(Applying):
    """Keeps the adapter when it is taken away."""

    def merged(self, base: Any, adapters: Sequence[Any]) -> Any:
        self.kept: Any = adapters or getattr(self, "kept", ())
        return self.source(base, self.kept)


def applier(kind: type[Applying] = Applying, source: type[Merged] = Merged, **more: Any) -> Any:
    given = {
        "name": f"{kind.__name__}-{source.__name__}".lower(), "summary": "an applier",
        "build": lambda _options, _ctx: kind(source), **more,
    }  # fmt: skip
    return LoraApplierSpec(**given)


def provided(spec: Any, kind: str) -> Any:
    """A spec as a plugin brings it."""
    from lightx2v_core.discovery.plugins import Provided

    return Provided(kind=kind, plugin="given", spec=spec)


#: of each kind, faulty kernels and a word of the report on each
FAULTY: Mapping[str, Sequence[tuple[Any, str]]] = {
    "quantizer": [
        (quantizer(Saturating), "int8-channel product in float32"),
        (quantizer(Wrapping), ": error "),
        (quantizer(OneRow), "of 1 x 256"),
        (quantizer(Unscaled), ": error "),
        (quantizer(Biasless), ": error "),
        (quantizer(Dividing), "is nan instead of"),
        (quantizer(Last), ": error "),
        (quantizer(Raising), "NotImplementedError: no kernel image is available for execution on the device"),
        (quantizer(Leaving), "its proof failed: SystemExit: 3"),
        (quantizer(Speechless), "its proof failed: Mute"),
    ],
    "attention": [
        (attention(unscaled), "differs from softmax(q k^T * scale) v by"),
        (attention(deaf), "with a scale of 0.3"),
        (attention(overflowing), "with large scores in float32 of 33 queries and 70 keys of head dim 64"),
        (attention(saturating), "with large scores"),
        (attention(mixing), "differs from softmax(q k^T * scale) v by"),
        (attention(forgetful), "differs from softmax(q k^T * scale) v by"),
        (attention(exiting), "its proof failed: SystemExit: this build is for another device"),
    ],
    "lora_applier": [
        (applier(source=Clamping), "a linear with an adapter returns"),
        (applier(source=Twice), ": error "),
        (applier(Sticking), "after its adapter is removed"),
    ],
}
SOUND: Mapping[str, Sequence[Any]] = {
    "quantizer": [
        quantizer(Int8, formats=("int8-channel", "int8-tensor", "int8-tensor-static")),
        quantizer(
            Exact, formats=("fp8-channel", "fp8-block128", "fp8-e5m2-plain", "int8-tensor"), exact=True
        ),
        quantizer(Coarse, formats=("fp8-tensor", "int8-channel", "fp8-tensor-static")),
    ],
    "attention": [attention(right)],
    "lora_applier": [applier()],
}
