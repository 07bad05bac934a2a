"""Compare the coders in bytes: rANS, DeepCABAC, and DeepCABAC after the search.

For each file and qp all tensors are rounded at that qp and coded with rANS and with DeepCABAC; and
searched by dependent quantization at the qp with about the same error, with DeepCABAC. Sizes are
those of whole streams, the error is the squared error of all weights. The last table says which
coder the default options pick for which tensors.

    python examples/speed/coder_sizes.py [FILE.safetensors ...]
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import nnrcodec
from nnrcodec import EncoderConfig, UniformConfig
from nnrcodec.quant.search.trellis import dependent_qp

FILTER = Path(__file__).resolve().parents[1] / "postfilter" / "filter.safetensors"
QPS = (-28, -20, -12)
DENSITY = 2


def coded(state: dict[str, np.ndarray], config: EncoderConfig) -> tuple[int, float]:
    """Return the size of the stream and the squared error of the weights."""
    data = nnrcodec.encode(state, config=config)
    decoded = nnrcodec.decode(data)
    errors = (
        float(np.square(decoded[name] - value, dtype=np.float64).sum())
        for name, value in state.items()
        if value.ndim > 1
    )
    return len(data), sum(errors)


def print_sizes(state: dict[str, np.ndarray]) -> None:
    """Print the sizes of one network."""
    print("| qp | uniform, ANS | uniform, DeepCABAC | error | searched, DeepCABAC | error | qp |")
    print("|---|---|---|---|---|---|---|")
    for qp in QPS:
        rounded = UniformConfig(qp=qp, qp_density=DENSITY)
        finer = UniformConfig(
            qp=dependent_qp(qp, DENSITY), nonweight_qp=qp - 16, qp_density=DENSITY
        )
        ans, error = coded(state, EncoderConfig(entropy="ans", quantization=rounded))
        cabac, _ = coded(state, EncoderConfig(entropy="cabac", dq=False, quantization=rounded))
        best, searched = coded(state, EncoderConfig(entropy="cabac", quantization=finer))
        print(f"| {qp} | {ans} | {cabac} | {error:.4g} | {best} | {searched:.4g} | {finer.qp} |")


def print_choices(state: dict[str, np.ndarray]) -> None:
    """Print which coder is picked for what."""
    picked: Counter[tuple[str, str]] = Counter()
    for tensor in nnrcodec.inspect(nnrcodec.encode(state)).tensors:
        picked["weights" if len(tensor.shapes[0]) > 1 else "1-D and scalars", tensor.coder] += 1
    print("\n| tensors | coder | how many |\n|---|---|---|")
    for (kind, coder), count in sorted(picked.items()):
        print(f"| {kind} | {coder} | {count} |")
    sizes = {name: coded(state, EncoderConfig(entropy=name))[0] for name in ("ans", "cabac")}
    print(f"\ndefault {len(nnrcodec.encode(state))} bytes; with one coder only: {sizes}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", nargs="*", type=Path, default=[FILTER], help="default: the example filter"
    )
    for path in parser.parse_args().files:
        print(f"\n{path.name}\n")
        state = load_file(path)
        print_sizes(state)
        print_choices(state)


if __name__ == "__main__":
    main()
