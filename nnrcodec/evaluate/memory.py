"""How much memory decoding and running take: the growth of the peak of a fresh process.

The process gets files in a folder: a stream to decode, or the graph and the tensors of a network
and an input. It loads what it needs to know first, and then watches its own size.
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
_FORGET = Path("/proc/self/clear_refs")
_LARGE = Limits(max_decoded_bytes=2**60, free_decoded_bytes=2**60)
"""The parent process has decoded the stream before, within limits."""


def memory_is_told() -> bool:
    """Return whether the system tells a process its peak, as Linux does."""
    return _STATUS.exists() and "VmHWM" in _STATUS.read_text()


def decoding_memory(stream: bytes, threads: int) -> int | None:
    """Return by how many bytes decoding a stream raises the peak of a process.

    Parameters
    ----------
    stream : bytes
        Decoded once.
    threads : int
        That decode.

    Returns
    -------
    int or None
        None where the system does not tell.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A small stream that goes through both coders, for the process to load what it needs.
        weight = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
        small = Model.of([Tensor.of("w", weight), Tensor.of("b", weight[0])])
        for entropy in ("cabac", "ans"):
            data = encode_model(small, EncoderConfig(entropy=entropy)).data
            Path(folder, f"{entropy}.nnr").write_bytes(data)
        Path(folder, "stream.nnr").write_bytes(stream)
        return _in_a_process("decode_here", folder, threads)


def running_memory(model: Model, values: Values, threads: int) -> int | None:
    """Return by how many bytes loading and running a network raise the peak of a process.

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
        None where the system does not tell.
    """
    import torch

    if model.graph is None or not memory_is_told():
        return None
    tensors = list(model.tensors.values())
    told = {
        "graph": to_json(model.graph),
        "tensors": [[t.name, t.dtype, t.role.value] for t in tensors],
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "network.json").write_text(json.dumps(told), encoding="utf-8")
        for number, tensor in enumerate(tensors):
            np.save(Path(folder, f"{number}.npy"), tensor.read())
        torch.save(values, Path(folder, "inputs.pt"))
        return _in_a_process("run_here", folder, threads)


def decode_here(folder: str, threads: int) -> int | None:
    """Decode the stream in a folder; return by how much the peak of this process grows."""
    for entropy in ("cabac", "ans"):
        decode_stream(Path(folder, f"{entropy}.nnr").read_bytes(), Limits(), threads=threads)
    before = _forgotten_peak()
    data = Path(folder, "stream.nnr").read_bytes()
    model = decode_stream(data, _LARGE, threads=threads)
    for tensor in model.tensors.values():
        tensor.read()
    return _growth(before)


def run_here(folder: str, threads: int) -> int | None:
    """Run the network in a folder; return by how much the peak of this process grows."""
    import torch

    from nnrcodec.evaluate.measure import run
    from nnrcodec.evaluate.networks import running

    torch.set_num_threads(threads)
    values = torch.load(Path(folder, "inputs.pt"), weights_only=True)
    kernel = torch.ones(1, 1, 3, 3)
    torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), kernel).relu()  # loads what convolves
    told = json.loads(Path(folder, "network.json").read_text(encoding="utf-8"))
    graph = from_json(told["graph"])
    before = _forgotten_peak()
    tensors = [
        Tensor.of(name, np.load(Path(folder, f"{number}.npy")), dtype, Role(role))
        for number, (name, dtype, role) in enumerate(told["tensors"])
    ]
    module = running(Model.of(tensors, graph))
    del tensors
    run(module, values)
    return _growth(before)


def _in_a_process(function: str, folder: str, threads: int) -> int | None:
    """Call a function of this module in a fresh process."""
    if not memory_is_told():
        return None
    result = Path(folder, "result.json")
    program = (
        f"import json, pathlib; from nnrcodec.evaluate import memory; "
        f"found = memory.{function}({folder!r}, {threads}); "
        f"pathlib.Path({str(result)!r}).write_text(json.dumps(found))"
    )
    ended = subprocess.run(  # noqa: S603 (our own interpreter, our own program)
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise ConfigError(
            f"measuring memory failed, which can be left out (--no-memory): {said[-1]}"
        )
    found: Any = json.loads(result.read_text())
    return None if found is None else int(found)


def _forgotten_peak() -> int:
    """Return the size of this process in bytes, and have the system forget its peak so far."""
    try:
        _FORGET.write_text("5")
    except OSError:  # what is returned then is the peak so far, and the growth above it
        return _peak()
    return _peak()


def _growth(before: int) -> int:
    return max(0, _peak() - before)


def _peak() -> int:
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
