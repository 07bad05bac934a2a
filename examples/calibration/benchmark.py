"""Measure what calibration inputs are worth: bytes at equal quality, with and without them.

Both sides are this codec with the same entropy coder, and both streams are decoded by the same
decoder. The baseline knows the weights only: dependent quantization with a rate term at one pair
of qp for all tensors, of which the best pair is taken at each size. Against it stand streams that
were made with calibration inputs, and with inputs that are made up ("no data").

With ``--ablation`` each part of what calibration inputs are used for is left away in turn. Last
come time and memory of the command for a network of 700 000 weights.

The networks are the example post-filter (calibrated with the training pairs of ``make_pairs.py``,
judged on its evaluation set), and with ``--data DIR`` the CIFAR-10 ResNet-20 of ``resnet20.py``:
the first half of the pictures calibrates, without labels, the second half judges.
"""

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import nnrcodec
import nnrcodec.encoder.calibrated
from nnrcodec import EncoderConfig, UniformConfig
from nnrcodec.calibration.default import default_inputs
from nnrcodec.calibration.inputs import load_inputs
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.formats import load
from nnrcodec.graph.module import build_module, optimized_for_inference
from nnrcodec.model.model import Model

POSTFILTER = Path(__file__).resolve().parents[1] / "postfilter"
sys.path.insert(0, str(POSTFILTER))

Module = torch.nn.Module

DEFAULT = EncoderConfig()


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
        Runs a network on all inputs it is judged by; more is better.
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
    return Case(
        "post-filter",
        "dB",
        model,
        load_inputs(training_pairs(pairs), model.graph),
        lambda module: mean_gain(score_pairs(module, judged)),
        (0.02, 0.05),
        range(-40, -22),
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
        (0.5,),
        range(-25, -13),
    )


class Recorded(torch.nn.Module):
    """A network, and all that it has put out."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module
        self.outputs: list[torch.Tensor] = []

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Run it."""
        self.outputs.append(self.module(*values))
        return self.outputs[-1]

    def all_outputs(self) -> torch.Tensor:
        """Return them in one."""
        return torch.cat([output.detach().flatten() for output in self.outputs]).double()


class Judge:
    """Compares decoded networks with the original one."""

    def __init__(self, case: Case) -> None:
        self.case = case
        original = Recorded(optimized_for_inference(build_module(case.model)))
        self.score = case.score(original)
        self.wanted = original.all_outputs()

    def measured(self, label: str, config: EncoderConfig, inputs: Inputs | None) -> Point:
        """Encode, decode and judge."""
        start = time.perf_counter()
        data = encode_model(self.case.model, config, inputs=inputs).data
        seconds = time.perf_counter() - start
        decoded = Recorded(nnrcodec.decode_model(data))
        loss = self.score - self.case.score(decoded)
        error = (decoded.all_outputs() - self.wanted).square().mean() / self.wanted.var()
        point = Point(label, len(data), loss, float(error), seconds)
        print(f"{self.case.name}, {point}", file=sys.stderr, flush=True)
        return point


def baseline(judge: Judge) -> Iterator[Point]:
    """Yield streams that know nothing but the weights."""
    for qp in judge.case.qps:
        for offset in (8, 16, 24):
            config = EncoderConfig(quantization=UniformConfig(qp=qp, nonweight_qp=qp - offset))
            yield judge.measured(f"qp {qp}, {qp - offset}", config, None)


def by_scale(
    judge: Judge, inputs: Inputs | None, scales: Sequence[float], config: EncoderConfig = DEFAULT
) -> Iterator[Point]:
    """Yield streams whose steps follow from one scale."""
    for scale in scales:
        steps = UniformConfig(scale=scale, qp_density=4)
        yield judge.measured(f"x {scale:.3g}", replace(config, quantization=steps), inputs)


