"""Measure what calibration inputs are worth: bytes at equal quality, with and without them.

Both sides are this codec with the same entropy coder, and both streams are decoded by the same
decoder. The baseline knows the weights only: dependent quantization with a rate term at one pair
of qp for all tensors, of which the best pair is taken at each size. Against it stand streams that
were made with calibration inputs, and with inputs that are made up ("no data").

The networks are the example post-filter (calibrated with the training pairs of ``make_pairs.py``,
judged on its evaluation set), and with ``--data DIR`` the CIFAR-10 ResNet-20 of ``resnet20.py``:
the first half of the pictures calibrates, without labels, the second half judges.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import nnrcodec
from nnrcodec import EncoderConfig, UniformConfig
from nnrcodec.calibration.inputs import few, load_inputs
from nnrcodec.calibration.synthetic import Inputs, synthetic_inputs
from nnrcodec.encoder import encode_model
from nnrcodec.formats import load
from nnrcodec.graph.module import build_module, made_fast
from nnrcodec.model import Model

POSTFILTER = Path(__file__).resolve().parents[1] / "postfilter"
sys.path.insert(0, str(POSTFILTER))

Module = torch.nn.Module


@dataclass(frozen=True)
class Case:
    """A network, and how well a decoded one does.

    Parameters
    ----------
    name, unit : str
        What it is called, and what its loss is measured in.
    model : Model
        The original.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    score : callable
        More is better.
    error : callable
        Mean squared error of the outputs, relative.
    limits : tuple of float
        Losses at which bytes are compared.
    qps : range
        Of the baseline.
    """

    name: str
    unit: str
    model: Model
    inputs: Inputs
    score: Callable[[Module], float]
    error: Callable[[Module], float]
    limits: tuple[float, ...]
    qps: range


@dataclass(frozen=True)
class Point:
    """One stream."""

    label: str
    size: int
    loss: float
    error: float
    seconds: float


def filter_case(pairs: Path) -> Case:
    """Return the example filter."""
    from evaluate import load_pairs, mean_gain, score_pairs
    from paper import training_pairs

    model = load(POSTFILTER / "filter.pt2")
    judged = load_pairs(POSTFILTER / "eval")
    pictures = [torch.from_numpy(d)[None, None] / 255 for p in judged for d in p.decoded.values()]
    return Case(
        "post-filter",
        "dB",
        model,
        load_inputs(training_pairs(pairs), model.graph),
        lambda module: mean_gain(score_pairs(module, judged)),
        output_error(model, [(picture,) for picture in pictures]),
        (0.02, 0.05),
        range(-40, -18, 2),
    )


def resnet_case(folder: Path) -> Case:
    """Return the ResNet-20, which needs its weights and pictures in a folder."""
    from resnet20 import load_images, load_resnet20, normalized

    images, labels = load_images(folder / "cifar10_test2000.npz")
    values = normalized(images)
    half = len(values) // 2
    model = load_resnet20(folder / "resnet20.safetensors", values[:2])
    judged, wanted = values[half:], labels[half:]

    def accuracy(module: Module) -> float:
        with torch.inference_mode():
            return 100 * float((module(judged).argmax(1).numpy() == wanted).mean())

    calib = [(part,) for part in torch.split(values[:half], 16)]
    return Case(
        "ResNet-20",
        "%",
        model,
        calib,
        accuracy,
        output_error(model, [(judged,)]),
        (0.5,),
        range(-24, -4, 1),
    )


def output_error(model: Model, inputs: Inputs) -> Callable[[Module], float]:
    """Return a function that compares outputs with those of the original."""
    original = made_fast(build_module(model))

    def run(module: Module) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([module(*each).flatten() for each in inputs]).double()

    wanted = run(original)
    return lambda module: float((run(module) - wanted).square().mean() / wanted.var())


def measured(case: Case, label: str, config: EncoderConfig, inputs: Inputs | None) -> Point:
    """Encode, decode and judge."""
    start = time.perf_counter()
    data = encode_model(case.model, config, inputs=None if inputs is None else few(inputs)).data
    seconds = time.perf_counter() - start
    module = nnrcodec.decode_model(data)
    loss = case.score(made_fast(build_module(case.model))) - case.score(module)
    return Point(label, len(data), loss, case.error(module), seconds)


def baseline(case: Case) -> Iterator[Point]:
    """Yield streams that know nothing but the weights."""
    for qp in case.qps:
        for offset in (8, 16, 24):
            config = EncoderConfig(quantization=UniformConfig(qp=qp, nonweight_qp=qp - offset))
            yield measured(case, f"qp {qp}, {qp - offset}", config, None)


def by_scale(case: Case, inputs: Inputs | None, scales: Sequence[float]) -> Iterator[Point]:
    """Yield streams whose steps follow from one scale."""
    for scale in scales:
        config = EncoderConfig(quantization=UniformConfig(scale=scale, qp_density=4))
        yield measured(case, f"x {scale:.3g}", config, inputs)


def bytes_at(points: Sequence[Point], limit: float) -> float:
    """Return the least bytes at which the loss is within a limit, between points as well."""
    best = math.inf
    ordered = sorted(points, key=lambda point: point.size)
    for point in ordered:
        if point.loss <= limit:
            best = min(best, point.size)
    for low in ordered:
        for high in ordered:
            if high.loss <= limit < low.loss and low.size < high.size:
                part = (low.loss - limit) / (low.loss - high.loss)
                best = min(best, low.size * (high.size / low.size) ** part)
        if best < low.size:
            break
    return best


def error_at(points: Sequence[Point], size: float) -> float:
    """Return the least output error of at most so many bytes, between points as well."""
    ordered = sorted(points, key=lambda point: point.size)
    hull: list[Point] = []
    for point in ordered:
        if not hull or point.error < hull[-1].error:
            hull.append(point)
    sizes = np.log([point.size for point in hull])
    errors = np.log([point.error for point in hull])
    return float(np.exp(np.interp(math.log(size), sizes, errors)))


def report(case: Case, curves: dict[str, list[Point]]) -> None:
    """Print all points, and how the curves compare."""
    print(f"\n{case.name}\n")
    print(f"| encoder | steps | bytes | loss, {case.unit} | output error | seconds |")
    print("|---|---|---|---|---|---|")
    for name, points in curves.items():
        for p in points:
            print(
                f"| {name} | {p.label} | {p.size} | {p.loss:.4f} | {p.error:.3e} "
                f"| {p.seconds:.1f} |"
            )
    first = curves["baseline"]
    print(f"\n| encoder | {' | '.join(f'bytes at {x} {case.unit}' for x in case.limits)} | part |")
    print(f"|{'---|' * (2 + len(case.limits))}")
    for name, points in curves.items():
        sizes = [bytes_at(points, limit) for limit in case.limits]
        parts = [s / bytes_at(first, x) for s, x in zip(sizes, case.limits, strict=True)]
        cells = [f"{size:.0f}" for size in sizes] + [", ".join(f"{part:.3f}" for part in parts)]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| encoder | output error at equal bytes, as part of the baseline's |")
    print("|---|---|")
    for name, points in curves.items():
        if name != "baseline":
            parts = [p.error / error_at(first, p.size) for p in points]
            print(f"| {name} | {', '.join(f'{part:.3f}' for part in parts)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / "postfilter" / "train"
    parser.add_argument("--pairs", type=Path, default=default, help="training pairs of the filter")
    parser.add_argument("--data", type=Path, help="folder with the ResNet-20 and its pictures")
    parser.add_argument("--only", choices=("filter", "resnet"), help="only one of the networks")
    arguments = parser.parse_args()
    cases = []
    if arguments.only != "resnet":
        cases.append((filter_case(arguments.pairs), (0.8, 1.0, 1.3, 1.6, 2.0)))
    if arguments.data and arguments.only != "filter":
        cases.append((resnet_case(arguments.data), (0.7, 1.0, 1.4, 2.0, 2.8)))
    for case, scales in cases:
        made_up = synthetic_inputs(case.model)
        curves = {
            "baseline": list(baseline(case)),
            "weights only, own steps": list(by_scale(case, None, (*scales, 3.0, 4.0))),
            "calibrated": list(by_scale(case, case.inputs, scales)),
            "no data": list(by_scale(case, made_up, scales)),
        }
        report(case, curves)


if __name__ == "__main__":
    main()
