from __future__ import annotations

import dataclasses

import pytest

from nnrcodec import Limits

LIMITS = Limits(free_decoded_bytes=1000, decoded_bytes_per_byte=10, max_decoded_bytes=5000)


@pytest.mark.parametrize(
    ("stream_bytes", "allowed"),
    [(0, 1000), (100, 2000), (399, 4990), (400, 5000), (10**6, 5000)],
)
def test_limits_grow_with_the_stream_between_two_bounds(stream_bytes: int, allowed: int) -> None:
    assert LIMITS.for_stream(stream_bytes).max_decoded_bytes == allowed


def test_every_limit_that_grows_does() -> None:
    growing = [f.name[5:] for f in dataclasses.fields(Limits) if f.name.startswith("free_")]
    none, some, much = (Limits().for_stream(n) for n in (0, 10**4, 10**12))
    for x in growing:
        values = [getattr(limits, f"max_{x}") for limits in (none, some, much)]
        assert values[0] == getattr(Limits(), f"free_{x}")
        assert values[0] < values[1] < values[2] == getattr(Limits(), f"max_{x}")
        assert f"at most {values[1]} allowed" in some.allowed(x)
    others = {f.name for f in dataclasses.fields(Limits)} - {
        name for x in growing for name in (f"max_{x}", f"free_{x}", f"{x}_per_byte")
    }
    assert others == {"max_dimensions", "max_elements", "max_value_bytes"}


def test_who_is_trusted_may_declare_much_in_few_bytes() -> None:
    trusting = Limits().trusting().for_stream(10)
    assert trusting.max_program_work == Limits().max_program_work
    assert trusting.max_units == Limits().max_units > Limits().for_stream(10).max_units


def test_lowering_twice_is_lowering_once() -> None:
    once = Limits().for_stream(1000)
    assert once.for_stream(1000) == once


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIMITS.max_units = 3  # type: ignore[misc]
