"""Choose a constant on some networks and judge it on the others, in turn.

    python table.py --data FOLDER --inputs weights --scale 0.5,0.7,0.8,1,1.4,2 --json rows.json
    python rotation.py rows.json

The configurations in a file of ``table.py`` go from fine to coarse, by their bytes. For each
network in turn, the coarsest one is chosen with which all *other* networks stay within the limits;
the row says whether the one that was left out does, too. Then the same with halves of the networks:
how often it holds for those of the other half.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

LIMITS = {
    "default": {"dB": 0.03, "worst": 0.1, "accuracy": 0.3, "changed": 2.0, "cosine": 0.995},
    "real": {"dB": 0.03, "worst": 0.1, "accuracy": 0.3, "changed": 2.0, "cosine": 0.995},
    "weights": {"dB": 0.1, "worst": math.inf, "accuracy": 0.5, "changed": 3.0, "cosine": 0.99},
}
"""By kind of inputs: what counts as no visible change."""

Losses = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By configuration and network: the losses on real inputs."""


def is_within(loss: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Return whether losses are within the limits of their kind."""
    if "dB" in loss:
        return loss["dB"] <= limits["dB"] and loss["dB worst"] <= limits["worst"]
    if "% accuracy" in loss:
        return loss["% accuracy"] >= -limits["accuracy"]
    if "cosine" in loss:
        return loss["cosine"] >= limits["cosine"]
    return (
        max(loss.get(name, 0.0) for name in ("% lost", "% added", "% changed")) <= limits["changed"]
    )


def read(path: Path, inputs: str) -> tuple[list[str], list[str], dict[str, dict[str, bool]]]:
    """Return configurations from fine to coarse, networks, and which stay within the limits."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row["inputs"] == inputs]
    logs: dict[str, list[float]] = {}
    within: dict[str, dict[str, bool]] = {}
    for row in rows:
        logs.setdefault(row["config"], []).append(math.log(row["bytes"]))
        held = is_within(row["loss"], LIMITS[inputs])
        within.setdefault(row["config"], {})[row["network"]] = held
    configs = sorted(logs, key=lambda name: -sum(logs[name]) / len(logs[name]))
    networks = [n for n in within[configs[0]] if all(n in within[c] for c in configs)]
    return configs, networks, within


def coarsest(
    configs: Sequence[str], chosen: Iterable[str], within: Mapping[str, Mapping[str, bool]]
) -> str | None:
    """Return the coarsest configuration at which all of some networks are within the limits."""
    chosen = list(chosen)
    best = None
    for config in configs:
        if not all(within[config][network] for network in chosen):
            break
        best = config
    return best


def report(path: Path, inputs: str) -> None:
    """Print the table of one kind of inputs."""
    configs, networks, within = read(path, inputs)
    print(f"\n{inputs}: {', '.join(configs)}\n")
    print(f"within the limits: | {' | '.join(configs)} |")
    for network in networks:
        words = ["yes" if within[config][network] else "no" for config in configs]
        print(f"| {network} | {' | '.join(words)} |")
    print("\n| left out | chosen on all others | within the limits there |")
    print("|---|---|---|")
    for network in networks:
        choice = coarsest(configs, (n for n in networks if n != network), within)
        held = choice is not None and within[choice][network]
        print(f"| {network} | {choice or 'none'} | {'yes' if held else 'no'} |")
    tried = held_count = 0
    for half in itertools.combinations(networks, len(networks) // 2):
        choice = coarsest(configs, half, within)
        if choice is not None:
            others = [network for network in networks if network not in half]
            tried += len(others)
            held_count += sum(within[choice][network] for network in others)
    if tried:
        print(
            f"\nchosen on halves: within the limits for {100 * held_count / tried:.0f} % of others"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="file that table.py --json has written")
    arguments = parser.parse_args()
    kinds = {json.loads(line)["inputs"] for line in arguments.rows.read_text().splitlines()}
    for inputs in LIMITS:
        if inputs in kinds:
            report(arguments.rows, inputs)


if __name__ == "__main__":
    main()
