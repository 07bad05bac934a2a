"""What a network is there for, as one number: tasks that score it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from nnrcodec.calibration.inputs import given_inputs, load_inputs, read_picture
from nnrcodec.calibration.sensitivity import real_tensors
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph

_BATCH = 100
"""Samples that a classifier is given at once."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well a network does.

    Parameters
    ----------
    value : float
        The number that counts; more is better.
    unit : str
        Of it, such as dB.
    parts : mapping of str to float
        What it is the mean of, or more to know, by name.
    """

    value: float
    unit: str
    parts: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """What a network is there for."""

    name: str
    unit: str

    def score(self, module: torch.nn.Module) -> Score:
        """Score a network; more is better."""
        ...


class PsnrTask:
    """PSNR of decoded pictures after a filter.

    What the filter makes of a picture is clipped and rounded to 8 bits, as a codec stores it; the
    PSNR of each picture, 10 log10(255^2 / MSE), is averaged in dB.

    Parameters
    ----------
    folder : str or Path
        Holds ``NAME_orig.png`` and ``NAME_qpQP_dec.png``, 8 bits.
    channels : int
        1 for gray, 3 for RGB.

    Raises
    ------
    ConfigError
        If there are no such pairs, or sizes differ.
    """

    name = "psnr"
    unit = "dB"

    def __init__(self, folder: str | Path, channels: int = 1) -> None:
        folder = Path(folder)
        self._pairs: list[tuple[str, int, np.ndarray, np.ndarray]] = []
        for path in sorted(folder.glob("*_orig.png")):
            picture = path.name.removesuffix("_orig.png")
            original = read_picture(path, channels)
            for decoded_path in sorted(folder.glob(f"{picture}_qp*_dec.png")):
                qp = decoded_path.name.removeprefix(f"{picture}_qp").removesuffix("_dec.png")
                decoded = read_picture(decoded_path, channels)
                if decoded.shape != original.shape or not qp.isdigit():
                    raise ConfigError(f"{decoded_path} does not fit {path}: other size, or no QP")
                self._pairs.append((picture, int(qp), original, decoded))
        if not self._pairs:
            raise ConfigError(
                f"{folder} holds no pairs of pictures: expected NAME_orig.png and "
                "NAME_qp37_dec.png, decoded at QP 37"
            )

    def score(self, module: torch.nn.Module) -> Score:
        """Return the mean PSNR; parts are the means over the pictures of each QP, and of each."""
        found = [(name, qp, _psnr(module, *pair)) for name, qp, *pair in self._pairs]
        parts = {}
        for qp in sorted({qp for _, qp, _ in found}):
            parts[f"QP {qp}"] = float(np.mean([value for _, q, value in found if q == qp]))
        for picture in sorted({name for name, _, _ in found}):
            parts[picture] = float(np.mean([value for name, _, value in found if name == picture]))
        return Score(float(np.mean([value for *_, value in found])), self.unit, parts)


class AccuracyTask:
    """Top-1 accuracy of a classifier.

    Parameters
    ----------
    path : str or Path
        An ``.npz`` file with ``images``, uint8 of shape (n, height, width, channels) or float of
        the shape that the network takes, and ``labels``, integers (n,).
    mean, std : sequence of float
        Taken off uint8 images, after division by 255, and divided by, for each channel.

    Raises
    ------
    ConfigError
        If the file holds something else.
    """

    name = "accuracy"
    unit = "%"

    def __init__(
        self, path: str | Path, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> None:
        try:
            with np.load(path, allow_pickle=False) as held:
                images, self._labels = held["images"], held["labels"]
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{path} is no .npz file with images and labels: {error}") from None
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / 255
            images = (images - np.array(mean, np.float32)) / np.array(std, np.float32)
            images = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images
        if len(images) != len(self._labels) or not len(images):
            raise ConfigError(f"{path} has {len(images)} images and {len(self._labels)} labels")
        self._images = torch.from_numpy(np.ascontiguousarray(images, np.float32))

    def score(self, module: torch.nn.Module) -> Score:
        """Return the share of images that get their label, in per cent."""
        right = 0
        with torch.inference_mode():
            for start in range(0, len(self._images), _BATCH):
                (logits,) = real_tensors(module(self._images[start : start + _BATCH]))
                guessed = logits.reshape(len(logits), -1).argmax(1).numpy()
                right += int((guessed == self._labels[start : start + _BATCH]).sum())
        return Score(100 * right / len(self._images), self.unit)


class OutputsTask:
    """Agreement with the outputs of the original network: the signal-to-noise ratio of all.

    Parameters
    ----------
    path : str or Path
        Inputs, as `nnrcodec.calibration.inputs.load_inputs` reads them.
    graph : Graph
        Of the original network, to know what it takes.
    original : torch.nn.Module
        It.
    count : int
        Inputs at most.
    """

    name = "outputs"
    unit = "dB SNR"

    def __init__(
        self, path: str | Path, graph: Graph, original: torch.nn.Module, count: int = 256
    ) -> None:
        self._inputs = given_inputs(load_inputs(path, graph, count))
        self._wanted = list(self._run(original))

    def score(self, module: torch.nn.Module) -> Score:
        """Return the ratio of the energies of outputs and errors; infinite if they are equal."""
        signal = noise = largest = 0.0
        same = rows = 0
        for wanted, made in zip(self._wanted, self._run(module), strict=True):
            for a, b in zip(wanted, made, strict=True):
                difference = (a - b).double()
                signal += float(a.double().square().sum())
                noise += float(difference.square().sum())
                largest = max(largest, float(difference.abs().max()))
                if a.ndim == 2:
                    same += int((a.argmax(1) == b.argmax(1)).sum())
                    rows += len(a)
        ratio = 10 * math.log10(signal / noise) if noise and signal else math.inf
        parts = {"largest error": largest}
        if rows:
            parts["same top-1, %"] = 100 * same / rows
        return Score(ratio, self.unit, parts)

    def _run(self, module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
        with torch.inference_mode():
            for values in self._inputs:
                yield [real.clone() for real in real_tensors(module(*values))]


class CallableTask:
    """A function of yours.

    Parameters
    ----------
    function : callable
        Takes a network, returns a number that is better if it is more.
    name, unit : str
        What it measures, and in what.
    """

    def __init__(
        self, function: Callable[[torch.nn.Module], float], name: str = "score", unit: str = ""
    ) -> None:
        self.name, self.unit = name, unit
        self._function = function

    def score(self, module: torch.nn.Module) -> Score:
        """Return what the function returns."""
        return Score(float(self._function(module)), self.unit)


def _psnr(module: torch.nn.Module, original: np.ndarray, decoded: np.ndarray) -> float:
    with torch.inference_mode():
        made = module(torch.from_numpy(decoded)[None].float() / 255)
    if not isinstance(made, torch.Tensor) or made.shape[1:] != original.shape:
        raise ConfigError("this network does not make pictures of the size that it is given")
    rounded = made[0].mul(255).round().clamp(0, 255).numpy().astype(np.float64)
    error = float(np.mean((rounded - original) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf
