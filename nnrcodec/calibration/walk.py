"""Run the original and the changed network side by side, one layer after the other.

Before each layer runs, the caller can measure its input in both networks and replace its weight:
all later layers of the changed network then get the input that this weight produces. An activation
is freed as soon as no later node uses it.
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
from nnrcodec.parallel import in_order, torch_threads


class LayerVisit:
    """The layer that runs next, and its inputs in both networks.

    Parameters
    ----------
    layer : Layer
        The layer.
    original, changed : list of Tensor
        Its input in the original and in the changed network, one for each calibration input; the
        same list if no earlier change affects it.
    """

    def __init__(
        self, layer: Layer, original: list[torch.Tensor], changed: list[torch.Tensor]
    ) -> None:
        self.layer = layer
        self.replacements: dict[str, np.ndarray] = {}
        self._original = original
        self._changed = changed

    def moments(self) -> Moments:
        """Measure the second moments of the input of the layer.

        Raises
        ------
        ConfigError
            If they are not finite.
        """
        moments = measure(self.layer, self._original, self._changed)
        if not (np.isfinite(moments.second_moment).all() and np.isfinite(moments.cross).all()):
            raise ConfigError(
                f"layer {self.layer.name} takes NaN or infinity when the network runs with the "
                "calibration inputs"
            )
        return moments

    def patches_for_each_column(self) -> float:
        """Return how many patches there are for each column of the weight."""
        return sum(positions(self.layer, value) for value in self._original) / self.layer.columns

    def input_variance(self) -> float:
        """Return the variance of the input in the original network, averaged over the channels."""
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
        """Replace a tensor of the changed network for the rest of the walk, in the same shape."""
        self.replacements[name] = value

    def release(self) -> None:
        """Free the inputs of the layer, if no later node uses them."""
        self._original = self._changed = []


def walk(
    model: Model,
    inputs: Sequence[tuple[torch.Tensor, ...]],
    changes: Mapping[str, np.ndarray] | None = None,
) -> Iterator[LayerVisit]:
    """Visit all layers of a network in the order in which they run.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    changes : mapping of str to ndarray, optional
        Tensors that the changed network has from the start, by name, of the same shapes.

    Yields
    ------
    LayerVisit
        Valid until the next one is taken.

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
    layers = {layer.node: layer for layer in find_layers(model)}
    original, changed = build_module(model), build_module(model)
    require_fit(graph, inputs)
    runs = [_PairedRun(graph, original, changed, values) for values in inputs]
    replaced = set(changes or ())
    _replace(changed, changes or {})
    for position in range(len(graph.nodes)):
        if position in layers:
            layer = layers[position]
            before = [run.original[layer.value] for run in runs]
            behind = [run.changed[layer.value] for run in runs]
            same = all(a is b for a, b in zip(before, behind, strict=True))
            visit = LayerVisit(layer, before, before if same else behind)
            yield visit
            _replace(changed, visit.replacements)
            replaced |= visit.replacements.keys()
            visit.release()
            del before, behind
        with running():
            _step(runs, position, replaced)


class _PairedRun:
    """The activations of one calibration input in both networks.

    Both networks share an activation as long as nothing it depends on was changed. Before an
    operator writes into a shared one, the changed network gets a copy.
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
                self._unshare(self.changed[refs[0]])
            done = run_node(original, position, self.original)
            for number in done:
                self.original[number] = None
            if same:
                self.changed.append(self.original[-1])
            else:
                run_node(changed, position, self.changed)
            for number in done:
                self.changed[number] = None

    def _unshare(self, target: torch.Tensor) -> None:
        """Give the changed network its own memory for an activation, if that is shared.

        All its activations that are views of this memory move together.
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


def _step(runs: Sequence[_PairedRun], position: int, replaced: set[str]) -> None:
    """Run a node for all inputs, several of them at once."""
    for _ in in_order(lambda run: run.step(position, replaced), runs, torch_threads()):
        pass


def _replace(module: DecodedModel, values: Mapping[str, np.ndarray]) -> None:
    for name, value in values.items():
        tensor = tensor_named(module, name)
        with torch.no_grad():
            tensor.data = torch.from_numpy(np.array(value)).to(tensor.dtype)
