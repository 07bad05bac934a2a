"""Measure lossless coding beside the best that others have, in one run.

    python examples/lossless/benchmark.py [FILE ...] [--dtypes float32,bfloat16,float16]

For each model file, as it is and with its floats cast to narrower dtypes, the table has the bytes
of our stream (all of it, with names and digests), of zstd at level 19 after a shuffle of bytes (the
first bytes of all elements, then the second ones, ...), and of ZipNN; both others get the values of
all tensors in one piece, without names. Speeds are the best of some rounds: of ours from the stream
to the values as they stand in files, with the check of all digests, on so many threads; zstd and
the shuffle back, and ZipNN, on one thread. Both others are left out where they are not installed:
``pip install zstandard zipnn``.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnrcodec
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import cast, is_float, words_of
from nnrcodec.model.model import Model, Tensor

EXAMPLE = Path(__file__).parents[1] / "postfilter" / "filter.pt2"
LOSSLESS = nnrcodec.EncoderConfig(lossless=True)


def narrowed(model: Model, dtype: str) -> Model:
    """Return a state dict with its floats in a dtype."""

    def tensor(t: Tensor) -> Tensor:
        if not is_float(t.dtype) or t.dtype == dtype:
            return Tensor(t.name, t.dtype, t.shape, t.read, t.role)
        return Tensor.of(t.name, cast(t.read(), dtype), dtype, t.role)

    return Model.of(tensor(t) for t in model.tensors.values())


def best_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the least time of some rounds after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def ours(model: Model, threads: Sequence[int], rounds: int) -> tuple[int, list[float]]:
    """Return the bytes of our stream, and seconds of decoding by the number of threads."""
    stream = nnrcodec.encode(model, config=LOSSLESS).data
    decoded = nnrcodec.decode(stream)
    for tensor in model.tensors.values():
        same = words_of(decoded[tensor.name], tensor.dtype) == words_of(tensor.read(), tensor.dtype)
        assert np.all(same), tensor.name

    def decode(count: int) -> None:
        for tensor in decode_stream(stream, Limits(), threads=count).tensors.values():
            tensor.little_endian()

    times = [best_seconds(lambda n=n: decode(n), rounds) for n in threads]  # type: ignore[misc]
    return len(stream), times


def zstd(pieces: Sequence[np.ndarray], rounds: int) -> tuple[int, float] | None:
    """Return bytes and seconds of zstd after a shuffle of the bytes of each width."""
    library = _library("zstandard")
    if library is None:
        return None
    shuffled = [p.view(np.uint8).reshape(-1, p.dtype.itemsize).T.tobytes() for p in pieces]
    packed = [library.ZstdCompressor(level=19).compress(s) for s in shuffled]

    def decode() -> None:
        for piece, data in zip(pieces, packed, strict=True):
            planes = np.frombuffer(library.ZstdDecompressor().decompress(data), np.uint8)
            planes.reshape(piece.dtype.itemsize, -1).T.tobytes()

    return sum(map(len, packed)), best_seconds(decode, rounds)


def zipnn(pieces: Sequence[np.ndarray], dtype: str, rounds: int) -> tuple[int, float] | None:
    """Return bytes and seconds of ZipNN."""
    library = _library("zipnn")
    if library is None:
        return None
    packed = []
    for piece in pieces:
        coder = library.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
        packed.append((coder, coder.compress(bytearray(piece.tobytes()))))
    size = sum(len(data) for _, data in packed)
    copies = [(coder, bytes(data)) for coder, data in packed]
    return size, best_seconds(lambda: [c.decompress(bytearray(d)) for c, d in copies], rounds)


def rows(path: Path, dtypes: Sequence[str], threads: Sequence[int], rounds: int) -> Iterator[str]:
    """Yield the rows of the table for a file."""
    whole = nnrcodec.load(path)
    own = max(whole.tensors.values(), key=lambda t: t.size if is_float(t.dtype) else 0).dtype
    for dtype in dict.fromkeys(dtypes or [own]):
        model = narrowed(whole, dtype)
        widths: dict[int, list[np.ndarray]] = {}
        for tensor in model.tensors.values():
            words = words_of(tensor.read(), tensor.dtype).reshape(-1)
            widths.setdefault(words.dtype.itemsize, []).append(words)
        pieces = [np.concatenate(parts) for parts in widths.values()]
        total = sum(piece.nbytes for piece in pieces)
        size, times = ours(model, threads, rounds)
        others = (zstd(pieces, rounds), zipnn(pieces, dtype, rounds))
        cells = [path.name, dtype, f"{total:,}", f"{100 * size / total:.2f} %"]
        cells += ["-" if o is None else f"{100 * o[0] / total:.2f} %" for o in others]
        cells += [f"{total / 1e6 / seconds:.0f}" for seconds in times]
        cells += ["-" if o is None else f"{total / 1e6 / o[1]:.0f}" for o in others]
        yield f"| {' | '.join(cells)} |"


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=[EXAMPLE], metavar="FILE")
    parser.add_argument("--dtypes", default="", help="with commas between them [that of the file]")
    parser.add_argument("--threads", default="1,2", help="of our decoder [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="of each decoder [%(default)s]")
    options = parser.parse_args(argv)
    threads = [int(number) for number in options.threads.split(",")]
    dtypes = [dtype for dtype in options.dtypes.split(",") if dtype]
    head = ["file", "dtype", "bytes", "ours", "zstd -19, shuffle", "ZipNN"]
    head += [f"decode MB/s, {n} thread{'s' * (n > 1)}" for n in threads] + ["zstd", "ZipNN"]
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for path in options.files:
        for row in rows(path, dtypes, threads, options.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
