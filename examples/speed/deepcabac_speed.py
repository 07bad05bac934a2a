"""Measure how many levels a second DeepCABAC codes and decodes, on one core.

Baselines in the same run: the ANS coder of the default profile on the same levels, and the plain
Python twin of the compiled loops on the first of them. Levels are Laplacian, rounded to the step
size at which they take about 1, 2, 3 and 5 bits each.

    python examples/speed/deepcabac_speed.py
"""

import argparse
import os
import time

import numpy as np
from ans_speed import median_seconds

from nnrcodec.entropy.ans.payload import decode_levels, encode_levels
from nnrcodec.entropy.cabac.level_costs import choose_parameters
from nnrcodec.entropy.cabac.level_syntax import LevelParameters, LevelSyntax
from nnrcodec.entropy.cabac.payload import PayloadDecoder, PayloadEncoder
from nnrcodec.entropy.cabac.plain import PlainDecoder

SCALES = (0.45, 0.75, 1.6, 7.0)
PLAIN_LEVELS = 20_000


def encode(levels: np.ndarray, syntax: LevelSyntax, parameters: LevelParameters) -> bytes:
    """Encode levels as a payload."""
    encoder = PayloadEncoder()
    encoder.levels(levels, syntax, parameters)
    return encoder.finish()


def decode(payload: bytes, syntax: LevelSyntax) -> np.ndarray:
    """Decode a payload."""
    decoder = PayloadDecoder(payload)
    levels, _ = decoder.levels(syntax)
    decoder.finish()
    return levels


def plain_rate(levels: np.ndarray) -> float:
    """Return levels a second of the plain decoder."""
    few = levels.ravel()[:PLAIN_LEVELS].reshape(-1, 100)
    syntax = LevelSyntax(height=few.shape[0], width=100, cabac_unary_length=16)
    payload = encode(few, syntax, LevelParameters())
    start = time.perf_counter()
    PlainDecoder(payload).levels(syntax)
    return few.size / (time.perf_counter() - start)


def table_row(levels: np.ndarray, rounds: int) -> str:
    """Measure everything on one tensor of levels."""
    syntax = LevelSyntax(height=levels.shape[0], width=levels.shape[1], cabac_unary_length=16)
    parameters, _ = choose_parameters(levels, syntax)
    payload = encode(levels, syntax, parameters)
    if not np.array_equal(decode(payload, syntax), levels):
        raise RuntimeError("levels do not come back")
    model, packed = encode_levels(levels)
    works = (
        lambda: encode(levels, syntax, parameters),
        lambda: encode(levels, syntax, choose_parameters(levels, syntax)[0]),
        lambda: decode(payload, syntax),
        lambda: encode_levels(levels),
        lambda: decode_levels(model, levels.shape, memoryview(packed)),
    )
    rates = [levels.size / median_seconds(work, rounds) / 1e6 for work in works]
    cells = " | ".join(f"{rate:.1f}" for rate in rates)
    bits = 8 * len(payload) / levels.size
    return f"| {bits:.2f} | {cells} | {plain_rate(levels) / 1e3:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=4_000_000, help="levels of the tensor")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})

    start = time.perf_counter()
    few = np.ones((4, 4), np.int32)
    tiny = LevelSyntax(height=4, width=4)
    decode(encode(few, tiny, choose_parameters(few, tiny)[0]), tiny)
    print(f"first use, compiled or from the cache: {time.perf_counter() - start:.1f} s")

    rng = np.random.default_rng(1)
    values = rng.laplace(size=(arguments.elements // 1000, 1000))
    print("levels in M/s; ANS and the plain twin (levels in k/s) in the same run")
    print("| bits each | encode | choose sets + encode | decode | ANS encode | ANS decode | twin |")
    print("|---|---|---|---|---|---|---|")
    for scale in SCALES:
        print(table_row(np.rint(values * scale).astype(np.int32), arguments.rounds))


if __name__ == "__main__":
    main()
