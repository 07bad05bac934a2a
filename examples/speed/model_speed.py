"""Measure time and memory of encoding and decoding a network of 25 million parameters.

Its tensors have the shapes of a ResNet-50; their values are Laplacian, seeded, and differ in scale
from channel to channel. Encoder and decoder run in processes of their own, so that the peak of
their memory is theirs. That of the whole process is shown, and by how much it grew from after a
tiny stream was coded, when all libraries are loaded and kernels compiled, in sizes of the arrays.

    python examples/speed/model_speed.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import nnrcodec

STAGES = ((64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3))
"""Width, width of the output, and blocks of each stage."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of a ResNet-50."""
    named: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    channels = 64
    for stage, (width, out, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            named[f"{prefix}.conv1.weight"] = (width, channels, 1, 1)
            named[f"{prefix}.conv2.weight"] = (width, width, 3, 3)
            named[f"{prefix}.conv3.weight"] = (out, width, 1, 1)
            if not block:
                named[f"{prefix}.downsample.weight"] = (out, channels, 1, 1)
            channels = out
    named["fc.weight"] = (1000, channels)
    named["fc.bias"] = (1000,)
    return named


def network() -> dict[str, np.ndarray]:
    """Return seeded tensors."""
    rng = np.random.default_rng(1)
    state = {}
    for name, shape in shapes().items():
        values = rng.laplace(size=shape).astype(np.float32)
        scale = np.exp2(rng.uniform(-1, 1, (shape[0], *[1] * (len(shape) - 1))))
        state[name] = values * scale.astype(np.float32) * np.float32(0.02)
    return state


def peak_bytes() -> int:
    """Return the most memory this process has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise OSError("no VmHWM in /proc/self/status")


def work(task: str, path: Path, options: dict[str, object]) -> dict[str, float]:
    """Encode into, or decode, a file; return what it took."""
    state = network() if task == "encode" else {}
    data = path.read_bytes() if task == "decode" else b""
    nnrcodec.decode(nnrcodec.encode({"w": np.eye(32, dtype=np.float32)}))
    before = peak_bytes()
    start = time.perf_counter()
    if task == "encode":
        config = nnrcodec.EncoderConfig(**options)
        path.write_bytes(nnrcodec.encode(state, config=config))
    else:
        state = nnrcodec.decode(data, **options)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak": peak_bytes(),
        "more": peak_bytes() - before,
        "arrays": sum(array.nbytes for array in state.values()),
        "elements": sum(array.size for array in state.values()),
    }


def run(task: str, path: Path, **options: object) -> dict[str, float]:
    """Do `work` in a process of its own."""
    command = [sys.executable, __file__, "--task", task, str(path), json.dumps(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print the table, or do one task for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task, path, options = arguments.task
        print(json.dumps(work(task, Path(path), json.loads(options))))
        return
    threads = os.cpu_count() or 1
    print(
        "| what | threads | seconds | M weights/s | bits per weight | peak MB | growth / arrays |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.nnr")
        for options in (
            {"entropy": "ans"},
            {"entropy": "cabac", "dq": False},
            {"entropy": "cabac"},
            {},
        ):
            rows = [("encode", threads, run("encode", path, threads=threads, **options))]
            rows += [("decode", n, run("decode", path, threads=n)) for n in sorted({1, threads})]
            for task, n, row in rows:
                bits = 8 * path.stat().st_size / row["elements"]
                print(
                    f"| {task} {options or 'default'} | {n} | {row['seconds']:.2f} "
                    f"| {row['elements'] / row['seconds'] / 1e6:.1f} | {bits:.2f} "
                    f"| {row['peak'] / 1e6:.0f} | {row['more'] / row['arrays']:.2f} |"
                )


if __name__ == "__main__":
    main()
