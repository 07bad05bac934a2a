"""Random legal units: what is generated is written, and what is written is read."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syntax.generator import LEGAL, generate_unit

from nnrcodec.errors import TruncatedBitstreamError
from nnrcodec.syntax.bitio import BitReader
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxReader
from nnrcodec.syntax.unit import UNIT_SYNTAX, read_units, write_unit, write_units

UNIT_TYPES = [*UNIT_SYNTAX, NnrUnitType.NNR_AGG, 20, 63]
RANDOM = st.randoms(use_true_random=True)


@st.composite
def contexts(draw):
    bit = st.integers(0, 1)
    return StreamContext(
        general_profile_idc=draw(bit),
        mps_present=True,
        mps_topology_indexed_reference_flag=draw(bit),
        mps_parent_signalling_enabled_flag=draw(bit),
    )


def context_for(unit_type, ctx):
    """Return the context in which a unit of this type may stand."""
    if unit_type == NnrUnitType.NNR_STR:
        return StreamContext()
    return replace(ctx, mps_present=unit_type != NnrUnitType.NNR_MPS)


def generate(rng, unit_type, ctx):
    choices = dict(LEGAL.get(unit_type, {}))
    if unit_type == NnrUnitType.NNR_STR:
        choices["general_profile_idc"] = rng.randint(0, 1)
    if unit_type == NnrUnitType.NNR_TPL:
        choices["topology_storage_format"] = rng.choice([0, 3, 5, 6, 128])
    return generate_unit(rng, unit_type, ctx, **choices)


@pytest.mark.parametrize("unit_type", UNIT_TYPES)
@settings(deadline=None, max_examples=40)
@given(rng=RANDOM, ctx=contexts())
def test_generated_units(unit_type, rng, ctx):
    ctx = context_for(unit_type, ctx)
    generated = generate(rng, unit_type, ctx)
    data = write_unit(generated.unit, ctx)
    assert data[2:] == generated.elements + generated.unit.payload

    body = type(generated.unit.body)()
    tables = UNIT_SYNTAX[unit_type].tables if unit_type in UNIT_SYNTAX else ()
    bits = BitReader(data, 24 + 8 * generated.unit.header.partial_data_counter_present_flag)
    start = bits.position
    SyntaxReader(bits).code(body, tables, ctx)
    assert body == generated.unit.body
    assert data[bits.position // 8 :] == generated.unit.payload

    if unit_type in (NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT):
        return  # bytes of any number end the unit
    ends = range(start, bits.position)
    for end in rng.sample(ends, min(len(ends), 40)):
        cut = BitReader(data, start)
        cut.end = end
        with pytest.raises(TruncatedBitstreamError):
            SyntaxReader(cut).code(type(body)(), tables, ctx)


@settings(deadline=None, max_examples=60)
@given(rng=RANDOM)
def test_generated_streams(rng):
    def unit(unit_type, ctx, **choices):
        return generate_unit(rng, unit_type, ctx, **LEGAL.get(unit_type, {}), **choices).unit

    ctx = StreamContext()
    first = unit(0, ctx, general_profile_idc=rng.randint(0, 1))
    ctx = replace(ctx, general_profile_idc=first.body.general_profile_idc)
    units = [first, unit(1, ctx)]
    ctx = replace(
        ctx,
        mps_topology_indexed_reference_flag=units[1].body.mps_topology_indexed_reference_flag,
        mps_parent_signalling_enabled_flag=units[1].body.mps_parent_signalling_enabled_flag,
    )
    units += [unit(rng.choice(UNIT_TYPES[2:]), ctx) for _ in range(rng.randint(0, 4))]

    read_trace, write_trace = [], []
    data = b"".join(write_units(units, trace=write_trace.append))
    read = list(read_units(data, trace=read_trace.append))
    assert [u.body for u in read] == [u.body for u in units]
    assert [bytes(u.payload) for u in read] == [u.payload for u in units]
    assert [str(event) for event in read_trace] == [str(event) for event in write_trace]
    assert b"".join(write_units(read)) == data

    position = 0
    for event in read_trace:
        assert event.bit_offset == position
        position += event.bit_length
    assert position == 8 * len(data)
