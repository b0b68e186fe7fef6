"""A reader of the pickled index of torch.save files that does not unpickle it.

A pickle is a program for a stack machine that can import and call anything. This interpreter supports only the output
of torch for (nested) dicts of tensors: containers, numbers, strings, storages and the rebuild functions of tensors,
all as inert data. Every other name or opcode is rejected. Opcodes: Python's ``pickletools``.

A few bytes can cause a lot of work, so opcodes, stack depth, tensor axes and number sizes are limited; each limit is
above the need of 150,000 tensors.
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
    """The index contains or calls something other than tensors."""


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
        """Return the number of elements from its first to its last one in the storage."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def contiguous(self) -> bool:
        """Return whether its elements are adjacent and in order; strides of axes of length one do not count."""
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


#: a tensor needs 30 opcodes, a parameter 40
_MAX_OPCODES = 6_000_000
#: torch pushes at most 1000 dict items before it sets them; other writers may push all of them
_MAX_STACK = 1_000_000
_MAX_MARKS = 1000  # one per level of nesting; real files have three levels
_MAX_AXES = 64  # torch's limit
_MAX_BITS = 64
#: maximum length of a name in a message, in characters
_SHOWN = 200
_MAX_NUMBER = 1 << 48  # real sizes are smaller, and torch overflows above 2 ** 63
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
    """Read the value of a pickle of containers and tensors. Raises ``UnsafePickle`` for any other content."""
    machine = _Machine()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count >= _MAX_OPCODES or len(machine.stack) > _MAX_STACK:
                raise UnsafePickle(
                    f"its index is not a list of tensors: too many opcodes or values at byte {position}"
                )
            if opcode.name == "STOP":
                return machine.stack.pop()
            handler = _OPCODES.get(opcode.name)
            if handler is None:
                raise UnsafePickle(f"unsupported opcode {opcode.name} at byte {position} of its index")
            handler(machine, argument)
    except UnsafePickle:
        raise
    except Exception as exc:  # a damaged pickle can fail anywhere: empty stack, wrong types, bad text
        raise UnsafePickle(f"its index is damaged ({type(exc).__name__})") from None
    raise UnsafePickle("its index is truncated")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        #: positions of marks on the stack
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
            raise UnsafePickle("a tensor has an invalid shape")
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
        raise UnsafePickle(f"it calls {name}, which is not part of a tensor")


def _tensor(storage: object, offset: Any, shape: object, stride: object, dtype: str) -> StoredTensor:
    """Build a view of a storage, checking that it lies within the storage."""
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise UnsafePickle("a tensor has no storage, shape or strides")
    if len(shape) != len(stride) or len(shape) > _MAX_AXES:
        raise UnsafePickle("a tensor has an invalid shape")
    if not all(type(n) is int and 0 <= n <= _MAX_NUMBER for n in (offset, *shape, *stride)):
        raise UnsafePickle("a tensor has an invalid shape")
    if prod(shape) > _MAX_NUMBER:
        raise UnsafePickle("a tensor has an invalid shape")
    tensor = StoredTensor(storage.key, storage.nbytes, dtype, shape, stride, offset)
    if (offset + tensor.span) * DTYPE_BYTES[dtype] > storage.nbytes:
        raise UnsafePickle("a tensor extends beyond its storage")
    return tensor


def _persistent(machine: _Machine) -> None:
    """Push the storage of ``("storage", type, key, location, number of elements)``.

    Messages never contain its values, which may be huge.
    """
    (pid,) = machine.pop(1)
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _Global):
        raise UnsafePickle("it has an external reference that is not a storage")
    dtype = _STORAGES.get(pid[1].name)
    if dtype is None:
        raise UnsafePickle(f"unsupported storage type {pid[1].name[:_SHOWN]}")
    key, elements = pid[2], pid[4]
    if type(key) is not str or type(elements) is not int or not 0 <= elements <= _MAX_NUMBER:
        raise UnsafePickle("a storage has no valid name or size")
    machine.push(_Storage(key, dtype, elements * DTYPE_BYTES[dtype]))


_CALLABLE = frozenset(
    {"collections.OrderedDict", "torch.Size"}
    | {f"torch._utils._rebuild_{what}" for what in ("tensor_v2", "tensor_v3", "parameter")}
)


def _global(machine: _Machine, name: str) -> None:
    if name not in _CALLABLE and name not in _STORAGES and name not in _DTYPES:
        raise UnsafePickle(f"it refers to {name[:_SHOWN]}, which is not part of a tensor")
    machine.push(_Global(name))


def _stack_global(machine: _Machine) -> None:
    module, name = machine.pop(2)
    _global(machine, f"{module}.{name}")


def _set_items(machine: _Machine, items: Sequence[object]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict):
        raise UnsafePickle("it sets items of an object that is not a dict")
    if not all(type(key) in (str, int) for key in items[::2]):  # hashing other keys may never end
        raise UnsafePickle("a dict has keys that are neither names nor numbers")
    target.update(zip(items[::2], items[1::2], strict=True))


def _append(machine: _Machine, items: Sequence[object]) -> None:
    machine.stack[-1].extend(items)


def _drop_state(machine: _Machine) -> None:
    """Discard the state of BUILD, which sets attributes such as ``_metadata`` of a state dict."""
    machine.pop(1)
    if not isinstance(machine.stack[-1], dict):
        raise UnsafePickle("it sets attributes of an object that is not a dict")


def _remember(machine: _Machine, key: int | None) -> None:
    machine.memo[len(machine.memo) if key is None else key] = machine.stack[-1]


def _value(machine: _Machine, argument: object) -> None:
    machine.push(argument)


def _number(machine: _Machine, argument: int) -> None:
    """Push a number. Longer ones cannot be sizes and are rejected before they are hashed or compared."""
    if argument.bit_length() > _MAX_BITS:
        raise UnsafePickle("a number in it is too large for a size")
    machine.push(argument)


def _mark(machine: _Machine) -> None:
    """Set a mark, up to a limit far above the nesting of real files."""
    if len(machine.marks) > _MAX_MARKS:
        raise UnsafePickle("its index is not a list of tensors: it is nested too deeply")
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
