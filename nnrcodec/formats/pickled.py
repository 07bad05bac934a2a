"""Pickles as data: a reader that builds no class and calls nothing.

A pickle is a program for a machine with a stack. This is such a machine for the part of its
language that data need. What names a class or a function becomes a `Name`, and what would be built
by calling it a `Thing`; only containers, numbers and texts become values of Python, by the table
`_BUILDERS`. `pickletools` of the standard library reads the operations.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MOST_OPERATIONS = 20_000_000
"""Of one pickle: those of large vocabularies have some millions."""


class PickleError(ValueError):
    """A pickle is damaged, or does what data do not need; `args` has the reason."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class, a function or a value of a module, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Thing:
    """An object of a class that is not built.

    Parameters
    ----------
    maker : Name
        Its class, or the function that would return it.
    args : tuple
        What that would be called with.
    state : object
        What its attributes would be made of; None if there are none.
    items : dict or list
        What it would contain, if it is a kind of dict or list.
    """

    maker: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | list[Any] | None = None


class Ordered(OrderedDict[Any, Any]):
    """An OrderedDict, with the attributes that it has in the pickle, if any."""

    attributes: Any = None


@dataclass(frozen=True, slots=True)
class Persistent:
    """What is kept outside of the pickle; `key` says where."""

    key: Any


Make = Callable[[Name, tuple[Any, ...]], Any]
"""Returns what stands for the result of a call; a `Thing` if it has nothing better."""


