"""HDF5 files, such as weights and networks of Keras: datasets as tensors, by their paths.

Attributes of groups, which name the layers and hold the configuration of Keras, are the wrapper.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.hdf5_readable import most_bytes_of, require_readable
from nnrcodec.formats.reading import require_no_key
from nnrcodec.formats.torch_file import FREE_INFLATED, INFLATED
from nnrcodec.formats.widening import widened
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import MOST_BYTES, LeftOut, Source, Wrapper

_MOST_OBJECTS = 1_000_000
_TRAINING = ("optimizer_weights", "optimizer")


def load(path: Path, key: str | None = None) -> Model:
    """Read the datasets of an HDF5 file; values are read when they are asked for.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        "all" also codes the state of an optimizer.

    Raises
    ------
    ModelError
        It is damaged, or has no numbers.
    ConfigError
        h5py is not installed, or there is another key.
    """
    h5py = _h5py(path)
    require_no_key(path, key)
    require_readable(path)
    try:
        with h5py.File(path, "r") as file:
            return _model(path, file, lambda: h5py.File(path, "r"), everything=key is not None)
    except ModelError:
        raise
    except Exception as error:  # h5py raises many kinds for files that are damaged
        raise ModelError(f"{path} is damaged: {error}") from error


def load_archive(path: Path, key: str | None = None) -> Model:
    """Read the weights of a ``.keras`` archive; errors as of `load`."""
    h5py = _h5py(path)
    require_no_key(path, key)
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("model.weights.h5")
            if info.file_size > max(FREE_INFLATED, INFLATED * info.compress_size):
                raise ModelError(f"{path} is damaged: it is compressed to far less than its size")
            data = archive.read(info)
        require_readable(path, data)
        with h5py.File(io.BytesIO(data), "r") as file:
            model = _model(
                path, file, lambda: h5py.File(io.BytesIO(data), "r"), everything=key is not None
            )
    except ModelError:
        raise
    except Exception as error:  # as in `load`
        raise ModelError(f"{path} is damaged: {error}") from error
    note = (
        "its weights are coded, not its configuration: the result is a .h5 file of weights, for "
        "load_weights of a model that was built from config.json"
    )
    source = model.source or Source()
    return Model.of(
        model.tensors.values(),
        source=Source(wrapper=source.wrapper, left_out=source.left_out, notes=(note,)),
    )


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            f"{path} needs h5py, which is not installed: pip install nnrcodec[hdf5]"
        ) from None
    return h5py


def _model(path: Path, file: Any, reopen: Callable[[], Any], *, everything: bool) -> Model:
    import h5py

    tensors: list[Tensor] = []
    left_out: list[LeftOut] = []
    attributes: dict[str, dict[str, Any]] = {}
    training: list[int] = []
    seen = 0
    bytes_left = most_bytes_of(file.id.get_filesize())

    def visit(name: str, entry: Any) -> None:
        nonlocal seen, bytes_left
        seen += 1
        if seen > _MOST_OBJECTS:
            raise ModelError(f"{path} has more than {_MOST_OBJECTS} entries")
        own = _attributes(entry, name, left_out)
        if own:
            attributes[name] = own
        if not isinstance(entry, h5py.Dataset):
            return
        if entry.dtype.name not in DTYPES or entry.shape is None:
            left_out.append(LeftOut(name, f"an array of {entry.dtype}", "only numbers are coded"))
        elif name.split("/")[0] in _TRAINING and not everything:
            training.append(entry.size)
        elif entry.external or entry.is_virtual:
            left_out.append(LeftOut(name, "an array in another file", "only this file is read"))
        else:
            bytes_left -= entry.nbytes
            if bytes_left < 0:
                raise ModelError(f"{path} is damaged: it has far more values than bytes")
            tensors.append(_tensor(name, entry, reopen))

    visit("", file)
    file.visititems(visit)
    if training:
        what = f"state of training, {len(training)} tensors, {sum(training)} elements"
        left_out.insert(0, LeftOut(_TRAINING[0], what, "only --key all codes it"))
        attributes = {k: v for k, v in attributes.items() if k.split("/")[0] not in _TRAINING}
    if not tensors:
        raise ModelError(f"{path} holds no arrays of numbers")
    wrapper: Wrapper | None = Wrapper("hdf5", attributes) if attributes else None
    if len(json.dumps(attributes)) > MOST_BYTES:
        reason = f"more than the {MOST_BYTES} bytes that are kept"
        left_out.append(LeftOut("attributes", "names of layers, configuration", reason))
        wrapper = None
    return Model.of(tensors, source=Source(wrapper=wrapper, left_out=tuple(left_out)))


def _tensor(name: str, entry: Any, reopen: Callable[[], Any]) -> Tensor:
    def read() -> np.ndarray:
        with reopen() as file:
            values = np.asarray(file[name][()])
        return np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(entry_shape)

    entry_shape = tuple(entry.shape)
    return Tensor(name, entry.dtype.name, entry_shape, read)


def _attributes(entry: Any, name: str, left_out: list[LeftOut]) -> dict[str, Any]:
    result = {}
    for key, value in entry.attrs.items():
        plain = _plain(value)
        if plain is None:
            left_out.append(LeftOut(f"{name}@{key}", "an attribute", "only texts and numbers"))
        else:
            result[key] = plain
    return result


def _plain(value: Any) -> Any:
    """Return an attribute as JSON has it: texts and numbers, and lists of them; else None."""
    if isinstance(value, np.ndarray):
        parts = [_plain(part) for part in value.reshape(-1).tolist()]
        return parts if value.ndim == 1 and None not in parts else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str | int | float) else None


def save(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model as datasets, and attributes if they are known.

    Raises
    ------
    ModelError
        A tensor has a dtype or a name that HDF5 lacks.
    ConfigError
        The file cannot be written, or h5py is not installed.
    """
    h5py = _h5py(path)
    wrapper = None if model.source is None else model.source.wrapper
    attributes = wrapper.content if wrapper is not None and wrapper.kind == "hdf5" else {}
    held = io.BytesIO()
    try:
        with h5py.File(held, "w") as file:
            kept = (t for t in model.tensors.values() if t.role is not Role.CONSTANT)
            for tensor in widened(kept, path, "an HDF5 file"):
                file.create_dataset(
                    original_name(tensor.name, model.graph), data=tensor.read(), track_times=False
                )
            for name, own in attributes.items():
                group = file if not name else file.require_group(name) if name not in file else None
                for key, value in own.items():
                    (file[name] if group is None else group).attrs[key] = _written(value)
    except (ValueError, OSError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"the tensors do not fit an HDF5 file: {error}") from error

    def write(file: BinaryIO) -> None:
        file.write(held.getbuffer())

    write_atomically(path, write)


def _written(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return np.array([part.encode() for part in value])
    if isinstance(value, list) and not value:
        return np.array([])  # which Keras writes for layers without weights
    return value
