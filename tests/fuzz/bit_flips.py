"""Flip each bit of a stream in turn: no single one may change silently what it decodes to.

::

    python tests/fuzz/bit_flips.py                          all small conformance streams
    python tests/fuzz/bit_flips.py --profile nnc [STREAM ...]
    python tests/fuzz/bit_flips.py STREAM ...

Each flip is refused with an error of the package, or changes nothing: tensors, dtypes, roles,
order, graph, factors and whether there is a record. All else is a defect, and is listed.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nnrcodec.container.record import model_digest
from nnrcodec.decoder.pipeline import decode_all
from nnrcodec.errors import BitstreamError, UnsupportedFeatureError
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.unit import read_units

CONFORMANCE = Path(__file__).parents[2] / "conformance" / "valid"
LARGEST = 2_000
"""Bytes of a stream of which all bits are flipped unless it is asked for."""

REFUSED, SAME, SAME_AT_START, WRONG = "refused", "same", "same, in NNR_STR or NNR_MPS", "wrong"


def meaning(data: bytes) -> object:
    """Return all that a stream says of a network; values by their digests."""
    decoded = decode_all(data, Limits(), threads=1)
    return decoded.has_digests, decoded.is_update, decoded.blocks, _meaning_of(decoded.model)


def _meaning_of(model: Model) -> object:
    tensors = [(t.name, t.dtype, t.shape, t.role) for t in model.tensors.values()]
    with np.errstate(all="ignore"):
        return tensors, model_digest(model), repr(model.graph), model.factors


def flips(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Yield each bit, which class it is in, and what happened."""
    expected = meaning(data)
    start = {
        bit
        for unit in read_units(data)
        if unit.header.nnr_unit_type in (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS)
        for bit in range(unit.bit_offset, unit.bit_offset + 8 * unit.header.nnr_unit_size)
    }
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 0x80 >> bit % 8
        try:
            same = meaning(bytes(changed)) == expected
        except (BitstreamError, UnsupportedFeatureError) as error:
            yield bit, REFUSED, f"{type(error).__name__}: {error}"
        except Exception as error:
            yield bit, WRONG, repr(error)
        else:
            unchanged = SAME_AT_START if bit in start else SAME
            yield bit, unchanged if same else WRONG, "decodes" if same else "decodes to another"


def main() -> None:
    """Print counts for each stream, and each flip that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("ext", "nnc"), help="only streams of one profile")
    parser.add_argument("streams", nargs="*", type=Path, metavar="STREAM")
    options = parser.parse_args()
    logging.disable()
    small = (p for p in sorted(CONFORMANCE.glob("*.nnr")) if p.stat().st_size <= LARGEST)
    for path in options.streams or small:
        if options.profile and (options.profile == "nnc") != path.name.startswith("nnc_"):
            continue
        found = list(flips(path.read_bytes()))
        counts = Counter(kind for _, kind, _ in found)
        print(f"{path.name}: {dict(counts)}", flush=True)  # noqa: T201
        for bit, kind, what in found:
            if kind == WRONG:
                print(f"  byte {bit // 8} bit {bit % 8}: {what}")  # noqa: T201


if __name__ == "__main__":
    main()
