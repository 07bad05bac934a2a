"""Whether a graph does what its network does at other sizes than those of the example.

An export follows one example. Here the network runs at other sizes, too, and what the graph makes
of these is compared. Of what differs, the graph is told to refuse it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from nnrcodec.graph.graph import Graph, leaves
from nnrcodec.graph.guards import Guard, dims_of, holds, words
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

_ROUNDINGS = 8
_BROKEN = 6
"""Sizes that break a guard and are tried, at most."""

_ENOUGH = 3
"""Sizes at which a graph has to be right for a guard to be dropped, if so many near break it."""

_MOST_TRIALS = 36
"""Sizes that are tried for all guards together."""

_NEAR = 20


@dataclass(slots=True)
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
        """The graph as it is now."""
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
        try:
            check_inputs(self.graph, inputs)
        except ValueError:
            return None
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        try:
            expected = list(leaves(self.network(*inputs)))
        except Exception as error:  # the network does not take this size: nothing to compare
            logger.info("the module does not take inputs of %s: %s", shapes, first_line(error))
            return None
        try:
            actual = list(leaves(self._decoded()(*inputs)))
        except (RuntimeError, ValueError, IndexError) as error:
            return f"with inputs of {shapes}: {first_line(error)}"
        if len(expected) != len(actual) or not all(map(are_same, expected, actual)):
            return f"with inputs of {shapes} the output of the graph differs"
        return None

    def is_right(self, inputs: Examples) -> bool:
        """Return whether both take the inputs and make the same of them."""
        try:
            check_inputs(self.graph, inputs)
            self.network(*inputs)
        except Exception:  # of the network, any
            return False
        return self.difference(inputs) is None

    def _decoded(self) -> torch.nn.Module:
        device = self.examples[0].device if self.examples else "cpu"
        return build_module(self.model).to(device)


def general_model(network: Callable[..., Any], model: Model, examples: Examples) -> Model:
    """Return a model that refuses sizes at which it would be wrong, and no more than that.

    Parameters
    ----------
    network : callable
        The original module.
    model : Model
        Its export.
    examples : tuple of Tensor
        Those of the export.
    """
    trial = Trial(network, model, examples)
    needed = _needed(trial)
    for guard in trial.graph.guards:
        if guard not in needed:
            logger.info(
                "the network asks whether %s, but its graph is right both ways: no condition",
                words(guard, trial.graph.places),
            )
    trial.model = replace(model, graph=replace(trial.graph, guards=needed))
    return _without_ones(trial)


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


def _without_ones(trial: Trial) -> Model:
    """Return the model with lower bounds of 2 where it is wrong at 1.

    An export never has 1 as the size of a dynamic axis, and no condition that says so.
    """
    graph = trial.graph
    base = {name: dim.example for name, dim in graph.dims.items()}
    dims = dict(graph.dims)
    for name, dim in graph.dims.items():
        if dim.low <= 1 and trial.difference(trial.at(base | {name: 1})) is not None:
            logger.warning(
                "%s must be 2 or more: at 1 the network goes another way than its graph",
                graph.places[name],
            )
            dims[name] = replace(dim, low=2)
    return replace(trial.model, graph=replace(graph, dims=dims))


def _needed(trial: Trial) -> tuple[Guard, ...]:
    """Return the guards without those that only forbid sizes at which the graph is right.

    Some sizes that break each guard are tried. Operators ask about sizes, too, and two ways through
    them often are the same one.
    """
    guards = trial.graph.guards
    free = Trial(
        trial.network, replace(trial.model, graph=replace(trial.graph, guards=())), trial.examples
    )
    right: Counter[Guard] = Counter()
    wrong: set[Guard] = set()
    breaking = {guard: _breaking(trial.graph, guard) for guard in guards}
    sizes = {tuple(tried.items()): tried for some in breaking.values() for tried in some}
    elements = sum(example.numel() for example in trial.examples)
    most = _MOST_TRIALS if elements <= _FEW_ELEMENTS // 8 else _MOST_TRIALS // 3
    for tried in list(sizes.values())[:most]:
        broken = [guard for guard in guards if not holds(guard, tried)]
        if wrong.issuperset(broken):
            continue
        if free.is_right(free.at(tried)):
            right.update(broken)
        else:
            wrong.update(broken)
    enough = {guard: min(max(len(breaking[guard]), 1), _ENOUGH) for guard in guards}
    return tuple(guard for guard in guards if guard in wrong or right[guard] < enough[guard])


def broken_guards(graph: Graph) -> list[Guard]:
    """Return the guards that sizes near the example break; others hold for nearly all sizes."""
    return [guard for guard in graph.guards if _breaking(graph, guard)]


def accepted(model: Model) -> int:
    """Return how many of some sizes near the example a graph takes."""
    graph = model.graph
    if graph is None:
        return 0
    near = _near(graph, list(graph.dims))
    return sum(all(holds(guard, sizes) for guard in graph.guards) for sizes in near)


def _breaking(graph: Graph, guard: Guard) -> list[Sizes]:
    """Return some sizes near the example that break a guard."""
    found = [sizes for sizes in _near(graph, sorted(dims_of(guard))) if not holds(guard, sizes)]
    step = max(len(found) // _BROKEN, 1)
    return found[::step][:_BROKEN]


def _near(graph: Graph, dims: list[str]) -> Iterator[Sizes]:
    """Yield sizes near the example: of each of some dimensions alone, of these, and of all."""
    base = {name: dim.example for name, dim in graph.dims.items()}
    most = math.prod(base.values()) * 4
    groups = [*([name] for name in dims), *([dims] if len(dims) > 1 else []), list(base)]
    for step in (step for distance in range(1, _NEAR) for step in (distance, -distance)):
        for changed in groups:
            sizes = base | {name: base[name] + step for name in changed}
            bounds = ((size, graph.dims[name]) for name, size in sizes.items())
            legal = all(
                max(dim.low, 2) <= size and (dim.high is None or size <= dim.high)
                for size, dim in bounds
            )
            if legal and math.prod(sizes.values()) <= most:
                yield sizes


def _resized(example: torch.Tensor, shape: Sequence[int | str], sizes: Sizes) -> torch.Tensor:
    for axis, size in enumerate(shape):
        if isinstance(size, str) and sizes[size] != example.shape[axis]:
            places = torch.arange(sizes[size], device=example.device) % example.shape[axis]
            example = example.index_select(axis, places)
    return example


def are_same(left: Any, right: Any) -> bool:
    """Return whether two outputs are equal up to the rounding of fused kernels.

    Parameters
    ----------
    left, right : object
        Tensors; a hundredth of the values of integers and truths may differ, which follow from
        comparisons.
    """
    if not torch.is_tensor(left):
        return bool(left == right)
    if not torch.is_tensor(right) or left.shape != right.shape or left.dtype != right.dtype:
        return False
    if not left.numel():
        return True
    if not (left.is_floating_point() or left.is_complex()):
        return bool((left != right).double().mean() <= 0.01)
    odd = ~torch.isfinite(left)
    if not torch.equal(odd, ~torch.isfinite(right)):
        return False
    if odd.any() and not torch.equal(left[odd].nan_to_num(), right[odd].nan_to_num()):
        return False
    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(left.dtype).eps)
    error, peak = (value[~odd].abs() for value in (left - right, left))
    return bool(error.max() <= tolerance * peak.max()) if len(peak) else True
