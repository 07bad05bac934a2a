"""DeepCABAC in plain Python, bit by bit: the definition that the compiled loops must equal.

Slow on purpose: registers are those of the standard, one bit is shifted in at a time, and the
encoder's interval is a number of any length. Readers of ``spec/deepcabac.md`` can follow it here,
tests compare it with `nnrcodec.entropy.cabac.payload`, and it decodes where a few bins are wanted
without waiting for compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import (
    EntryPoint,
    LevelParameters,
    LevelSyntax,
    listed_contexts,
)
from nnrcodec.entropy.cabac.tables import (
    GREATER,
    PARAMETER_SETS,
    RANGE_LPS,
    REMAINDERS,
    SIGN,
    SIGN_TEMPORAL,
    SIGNIFICANCE,
    SIGNIFICANCE_HISTORY,
    SIGNIFICANCE_TEMPORAL,
    STATE_TRANSITION,
    TRANSITION,
    count_contexts,
    remainder_context,
    row_skip_context,
    shift_flag_context,
)
from nnrcodec.errors import PayloadError

_BLOCK_ROW_RANGE = 256


@dataclass(slots=True)
class Context:
    """An adaptive probability: a fast and a slow estimator, and how fast they are.

    Parameters
    ----------
    parameter_set : int
        0 to 8.
    """

    parameter_set: int
    fast: int = 0
    slow: int = 0

    def __post_init__(self) -> None:
        _, _, self.fast, self.slow = (int(x) for x in PARAMETER_SETS[self.parameter_set])

    @property
    def balance(self) -> int:
        """Positive or 0 if bin 1 is the more probable one."""
        return 16 * self.fast + self.slow

    def range_lps(self, width: int) -> int:
        """Return the part of a range that the less probable bin gets."""
        return int(RANGE_LPS[width >> 5 & 7, abs(self.balance >> 7)])

    def update(self, b: int) -> None:
        """Move both estimators towards a bin."""
        fast_shift, slow_shift, _, _ = (int(x) for x in PARAMETER_SETS[self.parameter_set])
        d = 1 if b else -1
        self.fast += d * (int(TRANSITION[16 + (d * self.fast >> 3)]) >> fast_shift)
        self.slow += d * (int(TRANSITION[16 + (d * self.slow >> 7)]) >> slow_shift)


class PlainDecoder:
    """As `nnrcodec.entropy.cabac.payload.PayloadDecoder`.

    Parameters
    ----------
    payload : bytes or memoryview
        All of it.

    Raises
    ------
    PayloadError
        If its first bits cannot be those of a payload.

    Attributes
    ----------
    entry_points : list of EntryPoint
        Of the tensor decoded last; empty if it has one row of blocks.
    """

    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = bytes(payload)
        if len(payload) < 2:
            raise PayloadError(f"{len(payload)} bytes of payload, expected at least 2")
        self._range = 510
        self._value = self._payload[0] << 1 | self._payload[1] >> 7
        self._shifted = 0
        self.entry_points: list[EntryPoint] = []
        if self._value >= self._range:
            raise PayloadError("the first 9 bits of the payload are 510 or 511")

    @property
    def state(self) -> tuple[int, int, int]:
        """Range, offset register, and bits shifted in beyond the first nine."""
        return self._range, self._value, self._shifted

    @property
    def bit_position(self) -> int:
        """The bit of the payload that is shifted in next."""
        return self._shifted + 9

    def qp_offset(self, qp_density: int) -> int:
        """Decode the difference of a tensor's qp to that of the parameter set."""
        bits = 6 + qp_density
        value = self._bypass(bits)
        return value - (1 << bits) if value >> bits - 1 else value

    def levels(
        self,
        syntax: LevelSyntax,
        entry_points: Sequence[EntryPoint] | None = None,
        threads: int = 1,
    ) -> tuple[np.ndarray, LevelParameters]:
        """Decode the levels of a tensor, from the first to the last whatever `threads` is."""
        del threads
        contexts = [Context(0) for _ in range(count_contexts(syntax.cabac_unary_length))]
        history = row_skip = 0
        skipped = [0] * syntax.height
        if syntax.has_matrix_flags:
            if syntax.parent_node_id_present_flag:
                history = self._bypass(1)
            row_skip = self._bypass(1)
            if row_skip:
                flag = contexts[row_skip_context(syntax.cabac_unary_length)]
                skipped = [self._bin(flag) for _ in skipped]
        flag = contexts[shift_flag_context(syntax.cabac_unary_length)]
        listed = listed_contexts(syntax, history).tolist()
        sets = [1 + self._bypass(3) if self._bin(flag) else 0 for _ in listed]
        parameters = LevelParameters(history, row_skip, tuple(sets))

        levels = np.zeros((syntax.height, syntax.width), np.int32)
        walk = _Walk(syntax, parameters, dict(zip(listed, sets, strict=True)), skipped)
        rows = []
        for y, x, begins in walk.positions():
            if begins:
                self._range = _BLOCK_ROW_RANGE
                rows.append((self._value, walk.state, self._shifted))
                if self._value >= self._range:
                    raise PayloadError("a row of blocks does not begin where the payload has one")
            if y is not None:
                level = _code_level(walk, y, x, self._bin, self._bypass, None)
                if not -(2**31) <= level < 2**31:
                    raise PayloadError("a level does not fit 32 bits")
                levels[y, x] = level
        self.entry_points = [
            EntryPoint(register, state, position - before)
            for (_, _, before), (register, state, position) in pairwise(rows)
        ]
        self._check(syntax, entry_points)
        return levels, parameters

    def finish(self) -> None:
        """Decode the end of the payload."""
        self._range -= 2
        if self._value < self._range:
            raise PayloadError("the payload goes on where it should end")
        expected = 2 + self._shifted // 8
        if len(self._payload) != expected:
            raise PayloadError(f"{len(self._payload)} bytes of payload, expected {expected}")
        tail = "".join(f"{byte:08b}" for byte in self._payload)[self._shifted + 8 :]
        if tail != "1".ljust(len(tail), "0"):
            raise PayloadError("the payload does not end in a stop bit and zeros")

    def _check(self, syntax: LevelSyntax, entry_points: Sequence[EntryPoint] | None) -> None:
        """Compare entry points of a header with those that were found."""
        if entry_points is None:
            return
        for told, real in zip(entry_points, self.entry_points, strict=True):
            state = told.dq_state if syntax.dq_flag else real.dq_state
            if EntryPoint(told.cabac_offset, state, told.bit_offset) != real:
                raise PayloadError(f"an entry point is {told}, the payload has {real}")

    def _shift(self) -> None:
        """Shift one bit into the offset register."""
        at = self.bit_position
        if at >= 8 * len(self._payload):
            raise PayloadError("the payload ends before the levels do")
        self._value = self._value << 1 | self._payload[at >> 3] >> (7 - (at & 7)) & 1
        self._shifted += 1

    def _bin(self, context: Context) -> int:
        """Decode a bin with a context."""
        b = int(context.balance >= 0)
        lps = context.range_lps(self._range)
        self._range -= lps
        if self._value >= self._range:
            self._value -= self._range
            self._range = lps
            b = 1 - b
        while self._range < 256:
            self._range *= 2
            self._shift()
        context.update(b)
        return b

    def _bypass(self, count: int) -> int:
        """Decode bins without a context, the most significant one first."""
        bits = 0
        for _ in range(count):
            self._shift()
            b = int(self._value >= self._range)
            self._value -= b * self._range
            bits = 2 * bits + b
        return bits


