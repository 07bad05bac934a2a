"""From an ONNX graph to a graph of ours: its nodes run in PyTorch, and are exported as they run.

What is not translated exactly is refused, with the name of the node; nothing is translated
approximately. No name of the file becomes code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nnrcodec.errors import ModelError, NnrError
from nnrcodec.formats.onnx import elementwise, layers, recurrent, resize, shapes
from nnrcodec.formats.onnx.calls import (
    TORCH_DTYPES,
    TRANSLATIONS,
    Call,
    Known,
    RefusedError,
    Value,
)
from nnrcodec.formats.onnx.protos import ELEMENT_TYPES, dtype_of, is_empty, values_of
from nnrcodec.formats.onnx.shapes import KNOWN, TWO_ONLY
from nnrcodec.formats.onnx.slots import slots_of
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.graph import Dim, TensorRef
from nnrcodec.graph.module import build_module, first_line
from nnrcodec.graph.names import is_identifier, with_safe_names
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.torch_values import to_torch

__all__ = ["elementwise", "layers", "recurrent", "resize", "shapes", "translate"]

logger = logger_of(__name__)

_DOMAINS = frozenset({"", "ai.onnx"})
_BATCHES = (2, 1)
_PLANES = (
    *((64, 96), (64, 64), (32, 32), (28, 28), (16, 16), (8, 8), (112, 112), (128, 128)),
    *((224, 224), (227, 227), (256, 256), (299, 299), (320, 320), (240, 320), (512, 512)),
)
_LENGTHS = (16, 32, 64, 128)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")
_WEIGHTED = ("aten.conv", "aten.linear.")


def translate(proto: Any, tensors: Sequence[Tensor]) -> Model:
    """Return the network of an ONNX file with its graph.

    Parameters
    ----------
    proto : ModelProto
        Without the values of `tensors`.
    tensors : sequence of Tensor
        What was taken out of it.

    Returns
    -------
    Model
        Of these tensors under names that are allowed beside a graph (`Graph.original_names` has
        those of the file), and of constants that the graph uses.

    Raises
    ------
    ModelError
        Something is not translated; the message names the node.
    """
    plan = _Plan.of(proto)
    module = _Running(plan, tensors)
    examples = _examples(module, plan)
    dynamic = tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(i.shape) if isinstance(size, str)}
        for i in plan.inputs
    )
    model = _exported(module, examples, dynamic)
    if any(dynamic) and not _agrees(module, model, examples):
        logger.warning(
            "sizes of inputs are fixed to %s: with others the translated graph differs",
            [list(example.shape) for example in examples],
        )
        model = _exported(module, examples, None)
    else:
        model = _loosened(plan, module, model, examples)
        _say_fixed(plan, model)
    return _named(model, tensors)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An input: its name in the file and here, its dtype, and sizes, dynamic ones by name."""

    name: str
    argument: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """A node: what it reads and writes, and how it is called."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a graph does, in plain Python."""

    inputs: tuple[_Entry, ...]
    steps: tuple[_Step, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Known]
    opset: int

    @classmethod
    def of(cls, proto: Any) -> _Plan:
        """Read a ModelProto."""
        graph = proto.graph
        opset = next((o.version for o in proto.opset_import if o.domain in _DOMAINS), 1)
        slots = {slot.name for slot in slots_of(graph) if is_empty(slot.proto)}
        nodes = list(_live(graph, slots))
        _refuse_unknown(nodes)
        initial = {tensor.name for tensor in graph.initializer}
        constants = {
            t.name: Known(values_of(t), str(dtype_of(t)), t.name)
            for t in graph.initializer
            if t.name not in slots and dtype_of(t) is not None
        }
        steps = tuple(
            _Step(
                node.op_type,
                node.name or node.output[0],
                tuple(node.input),
                tuple(node.output),
                _attributes(node),
            )
            for node in nodes
        )
        entries = tuple(_entries([v for v in graph.input if v.name not in initial]))
        return cls(entries, steps, tuple(v.name for v in graph.output), constants, opset)


def _live(graph: Any, slots: set[str]) -> Iterator[Any]:
    """Yield the nodes that outputs depend on, but for those that only hold a slot."""
    wanted = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if wanted.isdisjoint(node.output):
            continue
        wanted.update(node.input)
        if not (node.op_type == "Constant" and node.output[0] in slots):
            live.append(node)
    yield from reversed(live)


