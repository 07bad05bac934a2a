"""Export of a decoded model as a program of `torch.export`, with bounded cost.

PyTorch runs a network once to export it. Here it runs with fake tensors, which have sizes but no
memory. The work for symbolic sizes is bounded as well, because a malicious stream could make it
arbitrarily large: dynamic sizes are expressions that a few dozen nodes can make larger than any
memory, lists of tensors can have any length, and recurrent layers are run step by step.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from nnrcodec.errors import (
    LimitExceededError,
    NnrError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.graph.check import CLAUSE
from nnrcodec.graph.graph import Graph, Node
from nnrcodec.graph.guards import dims_of, holds, parts
from nnrcodec.graph.module import (
    DecodedModel,
    argument_of,
    device_of,
    first_line,
    function_of,
    run_node,
    signature_of,
)
from nnrcodec.graph.names import fits_program
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.operators_torch import TORCH_WORDS
from nnrcodec.graph.scalars import fits
from nnrcodec.graph.torch_internals import (
    expression_of,
    hint_of,
    is_fixed,
    with_ones_like_others,
    without_memory,
)
from nnrcodec.limits import Limits

logger = logging.getLogger(__name__)

_EXPRESSION_PARTS = 400
"""Most numbers, symbols and operations in the expression of one size."""

_TERMS = 1024
"""Most terms of the sizes that an operator takes, when expanded."""

_DEGREE = 64
"""Highest power of a size."""

_NEW_SIZES = 12
"""Factor of the work of a node for computed sizes that are new to its operator: for known ones,
PyTorch has cached results."""

_WEIGHTS: Mapping[str, int] = {
    "upsample_bicubic2d": 200,
    "_upsample_bicubic2d_aa": 200,
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), 15),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "pad", "einsum"), 12),
    **dict.fromkeys(("stft", "istft", "tensordot", "kron", "cdist", "diff", "quantile"), 12),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), 12),
    **dict.fromkeys(("im2col", "col2im", "cosine_similarity", "repeat_interleave"), 8),
    **dict.fromkeys(("instance_norm", "group_norm", "batch_norm", "layer_norm", "matmul"), 4),
    **dict.fromkeys(("diag_embed", "glu", "slice", "logsumexp", "cumsum", "hardswish", "triu"), 4),
}
"""Work of composite operators, by name; that of all others is 1."""

_STEP = 3
"""Work of one step of a recurrent layer, which consists of several operators."""

_PARTS_OF_GUARDS = 4
"""Numbers and operators of guards that are as much work as a simple operator."""

_AXIS = 5
"""Work of a dynamic axis of an input."""

_FEW_AXES = 4
"""Most dynamic axes of a tensor without extra work; for more, it is the square of their number."""

_EXPRESSION = 2
"""Work of a new size expression, for each earlier one."""


def program_of_module(
    module: DecodedModel, limits: Limits | None = None
) -> torch.export.ExportedProgram:
    """Export a decoded model again, with the dynamic dimensions of the original.

    Parameters
    ----------
    module : DecodedModel
        A model from `nnrcodec.graph.module.build_module`.
    limits : Limits, optional
        `Limits.max_program_work` and `Limits.max_value_bytes` bound the work.

    Returns
    -------
    torch.export.ExportedProgram
        Its example inputs are zeros that take no memory.

    Raises
    ------
    SyntaxElementError
        If an operator refuses its arguments at the example sizes.
    LimitExceededError
        If the work for symbolic sizes is too large.
    UnsupportedFeatureError
        If PyTorch cannot export the network.
    """
    graph = module._nnr_graph
    limits = limits or Limits()
    _require_names(module)
    # Constants that a graph creates are created by torch.export within its own mode.
    device = device_of(module, [])
    sizes = _export_sizes(graph)
    with without_memory():
        examples = tuple(
            torch.zeros(
                tuple(sizes[s] if isinstance(s, str) else s for s in value.shape),
                dtype=TORCH_WORDS["dtype"][value.dtype],
                device=device,
            )
            for value in graph.inputs
        )
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis, s in enumerate(value.shape) if isinstance(s, str)}
        for value in graph.inputs
    )
    work = _Work(graph, limits)
    work.before_all()

    def forward(*args: Any) -> Any:
        values = list(args)
        require_guards(graph, values)
        for position in range(len(graph.nodes)):
            work.before(position, values)
            try:
                done_with = run_node(module, position, values)
            except NnrError:
                raise
            except Exception as error:  # operators may raise any exception
                raise SyntaxElementError(
                    f"{graph.nodes[position].op} refuses its arguments: {first_line(error)}",
                    path=f"graph/nodes[{position}]",
                    clause=CLAUSE,
                ) from error
            work.after(position, values[-1])
            for number in done_with:
                values[number] = None
        return argument_of(module, graph.output, values)

    forward.__signature__ = signature_of(graph)  # type: ignore[attr-defined]
    module.forward = forward  # type: ignore[method-assign]  # its signature has the input names
    try:
        with torch.no_grad(), with_ones_like_others():
            program = torch.export.export(module, examples, dynamic_shapes=dynamic)
    except Exception as error:  # the exporter wraps exceptions of the network
        cause = _error_of_ours(error)
        if cause is not None:
            raise cause from error
        raise cannot_export(error) from error
    finally:
        del module.forward
    _log_fixed_axes(program, graph)
    for node in program.graph.nodes:  # it has paths of this machine
        node.meta.pop("stack_trace", None)
    zeros = (
        torch.zeros((), dtype=example.dtype, device=device).expand(example.shape)
        for example in examples
    )
    program.example_inputs = (tuple(zeros), {})
    return program


def require_guards(graph: Graph, inputs: Sequence[torch.Tensor]) -> None:
    """Let an export know of the guards of a graph: it keeps what is asked of symbolic sizes.

    Raises
    ------
    SyntaxElementError
        The sizes do not meet one.
    """
    sizes = {
        declared: size
        for value, tensor in zip(graph.inputs, inputs, strict=True)
        for declared, size in zip(value.shape, tensor.shape, strict=True)
        if isinstance(declared, str)
    }
    for position, guard in enumerate(graph.guards):
        if not holds(guard, sizes, function_of):
            raise SyntaxElementError(
                "the sizes for export do not meet it",
                path=f"graph/guards[{position}]",
                clause=CLAUSE,
            )


def cannot_export(error: Exception) -> UnsupportedFeatureError:
    """Return the error for a network that PyTorch cannot export, with the reason."""
    return UnsupportedFeatureError(
        f"PyTorch {torch.__version__} cannot export this network ({first_line(error)}); "
        "nnrcodec.decode_model runs it, and its tensors can be written to a .safetensors file",
        feature="torch.export",
    )


def _require_names(module: DecodedModel) -> None:
    """Raise if a tensor has the name of an attribute of PyTorch, because it would be lost."""
    for name, _ in (*module.named_parameters(), *module.named_buffers()):
        if not fits_program(name):
            attribute = name.partition(".")[0]
            raise UnsupportedFeatureError(
                f"an exported program cannot have a tensor {name!r}: PyTorch uses {attribute!r}; "
                "nnrcodec.decode_model runs the network, and its tensors can be written to a "
                ".safetensors file",
                feature="torch.export",
            )


def _export_sizes(graph: Graph) -> dict[str, int]:
    """Return the dynamic sizes for export: PyTorch treats 0 and 1 as fixed.

    They are those of the example where a guard does not allow 2 or more.
    """
    sizes = {name: dim.example for name, dim in graph.dims.items()}
    for name, dim in graph.dims.items():
        least = max(2, dim.low)
        if dim.example < 2 and (dim.high is None or least <= dim.high):
            others = {**sizes, name: least}
            if all(holds(guard, others) for guard in graph.guards if name in dims_of(guard)):
                sizes = others
    return sizes


def _log_fixed_axes(program: torch.export.ExportedProgram, graph: Graph) -> None:
    """Log which dynamic axes of the stream are fixed in the program."""
    nodes = {node.name: node for node in program.graph.nodes}
    for value, name in zip(graph.inputs, program.graph_signature.user_inputs, strict=True):
        shape = nodes[name].meta["val"].shape if isinstance(name, str) else ()
        for axis, (size, exported) in enumerate(zip(value.shape, shape, strict=False)):
            if isinstance(size, str) and is_fixed(exported):
                logger.warning(
                    "PyTorch fixes axis %d of input %r to %d in the exported program, which is "
                    "dynamic in the stream",
                    axis,
                    value.name,
                    int(exported),
                )


def _error_of_ours(error: BaseException | None) -> NnrError | None:
    """Return the `NnrError` among the causes of an error."""
    seen = 0
    while error is not None and not isinstance(error, NnrError) and seen < 20:
        error, seen = error.__cause__ or error.__context__, seen + 1
    return error if isinstance(error, NnrError) else None


class _Work:
    """Work to export a network, in units of a simple operator; raises above the limit.

    Parameters
    ----------
    graph : Graph
        The network.
    limits : Limits
        With the largest work that is allowed.
    """

    def __init__(self, graph: Graph, limits: Limits) -> None:
        self._graph, self._limits = graph, limits
        self._left = limits.max_program_work
        self._composed = 0
        self._met: set[tuple[str, frozenset[Any]]] = set()
        self._measured: dict[Any, tuple[int, int]] = {}

    def before_all(self) -> None:
        """Count the inputs; raise at once if the number of nodes alone is above the limit."""
        inputs = self._graph.inputs
        sizes = sum(isinstance(size, str) for value in inputs for size in value.shape)
        self._take(len(inputs) + _AXIS * sizes, 0)
        asked = sum(1 for guard in self._graph.guards for _ in parts(guard))
        self._take(asked // _PARTS_OF_GUARDS, 0)
        if len(self._graph.nodes) > self._left:
            self._take(len(self._graph.nodes), len(self._graph.nodes) - 1)

    def before(self, position: int, values: Sequence[Any]) -> None:
        """Count the work of a node before it runs."""
        node = self._graph.nodes[position]
        given = _given(node, values)
        expressions = self._expressions(list(given.values()))
        work = _WEIGHTS.get(node.op.split(".")[1], 1)
        composed = frozenset(expression for expression in expressions if expression.args)
        if composed and (node.op, composed) not in self._met:
            self._met.add((node.op, composed))
            work *= _NEW_SIZES
        self._take(work + self._sizes(position, expressions), position)
        first = next(iter(given.values()), None)
        if isinstance(first, torch.Tensor):
            self._take(_length_of_list(node, first, given), position)

    def after(self, position: int, value: Any) -> None:
        """Check the value of a node after it has run, and count its work."""
        if isinstance(value, tuple | list) and not value:
            raise UnsupportedFeatureError(
                f"{self._graph.nodes[position].op} makes an empty list, which PyTorch cannot save",
                feature="torch.export",
                path=f"graph/nodes[{position}]",
            )
        for tensor in value if isinstance(value, tuple | list) else [value]:
            if isinstance(tensor, torch.Tensor):
                size = math.prod(map(hint_of, tensor.shape)) * tensor.element_size()
                if tensor.dim() > self._limits.max_dimensions:
                    raise self._too_much(f"a tensor of {tensor.dim()} axes", position)
                axes = sum(isinstance(size, torch.SymInt) for size in tensor.shape)
                self._take(axes * axes if axes > _FEW_AXES else 0, position)
                if size > self._limits.max_value_bytes:
                    raise self._too_much(f"a tensor of {size} bytes at the example sizes", position)
        self._sizes(position, self._expressions(value))

    def _take(self, work: int, position: int) -> None:
        self._left -= work
        if self._left < 0:
            allowed = self._limits.allowed("program_work")
            raise self._too_much(f"too much work (in simple operators {allowed})", position)

    def _too_much(self, what: str, position: int) -> LimitExceededError:
        return LimitExceededError(
            f"exporting this network takes {what}; nnrcodec.decode_model runs it without",
            path=f"graph/nodes[{position}]",
            clause=CLAUSE,
        )

    def _expressions(self, value: Any) -> Counter[Any]:
        """Return the expressions of the dynamic sizes in a value, with their counts."""
        return Counter(
            expression_of(size)
            for size in _numbers_in(value)
            if isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool)
        )

    def _sizes(self, position: int, expressions: Counter[Any]) -> int:
        """Return the work for sizes; raise for expressions that are too large."""
        terms = parts = 1
        for expression, times in expressions.items():
            if expression not in self._measured:
                self._measured[expression] = _measured(expression)
                if expression.args:
                    self._composed += 1
                    self._take(_EXPRESSION * self._composed, position)
            own_terms, own_parts = self._measured[expression]
            if own_parts > _EXPRESSION_PARTS:
                raise self._too_much("sizes that are too long as expressions", position)
            terms, parts = terms * own_terms ** min(times, 2), parts + own_parts
        if terms > _TERMS:
            raise self._too_much("sizes that are too long as expressions", position)
        return terms * parts // 32


def _numbers_in(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield from value.shape
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _numbers_in(item)
    else:
        yield value


def _measured(expression: Any) -> tuple[int, int]:
    """Return the number of terms of a SymPy expression when expanded, and of all its parts.

    Repeated parts are counted each time. If a number does not fit in 64 bits or a power is too
    high, more than the limits are returned.
    """
    too_much = _TERMS + 1, _EXPRESSION_PARTS + 1
    if not expression.args:
        return (1, 1) if not expression.is_Integer or fits(int(expression)) else too_much
    measured = [_measured(part) for part in expression.args]
    parts = 1 + sum(parts for _, parts in measured)
    if parts > _EXPRESSION_PARTS:
        return too_much
    terms = 1
    if expression.is_Add:
        terms = sum(terms for terms, _ in measured)
    elif expression.is_Mul:
        terms = math.prod(terms for terms, _ in measured)
    elif expression.is_Pow:
        power = expression.exp
        if not power.is_Integer or abs(power) > _DEGREE:
            return too_much
        terms = measured[0][0] ** abs(int(power))
    return min(terms, _TERMS + 1), parts


def _given(node: Node, values: Sequence[Any]) -> Mapping[str, Any]:
    names = (parameter.name for parameter in OPERATORS[node.op].positional)
    arguments = (*zip(names, node.args, strict=False), *node.kwargs)
    return {name: argument_of(None, argument, values) for name, argument in arguments}


def _length_of_list(node: Node, first: torch.Tensor, given: Mapping[str, Any]) -> int:
    """Return the work for the list of tensors that a node returns, or for its steps."""

    def axis_size(name: str) -> int:
        axis = given.get(name, 0)
        legal = isinstance(axis, int) and -first.dim() <= axis < first.dim()
        return hint_of(first.shape[axis]) if legal else 0

    match node.op:
        case "aten.unbind.int":
            return axis_size("dim")
        case "aten.split.Tensor":
            return axis_size("dim") // max(hint_of(given["split_size"]), 1)
        case "aten.chunk.default":
            return min(axis_size("dim"), given["chunks"])
        case "aten.tensor_split.sections":
            return max(hint_of(given["sections"]), 0)
        case "aten.lstm.input" | "aten.gru.input" | "aten.rnn_tanh.input" | "aten.rnn_relu.input":
            steps = hint_of(first.shape[int(bool(given["batch_first"]))]) if first.dim() > 1 else 1
            return _STEP * steps * given["num_layers"] * (1 + bool(given["bidirectional"]))
    return 0
