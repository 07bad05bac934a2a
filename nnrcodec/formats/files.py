"""Model files: which kinds there are, what each is known by, what reads and what writes it.

The kind of a file that is read is known by its content, whatever it is called; that of a file that
is written by its ending. A kind is one line in `FORMATS`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import arrays, hdf5, looks, onnx, pt, pt2, safetensors, shards
from nnrcodec.formats.looks import Look
from nnrcodec.formats.mat import writing as mat
from nnrcodec.formats.mat.reading import load_level5, load_level73, residual_of
from nnrcodec.limits import Limits
from nnrcodec.messages import some
from nnrcodec.model.model import Model
from nnrcodec.model.source import Source

logger = logging.getLogger(__name__)

Load = Callable[[Path, str | None], Model]
"""Reads a model file; the key is that of `load`."""

Save = Callable[[Model, Path, Limits], None]
"""Writes a model file."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    Parameters
    ----------
    name : str
        In words, with an article.
    is_this : callable
        Whether a file is of this kind, given that it is none of those before.
    load : callable or None
        What reads it; None if nothing does.
    endings : tuple of str
        Of files that are written as this.
    save : callable or None
        What writes it.
    advice : str
        For what is not read: what to do instead. For what is, what comes of it.
    """

    name: str
    is_this: looks.Test
    load: Load | None = None
    endings: tuple[str, ...] = ()
    save: Save | None = None
    advice: str = ""


_AGAIN = "download it again"

_STREAM = Format(
    "an NNR stream",
    looks.begins(b"\x00\x04\x02"),
    advice="nnr-decode reads it, nnr-info shows what is in it",
)

FORMATS: tuple[Format, ...] = (
    Format(
        "an exported program of PyTorch",
        looks.is_pt2,
        pt2.load,
        (".pt2",),
        pt2.save,
        "weights and graph",
    ),
    Format("a TorchScript archive", looks.is_torch_script, pt.load, advice="its tensors only"),
    Format(
        "a PyTorch file",
        looks.is_torch_zip,
        pt.load,
        (".pt", ".pth", ".ckpt", ".bin"),
        pt.save,
        "weights, and what stands around them",
    ),
    Format(
        "a PyTorch file from before version 1.6",
        looks.is_torch_legacy,
        pt.load,
        advice="weights, and what stands around them",
    ),
    Format(
        "a safetensors file",
        looks.is_safetensors,
        safetensors.load,
        (".safetensors",),
        safetensors.save,
        "weights and metadata",
    ),
    Format(
        "an index of a checkpoint in shards, or a folder with one",
        looks.is_index,
        shards.load,
        advice="weights of all shards, in one stream",
    ),
    Format("a Keras archive", looks.is_keras_zip, hdf5.load_archive, advice="weights"),
    Format(
        "a NumPy archive",
        looks.is_npz,
        arrays.load_archive,
        (".npz",),
        arrays.save_archive,
        "arrays",
    ),
    Format(
        "a NumPy array",
        looks.begins(b"\x93NUMPY"),
        arrays.load_array,
        (".npy",),
        arrays.save_array,
        "one array",
    ),
    Format(
        "a MATLAB file",
        looks.is_mat_5,
        load_level5,
        (".mat",),
        mat.save,
        "arrays, or a network of MatConvNet with its graph",
    ),
    Format(
        "a MATLAB file of version 7.3",
        looks.is_mat_7_3,
        load_level73,
        advice="as other MATLAB files, which it becomes",
    ),
    Format(
        "an HDF5 file",
        looks.is_hdf5,
        hdf5.load,
        (".h5", ".hdf5"),
        hdf5.save,
        "weights and attributes, such as those of Keras",
    ),
    Format(
        "an ONNX model",
        looks.is_onnx,
        onnx.load,
        (".onnx",),
        onnx.save,
        "weights, the ONNX graph, and one of ours if all nodes can be translated",
    ),
    Format("empty", looks.is_empty, advice=_AGAIN),
    Format(
        "a Git LFS pointer, not the file that it stands for",
        looks.begins(b"version https://git-lfs"),
        advice="run git lfs pull in its repository",
    ),
    Format(
        "a web page",
        looks.is_page,
        advice="the download has not got the file, but a page about it; open the address in a "
        "browser",
    ),
    Format(
        "an XML file",
        looks.is_xml,
        advice="weights are in another file; where it is the graph of an OpenVINO model, take the "
        "ONNX or PyTorch network that this was made of",
    ),
    Format("a truncated zip archive", looks.is_cut_zip, advice=f"its end is missing; {_AGAIN}"),
    Format(
        "the data.pkl of an archive of PyTorch",
        looks.is_bare_pickle,
        advice="values are in files beside it: zip the folder that it is in again, without "
        "compression (zip -0 -r model.pt FOLDER)",
    ),
    Format(
        "a PyTorch file from before version 0.1.10",
        looks.is_torch_tar,
        advice="load it with PyTorch and save it again",
    ),
    Format(
        "a pickle that PyTorch did not write",
        looks.is_pickle,
        advice="it may run code: load it with what wrote it if you trust it, and save its arrays "
        "as .npz or .safetensors",
    ),
    Format(
        "a GGUF model",
        looks.begins(b"GGUF"),
        advice="its weights are quantized already; take the .safetensors files that it was made of",
    ),
    Format(
        "a TFLite model",
        looks.is_tflite,
        advice="take the Keras or PyTorch network that it was made of",
    ),
    Format(
        "part of a TensorFlow checkpoint",
        looks.is_tf_checkpoint,
        advice="save its variables as .npz: tf.train.load_checkpoint reads them",
    ),
    _STREAM,
    Format("a zip archive without a model", looks.is_zip, advice="unpack it, and give the model"),
    Format("a tar archive", looks.is_tar, advice="unpack it, and give the model that is in it"),
    Format(
        "a compressed file",
        looks.begins(b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
        advice="unpack it, and give the model that is in it",
    ),
    Format("JSON text", looks.is_json, advice="weights are in other files"),
)
"""All kinds, in the order in which they are tried."""

SAVERS: Mapping[str, Save] = {
    ending: form.save for form in FORMATS if form.save is not None for ending in form.endings
}
"""What writes a model file, by its ending in lower case."""

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.[a-z]+$")


def is_model_file(path: Path) -> bool:
    """Return whether the ending of a file name is that of a model file."""
    return path.suffix.lower() in SAVERS


def is_stream_file(path: Path) -> bool:
    """Return whether a file is a stream rather than a model file, however damaged it may be.

    Its content decides; of what is of no known kind, the ending of its name.

    Raises
    ------
    ConfigError
        There is no such file.
    """
    if path.is_dir():
        return False
    try:
        return format_of(path) is _STREAM
    except ModelError:
        return not is_model_file(path)


def format_of(path: Path) -> Format:
    """Return the kind of a file, known by its content.

    Raises
    ------
    ConfigError
        There is no such file.
    ModelError
        It is of no known kind.
    """
    look = Look.at(path)
    for form in FORMATS:
        if form.is_this(look):
            return form
    raise ModelError(
        f"{path} is damaged, or of a kind that is not known: it begins with the bytes "
        f"{look.head[:8].hex(' ')}; nnr-info --formats lists what is read"
    )


def load(
    path: str | Path,
    key: str | None = None,
    *,
    residual: str | None = None,
    is_shard: bool = False,
) -> Model:
    """Read a model file; what kind of file it is, its content says.

    What is left out, and what changes on the way back, is logged as a warning; it is also in
    `Model.source`.

    Parameters
    ----------
    path : str or Path
        A file, or a folder with a checkpoint in shards.
    key : str, optional
        Which entry of a file with several state dicts; "all" for all of its tensors, the state of
        an optimizer too.
    residual : "none", "subtract" or "add", optional
        For a network of MatConvNet, whose file does not say what its output is: the output is taken
        as it is, or from the input, or added to it.
    is_shard : bool
        Whether the caller knows that it is one of several shards.

    Returns
    -------
    Model
        With a graph if the format has one; values are read when they are asked for, so the file
        has to stay in place until then.

    Raises
    ------
    ConfigError
        There is no such file or entry, or it is something else than a file.
    ModelError
        The file is damaged, of a kind that is not read, or has no tensors.
    """
    path = Path(path)
    if path.is_dir():
        path = shards.index_in(path)
    form = format_of(path)
    model = _loader(form, path, residual)(path, key)
    source = replace(model.source or Source(), form=form.name)
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1 and not is_shard:
        note = (
            f"it is one of {int(shard[2])} shards, and the others are not coded: give the index, "
            "or the folder that they are in, to code them all"
        )
        source = replace(source, notes=(*source.notes, note))
    source = replace(source, notes=tuple(_notes(path, source)))
    for note in source.notes:
        logger.warning("%s", note)
    return replace(model, source=source)


def _loader(form: Format, path: Path, residual: str | None) -> Load:
    """Return what reads a file, told what the output of its network is.

    Raises
    ------
    ModelError
        Files of this kind are not read.
    ConfigError
        There is no such residual, or it is not for files of this kind.
    """
    chosen = residual_of(residual)
    if form.load is None:
        raise ModelError(f"{path} is {form.name}: {form.advice}")
    for load_mat in (load_level5, load_level73):
        if form.load is load_mat:
            return partial(load_mat, residual=chosen)
    if chosen is not None:
        raise ConfigError(f"{path} is {form.name}: --residual is for networks of MatConvNet")
    return form.load


def _notes(path: Path, source: Source) -> list[str]:
    """Return what is to be said of a file that was read."""
    notes = [f"{path.name}: {note}" for note in source.notes]
    if source.left_out:
        coded = f"coded is {source.coded!r}; " if source.coded else ""
        parts = (f"{left.name!r} ({left.what}; {left.reason})" for left in source.left_out)
        notes.append(f"{path.name}: {coded}left out: {some(parts, 10)}")
    return notes


def save(model: Model, path: str | Path, limits: Limits | None = None) -> None:
    """Write a model file; its format is chosen by its ending.

    Parameters
    ----------
    model : Model
        What to write. Every tensor keeps its dtype.
    path : str or Path
        A file with one of the endings in `SAVERS`; it is replaced atomically.
    limits : Limits, optional
        What a network may take to be written, where `model` comes from a stranger's stream: those
        for a stream of its size.

    Raises
    ------
    ConfigError
        The ending is unknown, the format needs a graph that `model` lacks, or the file cannot be
        written.
    BitstreamError
        The graph cannot be run, or takes more than `limits` allow.
    UnsupportedFeatureError
        PyTorch cannot export the network.
    """
    path = Path(path)
    saver = SAVERS.get(path.suffix.lower())
    if saver is None:
        raise ConfigError(
            f"{path}: no model file is written with the ending {path.suffix!r}; known are "
            f"{', '.join(SAVERS)}"
        )
    _say_what_is_lost(model, path, saver)
    saver(model, path, limits or Limits())


def _say_what_is_lost(model: Model, path: Path, saver: Save) -> None:
    """Warn if the wrapper of a model cannot be written into this kind of file."""
    wrapper = None if model.source is None else model.source.wrapper
    if wrapper is None or saver in _WITH_WRAPPER[wrapper.kind]:
        return
    endings = [ending for ending, own in SAVERS.items() if own in _WITH_WRAPPER[wrapper.kind]]
    logger.warning(
        "%s has the %s only, not what stood around the tensors in the file that was encoded: a "
        "file with the ending %s has it",
        path.name,
        "tensors" if model.graph is None else "network",
        " or ".join(endings),
    )


_WITH_WRAPPER: Mapping[str, tuple[Save, ...]] = {
    "torch": (pt.save,),
    "safetensors": (safetensors.save,),
    "hdf5": (hdf5.save,),
    "mat": (mat.save,),
}
"""What writes wrappers of each kind."""