def read_pickle(
    file: BinaryIO | bytes, make: Make | None = None, changes: dict[str, None] | None = None
) -> Any:
    """Return what a pickle describes.

    Parameters
    ----------
    file : binary file or bytes
        With its position at the pickle; behind it afterwards.
    make : callable, optional
        What stands for the results of calls that this module does not know.
    changes : dict of str to None, optional
        Gets, as keys, sentences on what has another type than in the program that wrote it.

    Raises
    ------
    PickleError
        It is damaged, or has operations that data do not need.
    """
    machine = _Machine(make or Thing, {} if changes is None else changes)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_OPERATIONS:
                raise PickleError(f"more than {MOST_OPERATIONS} operations")
            if operation.name == "STOP":
                break
            machine.step(operation.name, argument)
        return machine.result()
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PickleError(f"it is damaged: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise PickleError("it is too deep or too large") from error


_MARK = object()

_FROZENSETS = "frozensets become sets"
_BYTEARRAYS = "bytearrays become bytes"
_CHANGES: Mapping[tuple[str, str], str] = {
    ("builtins", "frozenset"): _FROZENSETS,
    ("__builtin__", "frozenset"): _FROZENSETS,
    ("builtins", "bytearray"): _BYTEARRAYS,
    ("__builtin__", "bytearray"): _BYTEARRAYS,
    ("collections", "defaultdict"): "defaultdicts become dicts",
    ("collections", "Counter"): "Counters become dicts",
    ("multiarray", "scalar"): "single numbers of NumPy become numbers of Python",
    ("_utils", "_rebuild_parameter"): "parameters become tensors",
    ("_utils", "_rebuild_parameter_with_state"): "parameters become tensors",
    ("_tensor", "_rebuild_from_type_v2"): "tensors of derived classes become plain ones",
}
"""By the last part of a module and the name of what is called, what it has instead."""

_TENSORS = {("_utils", f"_rebuild_tensor{version}") for version in ("_v2", "_v3")}
_REQUIRES_GRAD = 4
_TYPED = ("_tensor", "_rebuild_from_type_v2")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
_EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SKIPPED = {"PROTO", "FRAME"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


@dataclass(slots=True)
class _Machine:
    """The machine, one operation after the other."""

    make: Make
    changes: dict[str, None]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def result(self) -> Any:
        (value,) = self.stack
        if value is _MARK:
            raise PickleError("it is damaged: a mark is left")
        return value

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _SKIPPED:
            return
        if name in _LITERALS:
            if name == "BYTEARRAY8":
                self.changes[_BYTEARRAYS] = None
            stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _GETS:
            stack.append(self.memo[int(argument)])
        elif name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        else:
            operation = _OPERATIONS.get(name)
            if operation is None:
                raise PickleError(f"it has the operation {name}, which data do not need")
            operation(self, argument)

    def marked(self) -> list[Any]:
        """Take what is above the last mark off the stack, and the mark."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                items = self.stack[position + 1 :]
                del self.stack[position:]
                return items
        raise PickleError("it is damaged: a mark is missing")

    def name(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError("it is damaged: a name is no text")
        return Name(module, name)

    def call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple):
            raise PickleError("it is damaged: arguments are no tuple")
        if not isinstance(function, Name):
            return Thing(Name("?", type(function).__name__), args)
        builder = _BUILDERS.get((function.module, function.name))
        change = _change_by(function, args)
        if change is not None:
            self.changes[change] = None
        return self.make(function, args) if builder is None else builder(*args)


def _change_by(function: Name, args: tuple[Any, ...]) -> str | None:
    """Return what is otherwise in a result than the program that wrote it has it."""
    key = (function.module.rpartition(".")[2], function.name)
    if key in _TENSORS and len(args) > _REQUIRES_GRAD and args[_REQUIRES_GRAD] is True:
        return "tensors that require gradients no longer do"
    if key == _TYPED and len(args) > 1 and str(args[1]) == "torch.Tensor":
        return "tensors lose their attributes"
    return _CHANGES.get(key)


def _put_pairs(target: Any, items: list[Any]) -> None:
    if len(items) % 2:
        raise PickleError("it is damaged: a key without a value")
    if isinstance(target, Thing):
        if target.items is None:
            target.items = {}
        target = target.items
    if not isinstance(target, dict):
        raise PickleError(f"it is damaged: keys of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[checked_key(key)] = value


def _put_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, Thing):
        if target.items is None:
            target.items = []
        target = target.items
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(map(checked_key, items))
    else:
        raise PickleError(f"it is damaged: items of a {type(target).__name__}")


def checked_key(key: Any) -> Any:
    """Return a key of a mapping if hashing it takes no long time.

    Raises
    ------
    PickleError
        It is neither a number, a text or a name, nor a tuple of them.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not all(p is None or isinstance(p, str | int | float | bytes | Name) for p in parts):
        raise PickleError(f"a key that is a {type(key).__name__}")
    return key


def _setitem(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put_pairs(machine.stack[-1], [key, value])


def _setitems(machine: _Machine, _: Any) -> None:
    items = machine.marked()
    _put_pairs(machine.stack[-1], items)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    _put_items(machine.stack[-1], [value])


def _appends(machine: _Machine, _: Any) -> None:
    items = machine.marked()
    _put_items(machine.stack[-1], items)


def _collect(build: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def operation(machine: _Machine, _: Any) -> None:
        items = machine.marked()
        machine.stack.append(build(items))

    return operation


def _frozenset(machine: _Machine, _: Any) -> None:
    machine.changes[_FROZENSETS] = None
    machine.stack.append(set(map(checked_key, machine.marked())))


def _dict_of(items: list[Any]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    _put_pairs(result, items)
    return result


def _global(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.name(*argument.split(" ", 1)))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.name(module, name))


def _reduce(machine: _Machine, _: Any) -> None:
    args, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, args))


def _new_object_ex(machine: _Machine, _: Any) -> None:
    machine.stack.pop()  # keywords: what they would do is not known
    _reduce(machine, None)


def _instance(machine: _Machine, argument: Any) -> None:
    args = tuple(machine.marked())
    machine.stack.append(machine.call(machine.name(*argument.split(" ", 1)), args))


def _object(machine: _Machine, _: Any) -> None:
    function, *args = machine.marked()
    machine.stack.append(machine.call(function, tuple(args)))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, Ordered):
        target.attributes = state
    elif isinstance(target, Thing):
        target.state = state
    elif hasattr(target, "with_state"):
        built = target.with_state(state)
        machine.stack[-1] = built
        for place, value in machine.memo.items():
            if value is target:
                machine.memo[place] = built


def _persistent(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.make(Name("", "persistent"), (argument,)))


def _pop(machine: _Machine, _: Any) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.marked()


_OPERATIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "LIST": _collect(list),
    "TUPLE": _collect(tuple),
    "DICT": _collect(_dict_of),
    "FROZENSET": _frozenset,
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_ex,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _build,
    "PERSID": _persistent,
    "BINPERSID": lambda machine, _: _persistent(machine, machine.stack.pop()),
}


def _ordered(*args: Any) -> Ordered:
    result = Ordered()
    for pairs in args[:1]:
        for key, value in pairs:
            result[checked_key(key)] = value
    return result


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise PickleError(f"bytes in the encoding {encoding[:20]!r}")
    return text.encode(encoding)


def _set_of(*args: Any) -> set[Any]:
    return set(map(checked_key, args[0])) if args else set()


def _complex_of(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


_BUILTINS: Mapping[str, Callable[..., Any]] = {
    "set": _set_of,
    "frozenset": _set_of,
    "list": lambda *args: list(args[0]) if args else [],
    "tuple": lambda *args: tuple(args[0]) if args else (),
    "dict": lambda *args: dict(args[0]) if args and isinstance(args[0], dict) else {},
    "complex": _complex_of,
    "bytearray": lambda *args: args[0] if args and isinstance(args[0], bytes) else b"",
}


def _counter(counts: Any = None, *_: Any) -> dict[Any, Any]:
    if counts is not None and not isinstance(counts, dict):
        raise PickleError("it is damaged: a Counter of something else than a dict")
    return dict(counts or {})


_BUILDERS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): lambda *_: {},
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encoded,
    **{("builtins", name): build for name, build in _BUILTINS.items()},
    **{("__builtin__", name): build for name, build in _BUILTINS.items()},
}
"""What is built of plain values: no other class and no function is known."""
