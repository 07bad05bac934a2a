"""Random legal units: a writer that picks each value before it emits it."""

import struct
from dataclasses import dataclass

from nnrcodec.syntax.bitio import BitWriter
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.drivers import SyntaxWriter, set_element
from nnrcodec.syntax.unit import (
    OPAQUE,
    UNIT_SYNTAX,
    NnrUnitHeader,
    Unit,
    nnr_unit_header,
)


class SyntaxGenerator(SyntaxWriter):
    """`choices` are values that some elements must take."""

    def __init__(self, rng, choices):
        super().__init__(BitWriter(), "generated")
        self.rng = rng
        self.choices = choices

    def _take(self, e):
        if e.h is None:
            return e.range["low"]
        value = self.choices[e.name] if e.name in self.choices else self._pick(e)
        set_element(e, value)
        return value

    def _array(self, e, count):
        set_element(e, [])

    def _record(self, e, record_type):
        record = record_type()
        set_element(e, record)
        return record

    def _pick(self, e):
        n = e.parameters[0] if e.parameters else 0
        few = (
            4 if "count" in e.name else min(4 << n, 200)
        )  # counts stay small, and so do the records
        match e.kind:
            case "flt":
                return struct.unpack("<f", struct.pack("<f", self.rng.uniform(-9, 9)))[0]
            case "st":
                return "".join(self.rng.choice("abc._ä漢") for _ in range(self.rng.randint(0, 4)))
            case "bs":
                return bytes(self.rng.randint(0, 255) for _ in range(self.rng.randint(0, 8)))
            case "i":
                low, high = -(1 << (n - 1)), (1 << (n - 1)) - 1
            case "u":
                low, high = 0, min((1 << n) - 1, few) if "count" in e.name else (1 << n) - 1
            case "ue":
                low, high = 0, few
            case "ie":
                low, high = -few, few
        low = max(low, e.range.get("low", low))
        return self.rng.randint(low, max(low, min(high, e.range.get("high", high))))


@dataclass
class Generated:
    unit: Unit
    elements: bytes


def generate_unit(rng, unit_type, ctx, **choices):
    syntax = UNIT_SYNTAX.get(unit_type, OPAQUE)
    s = SyntaxGenerator(
        rng, {"nnr_unit_type": unit_type, "xdu_coding": rng.randint(0, 2), **choices}
    )
    header = NnrUnitHeader()
    nnr_unit_header(s, header, ctx)
    body = syntax.record()
    s.code(body, syntax.tables, ctx)
    payload = bytes(rng.randint(0, 255) for _ in range(8)) if syntax.has_payload else b""
    return Generated(Unit(header, body, payload), s.bits.to_bytes())


LEGAL = {
    NnrUnitType.NNR_NDU: {"input_parameters_present_flag": 1, "tensor_dimensions_flag": 1},
    NnrUnitType.NNR_XDU: {"xdu_version_major": 1, "xdu_version_minor": 1},
}
"""What a unit must have to be supported."""
