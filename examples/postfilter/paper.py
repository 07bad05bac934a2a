"""Reproduce the tables of the paper on low-rank post-filters, and go on from there.

Prints the tables of README.md: sizes, PSNR and run time of the filter as it is, with the layers and
ranks of the paper, with all inner layers of low rank, and after quantization and entropy coding.
Everything is measured here and now; run times in turn, in one process, on one 1280x720 picture.

Calibration inputs are patches of the decoded training pictures that ``make_pairs.py`` makes; it is
run if they are not there. Nothing else is known of them: neither originals nor QPs. The evaluation
pictures are used for nothing but the PSNR.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from evaluate import FOLDER, Filter, load_pairs, mean_gain, mean_scores, score_pairs
from figures import run_times

import nnrcodec
from nnrcodec import DistillationConfig, EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.calibration.inputs import load_inputs
from nnrcodec.calibration.synthetic import Inputs, synthetic_inputs
from nnrcodec.cli.command import progress_bar
from nnrcodec.encoder.pipeline import Reduced, encode_reduced, reduce_model
from nnrcodec.formats import load
from nnrcodec.graph.module import build_module, optimized_for_inference
from nnrcodec.model.model import Model
from nnrcodec.progress import Progress

LAYER_2 = {"net.2": 32}
LAYERS_2_3 = {"net.2": 32, "net.4": 24}
INNER = tuple(f"net.{index}" for index in (2, 4, 6, 8, 10))
SCALES = (1.0, 1.4, 2.0)
"""Of the default steps: a bit less and a bit more than what a loss of 0.03 dB allows."""


@dataclass(frozen=True)
class Row:
    """One line of the tables."""

    label: str
    size: int
    network: Filter
    paper: str = ""


class Bench:
    """What networks are measured on, and how."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.pairs = load_pairs(FOLDER / "eval")
        self.whole = fp32_bytes(model)
        self.original = optimized_for_inference(build_module(model))
        self.gain = mean_gain(score_pairs(self.original, self.pairs))

    def change(self, network: Filter) -> float:
        """Return the change of mean PSNR against the original filter, in dB."""
        return mean_gain(score_pairs(network, self.pairs)) - self.gain

    def error(self, network: Filter) -> float:
        """Return the mean squared error of the outputs against the original, in 8-bit samples."""
        errors = []
        with torch.no_grad():
            for pair in self.pairs:
                for decoded in pair.decoded.values():
                    picture = torch.from_numpy(decoded)[None, None].float() / 255
                    difference = network(picture) - self.original(picture)
                    errors.append(float((255 * difference).square().mean()))
        return sum(errors) / len(errors)


def fp32_bytes(model: Model) -> int:
    """Return the bytes of all tensors in float32."""
    return sum(4 * tensor.size for tensor in model.tensors.values())


def uncoded(label: str, reduced: Reduced, paper: str = "") -> Row:
    """Return the line of a network that is not quantized."""
    network = optimized_for_inference(build_module(reduced.model))
    return Row(label, fp32_bytes(reduced.model), network, paper)


def print_table(bench: Bench, rows: list[Row], rounds: int) -> list[dict[str, object]]:
    """Print size, PSNR by QP and run time of each network beside the figures of the paper."""
    seconds = run_times({row.label: row.network for row in rows}, rounds)
    qps = [score.qp for score in mean_scores(score_pairs(bench.original, bench.pairs))]
    titles = ["kB", "size", *(f"QP {qp}" for qp in qps), "mean PSNR", "change", "run time", "paper"]
    print(f"| network | {' | '.join(titles)} |")
    print(f"|{'---|' * (len(titles) + 1)}")
    measured: list[dict[str, object]] = []
    for row in rows:
        means = mean_scores(score_pairs(row.network, bench.pairs))
        mean = sum(score.after for score in means) / len(means)
        change = bench.change(row.network)
        part = seconds[row.label] / seconds[rows[0].label]
        cells = [
            f"{row.size / 1000:.1f}",
            f"{100 * row.size / bench.whole:.1f} %",
            *(f"{score.after:.2f}" for score in means),
            f"{mean:.3f} dB",
            f"{change:+.4f} dB",
            f"{100 * part:.1f} %",
            row.paper,
        ]
        print(f"| {row.label} | {' | '.join(cells)} |", flush=True)
        measured.append(
            {"label": row.label, "bytes": row.size, "change_db": change, "run_time": part}
        )
    return measured


def print_aware(bench: Bench, both: dict[str, tuple[Reduced, Reduced]]) -> None:
    """Print the error of the output of factors made without inputs, and with them."""
    print("\n| layers | plain: error | change | data-aware: error | change | ratio |")
    print("|---|---|---|---|---|---|")
    for label, (plain, aware) in both.items():
        networks = [build_module(reduced.model) for reduced in (plain, aware)]
        errors = [bench.error(network) for network in networks]
        changes = [bench.change(network) for network in networks]
        print(
            f"| {label} | {errors[0]:.4f} | {changes[0]:+.4f} dB | {errors[1]:.4f} "
            f"| {changes[1]:+.4f} dB | {errors[0] / errors[1]:.1f} |",
            flush=True,
        )


