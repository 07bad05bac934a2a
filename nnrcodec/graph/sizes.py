"""Static analysis of a graph: numbers and tensor shapes that are known without running it.

A graph has the example sizes of its inputs. From these follow numbers computed from sizes, and many
shapes: of new, repeated, padded and elementwise combined tensors. Where nothing is known, the
result is None, never a guess. So a reader refuses numbers beyond 64 bits and tensors beyond its
limits before the network runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnrcodec.graph.graph import Argument, Graph, Input, Node, Ref, Word
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.scalars import FUNCTIONS, Number, ScalarError, fits
from nnrcodec.model.dtypes import item_bytes

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A tensor of unknown shape with at least this number of elements."""

    elements: int


Known = Number | Shape | AtLeast | None
"""A number, the shape of a tensor, its least number of elements, or None if nothing is known."""

Given = Mapping[str, Any]
"""The arguments of a node: numbers and shapes where they are known, else None."""


def example_shape(graph: Graph, value: Input) -> Shape:
    """Return the shape that an input had when the network was exported."""
    return tuple(graph.dims[s].example if isinstance(s, str) else s for s in value.shape)


def known_inputs(graph: Graph) -> list[Known]:
    """Return what is known of the inputs; nothing for an example of size 0."""
    shapes = [example_shape(graph, value) for value in graph.inputs]
    return [None if 0 in shape else shape for shape in shapes]


def known_value(node: Node, known: Sequence[Known]) -> Known:
    """Return what is known of the value of a legal node.

    Parameters
    ----------
    node : Node
        A node whose arguments have the kinds that its operator takes.
    known : sequence of Known
        What is known of earlier values, by number.

    Raises
    ------
    ScalarError
        If it computes a number that is undefined or does not fit in 64 bits, or an invalid shape.
    """
    if node.op in FUNCTIONS:
        numbers = [_resolved(argument, known) for argument in node.args]
        all_known = all(isinstance(number, bool | int | float) for number in numbers)
        return FUNCTIONS[node.op](*numbers) if all_known and not node.kwargs else None
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    names = (parameter.name for parameter in OPERATORS[node.op].positional)
    arguments = (*zip(names, node.args, strict=False), *node.kwargs)
    return rule({name: _resolved(argument, known) for name, argument in arguments})


def value_bytes(node: Node, value: Known) -> int:
    """Return the least number of bytes of a value, 0 if it is not known or only a view."""
    if isinstance(value, tuple) and node.op not in _VIEWS:
        elements = math.prod(value)
    elif isinstance(value, AtLeast):
        elements = value.elements
    else:
        return 0
    for _, argument in node.kwargs:
        if isinstance(argument, Word) and argument.kind == "dtype":
            return elements * item_bytes(argument.value)
    return elements


def _resolved(argument: Argument, known: Sequence[Known]) -> Any:
    if isinstance(argument, Ref):
        value = known[argument.index]
        return None if isinstance(value, AtLeast) else value
    if isinstance(argument, tuple):
        return tuple(_resolved(item, known) for item in argument)
    return argument if isinstance(argument, bool | int | float) else None


def _sizes(value: Any) -> Shape | None:
    """Return a list of sizes if all of them are known; a single number is a list of one."""
    items = value if isinstance(value, tuple) else (value,)
    return items if all(type(item) is int for item in items) else None


def _legal(*shape: int) -> Shape:
    if any(size < 0 for size in shape):
        raise ScalarError(f"there is no tensor of shape {list(shape)}")
    if not fits(math.prod(shape)):
        raise ScalarError(f"a tensor of shape {list(shape)} has more than 2^63 elements")
    return shape


def _at_least(*shape: int) -> AtLeast:
    return AtLeast(math.prod(_legal(*shape)))


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ScalarError(f"there is no axis {axis} of {len(shape)}")
    return axis


def _same(given: Given) -> Known:
    shape = given["self"]
    return shape if isinstance(shape, tuple) else None


_OPERANDS = (
    *("self", "other", "condition", "exponent", "end", "weight", "tensor1", "tensor2"),
    *("min", "max"),
)


