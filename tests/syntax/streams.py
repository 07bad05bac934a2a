"""Small streams of the reference software, unit by unit, and where more of them are."""

from pathlib import Path

STR = {0: "00 04 02 00", 1: "00 04 02 01"}
MPS = "00 08 06 81 00 40 00 80"
MPS_PARENT = "00 08 06 81 08 40 00 80"
TPL = "00 06 0e 00 00 00"

UNIFORM = "00 14 16 09 62 00 d0 40 c3 85 01 80 f7 95 00 5e 19 b3 b1 a0"
DEPENDENT = "00 16 16 09 77 00 d0 41 c1 20 e0 c0 20 80 f8 02 20 01 48 82 45 e0"
INTEGER_0 = "00 0f 16 01 6e 00 61 c2 00 40 8d 00 66 9c 3b"
INTEGER_1 = "00 10 16 01 6e 00 d0 41 87 08 01 8d 00 66 9c 3b"
BLOCK = (
    "00 29 16 1d 80 80 63 2e 77 65 69 67 68 74 00 63 2e 62 69 61 73 00"
    "d0 40 e1 20 a0 80 20 80 f3 99 00 67 e7 8d 66 00 9b ae 7c"
)
ENTRY_POINT = "00 17 16 09 77 00 d0 40 c1 22 60 80 21 5f 81 28 f7 4e 80 62 75 8d bf"
CODEBOOK = "00 17 16 09 77 00 d0 42 48 d0 1e b5 82 41 c1 80 41 f7 4e d0 1f df 80"


def stream(*units):
    return bytes.fromhex(" ".join(units))


STREAMS = {
    "uniform": stream(STR[1], MPS, TPL, UNIFORM),
    "dependent": stream(STR[1], MPS, TPL, DEPENDENT),
    "integer_0": stream(STR[0], MPS, TPL, INTEGER_0),
    "integer_1": stream(STR[1], MPS, TPL, INTEGER_1),
    "block": stream(STR[1], MPS, TPL, BLOCK),
    "entry_point": stream(STR[1], MPS, TPL, ENTRY_POINT),
    "codebook": stream(STR[1], MPS, TPL, CODEBOOK),
    "no_topology": stream(STR[0], "00 08 06 01 00 40 00 80", INTEGER_0),
    "no_data": stream(STR[1], MPS_PARENT),
    "opaque": stream(STR[0], MPS, "00 05 1a 01 02", "80 00 00 06 a2 ff"),
}

REPOSITORY = Path(__file__).parents[2]


def vectors():
    """Return the paths of all streams of the reference software."""
    return sorted((REPOSITORY / "conformance" / "reference").glob("*.nnc"))