class PlainEncoder:
    """As `nnrcodec.entropy.cabac.payload.PayloadEncoder`."""

    def __init__(self) -> None:
        self._range = 510
        self._low = 0
        self._grown = 0

    @property
    def state(self) -> tuple[int, int, int]:
        """Range, low end of the interval, and bits it has grown by since the start."""
        return self._range, self._low, self._grown

    def qp_offset(self, offset: int, qp_density: int) -> None:
        """Encode the difference of a tensor's qp to that of the parameter set."""
        bits = 6 + qp_density
        if not -(1 << bits - 1) <= offset < 1 << bits - 1:
            raise ValueError(f"qp offset {offset} does not fit {bits} bits")
        self._bypass(offset % (1 << bits), bits)

    def levels(self, levels: np.ndarray, syntax: LevelSyntax, parameters: LevelParameters) -> None:
        """Encode the levels of a tensor; rows of zeros are skipped if `row_skip_flag` is set."""
        levels = levels.reshape(syntax.height, syntax.width)
        contexts = [Context(0) for _ in range(count_contexts(syntax.cabac_unary_length))]
        skipped = [0] * syntax.height
        history = parameters.hist_dep_sig_prob_enabled_flag
        if syntax.has_matrix_flags:
            if syntax.parent_node_id_present_flag:
                self._bypass(history, 1)
            self._bypass(parameters.row_skip_flag, 1)
            if parameters.row_skip_flag:
                skipped = [int(not row.any()) for row in levels]
                flag = contexts[row_skip_context(syntax.cabac_unary_length)]
                for skip in skipped:
                    self._bin(flag, skip)
        flag = contexts[shift_flag_context(syntax.cabac_unary_length)]
        listed = listed_contexts(syntax, history).tolist()
        sets = list(parameters.parameter_sets or [0] * len(listed))
        for parameter_set in sets:
            self._bin(flag, int(parameter_set > 0))
            if parameter_set:
                self._bypass(parameter_set - 1, 3)

        walk = _Walk(syntax, parameters, dict(zip(listed, sets, strict=True)), skipped)
        for y, x, begins in walk.positions():
            if begins:
                self._range = _BLOCK_ROW_RANGE
            if y is not None:
                _code_level(walk, y, x, self._bin, self._bypass, int(levels[y, x]))

    def finish(self) -> bytes:
        """Encode the end, and return the payload."""
        low = (self._low + self._range - 2) << 7
        bits = f"{low >> 8:0{self._grown + 8}b}1"
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    def _bin(self, context: Context, b: int) -> int:
        """Encode a bin with a context."""
        lps = context.range_lps(self._range)
        self._range -= lps
        if b != int(context.balance >= 0):
            self._low += self._range
            self._range = lps
        while self._range < 256:
            self._range *= 2
            self._low *= 2
            self._grown += 1
        context.update(b)
        return b

    def _bypass(self, bits: int, count: int) -> int:
        """Encode bins without a context, the most significant one first."""
        for i in range(count - 1, -1, -1):
            self._low = 2 * self._low + (bits >> i & 1) * self._range
            self._grown += 1
        return bits


