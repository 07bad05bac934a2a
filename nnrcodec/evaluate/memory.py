"""Memory for decoding and running: the growth of the peak memory of a new process.

The process gets files in a folder: a stream to decode, or the graph and the tensors of a network
and an input. It first loads the libraries that it needs, and then measures its own size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.errors import ConfigError
from nnrcodec.graph.text import from_json, to_json
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor

if TYPE_CHECKING:
    from nnrcodec.evaluate.measure import Values

_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")
_LARGE = Limits(max_decoded_bytes=2**60, free_decoded_bytes=2**60)
"""The parent process has already decoded the stream within the usual limits."""


def peak_is_available() -> bool:
    """Return whether the system reports the peak memory of a process, as Linux does."""
    return _STATUS.exists() and "VmHWM" in _STATUS.read_text()


def decoding_memory(stream: bytes, threads: int) -> int | None:
    """Return by how many bytes decoding a stream raises the peak memory of a process.

    Parameters
    ----------
    stream : bytes
        Decoded once.
    threads : int
        Number of decoder threads.

    Returns
    -------
    int or None
        None if the system does not report it.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A small stream for each coder, with which the process loads all libraries before.
        weight = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
        small = Model.of([Tensor.of("w", weight), Tensor.of("b", weight[0])])
        for entropy in ("cabac", "ans"):
            data = encode_model(small, EncoderConfig(entropy=entropy)).data
            Path(folder, f"{entropy}.nnr").write_bytes(data)
        Path(folder, "stream.nnr").write_bytes(stream)
        return _in_a_process("decode_here", folder, threads)


def running_memory(model: Model, values: Values, threads: int) -> int | None:
    """Return by how many bytes loading and running a network raise the peak memory of a process.

    Parameters
    ----------
    model : Model
        With a graph.
    values : tuple of Tensor
        The input.
    threads : int
        Of PyTorch.

    Returns
    -------
    int or None
        None if the system does not report it.
    """
    import torch

    if model.graph is None or not peak_is_available():
        return None
    tensors = list(model.tensors.values())
    content = {
        "graph": to_json(model.graph),
        "tensors": [[t.name, t.dtype, t.role.value] for t in tensors],
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "network.json").write_text(json.dumps(content), encoding="utf-8")
        for number, tensor in enumerate(tensors):
            np.save(Path(folder, f"{number}.npy"), tensor.read())
        torch.save(values, Path(folder, "inputs.pt"))
        return _in_a_process("run_here", folder, threads)


def decode_here(folder: str, threads: int) -> int | None:
    """Decode the stream in a folder; return the growth of the peak memory of this process."""
    for entropy in ("cabac", "ans"):
        decode_stream(Path(folder, f"{entropy}.nnr").read_bytes(), Limits(), threads=threads)
    before = _reset_peak()
    data = Path(folder, "stream.nnr").read_bytes()
    model = decode_stream(data, _LARGE, threads=threads)
    for tensor in model.tensors.values():
        tensor.read()
    return _growth(before)


def run_here(folder: str, threads: int) -> int | None:
    """Run the network in a folder; return the growth of the peak memory of this process."""
    import torch

    from nnrcodec.evaluate.measure import run
    from nnrcodec.evaluate.networks import running

    torch.set_num_threads(threads)
    values = torch.load(Path(folder, "inputs.pt"), weights_only=True)
    kernel = torch.ones(1, 1, 3, 3)
    torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), kernel).relu()  # loads libraries
    content = json.loads(Path(folder, "network.json").read_text(encoding="utf-8"))
    graph = from_json(content["graph"])
    before = _reset_peak()
    tensors = [
        Tensor.of(name, np.load(Path(folder, f"{number}.npy")), dtype, Role(role))
        for number, (name, dtype, role) in enumerate(content["tensors"])
    ]
    module = running(Model.of(tensors, graph))
    del tensors
    run(module, values)
    return _growth(before)


def _in_a_process(function: str, folder: str, threads: int) -> int | None:
    """Call a function of this module in a new process."""
    if not peak_is_available():
        return None
    result = Path(folder, "result.json")
    program = (
        f"import json, pathlib; from nnrcodec.evaluate import memory; "
        f"growth = memory.{function}({folder!r}, {threads}); "
        f"pathlib.Path({str(result)!r}).write_text(json.dumps(growth))"
    )
    finished = subprocess.run(  # noqa: S603 (our own interpreter, our own program)
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise ConfigError(
            f"measuring memory failed, which can be omitted (--no-memory): {lines[-1]}"
        )
    growth: Any = json.loads(result.read_text())
    return None if growth is None else int(growth)


def _reset_peak() -> int:
    """Let the system reset the peak memory of this process; return it in bytes."""
    try:
        _RESET_PEAK.write_text("5")
    except OSError:  # the growth is then that over the earlier peak
        return _peak()
    return _peak()


def _growth(before: int) -> int:
    return max(0, _peak() - before)


def _peak() -> int:
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
