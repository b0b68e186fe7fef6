"""Reads the pickled index of a torch.save file without unpickling it.

A pickle is a program for a stack machine that can import and call anything. This interpreter knows only what
torch writes for (nested) dicts of tensors: containers, numbers, strings, storages and the rebuild functions of
tensors, all as inert data. Every other name or opcode is refused. Opcodes: Python's ``pickletools``.

A few bytes can ask for very much work, so there are limits, each above what 150,000 tensors take: opcodes, values on
the stack, axes of a tensor, the size of a number.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from attrs import frozen

from lightx2v_core.api import DTYPE_BYTES


class UnsafePickle(Exception):
    """The index wants something that is no tensor."""


@frozen
class StoredTensor:
    """A tensor in the archive: a view of the record ``storage`` of ``storage_bytes``, counted in elements."""

    storage: str
    storage_bytes: int
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def span(self) -> int:
        """Elements from the first to the last one that belongs to it."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie one after the other; the strides of axes of length one say nothing."""
        step = 1
        for n, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if n > 1 and stride != step:
                return False
            step *= n
        return True


@frozen
class _Global:
    name: str


@frozen
class _Storage:
    key: str
    dtype: str
    nbytes: int


#: a tensor takes 30 opcodes, and one that is a parameter 40
_MAX_OPCODES = 6_000_000
#: writers put at most 1000 items of a dict on the stack before they are set; others may put all of them
_MAX_STACK = 1_000_000
_MAX_MARKS = 1000  # what is in a dict in a dict has a mark for each; real ones are three deep
_MAX_AXES = 64  # of torch
_MAX_BITS = 64
#: characters of a name in a message
_SHOWN = 200
_MAX_NUMBER = 1 << 48  # sizes above it are no real ones, and torch overflows above 2 ** 63
_STORAGES = {
    f"torch.{kind}Storage": dtype
    for kind, dtype in {
        "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
        "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    }.items()
}  # fmt: skip
_STORAGES |= {"torch.storage.UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
_DTYPES = {
    f"torch.{name}": name
    for name in (
        "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "int64",
        "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
    )
}  # fmt: skip


def read_index(data: bytes) -> object:
    """Read the value of a pickle made of containers and tensors. ``UnsafePickle`` names what else it holds."""
    machine = _Machine()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count >= _MAX_OPCODES or len(machine.stack) > _MAX_STACK:
                raise UnsafePickle(f"its index is no list of tensors: it goes on and on at byte {position}")
            if opcode.name == "STOP":
                return machine.stack.pop()
            handler = _OPCODES.get(opcode.name)
            if handler is None:
                raise UnsafePickle(
                    f"opcode {opcode.name} at byte {position} has no place in a file of tensors"
                )
            handler(machine, argument)
    except UnsafePickle:
        raise
    except Exception as exc:  # a damaged pickle can fail anywhere: empty stack, wrong types, bad text
        raise UnsafePickle(f"its index is damaged ({type(exc).__name__})") from None
    raise UnsafePickle("its index is cut off")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        #: where on the stack there are marks
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self) -> list[object]:
        at = self.marks.pop()
        if at > len(self.stack):
            raise IndexError(at)
        items = self.stack[at:]
        del self.stack[at:]
        return items


def _call(machine: _Machine) -> None:
    function, arguments = machine.pop(2)
    name = function.name if isinstance(function, _Global) else type(function).__name__
    if name == "collections.OrderedDict" and not arguments:
        machine.push({})
    elif name == "torch.Size":
        if not isinstance(arguments[0], list | tuple) or len(arguments[0]) > _MAX_AXES:
            raise UnsafePickle("a tensor in it has an impossible shape")
        machine.push(tuple(arguments[0]))
    elif name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, stride = arguments[:4]
        machine.push(_tensor(storage, offset, shape, stride, storage.dtype))
    elif name == "torch._utils._rebuild_tensor_v3":
        storage, offset, shape, stride = arguments[:4]
        machine.push(_tensor(storage, offset, shape, stride, _DTYPES[arguments[6].name]))
    elif name == "torch._utils._rebuild_parameter" and isinstance(arguments[0], StoredTensor):
        machine.push(arguments[0])
    else:
        raise UnsafePickle(f"it calls {name}, which is no tensor")


def _tensor(storage: object, offset: Any, shape: object, stride: object, dtype: str) -> StoredTensor:
    """Make a view of a storage, which has to lie inside of it."""
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise UnsafePickle("a tensor in it has no storage, shape or strides")
    if len(shape) != len(stride) or len(shape) > _MAX_AXES:
        raise UnsafePickle("a tensor in it has an impossible shape")
    if not all(type(n) is int and 0 <= n <= _MAX_NUMBER for n in (offset, *shape, *stride)):
        raise UnsafePickle("a tensor in it has an impossible shape")
    if prod(shape) > _MAX_NUMBER:
        raise UnsafePickle("a tensor in it has an impossible shape")
    tensor = StoredTensor(storage.key, storage.nbytes, dtype, shape, stride, offset)
    if (offset + tensor.span) * DTYPE_BYTES[dtype] > storage.nbytes:
        raise UnsafePickle("a tensor in it reaches beyond its storage")
    return tensor


def _persistent(machine: _Machine) -> None:
    """``("storage", type, key, location, number of elements)``. Values are never printed: they may be huge."""
    (pid,) = machine.pop(1)
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _Global):
        raise UnsafePickle("it refers to something outside that is no storage")
    dtype = _STORAGES.get(pid[1].name)
    if dtype is None:
        raise UnsafePickle(f"it has a storage of type {pid[1].name[:_SHOWN]}")
    key, elements = pid[2], pid[4]
    if type(key) is not str or type(elements) is not int or not 0 <= elements <= _MAX_NUMBER:
        raise UnsafePickle("it has a storage without a name or a size")
    machine.push(_Storage(key, dtype, elements * DTYPE_BYTES[dtype]))


