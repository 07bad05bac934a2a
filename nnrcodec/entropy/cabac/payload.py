"""DeepCABAC: the payload of a data unit, in both directions.

Owns the order of what is in a payload and the arithmetic coder's first and last bits; the loops
over levels are in `nnrcodec.entropy.cabac.kernels`, which is imported, and compiled, when the
first payload is coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import (
    EntryPoint,
    LevelParameters,
    LevelSyntax,
    listed_contexts,
)
from nnrcodec.entropy.cabac.tables import (
    count_contexts,
    row_skip_context,
    shift_flag_context,
)
from nnrcodec.errors import PayloadError

_FIRST_BITS = 9
_FIRST_RANGE = 510
_BLOCK_ROW_RANGE = 256


class PayloadDecoder:
    """Decode the elements of a payload in their order.

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
        if len(payload) < 2:
            raise PayloadError(f"{len(payload)} bytes of payload, expected at least 2")
        self._payload = bytes(payload)
        loops = kernels()
        zeros = 4 * (loops.PADDING + 2) + -len(payload) % 4  # two words may be fetched ahead
        self._words = np.frombuffer(self._payload + bytes(zeros), ">u4").astype(np.uint32)
        self._engine = np.zeros(4, np.int64)
        self.entry_points: list[EntryPoint] = []
        loops.start_decoder(self._engine, self._words, _FIRST_RANGE, 0, 0)
        self._engine[2] -= _FIRST_BITS
        if self._engine[1] >= _FIRST_RANGE << int(self._engine[2]):
            raise PayloadError("the first 9 bits of the payload are 510 or 511")

    @property
    def state(self) -> tuple[int, int, int]:
        """Range, offset register, and bits shifted in beyond the first nine."""
        width, value, spare, word = (int(x) for x in self._engine)
        return width, value >> spare, 32 * word - _FIRST_BITS - spare

    @property
    def bit_position(self) -> int:
        """The bit of the payload that is shifted in next."""
        return self.state[2] + _FIRST_BITS

    def qp_offset(self, qp_density: int) -> int:
        """Decode the difference of a tensor's qp to that of the parameter set.

        Parameters
        ----------
        qp_density : int
            As in `nnrcodec.quant.step_size.step_size`.
        """
        bits = 6 + qp_density
        value = int(kernels().decode_bypass(self._engine, self._words, bits))
        self._check_end()
        return value - (1 << bits) if value >> (bits - 1) else value

    def levels(
        self,
        syntax: LevelSyntax,
        entry_points: Sequence[EntryPoint] | None = None,
        threads: int = 1,
    ) -> tuple[np.ndarray, LevelParameters]:
        """Decode the levels of a tensor.

        Parameters
        ----------
        syntax : LevelSyntax
            How they are coded.
        entry_points : sequence of EntryPoint, optional
            Of the header; they are compared with the payload.
        threads : int
            How many rows of blocks to decode at once; needs `entry_points`.

        Returns
        -------
        levels : ndarray of int32, shape (height, width)
            Multiples of the step size; with a codebook indices, 0 for its centre.
        parameters : LevelParameters
            What the payload says before them.

        Raises
        ------
        PayloadError
            If the payload ends too early, or is none of these levels and entry points.
        """
        parameters, skipped, initial = self._parameters(syntax)
        block_rows = syntax.count_block_rows
        if entry_points is not None and len(entry_points) != block_rows - 1:
            raise PayloadError(f"{len(entry_points)} entry points, expected {block_rows - 1}")
        height, width = matrix_of(syntax)
        levels = np.empty((height, width), np.int32)
        arrays = (levels, *contexts_of(syntax, parameters), skipped)
        options = loop_options(syntax)
        row_starts = np.zeros((block_rows, 3), np.int64)
        if entry_points and threads > 1:
            self._decode_at_once(arrays, options, initial, entry_points, row_starts, threads)
        else:
            self._decode_rows(self._engine, arrays, options, initial, row_starts, 0, block_rows, 0)
        self.entry_points = _entry_points(row_starts)
        if entry_points is not None:
            _compare(list(entry_points), self.entry_points, syntax.dq_flag)
        self._check_end()
        return levels.reshape(syntax.height, syntax.width), parameters

    def finish(self) -> None:
        """Decode the end of the payload.

        Raises
        ------
        PayloadError
            If the payload does not end here, with a stop bit and zeros.
        """
        if not kernels().decode_terminate(self._engine):
            raise PayloadError("the payload goes on where it should end")
        shifted = self.state[2]
        expected = 2 + shifted // 8
        if len(self._payload) != expected:
            raise PayloadError(f"{len(self._payload)} bytes of payload, expected {expected}")
        padding = 8 * expected - (_FIRST_BITS + shifted)
        if self._payload[-1] & ((2 << padding) - 1) != 1 << padding:
            raise PayloadError("the payload does not end in a stop bit and zeros")

    def _parameters(self, syntax: LevelSyntax) -> tuple[LevelParameters, np.ndarray, np.ndarray]:
        """Decode what comes before levels; return also skipped rows and initial contexts."""
        loops = kernels()
        unary_length = syntax.cabac_unary_length
        sets = np.zeros(count_contexts(unary_length), np.int64)
        contexts = loops.context_states(sets)
        history = row_skip = 0
        skipped = np.empty(0, np.uint8)
        if syntax.has_matrix_flags:
            if syntax.parent_node_id_present_flag:
                history = int(loops.decode_bypass(self._engine, self._words, 1))
            row_skip = int(loops.decode_bypass(self._engine, self._words, 1))
            if row_skip:
                skipped = np.zeros(syntax.height, np.uint8)
                k = row_skip_context(unary_length)
                self._check(loops.decode_flags(self._engine, self._words, contexts, k, skipped))
        listed = listed_contexts(syntax, history)
        chosen = np.zeros(listed.size, np.int64)
        k = shift_flag_context(unary_length)
        self._check(loops.decode_parameter_sets(self._engine, self._words, contexts, k, chosen))
        sets[listed] = chosen
        parameters = LevelParameters(history, row_skip, tuple(chosen.tolist()))
        return parameters, skipped, loops.context_states(sets)

    def _decode_rows(
        self,
        engine: np.ndarray,
        arrays: tuple[np.ndarray, ...],
        options: tuple[int, ...],
        initial: np.ndarray,
        row_starts: np.ndarray,
        first: int,
        stop: int,
        state: int,
    ) -> int:
        """Decode rows of blocks and return the state after them."""
        rows = first, stop
        with announced():
            code, state = kernels().decode_levels(
                engine,
                self._words,
                initial.copy(),
                initial,
                arrays,
                options,
                rows,
                state,
                row_starts,
            )
        self._check(code)
        return int(state)

    def _decode_at_once(
        self,
        arrays: tuple[np.ndarray, ...],
        options: tuple[int, ...],
        initial: np.ndarray,
        entry_points: Sequence[EntryPoint],
        row_starts: np.ndarray,
        threads: int,
    ) -> None:
        """Decode rows of blocks in threads.

        Each part starts where the header says. That it does so rightly is known when the part
        before it has ended: there `row_starts` gets what the payload says.
        """
        loops = kernels()
        block_rows = len(entry_points) + 1
        bounds = [block_rows * i // threads for i in range(threads + 1)]
        parts = [(a, b) for a, b in pairwise(bounds) if a < b]
        shifted = self.state[2]
        positions = [shifted]
        for point in entry_points:
            positions.append(positions[-1] + point.bit_offset)

        def decode(part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
            first, stop = part
            engine, here, state = self._engine.copy(), np.zeros_like(row_starts), 0
            if first:
                point = entry_points[first - 1]
                bit = positions[first] + _FIRST_BITS
                if not 0 <= bit <= 8 * len(self._payload) or point.cabac_offset >= _BLOCK_ROW_RANGE:
                    raise PayloadError(f"entry point {first - 1} is not in the payload")
                loops.start_decoder(engine, self._words, _BLOCK_ROW_RANGE, point.cabac_offset, bit)
                state = point.dq_state
            state = self._decode_rows(engine, arrays, options, initial, here, first, stop, state)
            return engine, here, state

        with ThreadPoolExecutor(len(parts)) as pool:
            results = list(pool.map(decode, parts))
        for (first, stop), (engine, here, state) in zip(parts, results, strict=True):
            row_starts[first:stop] = here[first:stop]
            if stop < block_rows:
                width, value, spare, word = (int(x) for x in engine)
                del width  # a row of blocks starts with its own
                arrival = (value >> spare, state, 32 * word - _FIRST_BITS - spare)
                point = entry_points[stop - 1]
                expected = (point.cabac_offset, point.dq_state, positions[stop])
                if arrival != expected:
                    raise PayloadError(f"entry point {stop - 1} is not where its row begins")
        self._engine[:] = results[-1][0]

    def _check(self, code: int) -> None:
        """Raise if a loop ended early."""
        loops = kernels()
        if code != loops.OK:
            self._check_end()
        if code == loops.END_OF_PAYLOAD:
            raise PayloadError("the payload ends before the levels do")
        if code == loops.TOO_LARGE:
            raise PayloadError("a level does not fit 32 bits")
        if code == loops.BAD_REGISTER:
            raise PayloadError("a row of blocks does not begin where the payload has one")

    def _check_end(self) -> None:
        """Raise if more bits were used than there are."""
        if self.bit_position > 8 * len(self._payload):
            raise PayloadError("the payload ends before the levels do")


class PayloadEncoder:
    """Encode the elements of a payload in their order."""

    def __init__(self) -> None:
        self._engine = np.array([_FIRST_RANGE, 0, 0, 0], np.int64)
        self._out = np.empty(256, np.int64)

    @property
    def state(self) -> tuple[int, int, int]:
        """Range, low end of the interval, and bits it has grown by since the start."""
        width, low, pending, word = (int(x) for x in self._engine)
        for above, digit in enumerate(reversed(self._out[:word].tolist())):
            low += digit << (_FIRST_BITS + pending + 32 * above)
        return width, low, 32 * word + pending

    def qp_offset(self, offset: int, qp_density: int) -> None:
        """Encode the difference of a tensor's qp to that of the parameter set.

        Raises
        ------
        ValueError
            If it does not fit 6 + `qp_density` bits.
        """
        bits = 6 + qp_density
        if not -(1 << (bits - 1)) <= offset < 1 << (bits - 1):
            raise ValueError(f"qp offset {offset} does not fit {bits} bits")
        self._bypass(offset & ((1 << bits) - 1), bits)

    def levels(self, levels: np.ndarray, syntax: LevelSyntax, parameters: LevelParameters) -> None:
        """Encode the levels of a tensor; rows of zeros are skipped if `row_skip_flag` is set.

        Parameters
        ----------
        levels : ndarray of int32, shape (height, width)
            As `PayloadDecoder.levels` returns them.
        syntax, parameters
            How, see there.

        Raises
        ------
        ValueError
            If a level is none that can be coded so.
        """
        loops = kernels()
        unary_length = syntax.cabac_unary_length
        sets = np.zeros(count_contexts(unary_length), np.int64)
        contexts = loops.context_states(sets)
        levels = loop_array(levels, syntax, np.int32)
        check_levels(levels, syntax)
        skipped = np.empty(0, np.uint8)
        if syntax.has_matrix_flags:
            if syntax.parent_node_id_present_flag:
                self._bypass(parameters.hist_dep_sig_prob_enabled_flag, 1)
            self._bypass(parameters.row_skip_flag, 1)
            if parameters.row_skip_flag:
                skipped = skipped_rows(levels, parameters)
                k = row_skip_context(unary_length)
                self._out = loops.encode_flags(self._engine, self._out, contexts, k, skipped)
        listed = listed_contexts(syntax, parameters.hist_dep_sig_prob_enabled_flag)
        chosen = np.zeros(listed.size, np.int64)
        if parameters.parameter_sets is not None:
            chosen[:] = parameters.parameter_sets
        k = shift_flag_context(unary_length)
        self._out = loops.encode_parameter_sets(self._engine, self._out, contexts, k, chosen)
        sets[listed] = chosen
        initial = loops.context_states(sets)
        with announced():
            code, self._out = loops.encode_levels(
                self._engine,
                self._out,
                initial.copy(),
                initial,
                (levels, *contexts_of(syntax, parameters), skipped),
                loop_options(syntax),
                (0, syntax.count_block_rows),
            )
        if code == loops.BAD_PARITY:
            raise ValueError("levels are not those of dependent quantization")

    def finish(self) -> bytes:
        """Encode the end, and return the payload."""
        width, low, pending, word = (int(x) for x in self._engine)
        low, pending = (low + width - 2) << 7, pending + 7
        words = self._out[:word]
        carry = low >> (_FIRST_BITS + pending)
        low &= (1 << (_FIRST_BITS + pending)) - 1
        last_bits = ((low >> 8) << 1 | 1) << (-(pending + 2) % 8)
        kernels().carry(words, carry)
        return words.astype(">u4").tobytes() + last_bits.to_bytes((pending + 9) // 8, "big")

    def _bypass(self, bits: int, count: int) -> None:
        self._out = kernels().encode_bypass(self._engine, self._out, bits, count)


def check_levels(levels: np.ndarray, syntax: LevelSyntax) -> None:
    """Raise ValueError if levels are not indices of the codebook."""
    entries = syntax.codebook_entries
    if entries and levels.size:
        lowest, highest = -syntax.codebook_zero, entries - 1 - syntax.codebook_zero
        if levels.min() < lowest or levels.max() > highest:
            raise ValueError(f"levels are not indices {lowest} to {highest} of the codebook")


def announced() -> AbstractContextManager[None]:
    """Announce compilation for as long as the loops may have to be compiled."""
    from nnrcodec.entropy.compiled import announced

    return announced("the entropy coder")


@cache
def kernels() -> ModuleType:
    """Return the compiled loops; numba is imported when they are needed."""
    from nnrcodec.entropy.cabac import kernels

    return kernels


def matrix_of(syntax: LevelSyntax) -> tuple[int, int]:
    """Return the shape that the loops run over: one row where rows do not matter."""
    if syntax.is_matrix:
        return syntax.height, syntax.width
    return 1, syntax.height * syntax.width


def loop_array(array: np.ndarray, syntax: LevelSyntax, dtype: type) -> np.ndarray:
    """Return an array as the loops are compiled for: `matrix_of` its shape, and writable."""
    return np.require(array.reshape(matrix_of(syntax)), dtype, ["C", "A", "W"])


def contexts_of(syntax: LevelSyntax, parameters: LevelParameters) -> tuple[np.ndarray, np.ndarray]:
    """Return what levels are coded after: earlier levels, and where there were some."""
    base, history = np.empty((0, 0), np.int32), np.empty((0, 0), np.uint8)
    if syntax.base is not None:
        base = loop_array(syntax.base, syntax, np.int32)
    if parameters.hist_dep_sig_prob_enabled_flag and syntax.history is not None:
        history = loop_array(syntax.history, syntax, np.uint8)
    return base, history


def skipped_rows(levels: np.ndarray, parameters: LevelParameters) -> np.ndarray:
    """Return 1 for each row of zeros if rows are skipped, else nothing."""
    if parameters.row_skip_flag:
        return np.asarray(~levels.any(axis=1), np.uint8)
    return np.empty(0, np.uint8)


def loop_options(syntax: LevelSyntax) -> tuple[int, int, int, int, int]:
    """Return the numbers that all loops take."""
    return (
        syntax.block_size,
        int(syntax.dq_flag),
        syntax.cabac_unary_length,
        syntax.codebook_entries,
        syntax.codebook_zero,
    )


def _entry_points(row_starts: np.ndarray) -> list[EntryPoint]:
    """Return entry points from register, state and position at all rows of blocks."""
    rows = row_starts.tolist()
    return [
        EntryPoint(register, state, position - before)
        for (_, _, before), (register, state, position) in pairwise(rows)
    ]


def _compare(declared: list[EntryPoint], actual: list[EntryPoint], dq_flag: int) -> None:
    """Raise at the first entry point that is not the payload's."""
    for index, (point, there) in enumerate(zip(declared, actual, strict=True)):
        same = point.cabac_offset == there.cabac_offset and point.bit_offset == there.bit_offset
        if not same or (dq_flag and point.dq_state != there.dq_state):
            raise PayloadError(f"entry point {index} is {point}, the payload has {there}")