class _Walk:
    """The positions of a tensor in the order of the scan, and what is known at each."""

    def __init__(
        self,
        syntax: LevelSyntax,
        parameters: LevelParameters,
        sets: dict[int, int],
        skipped: list[int],
    ) -> None:
        self.syntax = syntax
        self.by_history = bool(parameters.hist_dep_sig_prob_enabled_flag)
        self.state = 0
        self.neighbour = 0
        self.contexts: list[Context] = []
        self._sets = sets
        self._skipped = skipped

    def positions(self) -> Iterator[tuple[int | None, int, bool]]:
        """Yield row, column, and whether a row of blocks begins here; the row None if only that."""
        height, width = self.syntax.height, self.syntax.width
        block = self.syntax.block_size
        rows, columns = block or height, block or width
        self._begin_row()
        for top in range(0, height, rows):
            if self.syntax.count_block_rows > 1:
                self._begin_row()
                yield None, 0, True
            for left in range(0, width, columns):
                for y in range(top, min(top + rows, height)):
                    if self._skipped[y]:
                        for _ in range(width if self.syntax.dq_flag else 0):
                            self.state = int(STATE_TRANSITION[self.state, 0])
                        continue
                    for x in range(left, min(left + columns, width)):
                        yield y, x, False

    def base(self, y: int, x: int) -> int:
        """Return the level of the update before."""
        return 0 if self.syntax.base is None else int(self.syntax.base[y, x])

    def significance(self, y: int, x: int) -> int:
        """Return the context of the significance of a level."""
        base, history = self.base(y, x), self.syntax.history
        if self.by_history and history is not None and history[y, x]:
            return SIGNIFICANCE_HISTORY + self.state
        if base:
            return SIGNIFICANCE_TEMPORAL + 2 * self.state + int(abs(base) > 1)
        return SIGNIFICANCE + 3 * self.state + self.neighbour_context

    @property
    def neighbour_context(self) -> int:
        """0 if the level before is 0, 1 if it is negative, 2 if it is positive."""
        return (self.neighbour < 0) + 2 * (self.neighbour > 0)

    def advance(self, magnitude: int, negative: int) -> None:
        """Go on after a level."""
        self.neighbour = -magnitude if negative else magnitude
        if self.syntax.dq_flag:
            self.state = int(STATE_TRANSITION[self.state, magnitude & 1])

    def _begin_row(self) -> None:
        count = count_contexts(self.syntax.cabac_unary_length)
        self.contexts = [Context(self._sets.get(k, 0)) for k in range(count)]
        self.neighbour = 0