def _refuse_unknown(nodes: Sequence[Any]) -> None:
    unknown = [
        node for node in nodes if node.domain not in _DOMAINS or node.op_type not in TRANSLATIONS
    ]
    if unknown:
        kinds: dict[str, str] = {}
        for node in unknown:
            kind = f"{node.domain}.{node.op_type}" if node.domain not in _DOMAINS else node.op_type
            kinds.setdefault(kind, node.name or (node.output[0] if node.output else ""))
        shown = ", ".join(f"{kind} (node {name!r})" for kind, name in list(kinds.items())[:10])
        more = f" and {len(kinds) - 10} more" if len(kinds) > 10 else ""
        raise RefusedError(f"operators that are not translated: {shown}{more}")


def _attributes(node: Any) -> dict[str, Any]:
    from nnrcodec.formats.onnx.protos import package

    values: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise RefusedError(f"{node.op_type} (node {node.name!r}): an attribute of a function")
        if attribute.HasField("t"):
            tensor = attribute.t
            if dtype_of(tensor) is None:
                raise RefusedError(f"{node.op_type} (node {node.name!r}): a tensor of another type")
            values[attribute.name] = Known(values_of(tensor), str(dtype_of(tensor)))
            continue
        value = package().helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, list | tuple) or hasattr(value, "append"):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        values[attribute.name] = value
    return values


def _entries(values: Sequence[Any]) -> Iterator[_Entry]:
    taken: set[str] = set()
    for position, value in enumerate(values):
        tensor = value.type.tensor_type
        dtype = ELEMENT_TYPES.get(tensor.elem_type)
        if not value.type.HasField("tensor_type") or dtype is None or not tensor.HasField("shape"):
            raise RefusedError(f"input {value.name!r} is not a tensor of a known number of axes")
        argument = _NOT_IN_NAME.sub("_", value.name)
        argument = argument if is_identifier(argument) else f"input_{argument}"
        while argument in taken or not is_identifier(argument):
            argument = f"{argument[:80]}_{position}"
        taken.add(argument)
        shape: list[int | str] = []
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                shape.append(int(dim.dim_value))
            else:
                shape.append(dim.dim_param or f"{position}/{axis}")
        yield _Entry(value.name, argument, dtype, tuple(shape))