def without_feedback() -> AbstractContextManager[object]:
    """Levels look at their own errors only, as if inputs were white."""
    of = nnrcodec.encoder.calibrated.Feedback.of

    def white(second: np.ndarray, rows: np.ndarray) -> object:
        power = np.trace(second, axis1=1, axis2=2) / second.shape[1]
        return of(power[:, None, None] * np.eye(second.shape[1]), rows)

    return mock.patch.object(nnrcodec.encoder.calibrated.Feedback, "of", white)


def without_refreshing() -> AbstractContextManager[object]:
    """Layers are measured in the original network only, not behind what was quantized."""
    measure = nnrcodec.calibration.walk.measure
    return mock.patch.object(
        nnrcodec.calibration.walk,
        "measure",
        lambda layer, original, _: measure(layer, original, original),
    )


def without_corrections() -> AbstractContextManager[object]:
    """Biases, batch norms and weights are not moved to make up for earlier errors."""
    several = ExitStack()
    several.enter_context(mock.patch.object(nnrcodec.encoder.calibrated, "_shifts", lambda _: {}))
    several.enter_context(
        mock.patch.object(nnrcodec.encoder.calibrated.Moments, "fitted", lambda _, weight: weight)
    )
    return several


def ablation(judge: Judge, scales: Sequence[float]) -> dict[str, list[Point]]:
    """Return the curves of encoders that lack one part each."""
    curves, case = {}, judge.case
    for name, part in (
        ("without error feedback", without_feedback),
        ("without refreshed moments", without_refreshing),
        ("without corrections", without_corrections),
    ):
        with part():
            curves[name] = list(by_scale(judge, case.inputs, scales))
    for name, config in (
        ("without rate (lambda 0)", EncoderConfig(lambda_=0.0)),
        ("without dependent quantization", EncoderConfig(dq=False)),
    ):
        curves[name] = list(by_scale(judge, case.inputs, scales, config))
    curves["without steps of its own"] = [
        judge.measured(
            f"qp {qp}, {qp - 16}",
            EncoderConfig(quantization=UniformConfig(qp=qp, nonweight_qp=qp - 16)),
            case.inputs,
        )
        for qp in range(case.qps.stop - 7, case.qps.stop + 8, 3)
    ]
    return curves


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


def print_speed(pairs: Path) -> None:
    """Print what 21 layers of 64 channels take with 32 patches of 96x96 from a folder."""
    from figures import command

    torch.manual_seed(0)
    channels = (1, *20 * (64,), 1)
    layers: list[Module] = []
    for taken, made in itertools.pairwise(channels):
        layers += [torch.nn.Conv2d(taken, made, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    size = sum(parameter.numel() for parameter in network.parameters())
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(network, (torch.rand(2, 1, 40, 48),), dynamic_shapes=(dims,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep.pt2"
        torch.export.save(program, path)
        options = ["-o", f"{folder}/deep.nnr", "--calib", str(pairs)]
        seconds, megabytes = command("nnr-encode", str(path), *options)
    print(f"\n{size} weights, 32 patches of 96x96: {seconds:.0f} s, at most {megabytes:.0f} MB")


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
    parser.add_argument("--ablation", action="store_true", help="leave each part away in turn")
    parser.add_argument("--only", choices=("filter", "resnet"), help="only one of the networks")
    arguments = parser.parse_args()
    cases = []
    if arguments.only != "resnet":
        cases.append((filter_case(arguments.pairs), (1.0, 1.3, 1.7, 2.2, 2.8)))
    if arguments.data and arguments.only != "filter":
        cases.append((resnet_case(arguments.data), (1.4, 1.8, 2.3, 2.8, 3.4)))
    for case, scales in cases:
        made_up, judge = default_inputs(case.model), Judge(case)
        curves = {
            "baseline": list(baseline(judge)),
            "weights only, own steps": list(by_scale(judge, None, (*scales, 4.0))),
            "calibrated": list(by_scale(judge, case.inputs, scales)),
            "no data": list(by_scale(judge, made_up, scales)),
        }
        if arguments.ablation:
            curves |= ablation(judge, scales[::2])
        report(case, curves)
    if arguments.only is None:
        from paper import training_pairs

        print_speed(training_pairs(arguments.pairs))


if __name__ == "__main__":
    main()
