"""Measure what dependent quantization saves over rounding, and how fast its search is.

All weights of a file (float tensors of two dimensions and more) are quantized both ways over a
range of step sizes and coded with DeepCABAC. The table compares sizes at the same squared error:
the size with the search is interpolated between its step sizes, over the logarithm of the error.
The last lines are the speed of the search for one large tensor, on one core.

    python examples/speed/trellis_curve.py
    python examples/speed/trellis_curve.py net.safetensors other.safetensors --lambda 0.2
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from nnrcodec.entropy.cabac.level_costs import choose_parameters
from nnrcodec.entropy.cabac.level_syntax import LevelSyntax
from nnrcodec.entropy.cabac.payload import PayloadEncoder
from nnrcodec.quant.search.trellis import DEFAULT_LAMBDA, dependent_qp, quantize_dependent
from nnrcodec.quant.step_size import qp_of_step_size, step_size
from nnrcodec.quant.uniform import quantize

EXAMPLE = Path(__file__).parents[1] / "postfilter" / "filter.safetensors"
QP_DENSITY = 2
UNARY_LENGTH = 11
STEPS_PER_RMS = (32.0, 16.0, 8.0, 4.0, 2.0, 1.4, 1.0)
"""Step sizes of rounding that are compared: the weights' root mean square, divided by these."""


@dataclass(frozen=True, slots=True)
class Point:
    """A way to code all weights."""

    bits: float
    error: float
    seconds: float


def bits_of(levels: np.ndarray, dq_flag: int) -> int:
    """Return the size of the payload of a tensor."""
    matrix = levels.reshape(levels.shape[0], -1)
    height, width = matrix.shape
    syntax = LevelSyntax(
        height=height, width=width, dq_flag=dq_flag, cabac_unary_length=UNARY_LENGTH
    )
    encoder = PayloadEncoder()
    encoder.qp_offset(0, QP_DENSITY)
    encoder.levels(matrix, syntax, choose_parameters(matrix, syntax)[0])
    return 8 * len(encoder.finish())


def measure(tensors: list[np.ndarray], qp: int, lambda_: float | None) -> Point:
    """Return what a step size gives, by rounding if `lambda_` is None."""
    bits = 0
    error = seconds = 0.0
    for values in tensors:
        start = time.perf_counter()
        if lambda_ is None:
            levels = quantize(values, qp, QP_DENSITY)
        else:
            levels = quantize_dependent(
                values, qp, QP_DENSITY, lambda_=lambda_, unary_length=UNARY_LENGTH
            )
        seconds += time.perf_counter() - start
        bits += bits_of(levels, int(lambda_ is not None))
        distance = levels * step_size(qp, QP_DENSITY) - values.astype(np.float64)
        error += float(np.square(distance).sum())
    count = sum(values.size for values in tensors)
    return Point(bits / count, error / count, seconds / count)


def print_curve(path: Path, lambda_: float) -> None:
    """Print the table of a file."""
    tensors = [v for v in load_file(path).values() if v.ndim >= 2 and v.dtype.kind == "f"]
    count = sum(values.size for values in tensors)
    rms = (sum(float(np.square(v, dtype=np.float64).sum()) for v in tensors) / count) ** 0.5
    qps = [qp_of_step_size(rms / steps, QP_DENSITY) for steps in STEPS_PER_RMS]
    first, last = dependent_qp(qps[0], QP_DENSITY) - 4, dependent_qp(qps[-1], QP_DENSITY) + 4
    searched = [measure(tensors, qp, lambda_) for qp in range(first, last + 1)]
    errors = np.log2([point.error for point in searched])
    print(f"\n{path.name}: {count} weights in {len(tensors)} tensors, lambda {lambda_}\n")
    print("| qp | rounding, bits/weight | search, same error | saved | same error at qp | M/s |")
    print("|---|---|---|---|---|---|")
    for qp in qps:
        rounded = measure(tensors, qp, None)
        error = np.log2(rounded.error)
        bits = float(np.interp(error, errors, [point.bits for point in searched]))
        same_qp = float(np.interp(error, errors, np.arange(first, last + 1)))
        speed = 1e-6 / float(np.interp(error, errors, [point.seconds for point in searched]))
        print(
            f"| {qp} | {rounded.bits:.3f} | {bits:.3f} | {100 * (1 - bits / rounded.bits):.2f} % "
            f"| {same_qp:.1f} | {speed:.1f} |",
            flush=True,
        )


def print_speed(elements: int, rounds: int, lambda_: float) -> None:
    """Print how fast one large tensor is searched."""
    values = np.random.default_rng(1).normal(size=elements).astype(np.float32)
    print()
    for qp in (-4, -16):
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            levels = quantize_dependent(values, qp, QP_DENSITY, lambda_=lambda_)
            times.append(time.perf_counter() - start)
        print(
            f"{elements} weights at {bits_of(levels[None], 1) / elements:.2f} bits each: "
            f"{elements / statistics.median(times) / 1e6:.1f} million weights/s",
            flush=True,
        )


def main() -> None:
    """Print the tables, then the speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, default=[EXAMPLE], help=".safetensors files")
    parser.add_argument(
        "--lambda",
        dest="lambda_",
        type=float,
        default=DEFAULT_LAMBDA,
        help="squared steps that a bit is worth (default: %(default)s)",
    )
    parser.add_argument("--elements", type=int, default=2**22, help="weights of the large tensor")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of its measurement")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    for path in arguments.files:
        print_curve(path, arguments.lambda_)
    print_speed(arguments.elements, arguments.rounds, arguments.lambda_)


if __name__ == "__main__":
    main()
