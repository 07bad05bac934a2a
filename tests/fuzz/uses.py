"""Ways to use a stream, and what may come of it."""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fuzz import streams

import nnrcodec
from nnrcodec import BitstreamError, ModelError, UnsupportedFeatureError
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.formats import save
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.sizes import example_shape
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import DTYPES

USES: dict[str, Callable[[Sequence[bytes]], object]] = {}
"""Each takes streams; all but the last one only lead to that."""

MARK = Path("/tmp/nnrcodec-fuzz-code-has-run")  # noqa: S108 - as in conformance/generate.py
"""A file that code in a stream would make."""


def use(function: Callable[[Sequence[bytes]], object]) -> Callable[[Sequence[bytes]], object]:
    USES[function.__name__] = function
    return function


@use
def inspect(given: Sequence[bytes]) -> object:
    return nnrcodec.inspect(given[-1])


@use
def decode(given: Sequence[bytes]) -> object:
    return nnrcodec.decode(given[-1], threads=1)


@use
def merge(given: Sequence[bytes]) -> object:
    return nnrcodec.decode(given[-1], threads=1, merge=True)


@use
def decode_model(given: Sequence[bytes]) -> object:
    return nnrcodec.decode_model(given[-1], threads=1)


@use
def updates(given: Sequence[bytes]) -> object:
    decoder = nnrcodec.UpdateDecoder(threads=1)
    for before in given[:-1]:
        try:
            decoder.decode(before)
        except (BitstreamError, UnsupportedFeatureError):
            continue
    decoder.decode(given[-1])
    return decoder.network(merge=True)


@use
def every_way(given: Sequence[bytes]) -> object:
    """Do whatever returns tensors; the first error is the result."""
    errors = []
    for way in (inspect, decode, merge, decode_model, updates):
        try:
            way(given)
        except (BitstreamError, UnsupportedFeatureError, ModelError) as error:
            _require_allowed(error)
            errors.append(error)
    if errors:
        raise errors[0]
    return None


@use
def run(given: Sequence[bytes]) -> object:
    """Decode a network and run it at the sizes of the examples, if these are small."""
    module = nnrcodec.decode_model(given[-1], threads=1)
    _run(module, module._nnr_graph)
    return None


def _written(data: bytes, path: Path) -> Graph:
    """Write a file as nnr-decode does; return the graph that is in it."""
    model = decode_stream(data, Limits(), threads=1)
    if model.graph is None:
        raise ModelError("no graph")
    save(model, path, Limits().for_stream(len(data)))
    return model.graph


@use
def pt2(given: Sequence[bytes]) -> object:
    """Write a file as nnr-decode does; load it again and run what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt2"
        graph = _written(given[-1], path)
        _run(torch.export.load(path).module(), graph)
    return None


@use
def pt2_only(given: Sequence[bytes]) -> object:
    """Write a file as nnr-decode does."""
    with tempfile.TemporaryDirectory() as folder:
        _written(given[-1], Path(folder) / "x.pt2")
    return None


@use
def must_not_run(given: Sequence[bytes]) -> object:
    """Decode a network and run it; it must be refused before it returns anything."""
    module = nnrcodec.decode_model(given[-1], threads=1)
    inputs = examples(module._nnr_graph)
    assert inputs is not None
    try:
        with torch.no_grad():
            module(*inputs)
    except MAY_FAIL_AT_RUN_TIME:
        return None
    raise RunsOtherwiseError("it runs to its end")


MOST_ELEMENTS = 2**16
"""Of all inputs together, where a network is run."""

MAY_FAIL_AT_RUN_TIME = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError)
"""What PyTorch's operators raise for values that do not suit them."""


class RunsOtherwiseError(Exception):
    """A network ran to its end, in a way it must not."""


def _run(module: torch.nn.Module, graph: Graph) -> None:
    """Run a network once; what its operators object to does not count, code that runs does."""
    inputs = examples(graph)
    if inputs is None:
        return
    try:
        with torch.no_grad():
            module(*inputs)
    except (*MAY_FAIL_AT_RUN_TIME, AssertionError, ArithmeticError, MemoryError):
        pass


def examples(graph: Graph) -> tuple[torch.Tensor, ...] | None:
    """Return inputs of the sizes of the examples; None if they are not small."""
    shapes = [example_shape(graph, value) for value in graph.inputs]
    if sum(map(math.prod, shapes)) > MOST_ELEMENTS:
        return None
    return tuple(
        torch.ones(shape).to(getattr(torch, value.dtype))
        for shape, value in zip(shapes, graph.inputs, strict=True)
    )


def _require_allowed(error: BaseException) -> None:
    """Raise an error again that is none of ours."""
    if isinstance(error, ModelError):
        if "no graph" not in str(error):
            raise error
    elif not isinstance(error, BitstreamError | UnsupportedFeatureError):
        raise error
    if not str(error):
        raise AssertionError(f"{type(error).__name__} without a message")
    if len(str(error)) > LONGEST_MESSAGE:
        raise RunsOtherwiseError(f"a message of {len(str(error))} characters: {str(error)[:200]}")


LONGEST_MESSAGE = 2**16


def outcome_of(name: str, given: Sequence[bytes]) -> tuple[str, str, str]:
    """Use streams; return kind, detail and path for `bounded.Outcome`."""
    MARK.unlink(missing_ok=True)
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            USES[name](given)
        kind, detail, path = "fine", "", ""
    except BaseException as error:  # a panic in constriction is not an Exception
        kind, detail, path = _outcome_of_error(error)
    if MARK.exists():
        MARK.unlink()
        return "leak", "code in the stream has run", path
    return kind, detail, path


def _outcome_of_error(error: BaseException) -> tuple[str, str, str]:
    try:
        _require_allowed(error)
    except BaseException as foreign:
        return "foreign", f"{type(foreign).__name__}: {_first_line(foreign)}", _place(foreign)
    return type(error).__name__, _first_line(error), getattr(error, "path", None) or ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def _place(error: BaseException) -> str:
    """Return the innermost place of this package that an exception came through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "nnrcodec" in Path(code.co_filename).parts:
            place = f"{Path(code.co_filename).name}:{code.co_name}"
        trace = trace.tb_next
    return place


def declared_bytes(data: bytes) -> int:
    """Return the bytes of the tensors that a stream declares; 0 if it is not that far legal."""
    try:
        tensors: Any = nnrcodec.inspect(data).tensors
    except Exception:
        return 0
    total = 0
    for tensor in tensors:
        dtype = DTYPES.get(tensor.dtype or "")
        total += (tensor.elements or 0) * (dtype.itemsize if dtype is not None else 4)
    return min(total, Limits().for_stream(len(data)).max_decoded_bytes)


def prepare() -> None:
    """Use harmless streams in every way: what that loads and compiles is not a stream's fault."""
    torch.set_num_threads(1)
    folder = Path(__file__).parents[2] / "conformance"
    several = [streams.with_graph(), streams.low_rank(), streams.tensors_only()]
    several += [(folder / "reference" / f"{n}.nnc").read_bytes() for n in WARM_REFERENCES]
    several += [(folder / "valid" / f"{n}.nnr").read_bytes() for n in ("nnc_graph", "both_coders")]
    for data in several:
        for name in USES:
            outcome_of(name, [data])


WARM_REFERENCES = ("p1_2d_dq", "p1_block_full", "p1_codebook", "p0_scan1", "p1_4d_mixed")
