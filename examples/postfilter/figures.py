"""Measure what the codec does to the post-filter: bytes, PSNR, run time, seconds and memory.

Prints the tables of README.md. Every figure is measured here and now; the run times of all filters
are taken in turn, in one process and on one thread, on one 1280x720 picture.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from evaluate import FOLDER, Filter, load_pairs, mean_gain, score_pairs

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.formats import load
from nnrcodec.graph.module import build_module, optimized_for_inference
from nnrcodec.model.model import Model

PAPER_RANKS = {"net.2": 32, "net.4": 24}
INNER_RANKS = {f"net.{index}": 32 for index in (2, 4, 6, 8, 10)}
QPS = (-36, -32, -28)


DEFAULT = "default options"
"""What looks at inputs that the encoder makes up; all else goes by the weights alone."""


def configurations() -> dict[str, EncoderConfig]:
    """Return what is measured, by its name in the table."""
    ranks = {
        "no low rank": None,
        "net.2 R 32, net.4 R 24": PAPER_RANKS,
        "all inner R 32": INNER_RANKS,
    }
    made = {DEFAULT: EncoderConfig(), "weights alone": EncoderConfig()}
    for label, rank in ranks.items():
        low_rank = LowRankConfig(ranks=rank) if rank else None
        for qp in QPS:
            quantization = UniformConfig(qp=qp)
            made[f"{label}, qp {qp}"] = EncoderConfig(quantization=quantization, low_rank=low_rank)
    return made


def weight_count(data: bytes) -> int:
    """Return how many weights a stream holds: those of the factors where the rank is low."""
    return sum(value.size for value in nnrcodec.decode(data).values())


def run_times(filters: dict[str, Filter], rounds: int) -> dict[str, float]:
    """Return the median seconds each filter takes for a 1280x720 picture, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    picture = torch.rand(1, 1, 720, 1280).to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in filters}
    with torch.inference_mode():
        for lap in range(rounds + 1):
            for name, post_filter in filters.items():
                start = time.perf_counter()
                post_filter(picture)
                if lap:  # the first lap warms up
                    seconds[name].append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return {name: statistics.median(times) for name, times in seconds.items()}


def command(name: str, *arguments: str) -> tuple[float, float]:
    """Run a command in a process of its own; return its seconds and its peak memory in MB.

    The process reads its own peak from /proc: what wait4() returns has that of its parent in it.
    """
    code = (
        "import pathlib, re, sys\n"
        f"from nnrcodec.cli.{name.removeprefix('nnr-')} import main\n"
        "code = main(sys.argv[1:])\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "sys.exit(code or print(re.search(r'VmHWM:\\s*(\\d+)', status)[1]))"
    )
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - start, int(run.stdout.split()[-1]) / 1024


def print_records(model: Model) -> None:
    """Print the size of the unit that holds record and graph, for the filter and a deeper net."""
    layers: list[torch.nn.Module] = []
    for _ in range(20):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU()]
    deep = nnrcodec.encode(torch.nn.Sequential(*layers), (torch.rand(1, 64, 16, 24),), calib=None)
    print("\n| record | bytes | of the stream |")
    print("|---|---|---|")
    one = nnrcodec.encode(model, calib=None)
    for name, data in (("the filter", one), ("20 layers, conv + ReLU", deep)):
        size = nnrcodec.inspect(data).record_bytes
        print(f"| {name} | {size} | {100 * size / len(data):.2f} % |")


def print_run_times(filters: dict[str, Filter], rounds: int) -> None:
    """Print the run time of each filter beside that of the original."""
    seconds = run_times(filters, rounds)
    print("\n| filter, 1280x720, one thread, channels_last | seconds | of the original |")
    print("|---|---|---|")
    for name, median in seconds.items():
        print(f"| {name} | {median:.3f} | {100 * median / seconds['original']:.1f} % |")


def print_commands() -> None:
    """Print seconds and memory of the commands, PyTorch's own start included."""
    print("\n| command | seconds | peak memory |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        stream, weights, program = (f"{folder}/filter{end}" for end in (".nnr", ".pt", ".pt2"))
        for arguments in (
            ["nnr-encode", str(FOLDER / "filter.safetensors"), "-o", stream],
            ["nnr-decode", stream, "-o", f"{folder}/filter.safetensors"],
            ["nnr-encode", str(FOLDER / "filter.pt2"), "-o", stream],
            ["nnr-encode", str(FOLDER / "filter.pt2"), "-o", stream, "--calib", "none"],
            ["nnr-decode", stream, "-o", weights],
            ["nnr-decode", stream, "-o", program],
        ):
            seconds, megabytes = command(*arguments)
            shown = " ".join(Path(part).name for part in arguments)
            print(f"| {shown} | {seconds:.1f} | {megabytes:.0f} MB |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="laps of the run-time measurement")
    parser.add_argument("--no-times", action="store_true", help="measure bytes and PSNR only")
    arguments = parser.parse_args()

    model = load(FOLDER / "filter.pt2")
    original = build_module(model)
    original_bytes = sum(4 * tensor.size for tensor in model.tensors.values())
    pairs = load_pairs(FOLDER / "eval")
    gain = mean_gain(score_pairs(original, pairs))
    print(f"fp32 weights: {original_bytes} bytes; gain of the filter {gain:+.3f} dB\n")

    print("| options | bytes | of fp32 | bits per weight | PSNR change | encode s | decode s |")
    print("|---|---|---|---|---|---|---|")
    filters: dict[str, Filter] = {"original": optimized_for_inference(original)}
    nnrcodec.decode(nnrcodec.encode(model))  # compiles the kernels where that was not done before
    for name, config in configurations().items():
        start = time.perf_counter()
        data = nnrcodec.encode(model, config=config, calib="auto" if name == DEFAULT else None)
        encoded = time.perf_counter()
        decoded = nnrcodec.decode_model(data)
        done = time.perf_counter()
        change = mean_gain(score_pairs(decoded, pairs)) - gain
        bits = 8 * len(data) / weight_count(data)
        print(
            f"| {name} | {len(data)} | {100 * len(data) / original_bytes:.2f} % | {bits:.2f} "
            f"| {change:+.4f} dB | {encoded - start:.2f} | {done - encoded:.2f} |",
            flush=True,
        )
        if name.endswith(str(QPS[0])):
            filters[name] = decoded
    print_records(model)
    if not arguments.no_times:
        print_run_times(filters, arguments.rounds)
        print_commands()


if __name__ == "__main__":
    main()
