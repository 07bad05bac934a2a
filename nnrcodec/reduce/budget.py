"""Lowest-error ranks under a budget, such as one of multiply-adds (MACs).

There are some options for each layer, with a cost and an error each, and one option is selected for
each layer. The error of all layers together shall be as low as possible at a given total cost.
This is bit allocation by Lagrange multipliers (Y. Shoham, A. Gersho, "Efficient bit allocation for
an arbitrary set of quantizers", 1988): selections that minimize error plus price times cost lie on
the lower convex hulls of the options. All of them are visited from the most expensive to the
cheapest by the edges of the hulls, in the order of the error that they add for each unit of cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nnrcodec.reduce.ranks import LayerRank


class RankOption(NamedTuple):
    """One option for a layer: as it is, or decomposed with one scheme and rank.

    Parameters
    ----------
    cost : float
        In the unit of the budget.
    error : float
        Squared output error of the network that it causes.
    choice : LayerRank or None
        Scheme and rank; None for the layer as it is.
    """

    cost: float
    error: float
    choice: LayerRank | None


class Selection(NamedTuple):
    """One option for each layer.

    Parameters
    ----------
    cost, error : float
        Sums over the layers.
    choices : mapping of str to LayerRank
        Schemes and ranks by layer, without the layers that stay as they are.
    """

    cost: float
    error: float
    choices: Mapping[str, LayerRank]


def selections(options: Mapping[str, Sequence[RankOption]]) -> Iterator[Selection]:
    """Yield the selections on the convex hull, from the lowest error to the lowest cost.

    Parameters
    ----------
    options : mapping of str to sequence of RankOption
        By layer, at least one for each.

    Yields
    ------
    Selection
        Each differs from the one before in one layer.
    """
    hulls = {layer: _hull(of_layer) for layer, of_layer in options.items()}
    edges = sorted(
        (_slope(hull[position - 1], hull[position]), position, layer)
        for layer, hull in hulls.items()
        for position in range(1, len(hull))
    )
    taken = {layer: hull[0] for layer, hull in hulls.items()}
    yield _selection(taken)
    for _, position, layer in edges:
        taken[layer] = hulls[layer][position]
        yield _selection(taken)


def _selection(taken: Mapping[str, RankOption]) -> Selection:
    return Selection(
        sum(option.cost for option in taken.values()),
        sum(option.error for option in taken.values()),
        {layer: option.choice for layer, option in taken.items() if option.choice is not None},
    )


def _hull(options: Sequence[RankOption]) -> list[RankOption]:
    """Return the options on the lower convex hull, from the lowest error to the lowest cost."""
    hull: list[RankOption] = []
    for option in sorted(options, key=lambda o: (o.error, o.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(before: RankOption, after: RankOption) -> float:
    """Return the error that is added for each unit of cost that is saved."""
    return (after.error - before.error) / (before.cost - after.cost)
