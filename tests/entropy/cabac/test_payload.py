"""DeepCABAC: the compiled loops equal their plain twin, and both return what went in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syntax import streams

from nnrcodec.entropy.cabac import kernels as cabac_kernels
from nnrcodec.entropy.cabac import payload as cabac_payload
from nnrcodec.entropy.cabac import plain as plain_cabac
from nnrcodec.entropy.cabac import tables
from nnrcodec.entropy.cabac.level_costs import choose_parameters
from nnrcodec.entropy.cabac.level_syntax import (
    EntryPoint,
    LevelParameters,
    LevelSyntax,
    listed_contexts,
)
from nnrcodec.entropy.cabac.payload import PayloadDecoder, PayloadEncoder
from nnrcodec.entropy.cabac.plain import Context, PlainDecoder, PlainEncoder
from nnrcodec.entropy.cabac.tables import PARAMETER_SETS, count_contexts
from nnrcodec.errors import PayloadError

MAGNITUDES = (0, 0, 0, 0, 1, 1, 2, 3, 7, 20, 300, 70_000, 2**31 - 1)


def dependent(magnitudes, syntax, parameters):
    """Give magnitudes the multiples that dependent quantization has in their states."""
    skipped = [int(p and not row.any()) for row in magnitudes for p in [parameters.row_skip_flag]]
    walk = plain_cabac._Walk(syntax, parameters, {}, skipped)
    levels = np.zeros_like(magnitudes)
    for y, x, _ in walk.positions():
        if y is not None:
            c = int(np.clip(magnitudes[y, x], -(2**30) + 1, 2**30 - 1))
            levels[y, x] = np.sign(c) * (2 * abs(c) - walk.state % 2)
            walk.advance(abs(c), int(c < 0))
    return levels


@st.composite
def cases(draw):
    """Draw levels with a syntax and parameters."""
    shape = draw(st.sampled_from([(1, 1), (1, 9), (9, 1), (2, 2), (5, 7), (17, 12), (20, 33)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    entries = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 9, 600]))
    dq_flag = 0 if entries else draw(st.integers(0, 1))
    update = draw(st.integers(0, 1))
    syntax = LevelSyntax(
        height=shape[0],
        width=shape[1],
        general_profile_idc=draw(st.integers(0, 1)),
        dq_flag=dq_flag,
        cabac_unary_length=draw(st.sampled_from([1, 2, 10, 31, 256])),
        scan_order=draw(st.integers(0, 2)),
        codebook_size=entries,
        codebook_zero=draw(st.integers(0, max(entries - 1, 0))),
        parent_node_id_present_flag=update,
        base=rng.integers(-3, 4, shape, np.int32) if update and draw(st.booleans()) else None,
        history=rng.integers(0, 2, shape, np.uint8) if update and draw(st.booleans()) else None,
    )
    matrix_flags = int(syntax.has_matrix_flags)
    history = update * matrix_flags * draw(st.integers(0, 1))
    sets = rng.integers(0, 9, listed_contexts(syntax, history).size)
    parameters = LevelParameters(
        history,
        matrix_flags * draw(st.integers(0, 1)),
        draw(st.sampled_from([None, tuple(sets.tolist())])),
    )
    levels = rng.choice(MAGNITUDES, shape) * rng.choice([-1, 1], shape)
    levels[rng.random(shape[0]) < 0.3] = 0
    if entries:
        zero = syntax.codebook_zero
        levels = np.clip(levels, -zero, entries - 1 - zero)
    if dq_flag:
        levels = dependent(levels, syntax, parameters)
    return levels.astype(np.int32), syntax, parameters


def encoded(encoder, levels, syntax, parameters, qp=-7):
    encoder.qp_offset(qp, 2)
    encoder.levels(levels, syntax, parameters)
    state = encoder.state
    return encoder.finish(), state


@settings(max_examples=150, deadline=None)
@given(cases())
def test_compiled_equals_plain(case):
    levels, syntax, parameters = case
    payload, state = encoded(PayloadEncoder(), *case)
    assert (payload, state) == encoded(PlainEncoder(), *case)

    fast, plain = PayloadDecoder(payload), PlainDecoder(payload)
    for decoder in (fast, plain):
        assert decoder.qp_offset(2) == -7
        decoded, found = decoder.levels(syntax)
        np.testing.assert_array_equal(decoded, levels)
        assert found.row_skip_flag == parameters.row_skip_flag
        assert found.parameter_sets == (
            parameters.parameter_sets or (0,) * len(found.parameter_sets)
        )
    assert fast.state == plain.state
    assert fast.entry_points == plain.entry_points
    fast.finish()
    plain.finish()


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(2, 5))
def test_threads_start_at_entry_points(case, threads):
    levels, syntax, _ = case
    payload, _ = encoded(PayloadEncoder(), *case)
    first = PayloadDecoder(payload)
    first.qp_offset(2)
    first.levels(syntax)
    decoder = PayloadDecoder(payload)
    decoder.qp_offset(2)
    decoded, _ = decoder.levels(syntax, first.entry_points, threads)
    np.testing.assert_array_equal(decoded, levels)
    assert decoder.entry_points == first.entry_points
    assert decoder.state == first.state
    decoder.finish()


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_damage_is_found_or_decodes_alike(case, data):
    _, syntax, _ = case
    payload = bytearray(encoded(PayloadEncoder(), *case)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    payload = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    outcomes = []
    for decoder_type in (PayloadDecoder, PlainDecoder):
        try:
            decoder = decoder_type(payload)
            decoder.qp_offset(2)
            levels, parameters = decoder.levels(syntax)
            state = decoder.state
            decoder.finish()
            outcomes.append((levels.tolist(), parameters, state))
        except PayloadError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def test_wrong_entry_points_are_refused():
    levels = np.arange(20 * 33, dtype=np.int32).reshape(20, 33) % 5
    syntax = LevelSyntax(height=20, width=33, scan_order=1, dq_flag=0)
    encoder = PayloadEncoder()
    encoder.levels(levels, syntax, LevelParameters())
    payload = encoder.finish()
    decoder = PayloadDecoder(payload)
    decoder.levels(syntax)
    right = decoder.entry_points
    assert len(right) == 2
    for threads in (1, 2, 3):
        decoded, _ = PayloadDecoder(payload).levels(syntax, right, threads)
        np.testing.assert_array_equal(decoded, levels)
        for wrong in (
            replace(right[0], cabac_offset=right[0].cabac_offset ^ 1),
            replace(right[0], bit_offset=right[0].bit_offset + 1),
            replace(right[0], bit_offset=1 << 40),
            replace(right[0], bit_offset=-1000),
        ):
            with pytest.raises(PayloadError):
                PayloadDecoder(payload).levels(syntax, [wrong, right[1]], threads)
    with pytest.raises(PayloadError, match="expected 2"):
        PayloadDecoder(payload).levels(syntax, right[:1])


@pytest.mark.parametrize("parameter_set", range(len(PARAMETER_SETS)))
def test_context_states_equal_plain(parameter_set):
    """A bin that always, then never comes, drives both estimators from end to end."""
    packed = int(cabac_kernels.context_states(np.array([parameter_set]))[0])
    plain = Context(parameter_set)
    rng = np.random.default_rng(1)
    bins = [1] * 600 + [0] * 1200 + rng.integers(0, 2, 600).tolist()
    for b in bins:
        assert cabac_kernels._balance(packed) == plain.balance
        packed = cabac_kernels._adapted(packed, b)
        plain.update(b)
    assert cabac_kernels._balance(packed) == plain.balance


@pytest.mark.parametrize("optimise", [False, True])
def test_listed_bins_cost_what_is_sent(optimise):
    """The estimate is within 2 % of the payload."""
    rng = np.random.default_rng(3)
    levels = np.rint(rng.laplace(size=(150, 200)) * 2).astype(np.int32)
    syntax = LevelSyntax(height=150, width=200, cabac_unary_length=4)
    parameters, bits = choose_parameters(levels, syntax, optimise=optimise)
    payload, _ = encoded(PayloadEncoder(), levels, syntax, parameters)
    assert abs(8 * len(payload) - bits) < 0.02 * bits
    assert (parameters.parameter_sets is not None) <= optimise


@settings(max_examples=60, deadline=None)
@given(cases())
def test_set_costs_equal_plain(case):
    """Costs are those of the contexts of the plain twin, bin by bin."""
    levels, syntax, parameters = case
    encoder = PlainEncoder()
    bits = []
    code = encoder._bin
    costs = cabac_kernels.COSTS.reshape(2, -1)

    def counted(context, b):
        less = b != int(context.balance >= 0)
        bits.append((context.parameter_set, int(costs[int(less), abs(context.balance >> 7)])))
        return code(context, b)

    encoder._bin = counted
    encoder.levels(levels, syntax, replace(parameters, parameter_sets=None))
    flags = listed_contexts(syntax, parameters.hist_dep_sig_prob_enabled_flag).size
    flags += syntax.height * parameters.row_skip_flag
    expected = sum(cost for _, cost in bits[flags:])

    matrix = cabac_payload.loop_array(levels, syntax, np.int32)
    found = np.empty(levels.size * 700 + 2000, np.int16)
    count, seen = cabac_kernels.list_bins(
        (
            matrix,
            *cabac_payload.contexts_of(syntax, parameters),
            cabac_payload.skipped_rows(matrix, parameters),
        ),
        cabac_payload.loop_options(syntax),
        (0, syntax.count_block_rows),
        levels.size,
        found,
    )
    assert seen == levels.size
    totals = np.zeros((count_contexts(syntax.cabac_unary_length), 9), np.int64)
    initial = cabac_kernels.context_states(np.arange(9))
    cabac_kernels.set_costs(found[:count], initial, totals)
    assert totals[:, 0].sum() == expected


def test_better_sets_make_payloads_smaller():
    rng = np.random.default_rng(5)
    levels = np.rint(rng.laplace(size=(64, 64)) * 0.4).astype(np.int32)
    levels[::3] = 0
    syntax = LevelSyntax(height=64, width=64)
    plain, _ = encoded(PayloadEncoder(), levels, syntax, LevelParameters())
    best, _ = choose_parameters(levels, syntax)
    assert best.row_skip_flag
    assert best.parameter_sets is not None
    assert len(encoded(PayloadEncoder(), levels, syntax, best)[0]) < len(plain)


def test_rows_are_not_skipped_where_quantizer_and_decoder_would_part():
    levels = np.zeros((20, 17), np.int32)
    levels[1] = 2
    syntax = LevelSyntax(height=20, width=17, scan_order=1, dq_flag=1)
    assert not choose_parameters(levels, syntax)[0].row_skip_flag
    assert choose_parameters(levels, replace(syntax, scan_order=0))[0].row_skip_flag


def test_levels_that_cannot_be_coded_are_refused():
    syntax = LevelSyntax(height=2, width=2, dq_flag=1)
    for encoder in (PayloadEncoder(), PlainEncoder()):
        with pytest.raises(ValueError, match="dependent"):
            encoder.levels(np.ones((2, 2), np.int32), syntax, LevelParameters())
    book = LevelSyntax(height=2, width=2, codebook_size=3, codebook_zero=1)
    with pytest.raises(ValueError, match="codebook"):
        PayloadEncoder().levels(np.full((2, 2), 2, np.int32), book, LevelParameters())
    with pytest.raises(ValueError, match="qp offset 128"):
        PayloadEncoder().qp_offset(128, 2)


def test_the_specification_has_these_tables():
    text = (Path(__file__).parents[3] / "spec" / "deepcabac.md").read_text()
    lines = [line.strip(" |") for line in text[text.index("## Tables") :].splitlines()]
    plain = [[int(x) for x in line.split()] for line in lines if re.fullmatch(r"[\d ]+", line)]
    assert plain[0] + plain[1] == tables.TRANSITION.tolist()
    assert plain[2:] == tables.RANGE_LPS.tolist()
    rows = [line.split(" | ") for line in lines if re.match("even|odd|shift|first", line)]
    named = {row[0]: [int(x) for x in row[1:]] for row in rows}
    sets = ["shift of a", "shift of f", "first a", "first f"]
    assert [named[key] for key in sets] == PARAMETER_SETS.T.tolist()
    states = [named["even"], named["odd"]]
    assert states == tables.STATE_TRANSITION.T.tolist()


@pytest.mark.parametrize("decoder_type", [PayloadDecoder, PlainDecoder])
def test_worked_example(decoder_type):
    """The payload of a 1-D tensor that the format's description works through."""
    payload = bytes.fromhex(streams.UNIFORM)[-8:]
    decoder = decoder_type(payload)
    assert decoder.state == (510, 495, 0)
    assert decoder.qp_offset(2) == -8
    assert decoder.state == (510, 282, 8)
    syntax = LevelSyntax(height=5, width=1, cabac_unary_length=2)
    levels, parameters = decoder.levels(syntax)
    assert levels.ravel().tolist() == [2, -1, 0, 4, -12]
    assert parameters.parameter_sets == (0,) * 41
    assert decoder.state[2] == 50
    decoder.finish()


