"""Calibration inputs from files: pictures, arrays, tensors.

No code in a file is executed: arrays are read without pickle, tensors with ``weights_only``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.sizes import COUNT, SIDE, free_size
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.graph.graph import Graph, Input
from nnrcodec.graph.module import check_inputs

logger = logging.getLogger(__name__)

Inputs = Sequence[tuple[torch.Tensor, ...]]
"""Calibration inputs: the arguments of each call of the network."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


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
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz", ".pt", ".pth") and path.is_file():
        inputs: Inputs = list(_samples(_arrays(path, graph), graph, count, path))
    else:
        inputs = _patches(_picture_files(path), graph, count, np.random.default_rng(seed), side)
    require_fit(graph, inputs)
    return inputs


def given_inputs(source: Iterable[Any], count: int | None = None) -> Inputs:
    """Return inputs that a caller passes: tensors or arrays, or tuples of them.

    Raises
    ------
    ConfigError
        If there are no inputs, or an input is not a tensor.
    """
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
    return inputs


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


def is_folder_of_pairs(path: Path) -> bool:
    """Return whether a folder contains ``NAME_orig.png`` and ``NAME_qpQP_dec.png``."""
    return path.is_dir() and any(path.glob("*_orig.png")) and any(path.glob("*_qp*_dec.png"))


def _picture_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if is_folder_of_pairs(path):
            files = [p for p in files if p.stem.endswith("_dec")]
    elif path.is_file():
        files = [path] if path.suffix.lower() in PICTURES else []
    else:
        parent = path.parent
        files = sorted(parent.glob(path.name)) if parent.is_dir() else []
    if not files:
        raise ConfigError(
            f"{path}: there are no calibration inputs; expected a folder of pictures or a pattern "
            f"({', '.join(PICTURES)}), or a .npy, .npz or .pt file"
        )
    return files


def _patches(
    files: list[Path], graph: Graph, count: int, rng: np.random.Generator, side: int
) -> Inputs:
    """Cut patches from pictures, each picture in turn, until there are enough."""
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise ConfigError(
            "pictures are calibration inputs for models with one input (n, channels, height, "
            "width); give a .npy, .npz or .pt file for others"
        )
    (entry,) = graph.inputs
    batch, channels, height, width = (free_size(graph, entry, axis, side) for axis in range(4))
    if channels not in (1, 3):
        raise ConfigError(f"the model takes {channels} channels; pictures have 1 or 3")
    order = rng.permutation(len(files))
    inputs: list[tuple[torch.Tensor, ...]] = []
    patches: list[np.ndarray] = []
    for number in range(count * batch):
        picture = read_picture(files[order[number % len(files)]], channels)
        rows, columns = picture.shape[1:]
        if rows < height or columns < width:
            raise ConfigError(
                f"{files[order[number % len(files)]]} has {rows}x{columns} samples, expected at "
                f"least {height}x{width}"
            )
        top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
        patches.append(picture[:, top : top + height, left : left + width])
        if len(patches) == batch:
            inputs.append((_tensor(np.stack(patches), entry),))
            patches = []
    return inputs


def read_picture(path: Path, channels: int) -> np.ndarray:
    """Read a picture as uint8, shape (channels, height, width)."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ConfigError("reading pictures needs Pillow: pip install nnrcodec[pictures]") from None
    try:
        with Image.open(path) as opened:
            values = np.array(opened.convert("L" if channels == 1 else "RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return values.reshape(*values.shape[:2], channels).transpose(2, 0, 1)


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


def _samples(
    arrays: list[np.ndarray], graph: Graph, count: int, path: Path
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield inputs of evenly spaced samples, each with the batch size of the network."""
    fitting = [
        _with_channels_first(array, entry)
        for array, entry in zip(arrays, graph.inputs, strict=True)
    ]
    length = min(len(array) for array in fitting)
    if length < max(len(array) for array in fitting):
        logger.warning(
            "%s contains different numbers of samples for the inputs of the model; the first %d "
            "are used",
            path,
            length,
        )
    sizes = [free_size(graph, entry, 0) for entry in graph.inputs if entry.shape]
    batch = sizes[0] if sizes else 1
    if length < batch:
        raise ConfigError(f"{path} contains {length} samples, the model takes {batch} at once")
    total = min(count, length // batch)
    for number in range(total):
        start = number * (length - batch) // max(total - 1, 1)
        yield tuple(
            _tensor(array[start : start + batch], entry)
            for array, entry in zip(fitting, graph.inputs, strict=True)
        )


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


def _tensor(values: np.ndarray, entry: Input) -> torch.Tensor:
    dtype = getattr(torch, entry.dtype)
    tensor = torch.from_numpy(np.array(values))
    if values.dtype == np.uint8 and dtype.is_floating_point:
        tensor = tensor.to(torch.float32) / 255
    return tensor.to(dtype).contiguous()
