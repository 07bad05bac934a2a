"""Whether a graph does what its network does at other sizes than those of the example.

An export follows one example. Here the network runs at other sizes, too, and what the graph makes
of these is compared. Of what differs, the graph is told to refuse it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

import torch

from nnrcodec.errors import NnrError
from nnrcodec.graph.graph import Dim, Graph, leaves
from nnrcodec.graph.guarding import with_fixed
from nnrcodec.graph.guards import Expression, Guard, dims_of, either, holds, is_trivial
from nnrcodec.graph.module import build_module, check_inputs, first_line
from nnrcodec.model.model import Model

logger = logging.getLogger(__name__)

Examples = tuple[torch.Tensor, ...]
Sizes = Mapping[str, int]

_FEW_ELEMENTS = 2**21
"""Of inputs that are tried at twice their sizes."""

_MOST_DIMS = 6
"""Dimensions that are changed one by one."""

_TOLERANCE = 1e-4
"""Part of the largest value of an output that may differ: fused kernels round otherwise."""

_ROUNDINGS = 16
_FLIPPED = 1e-3
_TRIED = 6
"""Sizes of a region at which a graph is tried."""

_NEAR = 20
_FEW = 3
_MOST_DIMS_OF_FEW = 3
_SMALL = (1, 2, 3, 5, 8, 16)


@dataclass(frozen=True)
class Trial:
    """A network beside its graph.

    Parameters
    ----------
    network : callable
        The original: a module, or a program that was exported.
    model : Model
        With a graph.
    examples : tuple of Tensor
        Inputs that the graph takes, of its example sizes.
    """

    network: Callable[..., Any]
    model: Model
    examples: Examples

    @property
    def graph(self) -> Graph:
        """The graph of the model."""
        if self.model.graph is None:
            raise TypeError("a model without a graph")
        return self.model.graph

    def at(self, sizes: Sizes) -> Examples:
        """Return inputs of other sizes: the example, repeated or cut."""
        return tuple(
            _resized(example, value.shape, sizes)
            for example, value in zip(self.examples, self.graph.inputs, strict=True)
        )

    def difference(self, inputs: Examples) -> str | None:
        """Return how outputs differ; None if they do not, or either of both refuses the inputs."""
        if refusal(self.model, inputs) is not None:
            return None
        expected = self._expected(inputs)
        return None if expected is None else self._compared(inputs, expected)

    def is_right(self, inputs: Examples) -> bool:
        """Return whether both take the inputs and make exactly the same of them."""
        if refusal(self.model, inputs) is not None:
            return False
        expected = self._expected(inputs)
        return expected is not None and self._compared(inputs, expected, strictly=True) is None

    def _expected(self, inputs: Examples) -> list[Any] | None:
        """Return the outputs of the network; None if it does not take the inputs."""
        try:
            # it may change what it is given
            return list(leaves(self.network(*(value.clone() for value in inputs))))
        except Exception as error:  # of the network, any
            logger.info(
                "the module does not take inputs of %s: %s", _shapes(inputs), first_line(error)
            )
            return None

    def _compared(
        self, inputs: Examples, expected: list[Any], *, strictly: bool = False
    ) -> str | None:
        try:
            actual = list(leaves(self._decoded(*inputs)))
        except (NnrError, RuntimeError, ValueError, IndexError) as error:
            return f"with inputs of {_shapes(inputs)}: {first_line(error)}"
        pairs = zip(expected, actual, strict=False)
        same = all(are_same(a, b, strictly=strictly) for a, b in pairs)
        if len(expected) != len(actual) or not same:
            return f"with inputs of {_shapes(inputs)} the output of the graph differs"
        return None

    @cached_property
    def _decoded(self) -> torch.nn.Module:
        device = self.examples[0].device if self.examples else "cpu"
        return build_module(self.model).to(device)


def _shapes(inputs: Examples) -> str:
    return ", ".join(str(list(value.shape)) for value in inputs)


def joined(network: Callable[..., Any], models: Sequence[Model], examples: Examples) -> Model:
    """Return one of several exports of a network, for all sizes at which it is known to be right.

    Each export followed an example of other sizes, and holds where its guards do: there the network
    does what that graph does, at any size. Where another one of the graphs does the same at some
    sizes of that region, with random values, it does so in all of it: neither of them branches. So
    its guards become the guards of both regions, of which one must hold.

    Parameters
    ----------
    network : callable
        The original module.
    models : sequence of Model
        With the same inputs and dimensions.
    examples : tuple of Tensor
        Inputs of the network, whose sizes the result takes.
    """
    free = [_freed(model, models[0]) for model in models]
    alike = [(model, region) for model, region in zip(models, free, strict=True) if region]
    best, most = models[0], 0
    for candidate, own in alike:
        regions = [own.graph.guards if own.graph else ()]
        for _, other in alike:
            if other is not own and _holds_there(network, own, other, examples):
                regions.append(other.graph.guards if other.graph else ())
        guarded = candidate if len(regions) == 1 else _with_guards(own, either(regions))
        if refusal(guarded, examples) is None and len(regions) > most:
            best, most = guarded, len(regions)
    return without_ones(network, with_sizes_fixed(best), examples)


def without_needless(network: Callable[..., Any], model: Model, examples: Examples) -> Model:
    """Return a model without the guards that few sizes break, at all of which it is right.

    Such as ``1 < h * w``, which PyTorch asks of a convolution for its own sake. Sizes of 0 are then
    refused.
    """
    graph = model.graph
    if graph is None:
        return model
    base = {name: dim.example for name, dim in graph.dims.items()}
    dims = dict(graph.dims)
    for guard in graph.guards:
        few = _sizes_that_break(graph, guard)
        if few is None:
            continue
        left = tuple(other for other in graph.guards if other != guard)
        trial = Trial(network, _with_guards(model, left), examples)
        if all(trial.is_right(trial.at({**base, **sizes})) for sizes in few):
            dims |= {n: replace(dims[n], low=max(dims[n].low, 1)) for n in dims_of(guard)}
            graph = replace(graph, dims=dims, guards=left)
            model = replace(model, graph=graph)
    return model


def _sizes_that_break(graph: Graph, guard: Guard) -> list[Sizes] | None:
    """Return all sizes but 0 that break a guard; None if they are not known to be few."""
    names = sorted(dims_of(guard))
    bounds = {n: (max(graph.dims[n].low, 1), graph.dims[n].high) for n in names}
    if len(names) > _MOST_DIMS_OF_FEW:
        return None
    from_low = {n: (low, math.inf if high is None else high) for n, (low, high) in bounds.items()}
    for name, (low, _) in bounds.items():
        beyond = {**from_low, name: (low + _FEW, from_low[name][1])}
        if not is_trivial(guard, beyond):
            return None
    near = product(*(range(low, low + _FEW) for low, _ in bounds.values()))
    found = [dict(zip(names, sizes, strict=True)) for sizes in near]
    return [sizes for sizes in found if not holds(guard, sizes)]


def with_sizes_fixed(model: Model) -> Model:
    """Return a model with the dimensions fixed that may have one size only."""
    graph = model.graph
    if graph is None:
        return model
    fixed = {
        name
        for name, dim in graph.dims.items()
        if ("operator.eq", name, dim.example) in graph.guards
    }
    if not fixed:
        return model
    return replace(model, graph=with_fixed(graph, fixed))


def _freed(model: Model, first: Model) -> Model | None:
    """Return a model with the dimensions of another one, and guards for all that these allow more.

    None if it has a dynamic size where the other one has a fixed one.
    """
    graph, names = model.graph, first.graph
    if graph is None or names is None:
        return None
    guards: list[Guard] = []
    known: dict[str, str] = {}
    example: dict[str, int] = {}
    for own, other in zip(graph.inputs, names.inputs, strict=True):
        for size, name in zip(own.shape, other.shape, strict=True):
            if isinstance(size, str) and isinstance(name, str):
                if known.setdefault(size, name) != name:
                    guards.append(("operator.eq", known[size], name))
                example[name] = graph.dims[size].example
            elif isinstance(name, str):
                guards.append(("operator.eq", name, size))
                example[name] = int(size)
            elif size != name:
                return None
    for size, name in known.items():
        dim = graph.dims[size]
        if dim.low > 0:
            guards.append(("operator.ge", name, dim.low))
        if dim.high is not None:
            guards.append(("operator.le", name, dim.high))
    guards += [_renamed(guard, known) for guard in graph.guards]
    dims = {name: Dim(0, None, example.get(name, d.example)) for name, d in names.dims.items()}
    inputs = tuple(
        replace(own, shape=other.shape)
        for own, other in zip(graph.inputs, names.inputs, strict=True)
    )
    guards = list(dict.fromkeys(guards))
    return replace(model, graph=replace(graph, inputs=inputs, dims=dims, guards=tuple(guards)))


def _renamed(expression: Expression, names: Mapping[str, str]) -> Any:
    if isinstance(expression, tuple):
        return (expression[0], *(_renamed(part, names) for part in expression[1:]))
    return names.get(expression, expression) if isinstance(expression, str) else expression


def refusal(model: Model, examples: Examples) -> str | None:
    """Return why a graph does not take some inputs; None if it does."""
    if model.graph is None:
        return "there is no graph"
    try:
        check_inputs(model.graph, examples)
    except ValueError as error:
        return str(error)
    return None


def _with_guards(model: Model, guards: tuple[Guard, ...]) -> Model:
    """Return a model with these guards only; bounds on a size become those of its dimension."""
    graph = model.graph
    if graph is None:
        return model
    dims, left = dict(graph.dims), []
    for guard in guards:
        match guard:
            case ("operator.ge", str(name), int(least)):
                dims[name] = replace(dims[name], low=max(dims[name].low, least))
            case ("operator.le", str(name), int(most)):
                high = dims[name].high
                dims[name] = replace(dims[name], high=most if high is None else min(high, most))
            case _:
                left.append(guard)
    return replace(model, graph=replace(graph, dims=dims, guards=tuple(left)))


def _holds_there(
    network: Callable[..., Any], candidate: Model, other: Model, examples: Examples
) -> bool:
    """Return whether a graph does what the network does in the region of another one."""
    graph = other.graph
    if graph is None or candidate.graph is None:
        return False
    free = Trial(network, _with_guards(candidate, ()), examples)
    return all(free.is_right(free.at(sizes)) for sizes in _spread(graph))


def _spread(graph: Graph) -> list[Sizes]:
    """Return some sizes in the region of a graph: that of the example, near it, and far from it."""
    base = {name: dim.example for name, dim in graph.dims.items()}
    found: list[Sizes] = []
    most = 16 * max(math.prod(base.values()), 1)
    for step in (*range(1, _NEAR), *range(-_NEAR, 0), *range(32, 129, 16)):
        changes = [{name: size + step} for name, size in base.items()]
        changes.append({name: size + step for name, size in base.items()})
        changes.append({n: size + step * (1 + i % 2) for i, (n, size) in enumerate(base.items())})
        for change in changes:
            sizes = base | change
            legal = min(sizes.values(), default=1) >= 1 and math.prod(sizes.values()) <= most
            if legal and all(holds(guard, sizes) for guard in graph.guards):
                found.append(sizes)
    step = max(len(found) // (_TRIED - 1), 1)
    return [base, *found[::step][: _TRIED - 1]]


def difference(
    network: Callable[..., Any], model: Model, examples: Examples, *, few: bool = False
) -> str | None:
    """Return how outputs of network and graph differ at some sizes; None if they do not.

    Parameters
    ----------
    network : callable
        The original.
    model : Model
        With a graph.
    examples : tuple of Tensor
        Of the example sizes of the graph.
    few : bool
        Whether to try only those and larger ones, because the graph is known to have the nodes of
        the original.
    """
    trial = Trial(network, model, examples)
    variants = _variants(trial.graph, sum(example.numel() for example in examples))
    for sizes in islice(variants, 2 if few else None):
        found = trial.difference(trial.at(sizes))
        if found is not None:
            return found
    return None


def _variants(graph: Graph, elements: int) -> Iterator[Sizes]:
    """Yield other sizes: all larger, each alone, twice as large, smaller, all different and odd."""
    base = {name: dim.example for name, dim in graph.dims.items()}
    yield base
    if not base:
        return
    yield {name: size + 1 for name, size in base.items()}
    if len(base) > 1:
        for name in list(base)[:_MOST_DIMS]:
            yield base | {name: base[name] + 1}
    yield {name: max(size - 1, 1) for name, size in base.items()}
    yield {name: size + 3 + 2 * place for place, (name, size) in enumerate(base.items())}
    if elements * 2 ** len(base) <= _FEW_ELEMENTS or graph.guards:
        yield {name: 2 * size for name, size in base.items()}


def without_ones(network: Callable[..., Any], model: Model, examples: Examples) -> Model:
    """Return a model with lower bounds of 2 where it is wrong at 1, which is logged.

    An export never has 1 as the size of a dynamic axis, and no condition that says so.
    """
    graph = model.graph
    if graph is None:
        return model
    trial = Trial(network, model, examples)
    base = {name: dim.example for name, dim in graph.dims.items()}
    dims = dict(graph.dims)
    for name, dim in graph.dims.items():
        if dim.low <= 1 and trial.difference(trial.at(base | {name: 1})) is not None:
            logger.warning(
                "%s must be 2 or more: at 1 the network goes another way than its graph",
                graph.places[name],
            )
            dims[name] = replace(dim, low=2)
    return replace(model, graph=replace(graph, dims=dims))


def broken_guards(graph: Graph) -> list[Guard]:
    """Return the guards that sizes near the example break; others hold for nearly all sizes."""
    return [guard for guard in graph.guards if breaking_sizes(graph, guard)]


def breaking_sizes(graph: Graph, guard: Guard) -> list[Sizes]:
    """Return some sizes near the example that break a guard."""
    found = [sizes for sizes in _near(graph, sorted(dims_of(guard))) if not holds(guard, sizes)]
    return [found[0], found[-1]] if len(found) > 1 else found


def _near(graph: Graph, dims: list[str]) -> Iterator[Sizes]:
    """Yield sizes near the example, small and large ones, of each of some dimensions and of all."""
    base = {name: dim.example for name, dim in graph.dims.items()}
    most = math.prod(base.values()) * 4
    groups = [*([name] for name in dims), *([dims] if len(dims) > 1 else []), list(base)]
    others = {name: _other_sizes(size) for name, size in base.items()}
    for place in range(len(_other_sizes(0))):
        for changed in groups:
            sizes = base | {name: others[name][place] for name in changed}
            bounds = ((size, graph.dims[name]) for name, size in sizes.items())
            legal = all(
                max(dim.low, 1) <= size and (dim.high is None or size <= dim.high)
                for size, dim in bounds
            )
            if legal and math.prod(sizes.values()) <= most:
                yield sizes


def _other_sizes(size: int) -> list[int]:
    near = [size + step for distance in range(1, _NEAR) for step in (distance, -distance)]
    return [*near, size // 2, 2 * size, *_SMALL]


def _resized(example: torch.Tensor, shape: Sequence[int | str], sizes: Sizes) -> torch.Tensor:
    """Return an input of other sizes, with values like those of the example, and no two alike.

    The example itself may be all zeros, at which many graphs agree that do not elsewhere.
    """
    own = [sizes[size] if isinstance(size, str) else size for size in shape]
    if not example.numel() or not math.prod(own):
        return example.new_zeros(own)
    generator = torch.Generator().manual_seed(math.prod(own) % 1000)
    values = example.detach().flatten().cpu()
    if example.is_floating_point():
        low, high = float(values.min()), float(values.max())
        random = low + torch.rand(own, generator=generator) * ((high - low) or 1.0)
        return random.to(example.dtype).to(example.device)
    picked = torch.randint(values.numel(), own, generator=generator)
    return values[picked].to(example.device)


def are_same(left: Any, right: Any, *, strictly: bool = False) -> bool:
    """Return whether two outputs are equal up to the rounding of fused kernels.

    Parameters
    ----------
    left, right : object
        Tensors. Of integers and truths, which follow from comparisons, one in a thousand may
        differ, if there are so many.
    strictly : bool
        Whether none may differ.
    """
    if not torch.is_tensor(left):
        return bool(left == right)
    if not torch.is_tensor(right) or left.shape != right.shape or left.dtype != right.dtype:
        return False
    if not left.numel():
        return True
    if not (left.is_floating_point() or left.is_complex()):
        return bool((left != right).double().mean() <= _FLIPPED * (not strictly))
    odd = ~torch.isfinite(left)
    if not torch.equal(odd, ~torch.isfinite(right)):
        return False
    if odd.any() and not torch.equal(left[odd].nan_to_num(), right[odd].nan_to_num()):
        return False
    # what varies counts, not the mean that channels may have; most values have to be far nearer
    kept = ~odd
    if not kept.any():
        return True
    values, errors = left[kept].detach(), (left - right)[kept].detach().abs()
    epsilon = torch.finfo(left.dtype).eps
    scale = max(float((values - values.mean()).abs().max()), 0.0)
    peak = float(values.abs().max())
    tolerance = max(_TOLERANCE * scale, _ROUNDINGS * epsilon * peak)
    return float(errors.max()) <= tolerance and float(errors.median()) <= tolerance / 4
