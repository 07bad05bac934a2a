"""Print what each part of calibration contributes: streams of encoders that lack one.

    python parts.py --data FOLDER --only dncnn25,rfb320

- *prior*: levels are searched for the calibration inputs alone, of state dicts for white inputs,
  and not for inputs in general as well.
- *loop*: steps follow from the error that is expected, and are not changed where another one is
  measured.
- *families*: only photographs as they are are fitted, and errors are measured on inputs of the same
  families as those that are fitted.

Columns are those of ``table.py``.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from cases import CASES
from table import line, rows

import nnrcodec.calibration.pictures
import nnrcodec.calibration.synthetic
import nnrcodec.encoder.calibrated
import nnrcodec.encoder.levels
import nnrcodec.encoder.presets
from nnrcodec import EncoderConfig


def without_prior(patches: ExitStack) -> None:
    """Leave inputs in general away."""
    for module in (nnrcodec.encoder.calibrated, nnrcodec.encoder.levels):
        patches.enter_context(mock.patch.object(module, "has_prior", lambda _: False))


def without_loop(patches: ExitStack) -> None:
    """Take the first stream."""
    patches.enter_context(mock.patch.object(nnrcodec.encoder.presets, "TRIALS", 1))


def without_families(patches: ExitStack) -> None:
    """Fit photographs, and measure with what is like the fitted inputs."""
    pictures, synthetic = nnrcodec.calibration.pictures, nnrcodec.calibration.synthetic
    make = synthetic.synthetic_inputs

    def alike(*args: Any, held_out: bool = False, **options: Any) -> Any:
        return make(*args, **options)

    patches.enter_context(mock.patch.object(synthetic, "synthetic_inputs", alike))
    patches.enter_context(mock.patch.object(pictures, "FITTED", pictures.FITTED[:1]))


PARTS: Mapping[str, Callable[[ExitStack], None]] = {
    "nothing": lambda _: None,
    "prior": without_prior,
    "loop": without_loop,
    "families": without_families,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(), help="folder with the networks")
    parser.add_argument("--only", default=",".join(CASES), help="networks, by default %(default)s")
    parser.add_argument("--inputs", default="default,real", help="by default %(default)s")
    parser.add_argument("--without", default=",".join(PARTS), help="by default %(default)s")
    cache = Path(tempfile.gettempdir()) / "nnrcodec-benchmark"
    parser.add_argument("--cache", type=Path, default=cache, help="as for table.py")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    print("| network | inputs | without | bytes | % of fp32 | said | true | loss | seconds |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only.split(","):
        network = CASES[name](arguments.data, arguments.cache)
        for part in arguments.without.split(","):
            with ExitStack() as patches:
                PARTS[part](patches)
                kinds = [
                    k for k in arguments.inputs.split(",") if k == "default" or part != "families"
                ]
                for row in rows(name, network, kinds, {part: EncoderConfig()}):
                    print(line(row), flush=True)


if __name__ == "__main__":
    main()
