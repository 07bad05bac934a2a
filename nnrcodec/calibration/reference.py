"""The outputs of an original network, and how near those of a changed one are to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from nnrcodec.calibration.fidelity import Fidelity, HeldBack
from nnrcodec.calibration.inputs import running
from nnrcodec.calibration.outputs import Variation, real_tensors
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.parallel import in_order, torch_threads

_MOST_COLOURS = 4
_ALIKE = 0.1
"""More channels are a picture, such as one of packed luma and chroma, if they change less of it."""


class Reference:
    """The outputs of the original network, to compare others with.

    Parameters
    ----------
    module : torch.nn.Module
        The original network.
    held_back : HeldBack
        What it is compared on.
    """

    def __init__(self, module: torch.nn.Module, held_back: HeldBack) -> None:
        self._inputs, self._source = held_back.inputs, held_back.source
        self._kind, fitted = held_back.kind, held_back.fitted
        self._fitted = None if fitted is None else Reference(module, fitted)
        self._outputs = [*_outputs(module, self._inputs)]
        self._signals = Variation(self._outputs)

    @property
    def has_outputs(self) -> bool:
        """Whether there are outputs to compare: tensors of real numbers."""
        return any(len(outputs) for outputs in self._outputs)

    def compare(self, module: torch.nn.Module) -> Fidelity:
        """Measure how near the outputs of a network are; it takes the same inputs."""
        own = self._compared(module)
        if self._fitted is None:
            return own
        other = self._fitted.compare(module)
        return min(own, other, key=lambda f: f.snr if f.absolute is None else f.absolute)

    def _compared(self, module: torch.nn.Module) -> Fidelity:
        changed = [*_outputs(module, self._inputs)]
        pairs = [
            (torch.cat([a.flatten() for a in reference]), torch.cat([b.flatten() for b in output]))
            for reference, output in zip(
                zip(*self._outputs, strict=True), zip(*changed, strict=True), strict=True
            )
        ]
        snr = min(
            (
                _decibels(len(a) * variance, _power(a - b))
                for variance, (a, b) in zip(self._signals.variances, pairs, strict=True)
            ),
            default=math.inf,
        )
        absolute, change = None, None
        before = self._pictures()
        if before is not None:
            ((reference, output),) = pairs
            error = _power(reference - output)
            extent = float(reference.max() - reference.min())
            absolute = _decibels(reference.numel() * extent**2, error)
            change = _decibels(_power(reference - before), error)
        return Fidelity(snr, absolute, change, len(self._inputs), self._source, self._kind)

    def _pictures(self) -> torch.Tensor | None:
        """Return what the network changes, if its only output is a picture like its first input."""
        if any(len(outputs) != 1 or outputs[0].ndim != 4 for outputs in self._outputs):
            return None
        before = []
        for (first, *_), (output,) in zip(self._inputs, self._outputs, strict=True):
            if first.ndim != 4 or first.shape[2:] != output.shape[2:]:
                return None
            if first.shape[1] < output.shape[1]:
                return None
            before.append(first[:, : output.shape[1]].double().flatten())
        pictures, outputs = torch.cat(before), [output for (output,) in self._outputs]
        if all(output.shape[1] <= _MOST_COLOURS for output in outputs):
            return pictures
        filtered = torch.cat([output.flatten() for output in outputs])
        return pictures if _power(filtered - pictures) < _ALIKE * _power(pictures) else None


def _outputs(module: torch.nn.Module, inputs: Inputs) -> Iterator[Sequence[torch.Tensor]]:
    def run(values: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
        with torch.inference_mode():
            copies = tuple(value.clone() for value in values)
            return [real.double() for real in real_tensors(module(*copies))]

    with running():
        yield from in_order(run, inputs, torch_threads(), ahead=1)


def _power(values: torch.Tensor) -> float:
    return float(values.square().sum())


def _decibels(signal: float, error: float) -> float:
    if error == 0:
        return math.inf
    return 10 * math.log10(signal / error) if signal > 0 and math.isfinite(error) else -math.inf
