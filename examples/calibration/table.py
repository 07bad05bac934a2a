"""Print what the encoder makes of networks by others: bytes, and the loss on real inputs.

Each network is encoded without any inputs ("default": the encoder makes them up), with real
inputs ("real"), and as a bare state dict ("weights"). It is judged on other real inputs. See
`cases` for what they are, and README.md for what to install.

    python table.py --data FOLDER --only dncnn25,rfb320 --preset transparent,small

The columns said and true are of the same measure, in dB: what the encoder said on inputs of its
own, and what it is on those to judge by. For pictures they are of their range, and of what the
network changes; for a state dict the encoder knows the error of its weights only.
"""

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cases import CASES, Network
from losses import Outputs

import nnrcodec
from nnrcodec import EncoderConfig
from nnrcodec.calibration.fidelity import Fidelity, HeldBack
from nnrcodec.calibration.reference import Reference
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Role

INPUTS = ("default", "real", "weights")

Row = Mapping[str, Any]


def encoded(network: Network, inputs: str, config: EncoderConfig) -> nnrcodec.EncodeResult:
    """Return the stream of a network, made with one of `INPUTS`."""
    if inputs == "weights":
        state = {
            tensor.name: tensor.read()
            for tensor in network.model.tensors.values()
            if tensor.role is not Role.CONSTANT
        }
        return nnrcodec.encode(state, config=config)
    calib = network.given if inputs == "real" else "auto"
    return nnrcodec.encode(network.model, config=config, calib=calib)


def outputs_of(module: torch.nn.Module, network: Network) -> Outputs:
    """Return what a network makes of the inputs to judge by."""
    with torch.inference_mode():
        found = [module(*values) for values in network.judged]
    return [(value,) if isinstance(value, torch.Tensor) else tuple(value) for value in found]


def power(values: Iterable[torch.Tensor]) -> float:
    """Return the sum of squares."""
    return sum(float(value.double().square().sum()) for value in values)


def errors(wanted: Outputs, found: Outputs) -> Iterator[list[torch.Tensor]]:
    """Yield what is wrong with each output of the network."""
    for a, b in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        yield [x.double() - y for x, y in zip(a, b, strict=True)]


def decibels(signal: float, error: float) -> float:
    """Return the ratio of two powers."""
    return 10 * math.log10(signal / error) if error else math.inf


def in_words(fidelity: Fidelity | None) -> str:
    """Return what was measured, in dB."""
    if fidelity is None:
        return "-"
    if fidelity.absolute is None or fidelity.change is None:
        return f"{fidelity.snr:.1f}"
    return f"{fidelity.absolute:.1f}, {fidelity.change:.1f}"


def signal_to_noise(network: Network, wanted: Outputs, found: Outputs) -> dict[str, Any]:
    """Return the power of outputs over that of their errors, and of the change to the input."""
    signals = [power(values) for values in zip(*wanted, strict=True)]
    noises = [power(values) for values in errors(wanted, found)]
    measured: dict[str, Any] = {
        "SNR": decibels(sum(signals), sum(noises)),
        "SNR of each output": list(map(decibels, signals, noises)),
    }
    if network.changes_input:
        changes = (
            y - x[:, : y.shape[1]] for (x,), (y,) in zip(network.judged, wanted, strict=True)
        )
        measured["SNR of change"] = decibels(power(changes), sum(noises))
    return measured


def rows(
    name: str, network: Network, inputs: Sequence[str], configs: Mapping[str, EncoderConfig]
) -> Iterator[Row]:
    """Yield what is measured of each stream of a network."""
    original = build_module(network.model)
    wanted = outputs_of(original, network)
    reference = Reference(original, HeldBack(network.judged, "inputs to judge by"))
    whole = sum(tensor.stored_bytes for tensor in network.model.tensors.values())
    for label, config in configs.items():
        for kind in inputs:
            start = time.perf_counter()
            result = encoded(network, kind, config)
            data = result.data
            seconds = time.perf_counter() - start
            if kind == "weights":
                module = nnrcodec.load_into(copy.deepcopy(original), data)
            else:
                module = nnrcodec.decode_model(data)
            found = outputs_of(module, network)
            yield {
                "network": name,
                "inputs": kind,
                "config": label,
                "bytes": len(data),
                "% of fp32": 100 * len(data) / whole,
                **signal_to_noise(network, wanted, found),
                "said": in_words(result.report.fidelity),
                "true": in_words(reference.compare(module)),
                "loss": dict(network.loss(wanted, found)),
                "seconds": seconds,
            }


def line(row: Row) -> str:
    """Return a row of the table."""
    loss = ", ".join(f"{name} {value:.4g}" for name, value in row["loss"].items())
    return (
        f"| {row['network']} | {row['inputs']} | {row['config']} | {row['bytes']} "
        f"| {row['% of fp32']:.1f} | {row['said']} | {row['true']} | {loss} "
        f"| {row['seconds']:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(), help="folder with the networks")
    parser.add_argument("--only", default=",".join(CASES), help="networks, by default %(default)s")
    parser.add_argument("--inputs", default=",".join(INPUTS), help="by default %(default)s")
    parser.add_argument("--preset", default="transparent", help="presets, by default %(default)s")
    parser.add_argument("--scale", help="of the default steps instead, such as 0.7,1,1.4")
    cache = Path(tempfile.gettempdir()) / "nnrcodec-benchmark"
    parser.add_argument(
        "--cache", type=Path, default=cache, help="folder to keep what takes long to make"
    )
    parser.add_argument("--json", type=Path, help="file to append a line for each row to")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if arguments.scale:
        scales = arguments.scale.split(",")
        configs = {f"x {scale}": EncoderConfig(scale=float(scale)) for scale in scales}
    else:
        configs = {name: EncoderConfig(preset=name) for name in arguments.preset.split(",")}
    print("| network | inputs | preset | bytes | % of fp32 | said | true | loss | seconds |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only.split(","):
        try:
            network = CASES[name](arguments.data, arguments.cache)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        for row in rows(name, network, arguments.inputs.split(","), configs):
            print(line(row), flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
