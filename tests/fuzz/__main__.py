"""Fuzz for as long as you like, from the root of the checkout.

    python -m tests.fuzz --minutes 10
    python -m tests.fuzz --minutes 60 --target graph_build --target pt2 --seed 1000
    python -m tests.fuzz --replay FILE ...

First the inputs in tests/fuzz/corpus are used again; then each target in turn makes inputs from
seeds. An input that has an outcome of a new kind is kept and changed further. What breaks the
promise (see `Outcome.problem`) is written to the folder of findings with the reason beside it; the
exit code is then 1.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from fuzz.bounded import Budget, Outcome, Server

CORPUS = Path(__file__).resolve().parent / "corpus"
TARGETS = (
    *("graph_build", "pt2", "graph_text", "record", "names", "ans", "cabac", "updates", "merges"),
    *("blocks", "bytes", "lossless", "lossless_updates"),
)
MOST_KEPT = 200


class Fuzzer:
    """What has been seen so far.

    Parameters
    ----------
    server : Server
        Uses the inputs.
    findings : Path
        Folder for what breaks the promise.
    slack : float
        How many times the CPU time of the promise is let pass.
    """

    def __init__(self, server: Server, findings: Path, slack: float = 2.0) -> None:
        self.server = server
        self.findings = findings
        self.slack = slack
        self.seen: set[str] = set()
        self.kept: dict[str, list[tuple[str, ...]]] = {}
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []

    def step(self, target: str, seed: int) -> Outcome:
        """Make one input and use it."""
        rng = random.Random(f"{target}/{seed}")  # noqa: S311 - reproducible, not secret
        kept = self.kept.get(target, [])
        start = rng.choice(kept) if kept and rng.random() < 0.5 else ()
        outcome = self.server.make(target, seed, start)
        if not outcome.streams:  # it was not even made
            self.counts["not made"] += 1
            return outcome
        self.counts[outcome.kind] += 1
        mark = f"{target} {signature(outcome)}"
        problem = outcome.problem(self.slack)
        if problem is not None:
            self._report(target, seed, outcome, problem, mark)
        elif mark not in self.seen and len(kept) < MOST_KEPT and small(outcome):
            self.kept.setdefault(target, []).append(outcome.streams)
        self.seen.add(mark)
        return outcome

    def _report(self, target: str, seed: int, outcome: Outcome, problem: str, mark: str) -> None:
        if mark in self.seen:
            return
        content = "".join(outcome.streams).encode()
        name = f"{target}-{hashlib.sha256(content).hexdigest()[:10]}"
        self.findings.mkdir(parents=True, exist_ok=True)
        for number, stream in enumerate(outcome.streams):
            last = number == len(outcome.streams) - 1
            file = self.findings / (f"{name}.nnr" if last else f"{name}.before{number}.nnr")
            file.write_bytes(base64.b64decode(stream))
        line = f"{name}: seed {seed}: {problem} [{outcome.path}] {outcome.note[:200]}"
        (self.findings / f"{name}.txt").write_text(line + "\n", encoding="utf-8")
        self.found.append(line)
        print(line, flush=True)  # noqa: T201


def small(outcome: Outcome) -> bool:
    """Return whether an input is worth changing further."""
    return sum(map(len, outcome.streams)) < 2**16


def signature(outcome: Outcome) -> str:
    """Return what makes an outcome another one: numbers, names and quoted text do not."""
    length = 120
    if outcome.kind == "foreign":  # operators have many ways to say no
        length = outcome.detail.find(":")
    text = f"{outcome.kind} {outcome.path} {outcome.detail[:length]}"
    return re.sub(r"-?\d+", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'", text))[:200]


def corpus() -> list[tuple[str, str, list[bytes]]]:
    """Return name, way of use and streams of the inputs that are always used."""
    index = json.loads((CORPUS / "index.json").read_text(encoding="utf-8"))
    return [
        (name, use, [(CORPUS / f"{name}.nnr").read_bytes()]) for name, use in sorted(index.items())
    ]


def main(argv: list[str] | None = None) -> int:
    """Fuzz; return 1 if there are findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--target", action="append", choices=TARGETS, help="[all]")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=1, choices=[1], help="one process at a time")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("--replay", nargs="+", type=Path, help="streams to use in every way")
    arguments = parser.parse_args(argv)
    with Server(Budget()) as server:
        if arguments.replay:
            return _replay(server, arguments.replay)
        fuzzer = Fuzzer(server, arguments.findings)
        for name, use, streams in corpus():
            problem = server.use(use, *streams).problem(fuzzer.slack)
            if problem:
                fuzzer.found.append(name)
                print(f"corpus {name}: {problem}", flush=True)  # noqa: T201
        end, seed = time.monotonic() + 60 * arguments.minutes, arguments.seed
        while time.monotonic() < end:
            for target in arguments.target or TARGETS:
                fuzzer.step(target, seed)
            seed += 1
        print(f"seeds {arguments.seed}..{seed - 1}: {dict(fuzzer.counts)}")  # noqa: T201
        return 1 if fuzzer.found else 0


def _replay(server: Server, paths: list[Path]) -> int:
    bad = 0
    for path in paths:
        for use in ("inspect", "decode", "merge", "run", "pt2"):
            outcome = server.use(use, path.read_bytes())
            problem = outcome.problem()
            bad += problem is not None
            took = f"{outcome.seconds:.2f} s, {outcome.memory >> 20} MB"
            print(f"{path.name} {use}: {problem or outcome.kind} ({took})")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
