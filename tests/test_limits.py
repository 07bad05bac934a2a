from __future__ import annotations

import dataclasses

import pytest

from nnrcodec import Limits

LIMITS = Limits(free_decoded_bytes=1000, max_expansion=10, max_decoded_bytes=5000)


@pytest.mark.parametrize(
    ("stream_bytes", "allowed"),
    [(0, 1000), (100, 1000), (101, 1010), (499, 4990), (500, 5000), (10**6, 5000)],
)
def test_allowed_bytes_grow_with_the_stream_between_two_bounds(
    stream_bytes: int, allowed: int
) -> None:
    assert LIMITS.decoded_bytes_allowed(stream_bytes) == allowed


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIMITS.max_units = 3  # type: ignore[misc]
