"""The best choice for each layer under one budget.

Each layer offers some ways to have it, each with a cost and an error, and one of each is to be
taken such that the errors add up to as little as possible at a given sum of costs. The selections
that are best for some price of a unit of cost (Lagrange) lie on the lower convex hulls of the
offers. From the dearest selection down the hulls, always along the edge that saves most for its
error, one meets all of them in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nnrcodec.reduce.ranks import Choice


class Offer(NamedTuple):
    """One way to have a layer.

    Parameters
    ----------
    cost : float
        In the unit of the budget.
    error : float
        Squared error that it adds to the output of the network.
    choice : Choice or None
        Scheme and rank; None for the layer as it is.
    """

    cost: float
    error: float
    choice: Choice | None


class Selection(NamedTuple):
    """One offer of each layer.

    Parameters
    ----------
    cost, error : float
        Sums over the layers.
    choices : mapping of str to Choice
        Schemes and ranks by layer; layers that stay as they are are left out.
    """

    cost: float
    error: float
    choices: Mapping[str, Choice]


def selections(offers: Mapping[str, Sequence[Offer]]) -> Iterator[Selection]:
    """Yield the best selections, from the least error to the least cost.

    Parameters
    ----------
    offers : mapping of str to sequence of Offer
        By layer, at least one for each.

    Yields
    ------
    Selection
        Each differs from the one before in one layer.
    """
    hulls = {layer: _hull(several) for layer, several in offers.items()}
    edges = sorted(
        (_slope(*hull[position - 1 : position + 1]), position, layer)
        for layer, hull in hulls.items()
        for position in range(1, len(hull))
    )
    taken = {layer: hull[0] for layer, hull in hulls.items()}
    yield _selection(taken)
    for _, position, layer in edges:
        taken[layer] = hulls[layer][position]
        yield _selection(taken)


def _selection(taken: Mapping[str, Offer]) -> Selection:
    return Selection(
        sum(offer.cost for offer in taken.values()),
        sum(offer.error for offer in taken.values()),
        {layer: offer.choice for layer, offer in taken.items() if offer.choice is not None},
    )


def _hull(offers: Sequence[Offer]) -> list[Offer]:
    """Return the lower convex hull, from the least error to the least cost."""
    hull: list[Offer] = []
    for offer in sorted(offers, key=lambda o: (o.error, o.cost)):
        if hull and offer.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _slope(hull[-2], offer) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(offer)
    return hull


def _slope(before: Offer, after: Offer) -> float:
    """Return how much error each unit of cost that is saved adds."""
    return (after.error - before.error) / (before.cost - after.cost)
