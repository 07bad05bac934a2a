"""Patches of pictures in files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from nnrcodec.calibration.sizes import free_size, meeting_guards
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph, Input
from nnrcodec.messages import logger_of

logger = logger_of(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def is_folder_of_pairs(path: Path) -> bool:
    """Return whether a folder contains ``NAME_orig.png`` and ``NAME_qpQP_dec.png``."""
    return path.is_dir() and any(path.glob("*_orig.png")) and any(path.glob("*_qp*_dec.png"))


def picture_files(path: Path) -> list[Path]:
    """Return the files of pictures that a path names.

    Raises
    ------
    ConfigError
        If there are none.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES)
        if is_folder_of_pairs(path):
            files = [p for p in files if p.stem.endswith("_dec") and p.parent == path]
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


class _UnreadableError(ConfigError):
    """A file is no picture, or a damaged one."""


class Patches:
    """Patches of pictures, each picture in turn."""

    def __init__(self, files: list[Path], graph: Graph, seed: int, side: int) -> None:
        if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
            raise ConfigError(
                "pictures are calibration inputs for models with one input (n, channels, height, "
                "width); give a .npy, .npz or .pt file for others"
            )
        (self._entry,) = graph.inputs
        self._graph, self._seed, self._side = graph, seed, side
        self._batch, self._channels = (free_size(graph, self._entry, axis) for axis in (0, 1))
        if self._channels not in (1, 3):
            raise ConfigError(f"the model takes {self._channels} channels; pictures have 1 or 3")
        self._files = files
        self.available = -(-len(files) // self._batch)

    def example(self) -> tuple[torch.Tensor, ...]:
        """Return one input."""
        return self._taken(1)[0][0]

    def take(self, count: int) -> list[tuple[torch.Tensor, ...]]:
        """Return that many inputs; say what was resized or cannot be read."""
        inputs, unreadable, resized = self._taken(count)
        if unreadable:
            logger.warning(
                "%d of %d pictures cannot be read and are left out, such as %s",
                len(unreadable),
                len(self._files),
                unreadable[0],
            )
        if resized:
            logger.warning(
                "%d pictures, such as %s, do not have a size that the network takes: they are "
                "resized, and a part is cut out",
                len(resized),
                min(resized),
            )
        return inputs

    def _taken(self, count: int) -> tuple[list[tuple[torch.Tensor, ...]], list[Path], set[Path]]:
        """Return inputs, which pictures could not be read, and which were resized."""
        rng = np.random.default_rng(self._seed)
        files = [self._files[index] for index in rng.permutation(len(self._files))]
        inputs: list[tuple[torch.Tensor, ...]] = []
        patches: list[np.ndarray] = []
        unreadable: list[Path] = []
        resized: set[Path] = set()
        turn = 0
        while len(inputs) < count:
            path = files[turn % len(files)]
            try:
                picture = read_picture(path, self._channels)
            except _UnreadableError:
                unreadable.append(path)
                files.remove(path)
                if not files:
                    raise
                continue
            turn += 1
            height, width = self._size(picture)
            fitting = _resized(picture, height, width, self._fixed)
            if fitting is not picture:
                resized.add(path)
            top, left = (
                rng.integers(has - wanted + 1)
                for has, wanted in zip(fitting.shape[1:], (height, width), strict=True)
            )
            patches.append(fitting[:, top : top + height, left : left + width])
            if len(patches) == self._batch:
                inputs.append((tensor_of(np.stack(patches), self._entry),))
                patches = []
        return inputs, unreadable, resized

    @property
    def _fixed(self) -> bool:
        return all(isinstance(size, int) for size in self._entry.shape[2:])

    def _size(self, picture: np.ndarray) -> tuple[int, int]:
        """Return the size of the patch of a picture.

        Where the network leaves it free and the picture is smaller than the default, it is that of
        the export if the picture has it, or a multiple of 32 or 8, which most networks take.
        """
        height, width = (free_size(self._graph, self._entry, axis, self._side) for axis in (2, 3))
        if self._batch == 1:  # else all are of the same size
            height, width = self._shorter(2, height, picture), self._shorter(3, width, picture)
        return self._legal(height, width)

    def _legal(self, height: int, width: int) -> tuple[int, int]:
        """Return the nearest size for which the network holds, if it asks about sizes."""
        if not self._graph.guards:
            return height, width
        shape = (self._batch, self._entry.shape[1], height, width)
        wanted = {name: dim.example for name, dim in self._graph.dims.items()}
        wanted |= {
            name: int(size)
            for name, size in zip(self._entry.shape, shape, strict=True)
            if isinstance(name, str) and isinstance(size, int)
        }
        sizes = meeting_guards(self._graph, wanted)
        legal = [sizes[s] if isinstance(s, str) else s for s in self._entry.shape[2:]]
        return legal[0], legal[1]

    def _shorter(self, axis: int, wanted: int, picture: np.ndarray) -> int:
        declared, available = self._entry.shape[axis], picture.shape[axis - 1]
        if wanted <= available or isinstance(declared, int):
            return wanted
        dim = self._graph.dims[declared]
        if dim.example <= available:
            return dim.example
        multiple = 32 if available >= 32 else 8 if available >= 8 else 1
        return max(available - available % multiple, dim.low)


_LARGE = 4
"""How many times as large as an input of fixed size a picture is that is made smaller."""


def _resized(picture: np.ndarray, height: int, width: int, fixed: bool) -> np.ndarray:
    """Return a picture of at least some size: enlarged, or made smaller if it is far too large.

    Networks of fixed size look at whole scenes, of which a large picture has too many.
    """
    times = min(picture.shape[1] / height, picture.shape[2] / width)
    if times >= 1 and not (fixed and times > _LARGE):
        return picture
    from PIL import Image

    factor = (1 if times < 1 else 2) / times
    size = [
        max(math.ceil(factor * has), wanted)
        for has, wanted in zip(picture.shape[1:], (height, width), strict=True)
    ]
    planes = [
        Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC) for plane in picture
    ]
    return np.stack([np.asarray(plane) for plane in planes])


def read_picture(path: Path, channels: int) -> np.ndarray:
    """Read a picture as uint8, shape (channels, height, width), in gray or in colour.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ConfigError("reading pictures needs Pillow: pip install nnrcodec[pictures]") from None
    try:
        with Image.open(path) as opened:
            picture: Image.Image = opened
            if opened.mode.startswith("I"):  # 16 bits, which Pillow would clip
                gray = np.rint(np.array(opened, np.float64) / 257).clip(0, 255)
                picture = Image.fromarray(gray.astype(np.uint8))
            values = np.array(picture.convert("L" if channels == 1 else "RGB"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise _UnreadableError(f"cannot read {path}: {error}") from None
    return values.reshape(*values.shape[:2], channels).transpose(2, 0, 1)


def tensor_of(values: np.ndarray, entry: Input) -> torch.Tensor:
    """Return an array as a network takes it; bytes that become real numbers are divided by 255."""
    dtype = getattr(torch, entry.dtype)
    tensor = torch.from_numpy(np.array(values))
    if values.dtype == np.uint8 and dtype.is_floating_point:
        tensor = tensor.to(torch.float32) / 255
    return tensor.to(dtype).contiguous()
