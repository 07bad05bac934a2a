"""Checkpoints in shards: a stream for each shard, in a folder with the index, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnrcodec.api import decode_file, encode
from nnrcodec.config import EncoderConfig, as_config
from nnrcodec.encoder.report import EncodeResult
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import check_output, is_model_file, load, write_atomically
from nnrcodec.formats.shards import index_in, require_all, shards_of
from nnrcodec.limits import Limits
from nnrcodec.progress import StageProgress

ENDING = ".nnr"


def encode_folder(
    source: str | Path,
    target: str | Path,
    config: EncoderConfig | None = None,
    *,
    progress: StageProgress | None = None,
    done: Callable[[Path, EncodeResult], object] | None = None,
) -> dict[str, EncodeResult]:
    """Encode each shard of a checkpoint as a stream of its own, as ``nnr-encode --per-shard`` does.

    Parameters
    ----------
    source : str or Path
        The index of the shards, or the folder with it.
    target : str or Path
        The folder for the streams and a copy of the index, which is written last; it is made if it
        is not there.
    config : EncoderConfig, optional
        As for `encode`; tensors keep their names and shapes, so nothing that changes those.
    progress : callable, optional
        As for `encode`.
    done : callable, optional
        Called with the file of each stream, and what was encoded.

    Returns
    -------
    dict of str to EncodeResult
        By the names of the shards.

    Raises
    ------
    ModelError
        There is no index, or shards are missing or damaged.
    ConfigError
        The configuration changes tensors, or a file cannot be written.
    """
    config = as_config(config)
    if config.low_rank is not None or config.target_bytes is not None:
        raise ConfigError(
            "shards are coded each for itself and keep their tensors: give neither low rank nor "
            "target_bytes, or encode them as one stream"
        )
    index, target = _index(source), Path(target)
    names = shards_of(index)
    require_all(index, names)
    _make(target, index.parent)
    results = {}
    for name in names:
        model = load(index.parent / name, is_shard=True)
        result = encode(model, config=config, calib=None, progress=progress)
        stream = target / _stream_name(name)
        write_atomically(stream, result.data)
        results[name] = result
        if done is not None:
            done(stream, result)
    write_atomically(target / index.name, index.read_bytes())
    return results


def decode_folder(
    source: str | Path,
    target: str | Path,
    *,
    merge: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    require_record: bool = False,
    done: Callable[[Path], object] | None = None,
) -> list[Path]:
    """Decode a folder that `encode_folder` wrote to the shards, as ``nnr-decode`` does.

    Parameters
    ----------
    source : str or Path
        The folder with streams and index.
    target : str or Path
        The folder for the shards and the index, which is written last.
    merge, limits, threads, require_record : optional
        As for `decode`; limits are those of each stream.
    done : callable, optional
        Called with each shard that is written.

    Returns
    -------
    list of Path
        The shards.

    Raises
    ------
    ModelError
        There is no index, or streams are missing.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    ConfigError
        A file cannot be written.
    """
    index, target = _index(source), Path(target)
    names = shards_of(index)
    for name in names:
        if not is_model_file(Path(name)):
            raise ModelError(f"{index} names {name!r}, which has not the ending of a model file")
    require_all(index, [_stream_name(name) for name in names])
    _make(target, index.parent)
    written = []
    for name in names:
        decode_file(
            index.parent / _stream_name(name),
            target / name,
            merge=merge,
            limits=limits,
            threads=threads,
            require_record=require_record,
        )
        written.append(target / name)
        if done is not None:
            done(target / name)
    write_atomically(target / index.name, index.read_bytes())
    return written


def _index(source: str | Path) -> Path:
    source = Path(source)
    return index_in(source) if source.is_dir() else source


def _stream_name(shard: str) -> str:
    return Path(shard).with_suffix(ENDING).name


def _make(target: Path, source: Path) -> None:
    """Make a folder to write to.

    Raises
    ------
    ConfigError
        It cannot be made, or it is that of the input.
    """
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {target}: {error.strerror}") from error
    if target.samefile(source):
        raise ConfigError(f"{target} is the folder of the input: give another one")
    check_output(target / "x", None)
