"""Selections for a budget, against all there are."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.reduce.budget import RankOption, Selection, selections
from nnrcodec.reduce.ranks import LayerRank


@st.composite
def layers(draw: st.DrawFn) -> dict[str, list[RankOption]]:
    """Return some options for some layers; the first of a layer leaves it as it is."""
    several = {}
    for number in range(draw(st.integers(1, 4))):
        pairs = draw(
            st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5)
        )
        several[f"layer{number}"] = [
            RankOption(cost, error, LayerRank("channel", rank) if rank else None)
            for rank, (cost, error) in enumerate(pairs)
        ]
    return several


def every_selection(options: dict[str, list[RankOption]]) -> list[Selection]:
    return [
        Selection(
            sum(option.cost for option in taken),
            sum(option.error for option in taken),
            {n: o.choice for n, o in zip(options, taken, strict=True) if o.choice is not None},
        )
        for taken in itertools.product(*options.values())
    ]


@given(layers())
def test_each_selection_is_one_that_there_is(options: dict[str, list[RankOption]]) -> None:
    every = every_selection(options)
    assert all(found in every for found in selections(options))


@given(layers())
def test_no_other_selection_errs_less_for_as_little(options: dict[str, list[RankOption]]) -> None:
    every = every_selection(options)
    for found in selections(options):
        assert found.error == min(other.error for other in every if other.cost <= found.cost)
        assert found.cost == min(other.cost for other in every if other.error <= found.error)


@given(layers())
def test_they_go_from_the_least_error_to_the_least_cost(
    options: dict[str, list[RankOption]],
) -> None:
    found, every = list(selections(options)), every_selection(options)
    assert found[0].error == min(other.error for other in every)
    assert found[-1].cost == min(other.cost for other in every)
    for before, after in itertools.pairwise(found):
        assert after.cost < before.cost
        assert after.error > before.error
        names = options.keys()
        assert sum(before.choices.get(n) != after.choices.get(n) for n in names) == 1


@given(layers(), st.integers(0, 12), st.integers(1, 12))
def test_for_every_price_the_best_selection_is_among_them(
    options: dict[str, list[RankOption]], error: int, cost: int
) -> None:
    def worth(selection: Selection) -> float:
        return cost * selection.error + error * selection.cost

    assert min(map(worth, selections(options))) == min(map(worth, every_selection(options)))


def test_of_offers_that_are_alike_the_first_is_taken() -> None:
    first, second = (RankOption(3, 2, LayerRank("channel", rank)) for rank in (1, 2))
    (found,) = selections({"a": [first, second]})
    assert found == Selection(3, 2, {"a": LayerRank("channel", 1)})


def test_a_layer_that_stays_as_it_is_is_left_out() -> None:
    rest = RankOption(1, 5, LayerRank("separable", 4))
    whole, thin = selections({"a": [RankOption(9, 0, None), rest], "b": [RankOption(2, 0, None)]})
    assert whole == Selection(11, 0, {})
    assert thin == Selection(3, 5, {"a": LayerRank("separable", 4)})


def test_without_layers_there_is_nothing_to_choose() -> None:
    assert list(selections({})) == [Selection(0, 0, {})]