class _Running(torch.nn.Module):
    """The network of an ONNX file, node by node; it has its tensors under numbers."""

    def __init__(self, plan: _Plan, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._plan = plan
        self._slots = {tensor.name: f"p{index}" for index, tensor in enumerate(tensors)}
        self._constants: dict[Any, str] = {}
        for tensor in tensors:
            value, name = to_torch(tensor), self._slots[tensor.name]
            if value.is_floating_point():
                self.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(name, value)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        arguments = [inspect.Parameter(i.argument, kind) for i in plan.inputs]

        def forward(*args: Any) -> Any:
            return self._run(args)

        forward.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
        self.forward = forward

    def _run(self, args: Sequence[torch.Tensor]) -> Any:
        values: dict[str, Value] = {"": None, **self._plan.constants}
        values |= {name: getattr(self, own) for name, own in self._slots.items()}
        values |= {i.name: arg for i, arg in zip(self._plan.inputs, args, strict=True)}
        for step in self._plan.steps:
            self._run_step(step, values)
        results = [self._tensor(values, name) for name in self._plan.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _run_step(self, step: _Step, values: dict[str, Value]) -> None:
        named = max((i for i, name in enumerate(step.outputs, 1) if name), default=0)
        call = Call(step.op, step.name, self._plan.opset, named, step.attributes, self.constant)
        try:
            call.values = [values[name] for name in step.inputs]
            before = all(value is None or isinstance(value, Known) for value in call.values)
            before = before and (step.op not in TWO_ONLY or len(call.values) == 2)
            result = KNOWN[step.op](call) if before and step.op in KNOWN else None
            result = TRANSLATIONS[step.op](call) if result is None else result
        except NnrError:
            raise
        except KeyError as error:
            raise call.refuse(f"there is no value {first_line(error)} before it") from None
        except Exception as error:  # PyTorch and numpy raise whatever they like
            raise _FailedError(str(call.refuse(first_line(error)))) from error
        unread = sorted(set(step.attributes) - call.read)
        if unread:
            raise call.refuse(f"attributes {', '.join(unread)}")
        results = result if isinstance(result, tuple) else (result,)
        if any(name for name in step.outputs[len(results) :]):
            raise call.refuse("an output that is not translated")
        values.update({n: r for n, r in zip(step.outputs, results, strict=False) if n})

    def _tensor(self, values: Mapping[str, Value], name: str) -> torch.Tensor:
        value = values.get(name)
        if value is None:
            raise RefusedError(f"nothing computes the output {name!r}")
        return value if isinstance(value, torch.Tensor) else self.constant(value)

    def constant(self, value: Known) -> torch.Tensor:
        """Return known numbers as a buffer, which an export takes as a constant."""
        if value.is_symbolic:
            raise RefusedError("an output that has sizes of inputs in it")
        values = np.ascontiguousarray(value.values)
        key = value.dtype, values.shape, values.tobytes()
        if key not in self._constants:
            self._constants[key] = f"c{len(self._constants)}"
            made = torch.from_numpy(values.reshape(value.values.shape).copy())
            made = made.to(TORCH_DTYPES[value.dtype])
            self.register_buffer(self._constants[key], made, persistent=False)
        constant: torch.Tensor = getattr(self, self._constants[key])
        return constant


class _FailedError(RefusedError):
    """PyTorch refuses a node, maybe only at these sizes."""


def _examples(module: _Running, plan: _Plan) -> tuple[torch.Tensor, ...]:
    """Return inputs of sizes with which the network runs, which makes its constants."""
    reason: ModelError | None = None
    tried: set[Any] = set()
    for sizes in _sizes():
        examples = tuple(_example(entry, *sizes) for entry in plan.inputs)
        shapes_of = tuple(example.shape for example in examples)
        if shapes_of in tried:
            continue
        tried.add(shapes_of)
        try:
            with torch.no_grad():
                module.eval()(*examples)
        except _FailedError as error:
            reason = reason or error
            continue
        for value in plan.constants.values():  # what is known here may be a tensor in an export
            module.constant(value)
        return examples
    raise reason or RefusedError("no inputs were found with which the network runs")


def _sizes() -> Iterator[tuple[int, tuple[int, int], int]]:
    for length in _LENGTHS:
        for plane in _PLANES:
            for batch in _BATCHES:
                yield batch, plane, length


def _example(entry: _Entry, batch: int, plane: tuple[int, int], length: int) -> torch.Tensor:
    rank = len(entry.shape)
    shape = []
    for axis, size in enumerate(entry.shape):
        if isinstance(size, int):
            shape.append(size)
        elif axis == 0 and rank > 1:
            shape.append(batch)
        elif rank == 4:
            shape.append(3 if axis == 1 else plane[axis - 2])
        else:
            shape.append(length)
    dtype = TORCH_DTYPES[entry.dtype]
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator).to(dtype)


def _exported(module: _Running, examples: tuple[torch.Tensor, ...], dynamic: Any) -> Model:
    try:
        return model_of_module(module, examples, dynamic if dynamic and any(dynamic) else {})
    except ModelError as error:
        if isinstance(error.__cause__, RefusedError):
            raise error.__cause__ from None
        raise


def _agrees(module: _Running, model: Model, examples: Sequence[torch.Tensor], *more: int) -> bool:
    """Return whether graph and file compute the same, at the sizes of the examples and others.

    Others are larger by the numbers in `more` in every dynamic axis, by default by one. What the
    file does not take is not compared; at least one of them must be.
    """
    if model.graph is None:
        return False
    network, compared = build_module(model), 0
    for by in (0, *(more or (1,))):
        inputs = [
            _larger(example, entry.shape, by)
            for entry, example in zip(model.graph.inputs, examples, strict=True)
        ]
        with torch.no_grad():
            try:
                expected = module(*inputs)
            except NnrError:
                continue
            try:
                actual = network(*inputs)
            except (RuntimeError, ValueError, IndexError, NnrError):
                return False
        pairs = zip(_listed(expected), _listed(actual), strict=True)
        if not all(a.shape == b.shape and _close(a, b) for a, b in pairs):
            return False
        compared += by > 0
    return compared > 0 or not more


def _larger(example: torch.Tensor, shape: Sequence[int | str], by: int) -> torch.Tensor:
    """Return an input with its last slice repeated along each dynamic axis."""
    for axis, size in enumerate(shape):
        if isinstance(size, str) and by and example.shape[axis]:
            last = example.narrow(axis, -1, 1)
            example = torch.cat([example, *[last] * by], axis)
    return example


def _loosened(
    plan: _Plan, module: _Running, model: Model, examples: Sequence[torch.Tensor]
) -> Model:
    """Make axes dynamic that PyTorch has fixed though the graph computes the same with others.

    PyTorch runs recurrent layers step by step when it exports them, and so fixes the number of
    steps, which the graph does not have in it.
    """
    graph = model.graph
    if graph is None:
        return model
    for position, entry in enumerate(plan.inputs):
        for axis, declared in enumerate(entry.shape):
            size = graph.inputs[position].shape[axis]
            if not isinstance(declared, str) or not isinstance(size, int):
                continue
            name = f"d{len(graph.dims)}"
            shape = list(graph.inputs[position].shape)
            shape[axis] = name
            inputs = list(graph.inputs)
            inputs[position] = replace(inputs[position], shape=tuple(shape))
            dims = {**graph.dims, name: Dim(0, None, size)}
            loose = replace(graph, inputs=tuple(inputs), dims=dims)
            try:
                agrees = _agrees(module, replace(model, graph=loose), examples, 1, 3)
            except NnrError:
                agrees = False
            graph = loose if agrees else graph
    return replace(model, graph=graph)


def _listed(output: Any) -> Sequence[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), 1e-4, 1e-4, equal_nan=True)