def coded(
    label: str, reduced: Reduced, inputs: Inputs | None, scale: float
) -> tuple[Row, list[tuple[str, int]]]:
    """Return the line of a network after coding, and the layers and ranks that it has."""
    config = EncoderConfig(quantization=UniformConfig(scale=scale))
    data = encode_reduced(reduced, config, stage, inputs).data
    ranks = [(layer.layer, layer.rank) for layer in reduced.layers if layer.rank is not None]
    return Row(label, len(data), nnrcodec.decode_model(data)), ranks


def stage(name: str) -> AbstractContextManager[Progress]:
    """Show how far long work is, on a terminal."""
    return progress_bar(name, unit="")


def training_pairs(folder: Path) -> Path:
    """Return the folder of the training pairs; make them if they are not there."""
    if not any(folder.glob("*_dec.png")):
        print(f"making pairs in {folder}", flush=True)
        made = [sys.executable, str(FOLDER / "make_pairs.py"), "--work", str(folder.parent)]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / "postfilter" / "train"
    parser.add_argument(
        "--calib",
        default=str(default),
        help="folder of training pairs, or 'synthetic' for pictures made up (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=float, default=12, help="of distillation, of all inner layers"
    )
    parser.add_argument(
        "--macs", type=float, default=0.27, help="of the original, all inner layers"
    )
    parser.add_argument(
        "--patches", type=int, default=768, help="for distillation; 32 for all else"
    )
    parser.add_argument("--rounds", type=int, default=9, help="laps of the run-time measurement")
    parser.add_argument("--json", type=Path, help="also write the figures of the first table here")
    arguments = parser.parse_args()
    start = time.perf_counter()
    model = load(FOLDER / "filter.pt2")
    bench = Bench(model)
    if arguments.calib == "synthetic":
        inputs: Inputs = synthetic_inputs(model, arguments.patches)
    else:
        folder = training_pairs(Path(arguments.calib))
        inputs = load_inputs(folder, model.graph, arguments.patches)

    def reduced(low_rank: LowRankConfig, *, aware: bool = True, minutes: float = 0) -> Reduced:
        distillation = DistillationConfig(minutes=minutes) if minutes else None
        config = EncoderConfig(low_rank=low_rank, distillation=distillation)
        return reduce_model(model, config, stage, inputs if aware else None)

    whole = reduce_model(model, EncoderConfig(), stage, inputs)
    chosen = reduced(LowRankConfig(target_macs=arguments.macs, optimise="runtime"))
    ranks = {layer.layer: layer.rank for layer in chosen.layers if layer.rank is not None}
    inner = LowRankConfig(ranks=ranks)
    plain = {
        "layer 2": reduced(LowRankConfig(ranks=LAYER_2), aware=False),
        "layers 2, 3": reduced(LowRankConfig(ranks=LAYERS_2_3), aware=False),
        "all inner": reduced(inner, aware=False),
    }
    aware = {
        "layer 2": reduced(LowRankConfig(ranks=LAYER_2)),
        "layers 2, 3": reduced(LowRankConfig(ranks=LAYERS_2_3)),
        "all inner": chosen,
    }
    two = reduced(LowRankConfig(ranks=LAYERS_2_3), minutes=arguments.minutes / 3)
    all_inner = reduced(inner, minutes=arguments.minutes)
    print(f"filter gains {bench.gain:+.3f} dB; ranks of all inner layers: {ranks}\n", flush=True)
    best, _ = coded("all inner, distilled, coded", all_inner, inputs, SCALES[0])
    rows = [
        Row("original", bench.whole, bench.original, "692 kB, 100 %"),
        uncoded("layer 2 R 32, plain", plain["layer 2"], "495 kB, 94 %"),
        uncoded("layers 2, 3 R 32, 24, plain", plain["layers 2, 3"], "341 kB, 83 %"),
        uncoded("layers 2, 3 R 32, 24, data-aware", aware["layers 2, 3"]),
        uncoded("layers 2, 3 R 32, 24, distilled", two),
        uncoded("all inner, plain", plain["all inner"]),
        uncoded("all inner, data-aware", aware["all inner"]),
        uncoded("all inner, distilled", all_inner),
        best,
    ]
    measured = print_table(bench, rows, arguments.rounds)
    print_aware(bench, {label: (plain[label], aware[label]) for label in plain})
    print("\n| coded | steps | bytes | of fp32 | PSNR change | layers of low rank |")
    print("|---|---|---|---|---|---|", flush=True)
    for scale in SCALES:
        open_ranks = EncoderConfig(
            quantization=UniformConfig(scale=scale), low_rank=LowRankConfig(scheme="auto")
        )
        auto = reduce_model(model, open_ranks, stage, inputs)
        for label, network in (
            ("data-blind, whole", replace(whole, expected=None)),
            ("whole kernels", whole),
            ("what is worth it in bytes", auto),
            ("all inner, distilled", all_inner),
        ):
            row, found = coded(label, network, None if "blind" in label else inputs, scale)
            print(
                f"| {label} | x {scale:g} | {row.size} | {100 * row.size / bench.whole:.2f} % "
                f"| {bench.change(row.network):+.4f} dB "
                f"| {', '.join(f'{name} {rank}' for name, rank in found) or '-'} |",
                flush=True,
            )
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
