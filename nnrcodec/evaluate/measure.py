"""Cost of running networks: time and multiply-adds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnrcodec.calibration.synthetic import synthetic_inputs
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph
from nnrcodec.model.model import Model
from nnrcodec.progress import Progress

Values = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median and quartiles of repeated time measurements.

    Parameters
    ----------
    median : float
        Median in seconds.
    quartiles : tuple of float
        First and third quartile in seconds.
    """

    median: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Seconds:
        """Return median and quartiles of some measurements."""
        if len(seconds) == 1:
            return cls(seconds[0], (seconds[0], seconds[0]))
        first, _, last = quantiles(seconds, n=4, method="inclusive")
        return cls(median(seconds), (first, last))


def interleaved(
    actions: Mapping[str, Callable[[], object]], rounds: int, progress: Progress
) -> dict[str, Seconds]:
    """Measure the times of several actions.

    After one warm-up round they are measured in turn, round by round, so that a temporarily slower
    machine affects all of them.

    Parameters
    ----------
    actions : mapping of str to callable
        The actions, by name.
    rounds : int
        Number of measurements of each.
    progress : callable
        Called with the number of actions that have run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    done, total = 0, (rounds + 1) * len(actions)
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if number:
                seconds[name].append(time.perf_counter() - start)
            done += 1
            progress(done, total)
    return {name: Seconds.of(measured) for name, measured in seconds.items()}


def run(module: torch.nn.Module, values: Values) -> Any:
    """Run a network without gradients.

    Raises
    ------
    ConfigError
        If the network does not run on this input.
    """
    try:
        with torch.inference_mode():
            return module(*values)
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        shapes = " and ".join("x".join(map(str, value.shape)) or "()" for value in values)
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"the network does not run on an input of {shapes}: {reason}") from error


def multiply_adds(module: torch.nn.Module, values: Values) -> int:
    """Return the multiply-adds of convolutions and matrix products for an input."""
    with FlopCounterMode(display=False) as counter:
        run(module, values)
    return int(counter.get_total_flops()) // 2


def example_input(model: Model, size: Sequence[int] | None) -> Values:
    """Return an input to run a network on.

    Parameters
    ----------
    model : Model
        With a graph.
    size : sequence of int, optional
        Height and width of pictures, where those of the input are dynamic.

    Raises
    ------
    ConfigError
        If there is no valid input of this size.
    """
    graph = model.graph
    if size is not None and graph is not None:
        _check_size(graph, size)
    (values,) = synthetic_inputs(model, 1)
    if size is not None:
        shape = (*values[0].shape[:2], *size)
        picture = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        values = (picture.to(values[0].dtype),)
    return channels_last(values)


def _check_size(graph: Graph, size: Sequence[int]) -> None:
    written = "x".join(map(str, size))
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 2 + len(size):
        raise ConfigError(f"an input size of {written} does not fit what the network takes")
    for wanted, declared in zip(size, graph.inputs[0].shape[2:], strict=True):
        dim = graph.dims[declared] if isinstance(declared, str) else None
        low, high = (max(1, dim.low), dim.high) if dim else (int(declared), int(declared))
        if wanted < low or (high is not None and wanted > high):
            legal = f"at least {low}" if high is None else f"{low} to {high}"
            legal = legal if low != high else f"{low}"
            raise ConfigError(
                f"an input size of {written} does not fit: the network takes {legal} samples where "
                f"that has {wanted}"
            )


def channels_last(values: Values) -> Values:
    """Return values with pictures in the channels-last memory format."""
    layout = torch.channels_last
    return tuple(v.contiguous(memory_format=layout) if v.ndim == 4 else v for v in values)
