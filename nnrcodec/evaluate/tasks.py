"""Tasks: quality metrics of a network."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from nnrcodec.calibration.inputs import given_inputs, load_inputs, read_picture
from nnrcodec.calibration.outputs import real_tensors
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.measure import run
from nnrcodec.evaluate.networks import NO_GRAPH, original_of, running
from nnrcodec.graph.module import DecodedModel

_BATCH = 100
"""Batch size of a classifier whose batch size is dynamic."""

_PEAK = 255
"""Largest sample of an 8-bit picture."""

_Pair = tuple[str, int, np.ndarray, np.ndarray]
"""Name of a picture, QP, original picture and decoded picture."""


@dataclass(frozen=True, slots=True)
class Score:
    """Quality of a network.

    Parameters
    ----------
    value : float
        Value of the metric, higher is better; infinite if there is no error.
    unit : str
        Unit of the value, such as dB.
    groups : mapping of str to mapping of str to float
        The same for parts of the data: by grouping criterion, then by name of the part.
    more : mapping of str to float
        Additional metrics, by name.
    """

    value: float
    unit: str
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    more: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A quality metric.

    A task may also have a `baseline`, the `Score` without any network.
    """

    name: str
    unit: str

    def score(self, module: torch.nn.Module) -> Score:
        """Score a network; higher is better."""
        ...


class PsnrTask:
    """PSNR of decoded pictures after a filter.

    The output of the filter is clipped and rounded to 8 bits, as in a codec; the PSNR of each
    picture, 10 log10(255^2 / MSE), is averaged in dB.

    Parameters
    ----------
    folder : str or Path
        With ``NAME_orig.png`` and ``NAME_qpQP_dec.png``, 8 bits.
    channels : int
        1 for gray, 3 for RGB.

    Attributes
    ----------
    baseline : Score
        Score of the decoded pictures without a filter.

    Raises
    ------
    ConfigError
        If there are no such pairs, or sizes differ.
    """

    name = "PSNR"
    unit = "dB"

    def __init__(self, folder: str | Path, channels: int = 1) -> None:
        self._pairs = list(_pairs(Path(folder), channels))
        if not self._pairs:
            raise ConfigError(
                f"{folder} contains no pairs of pictures: expected NAME_orig.png and "
                "NAME_qp37_dec.png, decoded at QP 37"
            )
        self.baseline = self._score(lambda decoded: decoded)

    def score(self, module: torch.nn.Module) -> Score:
        """Return the mean PSNR; groups are means by QP, means by picture, and single values."""
        return self._score(lambda decoded: _filtered(module, decoded))

    def _score(self, filtered: Callable[[np.ndarray], np.ndarray]) -> Score:
        psnrs = [
            (name, qp, psnr(filtered(decoded), original))
            for name, qp, original, decoded in self._pairs
        ]
        return Score(
            _mean(value for *_, value in psnrs),
            self.unit,
            {
                "QP": _means((str(qp), value) for _, qp, value in sorted(psnrs, key=_qp)),
                "picture": _means((name, value) for name, _, value in psnrs),
                "picture, QP": {f"{name}, {qp}": value for name, qp, value in psnrs},
            },
        )