def _code_level(
    walk: _Walk,
    y: int,
    x: int,
    code_bin: Callable[..., int],
    code_bypass: Callable[..., int],
    level: int | None,
) -> int:
    """Decode a level, or encode `level`; one text for both directions.

    `code_bin` takes a context, `code_bypass` a count; to encode, also what is coded.
    """
    syntax, base = walk.syntax, walk.base(y, x)
    entries, zero, unary_length = (
        syntax.codebook_entries,
        syntax.codebook_zero,
        syntax.cabac_unary_length,
    )
    encoding = level is not None
    known = abs(level or 0)
    if syntax.dq_flag and encoding:
        if known and known % 2 != walk.state % 2:
            raise ValueError("levels are not those of dependent quantization")
        known = (known + walk.state % 2) // 2
    negative = int((level or 0) < 0)

    def coded(k: int, b: bool) -> int:
        context = walk.contexts[k]
        return code_bin(context, int(b)) if encoding else code_bin(context)

    if entries == 1 or not coded(walk.significance(y, x), known > 0):
        walk.advance(0, 0)
        return 0
    limit = 1 << 62
    if entries and zero == 0:
        negative = 0
    elif entries and zero == entries - 1:
        negative = 1
    elif base:
        negative = coded(SIGN_TEMPORAL + int(base > 0), bool(negative))
    else:
        negative = coded(SIGN + walk.neighbour_context, bool(negative))
    if entries:
        limit = zero if negative else entries - 1 - zero
    magnitude, more, j = 1, 1, 0
    while more and j < unary_length and magnitude < limit:
        k = GREATER + 2 * j + negative
        if base:
            k = GREATER + 2 * unary_length + 2 * j + int(abs(base) < j)
        more = coded(k, known > magnitude)
        magnitude += more
        j += 1
    if more and magnitude < limit:
        bits = 0
        while more and bits < REMAINDERS and limit >= magnitude + (1 << bits):
            more = coded(remainder_context(unary_length) + bits, known - magnitude >= 1 << bits)
            magnitude += more << bits
            bits += more
        rest = (known - magnitude, bits) if encoding else (bits,)
        magnitude += code_bypass(*rest)
    value = 2 * magnitude - walk.state % 2 if syntax.dq_flag else magnitude
    walk.advance(magnitude, negative)
    return -value if negative else value
