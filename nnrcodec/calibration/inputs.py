"""Calibration inputs from files: pictures, arrays, tensors.

No code in a file is executed: arrays are read without pickle, tensors with ``weights_only``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nnrcodec.calibration.fidelity import Calibration, HeldBack
from nnrcodec.calibration.picture_files import Patches, picture_files, tensor_of
from nnrcodec.calibration.picture_files import is_folder_of_pairs as is_folder_of_pairs
from nnrcodec.calibration.picture_files import read_picture as read_picture
from nnrcodec.calibration.sizes import COUNT, SIDE, free_size
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.graph.graph import Graph, Input
from nnrcodec.graph.module import check_inputs
from nnrcodec.messages import logger_of

logger = logger_of(__name__)

_EVERY = 8
"""One of so many given inputs is held back,"""

_MOST_HELD = 64
"""but no more than this: their outputs are in memory at once."""

_FEW_HELD, _MOST_LOOKED_AT = 16, 32
"""Fewer held back than this are few; so many of the others are then looked at."""

Inputs = Sequence[tuple[torch.Tensor, ...]]
"""Calibration inputs: the arguments of each call of the network."""


def load_inputs(
    path: str | Path, graph: Graph, count: int = COUNT, seed: int = 0, side: int = SIDE
) -> Inputs:
    """Read calibration inputs.

    Parameters
    ----------
    path : str or Path
        A picture, a folder of pictures, or a pattern such as ``frames/*_dec.png``; in a folder of
        pairs ``NAME_orig.png`` and ``NAME_qpQP_dec.png`` only the decoded pictures are used. Or a
        ``.npy``, ``.npz`` or ``.pt`` file with samples along the first axis; several arrays in an
        ``.npz`` have the names of the inputs. Pictures and samples of 8 bits are divided by 255.

        Pictures may have any size, and be gray or in colour; those in folders of the folder are
        taken, too, and files that cannot be read are left out. Patches are cut out of them; too
        small ones are enlarged first, and for a network of fixed size far larger ones are made
        smaller, to twice that size.
    graph : Graph
        With the sizes and dtypes of the inputs.
    count : int
        Largest number of inputs: patches of pictures, or evenly spaced samples.
    seed : int
        Of the positions of the patches.
    side : int
        Height and width of patches where those of the input are dynamic.

    Returns
    -------
    list of tuple of Tensor

    Raises
    ------
    ConfigError
        If there are no inputs, or they do not fit the network; the message says why.
    """
    inputs = open_inputs(path, graph, seed, side).take(count)
    require_fit(graph, inputs)
    return inputs


def open_inputs(path: str | Path, graph: Graph, seed: int = 0, side: int = SIDE) -> Source:
    """Return what is in a file or folder, before it is said how many inputs are made of it.

    Parameters, errors
    ------------------
    As of `load_inputs`.
    """
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz", ".pt", ".pth") and path.is_file():
        return _Samples(_arrays(path, graph), graph, path)
    return Patches(picture_files(path), graph, seed, side)


class Source(Protocol):
    """What calibration inputs are made of."""

    available: int
    """How many inputs have all of it, or parts of all of it."""

    def take(self, count: int) -> Inputs:
        """Return that many inputs, or fewer; say what does not fit and was changed."""
        ...

    def example(self) -> tuple[torch.Tensor, ...]:
        """Return one input."""
        ...


class Chosen(list[tuple[torch.Tensor, ...]]):
    """Inputs that the package has made up, or chosen from files.

    Parameters
    ----------
    inputs : iterable of tuple of Tensor
    all_of_them : bool
        Whether all are looked at, because their number was asked for or found; otherwise as many as
        can be in reasonable time and memory.
    made_up : bool
        Whether they are unlike those that the network sees.
    """

    def __init__(
        self,
        inputs: Iterable[tuple[torch.Tensor, ...]],
        *,
        all_of_them: bool = True,
        made_up: bool = False,
    ) -> None:
        super().__init__(inputs)
        self.all_of_them = all_of_them
        self.made_up = made_up


def with_some_held_back(inputs: Inputs) -> Calibration:
    """Hold back every eighth input to measure with, 64 at most; fewer than 8 are used for both.

    A few tell little of errors that are large for some inputs and small for most: where few are
    held back, some of the others are looked at as well.
    """
    every = max(_EVERY, -(-len(inputs) // _MOST_HELD))
    if len(inputs) < _EVERY:
        what = f"the {len(inputs)} given inputs, which were also fitted"
        return Calibration(inputs, HeldBack(inputs, what, "fitted"))
    held = [*inputs[every - 1 :: every]]
    fitted: Inputs = [values for index, values in enumerate(inputs) if (index + 1) % every]
    if isinstance(inputs, Chosen):
        fitted = Chosen(fitted, all_of_them=inputs.all_of_them, made_up=inputs.made_up)
    what = f"{len(held)} given inputs that were held back"
    others = None
    if len(held) < _FEW_HELD:
        some = fitted[:: -(-len(fitted) // _MOST_LOOKED_AT)]
        also = f"{len(some)} given inputs that were fitted, more than on {len(held)} held back"
        others = HeldBack(some, also, "fitted")
    return Calibration(fitted, HeldBack(held, what, "given", others))


def given_inputs(source: Iterable[Any], count: int | None = None) -> Inputs:
    """Return inputs that a caller passes: tensors or arrays, or tuples of them.

    With a count, these are the first, and all of them are looked at.

    Raises
    ------
    ConfigError
        If there are no inputs, or an input is not a tensor.
    """
    if isinstance(source, Chosen) and count is None:
        return source
    inputs: list[tuple[torch.Tensor, ...]] = []
    for item in source:
        values = item if isinstance(item, tuple | list) else (item,)
        try:
            inputs.append(tuple(torch.as_tensor(value).detach().cpu() for value in values))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"calibration input {len(inputs)} is not a tensor: {error}") from None
        if len(inputs) == count:
            break
    if not inputs:
        raise ConfigError("there are no calibration inputs")
    return inputs if count is None else Chosen(inputs)


def require_fit(graph: Graph, inputs: Inputs) -> None:
    """Check that calibration inputs fit the inputs of a graph.

    Raises
    ------
    ConfigError
        If an input does not fit.
    """
    for values in inputs:
        try:
            check_inputs(graph, values)
        except ValueError as error:
            raise ConfigError(f"a calibration input does not fit the model: {error}") from None


@contextmanager
def running() -> Iterator[None]:
    """Convert errors of operators to errors about the calibration inputs.

    Raises
    ------
    ConfigError
        If an operator raises an error about a size or an index.
    """
    try:
        yield
    except (RuntimeError, IndexError, BitstreamError) as error:
        raise ConfigError(f"the model does not run with a calibration input: {error}") from error


def _arrays(path: Path, graph: Graph) -> list[np.ndarray]:
    """Return one array for each input of a network."""
    try:
        if path.suffix.lower() in (".pt", ".pth"):
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = np.load(path, allow_pickle=False)
        if hasattr(content, "keys"):
            content = {key: content[key] for key in content.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # the readers may raise any exception
        raise ConfigError(f"{path} contains no arrays: {error}") from None
    names = [entry.name for entry in graph.inputs]
    if isinstance(content, dict):
        if all(name in content for name in names):
            arrays = [content[name] for name in names]
        else:
            arrays = [value for value in content.values() if getattr(value, "ndim", 0) > 1]
            if len(names) != 1 or len(arrays) != 1:
                raise ConfigError(
                    f"{path} contains {', '.join(map(repr, content))}; expected "
                    f"{', '.join(names)}, the inputs of the model"
                )
    else:
        arrays = list(content) if isinstance(content, tuple | list) else [content]
    if len(arrays) != len(names):
        raise ConfigError(f"{path} contains {len(arrays)} arrays, the model takes {len(names)}")
    return [_array(value, path) for value in arrays]


def _array(value: Any, path: Path) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        value = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.ndim:
        kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
        raise ConfigError(f"{path} contains a {kind}, expected arrays of numbers along axis 0")
    return value


class _Samples:
    """Evenly spaced samples of arrays, as many at once as the network takes."""

    def __init__(self, arrays: list[np.ndarray], graph: Graph, path: Path) -> None:
        self._arrays = [
            _with_channels_first(array, entry)
            for array, entry in zip(arrays, graph.inputs, strict=True)
        ]
        self._entries = graph.inputs
        self._length = min(len(array) for array in self._arrays)
        if self._length < max(len(array) for array in self._arrays):
            logger.warning(
                "%s contains different numbers of samples for the inputs of the model; the first "
                "%d are used",
                path,
                self._length,
            )
        sizes = [free_size(graph, entry, 0) for entry in graph.inputs if entry.shape]
        self._batch = sizes[0] if sizes else 1
        if self._length < self._batch:
            raise ConfigError(
                f"{path} contains {self._length} samples, the model takes {self._batch} at once"
            )
        self.available = self._length // self._batch

    def example(self) -> tuple[torch.Tensor, ...]:
        return self.take(1)[0]

    def take(self, count: int) -> Inputs:
        total = min(count, self.available)
        starts = (
            number * (self._length - self._batch) // max(total - 1, 1) for number in range(total)
        )
        return [
            tuple(
                tensor_of(array[start : start + self._batch], entry)
                for array, entry in zip(self._arrays, self._entries, strict=True)
            )
            for start in starts
        ]


def _with_channels_first(array: np.ndarray, entry: Input) -> np.ndarray:
    """Move the channels of pictures to axis 1, if they are in the last axis."""
    if array.ndim == 4 == len(entry.shape):
        channels = entry.shape[1]
        if isinstance(channels, int) and array.shape[1] != channels == array.shape[3]:
            logger.info(
                "calibration samples of input %r have the shape %s with channels last; they are "
                "moved to the second axis",
                entry.name,
                array.shape[1:],
            )
            return array.transpose(0, 3, 1, 2)
    return array