def _broadcast(given: Given) -> Known:
    operands = [given[name] for name in _OPERANDS if name in given]
    shapes = [operand for operand in operands if not isinstance(operand, bool | int | float)]
    if not all(isinstance(shape, tuple) for shape in shapes):
        return None
    axes = max(map(len, shapes), default=0)
    result = []
    for sizes in zip(*((1,) * (axes - len(shape)) + shape for shape in shapes), strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            raise ScalarError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not fit")
        result.append(others.pop() if others else 1)
    return _legal(*result)


def _sized(given: Given) -> Known:
    sizes = _sizes(given.get("size"))
    return None if sizes is None else _legal(*sizes)


def _eye(given: Given) -> Known:
    n = given.get("n")
    return _legal(n, n) if type(n) is int else None


def _arange(given: Given) -> Known:
    start, end, step = given.get("start", 0), given.get("end"), given.get("step", 1)
    if any(number is None for number in (start, end, step)):
        return None
    try:
        return _legal(math.ceil((end - start) / step))
    except ScalarError:
        raise
    except (ArithmeticError, ValueError) as error:
        raise ScalarError(f"there is no range from {start} to {end} by {step}") from error


def _window(given: Given) -> Known:
    length = given.get("window_length")
    return _legal(length) if type(length) is int else None


def _linspace(given: Given) -> Known:
    steps = given.get("steps")
    return _legal(steps) if type(steps) is int else None


def _repeat(given: Given) -> Known:
    repeats, shape = _sizes(given.get("repeats", given.get("dims"))), given["self"]
    if repeats is None:
        return None
    if not isinstance(shape, tuple):
        return _at_least(*repeats)
    axes = max(len(shape), len(repeats))
    sizes = (1,) * (axes - len(shape)) + shape
    times = (1,) * (axes - len(repeats)) + repeats
    return _legal(*(s * t for s, t in zip(sizes, times, strict=True)))


def _repeat_interleave(given: Given) -> Known:
    repeats, shape, axis = given.get("repeats"), given["self"], given.get("dim")
    if type(repeats) is not int:
        return None
    if not isinstance(shape, tuple):
        return _at_least(repeats)
    if type(axis) is not int:
        return _legal(math.prod(shape) * repeats)
    sizes = list(shape)
    sizes[_axis(axis, shape)] *= repeats
    return _legal(*sizes)


def _pad(given: Given) -> Known:
    """Return the shape after padding; padding starts with the last axis."""
    pad, shape = _sizes(given.get("pad", given.get("padding"))), given["self"]
    if pad is None or len(pad) % 2:
        return None
    added = [a + b for a, b in zip(pad[::2], pad[1::2], strict=True)][::-1]
    if not isinstance(shape, tuple):
        return _at_least(*(max(size, 0) for size in added)) if added else None
    if len(added) > len(shape):
        raise ScalarError(f"{len(added)} axes of {len(shape)} are padded")
    first = len(shape) - len(added)
    return _legal(*shape[:first], *(s + a for s, a in zip(shape[first:], added, strict=True)))


def _expand(given: Given) -> Known:
    sizes, shape = _sizes(given.get("size")), given["self"]
    if sizes is None or not isinstance(shape, tuple) or len(sizes) < len(shape):
        return None
    own = (1,) * (len(sizes) - len(shape)) + shape
    return _legal(*(o if size == -1 else size for size, o in zip(sizes, own, strict=True)))


def _view(given: Given) -> Known:
    sizes, shape = _sizes(given.get("size", given.get("shape"))), given["self"]
    if sizes is None:
        return None
    inferred = sizes.count(-1)
    if inferred > 1:
        raise ScalarError("only one size can be -1")
    given_elements = math.prod(size for size in sizes if size != -1)
    if not isinstance(shape, tuple):
        return None if inferred else _legal(*sizes)
    elements = math.prod(shape)
    divides = given_elements != 0 and elements % given_elements == 0
    if not (divides if inferred else given_elements == elements):
        raise ScalarError(f"{elements} elements have no shape {list(sizes)}")
    return _legal(*(elements // given_elements if size == -1 else size for size in sizes))


def _one_hot(given: Given) -> Known:
    classes, shape = given.get("num_classes", -1), given["self"]
    if type(classes) is not int or classes < 0:
        return None
    return _legal(*shape, classes) if isinstance(shape, tuple) else _at_least(classes)


def _diag_embed(given: Given) -> Known:
    shape, offset = given["self"], given.get("offset", 0)
    if type(offset) is not int:
        return None
    own = shape[-1] if isinstance(shape, tuple) and shape else 0
    return _at_least(own + abs(offset), own + abs(offset))


def _resized(given: Given) -> Known:
    sizes, shape = _sizes(given.get("output_size")), given.get("self", given.get("input"))
    if sizes is None:
        return None
    return _legal(*shape[:2], *sizes) if isinstance(shape, tuple) else _at_least(*sizes)


def _histogram(given: Given) -> Known:
    bins = given.get("bins", 100)
    return _legal(bins) if type(bins) is int else None


def _transformed(given: Given) -> Known:
    """Return how many elements a Fourier transform to given sizes has at least, halved or not."""
    sizes = _sizes(given.get("n", given.get("s")))
    return None if sizes is None else _at_least(*(max(size, 2) // 2 for size in sizes))


def _inverse_of_short_times(given: Given) -> Known:
    length = given.get("length")
    return _at_least(length) if type(length) is int else None


def _diagonal_matrix(given: Given) -> Known:
    shape, offset = given["self"], given.get("diagonal", 0)
    if not isinstance(shape, tuple) or len(shape) != 1 or type(offset) is not int:
        return None
    return _legal(shape[0] + abs(offset), shape[0] + abs(offset))


def _kronecker(given: Given) -> Known:
    a, b = given["self"], given["other"]
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        return None
    return _at_least(math.prod(a), math.prod(b))


def _size_of(given: Given) -> Known:
    shape, axis = given["self"], given.get("dim")
    if not isinstance(shape, tuple) or type(axis) is not int:
        return None
    size: int = shape[_axis(axis, shape)]
    return size


def _count_of(given: Given) -> Known:
    shape = given["self"]
    return math.prod(shape) if isinstance(shape, tuple) else None


_BY_NAME: Mapping[str, Callable[[Given], Known]] = {
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"), _sized),
    **dict.fromkeys(("repeat", "tile"), _repeat),
    **dict.fromkeys(("view", "reshape"), _view),
    "eye": _eye,
    "arange": _arange,
    "linspace": _linspace,
    **dict.fromkeys(("hann_window", "hamming_window", "blackman_window"), _window),
    "repeat_interleave": _repeat_interleave,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "expand": _expand,
    "one_hot": _one_hot,
    "diag_embed": _diag_embed,
    "diag": _diagonal_matrix,
    "histc": _histogram,
    "istft": _inverse_of_short_times,
    "kron": _kronecker,
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), _resized),
    **dict.fromkeys(
        (
            *("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_fft2", "fft_ifft2"),
            *("fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"),
        ),
        _transformed,
    ),
    "sym_size": _size_of,
    "sym_numel": _count_of,
}
# fmt: off
_ELEMENTWISE = frozenset(
    {
        "relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "elu", "leaky_relu", "hardtanh",
        "hardswish", "hardsigmoid", "neg", "abs", "exp", "log", "sqrt", "square", "sin",
        "cos", "floor", "ceil", "round", "clamp", "clone", "contiguous", "softmax",
        "log_softmax", "zeros_like", "ones_like", "full_like", "to", "_to_copy", "detach",
        "alias", "triu", "tril", "cumsum", "add", "sub", "mul", "div", "rsub", "eq", "ne",
        "lt", "le", "gt", "ge", "maximum", "minimum", "where", "pow", "remainder", "fmod",
        "atan2", "logical_and", "logical_or", "bitwise_and", "bitwise_or", "lerp",
        "addcmul", "addcdiv",
    }
)
# fmt: on
_VIEWS = frozenset({"aten.expand.default", "aten.view.default", "aten.reshape.default"})


def _rules() -> dict[str, Callable[[Given], Known]]:
    rules = {}
    for op, operator in OPERATORS.items():
        namespace, name, *_ = op.split(".")
        tensors = [p.name for p in operator.parameters if p.kind in {"Tensor", "Operand"}]
        if namespace != "aten":
            continue
        if name in _BY_NAME:
            rules[op] = _BY_NAME[name]
        elif name in _ELEMENTWISE and tensors == ["self"]:
            rules[op] = _same
        elif name in _ELEMENTWISE and set(tensors) <= set(_OPERANDS) and op != "aten.to.other":
            rules[op] = _broadcast
        elif "upsample" in name:
            rules[op] = _resized
        elif name.endswith(("_pad1d", "_pad2d", "_pad3d")):
            rules[op] = _pad
    return rules


_RULES = _rules()
