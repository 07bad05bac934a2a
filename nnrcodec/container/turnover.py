"""Which tensors an update brings and takes away, and the order of the model after it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Turnover:
    """What an update does to the set of tensors of its base model.

    Parameters
    ----------
    new : mapping of str to int
        Tensors that are whole in the update, no differences, and their places in the model after
        it. One of a name that the base model has takes the place of that, maybe with another shape.
    gone : tuple of str
        Tensors of the base model that the model no longer has.

    Examples
    --------
    >>> turnover = Turnover.between(["a", "b", "c"], ["a", "x", "c"], replaced={"c"})
    >>> dict(turnover.new), turnover.gone, turnover.order(["a", "b", "c"])
    ({'x': 1, 'c': 2}, ('b',), ['a', 'x', 'c'])
    """

    new: Mapping[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything comes or goes."""
        return bool(self.new or self.gone)

    @classmethod
    def between(
        cls, base: Collection[str], now: Iterable[str], replaced: Collection[str]
    ) -> Turnover:
        """Return what leads from one set of tensors to another.

        Tensors of the base model stay in their order; a new one stands behind the one that it is
        behind now.

        Parameters
        ----------
        base, now : collection of str
            Names before and after, in their order.
        replaced : collection of str
            Those in both that are other tensors now.
        """
        now, before = list(now), set(base)
        kept = before.intersection(now)
        behind: dict[str | None, list[str]] = {}
        last = None
        for name in now:
            if name in kept:
                last = name
            else:
                behind.setdefault(last, []).append(name)
        order = list(behind.get(None, ()))
        for name in base:
            if name in kept:
                order += [name, *behind.get(name, ())]
        return cls(
            {
                name: place
                for place, name in enumerate(order)
                if name not in kept or name in replaced
            },
            tuple(name for name in base if name not in kept),
        )

    def order(self, base: Collection[str]) -> list[str]:
        """Return the names of the tensors after the update, in their order.

        Parameters
        ----------
        base : collection of str
            Names in the base model, in their order.

        Raises
        ------
        ValueError
            What goes is not there, or two tensors have one place, or there are gaps.
        """
        before, gone = set(base), set(self.gone)
        for name in self.gone:
            if name not in before:
                raise ValueError(f"{name!r} is to go, which the base model does not have")
        kept = iter([name for name in base if name not in gone and name not in self.new])
        names = {place: name for name, place in self.new.items()}
        count = len(before - gone - self.new.keys()) + len(self.new)
        if len(names) != len(self.new) or any(not 0 <= place < count for place in names):
            raise ValueError("new tensors do not fit into the order of the model")
        return [names[place] if place in names else next(kept) for place in range(count)]
