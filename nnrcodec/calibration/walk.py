"""A walk through a network, layer by layer, with the original beside it.

At each layer the walk stops: whoever walks may measure what the layer takes, behind all that was
changed before, and may change its weight. Only what later nodes need is kept of the calibration
inputs on their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.inputs import require_fit, running
from nnrcodec.calibration.moments import ROUNDING, Moments, measure, positions
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.graph import Graph, Ref
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.graph.module import DecodedModel, build_module, run_node, tensor_named
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.model.model import Model


class Stop:
    """A layer on the way.

    Parameters
    ----------
    layer : Layer
        Where the walk has come to.
    original, changed : list of Tensor
        What it takes in either network, one for each calibration input.
    """

    def __init__(
        self, layer: Layer, original: list[torch.Tensor], changed: list[torch.Tensor]
    ) -> None:
        self.layer = layer
        self.replacements: dict[str, np.ndarray] = {}
        self._original = original
        self._changed = changed

    def moments(self) -> Moments:
        """Measure what the layer takes.

        Raises
        ------
        ConfigError
            If that is not finite.
        """
        found = measure(self.layer, self._original, self._changed)
        if not (np.isfinite(found.second).all() and np.isfinite(found.cross).all()):
            raise ConfigError(
                f"layer {self.layer.name} takes NaN or infinity when the network runs with the "
                "calibration inputs"
            )
        return found

    def patches_for_each_column(self) -> float:
        """Return how many patches there are for each column of the weight."""
        return sum(positions(self.layer, value) for value in self._original) / self.layer.columns

    def input_variance(self) -> float:
        """Return the mean variance of the channels that the layer of the original takes."""
        axes = len(self.layer.kernel)
        total: Any = 0
        squares: Any = 0
        count = 0
        for value in self._original:
            channels = value.movedim(value.ndim - axes - 1, 0).flatten(1).double()
            total = total + channels.sum(1)
            squares = squares + channels.square().sum(1)
            count += channels.shape[1]
        square = squares / count
        variance = square - (total / count) ** 2
        return float(variance[variance > ROUNDING * square].sum()) / len(variance)

    def replace(self, name: str, value: np.ndarray) -> None:
        """Go on with another value of a tensor, of the same shape."""
        self.replacements[name] = value

    def release(self) -> None:
        """Let go of what the layer takes: the walk goes on, and later nodes may not need it."""
        self._original = self._changed = []


def walk(model: Model, inputs: Sequence[tuple[torch.Tensor, ...]]) -> Iterator[Stop]:
    """Go through a network and stop at each of its layers, in the order in which they run.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.

    Yields
    ------
    Stop
        What is replaced there is in force for the rest of the walk.

    Raises
    ------
    ConfigError
        If the network does not run with these inputs.
    ModelError
        If there is no graph.
    """
    graph = model.graph
    if graph is None:
        raise ModelError("this model has tensors only, no graph to run")
    stops = {layer.node: layer for layer in find_layers(model)}
    original, changed = build_module(model), build_module(model)
    require_fit(graph, inputs)
    ways = [_Way(graph, original, changed, each) for each in inputs]
    replaced: set[str] = set()
    for position in range(len(graph.nodes)):
        if position in stops:
            layer = stops[position]
            before = [way.original[layer.value] for way in ways]
            behind = [way.changed[layer.value] for way in ways]
            same = all(a is b for a, b in zip(before, behind, strict=True))
            stop = Stop(layer, before, before if same else behind)
            yield stop
            _replace(changed, stop.replacements)
            replaced |= stop.replacements.keys()
            stop.release()
            del before, behind
        with running():
            for way in ways:
                way.step(position, replaced)


class _Way:
    """One calibration input on its way through both networks.

    Values are the same objects in both as long as nothing they depend on was changed; what an
    operator writes into is parted first.
    """

    def __init__(
        self,
        graph: Graph,
        original: DecodedModel,
        changed: DecodedModel,
        values: tuple[torch.Tensor, ...],
    ) -> None:
        self._graph = graph
        self._modules = original, changed
        self.original: list[Any] = list(values)
        self.changed: list[Any] = list(values)

    def step(self, position: int, replaced: set[str]) -> None:
        """Run a node in both networks, or once for both."""
        original, changed = self._modules
        node = self._graph.nodes[position]
        refs = [leaf.index for leaf in node.leaves() if isinstance(leaf, Ref)]
        same = all(self.original[i] is self.changed[i] for i in refs)
        same = same and replaced.isdisjoint(getattr(leaf, "name", "") for leaf in node.leaves())
        with torch.inference_mode():
            if not same and OPERATORS[node.op].writes_in_place:
                self._part(self.changed[refs[0]])
            done = run_node(original, position, self.original)
            for number in done:
                self.original[number] = None
            if same:
                self.changed.append(self.original[-1])
            else:
                run_node(changed, position, self.changed)
            for number in done:
                self.changed[number] = None

    def _part(self, target: torch.Tensor) -> None:
        """Give the changed network memory of its own for a value, if it shares that.

        All its values that are in there, views of one another, move together.
        """
        shared = target.untyped_storage()
        if not any(_is_in(shared, value) for value in self.original):
            return
        own = shared.clone()  # type: ignore[no-untyped-call]

        def moved(value: Any) -> Any:
            if not _is_in(shared, value):
                return value
            if isinstance(value, list | tuple):
                return [moved(item) for item in value]
            empty = torch.empty(0, dtype=value.dtype)
            return empty.set_(own, value.storage_offset(), value.shape, value.stride())

        self.changed = [moved(value) for value in self.changed]


def _is_in(memory: torch.UntypedStorage, value: Any) -> bool:
    """Return whether a value, or one of those in a list, is in some memory."""
    if isinstance(value, list | tuple):
        return any(_is_in(memory, item) for item in value)
    if not isinstance(value, torch.Tensor):
        return False
    return value.untyped_storage().data_ptr() == memory.data_ptr()


def _replace(module: DecodedModel, values: Mapping[str, np.ndarray]) -> None:
    for name, value in values.items():
        tensor = tensor_named(module, name)
        with torch.no_grad():
            tensor.data = torch.from_numpy(np.array(value)).to(tensor.dtype)
