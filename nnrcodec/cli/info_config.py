"""``nnr-info --config``: what made a stream, as far as it tells, as ``--config`` reads it."""

from __future__ import annotations

import glob
from collections.abc import Iterator

from nnrcodec.cli.table import counted
from nnrcodec.inspection import StreamInfo, TensorInfo
from nnrcodec.quant.quantized import FEWEST_ELEMENTS

_NOT_KEPT = """\
# A stream keeps what a decoder needs, and what the loss was. It does not keep
# presets and targets (which led to the qp below), calibration inputs, lambda,
# unary-length, fold-batch-norm, distill, energy, rank-ratio, target-macs, and
# the base of an update. Encoded with these options and --calib none, the model
# gets the same steps and coders; levels that were fitted to inputs differ."""

_IN_BLOCKS = """\
# But {} of several tensors: the qp of each is inside the payload and
# is not told here; nnr-encode chooses steps for them anew."""


def config_lines(info: StreamInfo) -> Iterator[str]:
    """Yield the lines of a TOML file.

    Parameters
    ----------
    info : StreamInfo
        Of a stream of ours, or any other.
    """
    yield f"# written by {_quoted(info.writer) if info.writer else 'software that is not named'}"
    if info.measured is not None:
        yield f"# measured by its encoder: {info.measured.words}"
    if info.is_update:
        yield "# an update: give its base model and the updates before it as base = [...]"
    yield from _NOT_KEPT.splitlines()
    if blocks := sum(len(tensor.names) > 1 for tensor in info.tensors):
        yield from _IN_BLOCKS.format(counted(blocks, "block")).splitlines()
    yield ""
    ours = any(tensor.coder in ("ans", "lossless") for tensor in info.tensors) or any(
        unit.name == "NNR_XDU" for unit in info.units
    )
    if ours:
        yield 'profile = "ext"'
    else:
        yield "# all units are of the standard, which profile ext writes, too"
        yield 'profile = "nnc"'
    if info.has_short_names:
        yield "short-names = true"
    if info.tensors and all(map(_is_exact, info.tensors)):
        yield "lossless = true" if ours else "# all tensors are exact"
        return
    if info.qp_density is not None:
        yield f"qp-density = {info.qp_density}"
    yield from _rank_line(info)
    yield from _list("keep", [_pattern(t) for t in info.tensors if ours and _is_kept(t)])
    yield from _list("set", [s for tensor in info.tensors if (s := _setting(tensor))])


def _is_exact(tensor: TensorInfo) -> bool:
    return tensor.coder in ("lossless", "raw") or tensor.coding == "integer"


def _is_kept(tensor: TensorInfo) -> bool:
    """Return whether a tensor was to be kept, or is one that is exact in any case."""
    if tensor.coder == "raw" and (tensor.elements or 0) < FEWEST_ELEMENTS:
        return False  # so few are stored in any case
    return tensor.coder in ("lossless", "raw") and len(tensor.names) == 1


def _setting(tensor: TensorInfo) -> str | None:
    """Return what ``--set`` would say of a tensor."""
    if tensor.qp is None or len(tensor.names) != 1:
        return None
    keys = [f"qp={tensor.qp}", f"coder={tensor.coder}"]
    if tensor.coding == "codebook":
        keys += ["dq=false", "codebook=true"]
    elif tensor.coding == "uniform" and tensor.coder == "cabac":
        keys.append("dq=false")
    return f"{_pattern(tensor)}:{','.join(keys)}"


def _pattern(tensor: TensorInfo) -> str:
    return glob.escape(tensor.names[0])


def _rank_line(info: StreamInfo) -> Iterator[str]:
    ranks = {
        tensor.names[0].removesuffix(".u.weight"): f"{tensor.scheme}:{tensor.rank}"
        for tensor in info.tensors
        if tensor.rank is not None and tensor.names[0].endswith(".u.weight")
    }
    if ranks:
        yield f"rank = {_quoted(','.join(f'{layer}={rank}' for layer, rank in ranks.items()))}"


def _list(key: str, values: list[str]) -> Iterator[str]:
    if values:
        yield f"{key} = ["
        for value in values:
            yield f"    {_quoted(value)},"
        yield "]"


def _quoted(text: str) -> str:
    """Return a TOML string; what a terminal may take for a command is escaped."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
