"""How long networks run, and how much memory that takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from nnrcodec.calibration.synthetic import synthetic_inputs
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph
from nnrcodec.model import Model

Values = tuple[torch.Tensor, ...]

_PEAK = """
import sys
from pathlib import Path
import torch
from nnrcodec.evaluate.networks import original_of, reconstructed, running

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)

original, stream, inputs, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
values = torch.load(inputs, weights_only=True)
if stream:
    from nnrcodec.decoder import decode_stream
    from nnrcodec.limits import Limits
    before = peak()
    model = decode_stream(Path(stream).read_bytes(), Limits())
    for tensor in model.tensors.values():
        tensor.read()
    decoding = peak() - before
    if model.graph is None:
        model = reconstructed(original_of(original), Path(stream).read_bytes())
else:
    model, decoding = original_of(original), 0
module = running(model)
before = peak()
with torch.inference_mode():
    module(*values)
print(decoding, peak() - before)
"""


def example_input(model: Model, size: Sequence[int] | None) -> Values:
    """Return an input to run a network on.

    Parameters
    ----------
    model : Model
        With a graph.
    size : sequence of int, optional
        Height and width of pictures, where the network leaves them free.
    """
    (values,) = synthetic_inputs(model, 1)
    if size is None:
        return _channels_last(values)
    graph = model.graph
    if graph is None or len(values) != 1 or values[0].ndim != 2 + len(size):
        raise ConfigError(f"an input size of {len(size)} numbers does not fit what the model takes")
    _check_free(graph, size)
    return _channels_last((torch.rand(*values[0].shape[:2], *size),))


def _check_free(graph: Graph, size: Sequence[int]) -> None:
    for wanted, declared in zip(size, graph.inputs[0].shape[2:], strict=True):
        if isinstance(declared, int) and declared != wanted:
            raise ConfigError(f"the model takes {declared} samples along an axis, not {wanted}")


def _channels_last(values: Values) -> Values:
    layout = torch.channels_last
    return tuple(v.contiguous(memory_format=layout) if v.ndim == 4 else v for v in values)


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Return the median of the seconds that each action takes.

    All are done once before, to warm up, and then in turn, round after round, so that what slows
    the machine down slows down all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    done, total = 0, (rounds + 1) * len(actions)
    for number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if number:
                seconds[name].append(time.perf_counter() - start)
            done += 1
            progress(done, total)
    return {name: statistics.median(each) for name, each in seconds.items()}


def peak_memory(
    original: str | Path, stream: bytes | None, values: Values, threads: int
) -> tuple[int, int] | None:
    """Return by how many bytes decoding, and then running, raise the peak of a fresh process.

    Parameters
    ----------
    original : str or Path
        The file of the original network.
    stream : bytes, optional
        The stream that is decoded and run; without it the original is.
    values : tuple of Tensor
        The input.
    threads : int
        Of PyTorch.

    Returns
    -------
    tuple of int, or None
        None where the system does not tell (``VmHWM`` in ``/proc/self/status``).
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        inputs, coded = Path(folder, "inputs.pt"), Path(folder, "stream.nnr")
        torch.save(values, inputs)
        if stream is not None:
            coded.write_bytes(stream)
        arguments = [str(original), str(coded) if stream is not None else "", str(inputs)]
        ended = subprocess.run(  # noqa: S603 (our own interpreter, our own program)
            [sys.executable, "-c", _PEAK, *arguments, str(threads)],
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode:
        raise ConfigError(f"measuring memory failed: {ended.stderr.strip().splitlines()[-1]}")
    decoding, running = (1024 * int(number) for number in ended.stdout.split()[-2:])
    return decoding, running