@pytest.mark.parametrize("decoder_type", [PayloadDecoder, PlainDecoder])
def test_worked_entry_point(decoder_type):
    payload = bytes.fromhex(streams.ENTRY_POINT)[-7:]
    decoder = decoder_type(payload)
    decoder.qp_offset(2)
    syntax = LevelSyntax(height=9, width=2, cabac_unary_length=1, scan_order=1)
    levels, _ = decoder.levels(syntax, [EntryPoint(95, 0, 18)])
    assert levels[1, 0], levels[7, 1]
    assert levels.ravel().nonzero()[0].tolist() == [2, 15, 16]
    decoder.finish()


@pytest.mark.parametrize("decoder_type", [PayloadDecoder, PlainDecoder])
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("", "0 bytes"),
        ("80", "1 bytes"),
        ("ff80", "first 9 bits"),
        ("0000", "ends before"),
        ("f79500", "ends before"),
        ("f795005e19b3b1a000", "9 bytes of payload, expected 8"),
        ("f795005e19b3b1a1", "stop bit"),
    ],
)
def test_bad_payloads(decoder_type, payload, message):
    with pytest.raises(PayloadError, match=message):
        decoder = decoder_type(bytes.fromhex(payload))
        decoder.qp_offset(2)
        decoder.levels(LevelSyntax(height=5, width=1, cabac_unary_length=2))
        decoder.finish()
