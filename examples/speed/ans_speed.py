"""Measure how many levels a second the ANS coder codes and decodes, on one core.

The baseline, in the same run, is zlib at its default level on the same levels as bytes: what one
would do without a codec. Levels are Laplacian, at about 2 and 4 bits each, as one large vector and
as a convolution kernel whose rows and columns differ in scale.

    python examples/speed/ans_speed.py
"""

import argparse
import os
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from nnrcodec.entropy.ans.payload import decode_levels, encode_levels


def levels_of(shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return seeded levels; with several dimensions, rows and columns differ in scale."""
    rng = np.random.default_rng(1)
    values = rng.laplace(size=shape, scale=scale)
    if len(shape) > 1:
        values *= np.exp2(rng.uniform(-1, 1, (shape[0], 1, *[1] * (len(shape) - 2))))
        values *= np.exp2(rng.uniform(-1, 1, (1, shape[1], *[1] * (len(shape) - 2))))
    return np.rint(values).clip(-127, 127).astype(np.int32)


def median_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the median time of some rounds after one that warms up."""
    times = []
    for lap in range(rounds + 1):
        start = time.perf_counter()
        work()
        if lap:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=9_437_184, help="levels of a tensor")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})

    side = int((arguments.elements / 9) ** 0.5)
    print("| levels | bits each | encode M/s | decode M/s | of zlib's size | encode | decode |")
    print("|---|---|---|---|---|---|---|")
    for shape in ((arguments.elements,), (side, side, 3, 3)):
        for scale in (0.8, 4.0):
            levels = levels_of(shape, scale)
            plain = levels.astype(np.int8).tobytes()
            model, payload = encode_levels(levels)
            packed = zlib.compress(plain)
            view = memoryview(payload)
            coding = median_seconds(lambda a=levels: encode_levels(a), arguments.rounds)
            decoding = median_seconds(
                lambda m=model, s=shape, v=view: decode_levels(m, s, v), arguments.rounds
            )
            zlib_coding = median_seconds(lambda p=plain: zlib.compress(p), 1)
            zlib_decoding = median_seconds(lambda p=packed: zlib.decompress(p), arguments.rounds)
            million = levels.size / 1e6
            print(
                f"| {'x'.join(map(str, shape))} | {8 * len(payload) / levels.size:.2f} "
                f"| {million / coding:.1f} | {million / decoding:.1f} "
                f"| {100 * len(payload) / len(packed):.0f} % | {zlib_coding / coding:.1f} x "
                f"| {zlib_decoding / decoding:.2f} x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
