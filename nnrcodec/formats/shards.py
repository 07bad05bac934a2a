"""Checkpoints in shards: an index in JSON, and the files that it names in the same folder."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import looks, pt, safetensors
from nnrcodec.formats.reading import require_no_key
from nnrcodec.model.model import Model, Tensor
from nnrcodec.model.source import LeftOut, Source

_SUFFIX = ".index.json"
_SINGLE = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")


def index_in(folder: Path) -> Path:
    """Return the index of the shards in a folder, or its only model.

    Raises
    ------
    ConfigError
        There is none, or there are several.
    """
    found = sorted(p for p in folder.iterdir() if p.name.endswith(_SUFFIX))
    found = found or sorted(p for p in folder.iterdir() if p.name in _SINGLE)
    found = found or sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if (folder / "saved_model.pb").exists() or (folder / "checkpoint").exists():
        raise ConfigError(
            f"{folder} is a folder of TensorFlow, which is not read; save its variables as .npz"
        )
    if (folder / "data.pkl").exists():
        raise ConfigError(
            f"{folder} is an archive of PyTorch that was unpacked: zip it again, without "
            f"compression (zip -0 -r model.pt {folder.name})"
        )
    names = ", ".join(p.name for p in found[:5])
    raise ConfigError(
        f"{folder} is a folder with {f'several models ({names})' if found else 'no model'}: give "
        "the model, or the index of its shards"
    )


def load(path: Path, key: str | None = None) -> Model:
    """Read all shards of a checkpoint as one model, in the order of the index.

    Raises
    ------
    ModelError
        The index is no index, or shards or tensors are missing.
    ConfigError
        A key is given.
    """
    require_no_key(path, key)
    shards = shards_of(path)
    require_all(path, shards)
    tensors: dict[str, Tensor] = {}
    left_out: list[LeftOut] = []
    ties: dict[str, str] = {}
    wrappers: list[Any] = []
    for name, expected in shards.items():
        model = _load_shard(path.parent / name)
        absent = sorted(set(expected) - model.tensors.keys())
        if absent:
            raise ModelError(f"tensor {absent[0]!r} is not in {name}, where {path} says it is")
        tensors.update(model.tensors)
        ties.update(model.ties)
        if model.source is not None:
            left_out += model.source.left_out
            wrappers.append(model.source.wrapper)
    same = wrappers[0] if wrappers and all(w == wrappers[0] for w in wrappers) else None
    note = (
        f"{len(shards)} shards are coded as one stream, and decode to one file; with --per-shard "
        "each has a stream of its own"
    )
    source = Source(wrapper=same, left_out=tuple(left_out), notes=(note,))
    return Model.of(tensors.values(), ties=ties, source=source)


def require_all(index: Path, names: Collection[str]) -> None:
    """Raise unless files of these names are in the folder of an index.

    Raises
    ------
    ModelError
        Naming those that are missing.
    """
    missing = sorted(name for name in names if not (index.parent / name).is_file())
    if missing:
        raise ModelError(
            f"{index} names shards that are not there: {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}; all of "
            f"{len(names)} have to be in the folder of the index"
        )


def shards_of(path: Path) -> dict[str, list[str]]:
    """Return the shards of an index in its order, and the tensors in each.

    Raises
    ------
    ModelError
        It is no index.
    """
    try:
        mapping = json.loads(path.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    shards: dict[str, list[str]] = {}
    for tensor, name in mapping.items():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"{path} is damaged: {str(name)[:100]!r} is no file in its folder")
        shards.setdefault(name, []).append(tensor)
    if not shards:
        raise ModelError(f"{path} names no tensors")
    return dict(sorted(shards.items()))


def _load_shard(path: Path) -> Model:
    look = looks.Look.at(path)
    if looks.is_safetensors(look):
        return safetensors.load(path)
    if looks.is_torch_zip(look) or looks.is_torch_legacy(look):
        return pt.load(path)
    raise ModelError(f"{path} is a shard that is damaged, or of a kind that is not known")