def _say_fixed(plan: _Plan, model: Model) -> None:
    inputs = model.graph.inputs if model.graph else ()
    fixed = [
        f"axis {axis} of input {entry.name!r} to {size}"
        for entry, value in zip(plan.inputs, inputs, strict=True)
        for axis, (declared, size) in enumerate(zip(entry.shape, value.shape, strict=True))
        if isinstance(declared, str) and isinstance(size, int)
    ]
    if fixed:
        logger.warning("fixed in the graph, though dynamic in the file: %s", ", ".join(fixed))


def _named(model: Model, tensors: Sequence[Tensor]) -> Model:
    """Give tensors the names of the file, and what layers need to be found."""
    graph = model.graph
    if graph is None:
        raise RefusedError("the network has no graph")
    names = {f"p{index}": tensor.name for index, tensor in enumerate(tensors)}
    taken = set(names.values())
    constants: list[Tensor] = []
    for name, tensor in model.tensors.items():
        if name in names or not graph.uses(TensorRef(name)):
            continue
        free, number = f"constant_{len(constants)}", 0
        while free in taken:
            number += 1
            free = f"constant_{len(constants)}_{number}"
        taken.add(free)
        names[name] = free
        constants.append(replace(tensor, name=free, role=Role.CONSTANT, exact=True))
    named = Model.of([*tensors, *constants], graph.rename(names))
    return _with_layer_names(with_safe_names(named))


def _with_layer_names(model: Model) -> Model:
    """Name weights and biases as layers have them, ``L.weight`` and ``L.bias``."""
    graph = model.graph
    if graph is None:
        return model
    paths: dict[str, str] = {}
    taken = {part for name in model.tensors for part in _prefixes(name)}
    for node in graph.nodes:
        if not node.op.startswith(_WEIGHTED) or len(node.args) < 2:
            continue
        weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
        if not isinstance(weight, TensorRef) or weight.name in paths:
            continue
        if weight.name.rpartition(".")[2] == "weight":
            continue
        layer = weight.name
        while layer != weight.name and layer in taken:
            layer += "_"
        paths[weight.name] = f"{layer}.weight"
        if isinstance(bias, TensorRef) and len(graph.uses(bias)) == 1:
            paths.setdefault(bias.name, f"{layer}.bias")
    if not paths:
        return model
    original = dict(graph.original_names)
    for name, path in paths.items():
        original[path] = original.pop(name, name)
    renamed = replace(graph.rename(paths), original_names=original)
    tensors = (replace(t, name=paths.get(t.name, t.name)) for t in model.tensors.values())
    return Model.of(tensors, renamed)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])