_CALLABLE = frozenset(
    {"collections.OrderedDict", "torch.Size"}
    | {f"torch._utils._rebuild_{what}" for what in ("tensor_v2", "tensor_v3", "parameter")}
)


def _global(machine: _Machine, name: str) -> None:
    if name not in _CALLABLE and name not in _STORAGES and name not in _DTYPES:
        raise UnsafePickle(f"it names {name[:_SHOWN]}, which is no tensor")
    machine.push(_Global(name))


def _stack_global(machine: _Machine) -> None:
    module, name = machine.pop(2)
    _global(machine, f"{module}.{name}")


def _set_items(machine: _Machine, items: Sequence[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict):
        raise UnsafePickle("it sets items of something that is no dict")
    if not all(type(key) in (str, int) for key in items[::2]):  # hashing others may never end
        raise UnsafePickle("it has a dict with keys that are no names")
    target.update(zip(items[::2], items[1::2], strict=True))


def _append(machine: _Machine, items: Sequence[object]) -> None:
    machine.stack[-1].extend(items)


def _drop_state(machine: _Machine) -> None:
    """BUILD sets attributes, such as ``_metadata`` of a state dict: not needed, never applied."""
    machine.pop(1)
    if not isinstance(machine.stack[-1], dict):
        raise UnsafePickle("it sets attributes of something that is no dict")


def _remember(machine: _Machine, key: int | None) -> None:
    machine.memo[len(machine.memo) if key is None else key] = machine.stack[-1]


def _value(machine: _Machine, argument: object) -> None:
    machine.push(argument)


def _number(machine: _Machine, argument: int) -> None:
    """Push a number. A longer one can be no size, and is not hashed and compared for nothing."""
    if argument.bit_length() > _MAX_BITS:
        raise UnsafePickle("it has a number that can be no size")
    machine.push(argument)


def _mark(machine: _Machine) -> None:
    """Set a mark. Beyond any nesting of dicts and tuples there is no use for another one."""
    if len(machine.marks) > _MAX_MARKS:
        raise UnsafePickle("its index is no list of tensors: it nests without end")
    machine.marks.append(len(machine.stack))


_Handler = Callable[[_Machine, Any], None]
_OPCODES: dict[str, _Handler] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, a: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT"), _value),
    **dict.fromkeys(("LONG1", "LONG4"), _number),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _value),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[a])),
    "MEMOIZE": lambda m, a: _remember(m, None),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "MARK": lambda m, a: _mark(m),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE": lambda m, a: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, a: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, a: m.push(tuple(m.pop(3))),
    "SETITEM": lambda m, a: _set_items(m, m.pop(2)),
    "SETITEMS": lambda m, a: _set_items(m, m.since_mark()),
    "APPEND": lambda m, a: _append(m, m.pop(1)),
    "APPENDS": lambda m, a: _append(m, m.since_mark()),
    "GLOBAL": lambda m, a: _global(m, a.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, a: _stack_global(m),
    "BINPERSID": lambda m, a: _persistent(m),
    "REDUCE": lambda m, a: _call(m),
    "BUILD": lambda m, a: _drop_state(m),
}