class AccuracyTask:
    """Top-1 accuracy of a classifier.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` file with ``images``, uint8 of shape (n, height, width) or (n, height, width,
        channels), or floats of the shape that the network takes, and ``labels``, integers (n,).
    mean, std : sequence of float
        Normalization of uint8 images, after division by 255: one number, or one for each channel.

    Raises
    ------
    ConfigError
        If the file does not contain such images and labels.
    """

    name = "accuracy"
    unit = "%"

    def __init__(
        self, path: str | Path, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> None:
        images, self._labels = _images_and_labels(Path(path))
        if images.dtype == np.uint8 and images.ndim in (3, 4):
            images = images[..., None] if images.ndim == 3 else images
            images = _normalized(images, mean, std).transpose(0, 3, 1, 2)
        self._images = torch.from_numpy(np.ascontiguousarray(images, np.float32))

    def score(self, module: torch.nn.Module) -> Score:
        """Return the percentage of images that are classified correctly."""
        (least, size), correct = _batch_sizes(module), 0
        for start in range(0, len(self._images), size):
            batch, labels = self._images[start : start + size], self._labels[start : start + size]
            padded = batch[torch.arange(max(len(batch), least)) % len(batch)]
            logits = real_tensors(run(module, (padded,)))
            if len(logits) != 1 or logits[0].ndim < 2 or len(logits[0]) != len(padded):
                raise ConfigError("this network does not return one row of numbers for each image")
            predicted = logits[0].flatten(1).argmax(1)[: len(batch)].numpy()
            correct += int((predicted == labels).sum())
        count = len(self._images)
        more = {"images": float(count), "right": float(correct)}
        return Score(100 * correct / count, self.unit, more=more)


class OutputsTask:
    """Agreement with the outputs of the original network: signal-to-noise ratio over all outputs.

    Parameters
    ----------
    model : path, Model, ...
        The original, with a graph.
    inputs : path, or iterable of Tensor or of tuples of them
        A path is read by `nnrcodec.calibration.inputs.load_inputs`.
    count : int
        Largest number of inputs.

    Raises
    ------
    ConfigError
        If there are no inputs, or they do not fit.
    """

    name = "outputs"
    unit = "dB SNR"

    def __init__(self, model: Any, inputs: Any, count: int = 256) -> None:
        original = original_of(model)
        if original.graph is None:
            raise ConfigError(NO_GRAPH)
        if isinstance(inputs, str | Path):
            inputs = load_inputs(inputs, original.graph, count)
        self._inputs = given_inputs(inputs, count)
        self._original = list(self._outputs(running(original)))
        if not any(output.numel() for outputs in self._original for output in outputs):
            raise ConfigError("this network returns no real numbers to compare")

    def score(self, module: torch.nn.Module) -> Score:
        """Return the ratio of the energies of outputs and errors; infinite if they are equal."""
        signal = noise = largest = 0.0
        same = rows = elements = 0
        for original, outputs in zip(self._original, self._outputs(module), strict=True):
            if [value.shape for value in original] != [value.shape for value in outputs]:
                raise ConfigError("the outputs of this network have other shapes")
            for a, b in zip(original, outputs, strict=True):
                difference = a.double() - b.double()
                signal += float(a.double().square().sum())
                noise += float(difference.square().sum())
                largest = max(largest, float(difference.abs().max())) if a.numel() else largest
                elements += a.numel()
                if a.ndim == 2 and a.shape[1] > 1:
                    same += int((a.argmax(1) == b.argmax(1)).sum())
                    rows += len(a)
        more = {"RMS error": math.sqrt(noise / elements), "largest error": largest}
        if rows:
            more["same top-1, %"] = 100 * same / rows
        return Score(_decibel(signal, noise), self.unit, more=more)

    def _outputs(self, module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
        for values in self._inputs:
            yield [real.clone() for real in real_tensors(run(module, values))]


class CallableTask:
    """A user-defined metric.

    Parameters
    ----------
    function : callable
        Takes a network and returns a number, higher is better.
    name, unit : str
        Name and unit of the metric.
    """

    def __init__(
        self, function: Callable[[torch.nn.Module], float], name: str = "score", unit: str = ""
    ) -> None:
        self.name, self.unit = name, unit
        self._function = function

    def score(self, module: torch.nn.Module) -> Score:
        """Return what the function returns."""
        return Score(float(self._function(module)), self.unit)


def psnr(picture: np.ndarray, original: np.ndarray) -> float:
    """Return the PSNR of a picture of 8 bits in dB.

    Examples
    --------
    >>> black = np.zeros((8, 8), np.uint8)
    >>> round(psnr(black + 1, black), 2), psnr(black, black)
    (48.13, inf)
    """
    error = float(np.mean((picture.astype(np.float64) - original) ** 2))
    return _decibel(_PEAK**2, error)


def _pairs(folder: Path, channels: int) -> Iterator[_Pair]:
    for path in sorted(folder.glob("*_orig.png")):
        picture = path.name.removesuffix("_orig.png")
        original = read_picture(path, channels)
        name_of_decoded = re.compile(re.escape(picture) + r"_qp([0-9]+)_dec\.png")
        for decoded_path in sorted(folder.iterdir()):
            matched = name_of_decoded.fullmatch(decoded_path.name)
            if matched:
                decoded = read_picture(decoded_path, channels)
                if decoded.shape != original.shape:
                    raise ConfigError(f"{decoded_path} has another size than {path}")
                yield picture, int(matched[1]), original, decoded


def _filtered(module: torch.nn.Module, decoded: np.ndarray) -> np.ndarray:
    """Return the picture that a filter returns, rounded to 8 bits; NaN stays."""
    output = run(module, (torch.from_numpy(decoded)[None].float() / _PEAK,))
    if not isinstance(output, torch.Tensor) or output.shape[1:] != decoded.shape:
        raise ConfigError("this network does not return pictures of the size of its input")
    return np.asarray(output[0].float().mul(_PEAK).round().clamp(0, _PEAK).numpy())


def _qp(measured: tuple[str, int, float]) -> int:
    return measured[1]


def _mean(values: Iterable[float]) -> float:
    several = list(values)
    return math.fsum(several) / len(several) if all(map(math.isfinite, several)) else sum(several)


def _means(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the mean of the values of each name, in order of first occurrence."""
    several: dict[str, list[float]] = {}
    for name, value in named:
        several.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in several.items()}


def _decibel(signal: float, noise: float) -> float:
    """Return a ratio of energies in dB."""
    if noise == 0:
        return math.inf
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return math.nan
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _images_and_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is not an .npz file with images and labels: {error}") from None
    if images.dtype.kind not in "fiu" or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ConfigError(
            f"{path} has images of {images.dtype} and labels of {labels.dtype}, shape "
            f"{list(labels.shape)}; expected numbers, and one integer for each image"
        )
    if images.ndim < 2 or len(images) != len(labels) or not len(images):
        raise ConfigError(
            f"{path} has images of shape {list(images.shape)} and {len(labels)} labels"
        )
    return images, labels


def _normalized(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalize uint8 images with channels last."""
    channels = images.shape[3]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
            raise ConfigError(
                f"{name} is {', '.join(map(str, values))}: expected one number, or one for each "
                f"of {channels} channels"
            )
    if min(std) <= 0:
        raise ConfigError(f"std is {min(std)}: images are divided by it, it must be above 0")
    offset, scale = np.array(mean, np.float32), np.array(std, np.float32)
    return (images.astype(np.float32) / _PEAK - offset) / scale


def _batch_sizes(module: torch.nn.Module) -> tuple[int, int]:
    """Return the smallest batch size that a network takes, and the batch size to use."""
    if not isinstance(module, DecodedModel) or not module._nnr_graph.inputs[0].shape:
        return 1, _BATCH
    graph = module._nnr_graph
    declared = graph.inputs[0].shape[0]
    if isinstance(declared, int):
        return declared, declared
    dim = graph.dims[declared]
    return dim.low, max(dim.low, _BATCH if dim.high is None else min(_BATCH, dim.high))
