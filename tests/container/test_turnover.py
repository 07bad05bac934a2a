from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.container.turnover import Turnover

NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(NAMES, NAMES, st.sets(st.sampled_from("abcdefghij")))
def test_the_order_after_an_update_follows_from_what_comes_and_goes(
    base: list[str], now: list[str], replaced: set[str]
) -> None:
    replaced &= {*base} & {*now}
    turnover = Turnover.between(base, now, replaced)
    order = turnover.order(base)
    assert sorted(order) == sorted(now)
    assert [name for name in order if name in base] == [name for name in base if name in now]
    assert turnover.new.keys() == {*now} - {*base} | replaced
    assert {*turnover.gone} == {*base} - {*now}
    assert bool(turnover) is ({*base} != {*now} or bool(replaced))
    if [name for name in now if name in base] == [name for name in base if name in now]:
        assert order == now


@pytest.mark.parametrize(
    "turnover",
    [
        Turnover({}, ("x",)),
        Turnover({"x": 3}),
        Turnover({"x": -1}),
        Turnover({"x": 0, "y": 0}),
        Turnover({"a": 2}),
        Turnover({"x": 10**9}, ("a",)),
    ],
)
def test_what_does_not_fit_is_refused(turnover: Turnover) -> None:
    with pytest.raises(ValueError, match=r"does not have|do not fit"):
        turnover.order(["a", "b"])
