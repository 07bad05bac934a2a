"""A process that uses streams in bounded children and measures what each of them takes.

`Server` starts one process that imports everything, uses a small harmless stream in every way there
is (whatever is loaded or compiled at the first use belongs to the imports, not to a stream), and
then forks a child for each input. The child has limits on memory and CPU time; it tells how much it
took beyond what it started with. A crash, a hang or an allocation ends a child, nothing else.

The two sides talk in lines of JSON. As a script this is the server itself.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))  # for the command line

MEBIBYTE = 2**20
FREE_BYTES = 256 * MEBIBYTE
FREE_SECONDS = 2.0
SECONDS_PER_BYTE = 0.2 / 10_000
START_SECONDS = 180.0


@dataclass(frozen=True)
class Budget:
    """Where a child is ended, whatever it does; what it took is compared by the caller."""

    seconds: float = 20.0
    memory: int = 3 * 2**30


@dataclass(frozen=True)
class Outcome:
    """What became of one input, used in one way.

    Parameters
    ----------
    kind : str
        ``"fine"``, the class of an error that is allowed, ``"foreign"`` for any other exception,
        ``"killed"`` for a child that died, or ``"leak"`` where a stream did something.
    detail : str
        Class and message of the exception, or what killed the child.
    path : str
        Where in the stream the error is.
    seconds : float
        CPU time.
    memory : int
        Bytes at the peak, beyond those at the start.
    seconds_allowed, memory_allowed : float, int
        The promise for this input.
    streams : tuple of str
        What was used, in base 64; of an input that was made by the child.
    note : str
        What was made, for people.
    """

    kind: str
    detail: str = ""
    path: str = ""
    seconds: float = 0.0
    memory: int = 0
    seconds_allowed: float = FREE_SECONDS
    memory_allowed: int = FREE_BYTES
    streams: tuple[str, ...] = ()
    note: str = ""

    def problem(self, slack: float = 1.0) -> str | None:
        """Return what breaks the promise, or None; CPU time may be `slack` times as long."""
        if self.kind in {"foreign", "killed", "leak"}:
            return f"{self.kind}: {self.detail}"
        if self.seconds > slack * self.seconds_allowed:
            return f"{self.seconds:.1f} s of CPU time, {self.seconds_allowed:.1f} allowed"
        if self.memory > self.memory_allowed:
            return f"{self.memory >> 20} MB of memory, {self.memory_allowed >> 20} allowed"
        return None


class Server:
    """The process that forks.

    Parameters
    ----------
    budget : Budget
        Of each child.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def use(self, use: str, *streams: bytes) -> Outcome:
        """Use streams in the way of that name in `fuzz.uses.USES`."""
        return self.ask(use=use, streams=[base64.b64encode(s).decode() for s in streams])

    def make(self, target: str, seed: int, start: Sequence[str] = ()) -> Outcome:
        """Make the input of a seed as a target of `fuzz.targets.TARGETS` does, and use it."""
        return self.ask(target=target, seed=seed, start=list(start))

    def ask(self, **request: Any) -> Outcome:
        """Return the outcome of a request."""
        process = self._started()
        assert process.stdin and process.stdout
        request["budget"] = asdict(self.budget)
        wall = 3 * self.budget.seconds + 30
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, wall)
        except (BrokenPipeError, TimeoutError, EOFError) as error:
            self.close()
            return Outcome("killed", f"the server itself: {error!r}")
        answer = json.loads(line)
        return Outcome(**{**answer, "streams": tuple(answer.get("streams", ()))})

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **single, "PYTHONHASHSEED": "0"},
                cwd=TESTS.parent,
            )
            assert self._line(self._process, START_SECONDS) == b"ready\n"
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        if not readable:
            raise TimeoutError("no answer")
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError("no answer")
        return line


# The other side.


def serve() -> None:
    """Answer requests until there are no more."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)

    from fuzz import targets, uses  # not before: the other side does without

    assert targets.TARGETS
    uses.prepare()
    if "NNRCODEC_FUZZ_ERRORS" not in os.environ:
        os.dup2(nothing, 2)
    gc.collect()
    gc.freeze()
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, and wait for the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.setpgid(0, 0)
            _child(request, os.fdopen(writing, "wb", buffering=0))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    budget = request["budget"]
    said, timed_out = _read(reading, time.monotonic() + 3 * budget["seconds"] + 20)
    if timed_out:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever it may have started
    *parts, last = said.split(b"\n") if said else [b""]
    found: dict[str, Any] = {}
    for part in parts:
        found |= json.loads(part)
    if not found.pop("done", False):
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
        why = "no end in sight" if timed_out else how
        found |= {
            "kind": "killed",
            "detail": f"{why} {last.decode(errors='replace')}".strip(),
            "seconds": used.ru_utime + used.ru_stime - found.get("seconds_before", 0.0),
            "memory": max(0, 1024 * used.ru_maxrss - found.get("memory_before", 0)),
        }
    for key in ("seconds_before", "memory_before"):
        found.pop(key, None)
    return found


def _read(reading: int, deadline: float) -> tuple[bytes, bool]:
    """Return all that a child says, and whether it took too long."""
    said = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return said, True
            more = pipe.read(2**16)
            if not more:
                return said, False
            said += more


def _child(request: dict[str, Any], pipe: Any) -> None:
    """Do what is asked for; say first what is used, at the end how it went."""

    def say(**what: Any) -> None:
        pipe.write(json.dumps(what).encode() + b"\n")

    from fuzz import uses

    budget = request["budget"]
    _limit(budget["memory"], 2 * budget["seconds"])
    if "target" in request:
        from fuzz.targets import TARGETS

        target = TARGETS[request["target"]]
        start = [base64.b64decode(s) for s in request.get("start", ())]
        seed = f"{request['target']}/{request['seed']}"
        made = target.make(random.Random(seed), start)  # noqa: S311 - reproducible, not secret
        name, streams = target.use, made.streams
        say(streams=[base64.b64encode(s).decode() for s in streams], note=made.note)
    else:
        name = request["use"]
        streams = [base64.b64decode(s) for s in request["streams"]]
    size = sum(map(len, streams))
    declared = uses.declared_bytes(streams[-1])
    _limit(budget["memory"], budget["seconds"] + time.process_time())
    memory_before, seconds_before = _memory(), time.process_time()
    say(
        seconds_allowed=FREE_SECONDS + SECONDS_PER_BYTE * size,
        memory_allowed=FREE_BYTES + 4 * declared,
        memory_before=memory_before[0],
        seconds_before=seconds_before,
    )
    kind, detail, path = uses.outcome_of(name, streams)
    seconds = time.process_time() - seconds_before
    after = _memory()
    # pages of libraries that were touched are not the stream's
    memory = max(0, after[1] - memory_before[0] - max(0, after[2] - memory_before[2]))
    say(kind=kind, detail=detail, path=path, seconds=seconds, memory=memory, done=True)


def _memory() -> tuple[int, int, int]:
    """Return bytes in use, at the peak, and of files."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    entries = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return tuple(  # type: ignore[return-value]
        1024 * int(entries[key].split()[0]) for key in ("VmRSS", "VmHWM", "RssFile")
    )


def _limit(memory: int, seconds: float) -> None:
    """Let this process be ended when it takes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + memory
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    whole = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here


if __name__ == "__main__":
    serve()
