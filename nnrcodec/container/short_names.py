"""Names of tensors in units: their numbers, in place of names that take many bytes."""

from __future__ import annotations

from nnrcodec.model.model import Model

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def short_names(model: Model) -> dict[str, str]:
    """Return a short name for each tensor of a model that units carry.

    Parameters
    ----------
    model : Model
        The order of its tensors counts; those without elements, and those that are others under a
        second name, have no units.

    Returns
    -------
    dict of str to str
        By name its number, with digits and letters.
    """
    names = [name for name, t in model.tensors.items() if t.size and name not in model.ties]
    return {name: _digits(number) for number, name in enumerate(names)}


def _digits(number: int) -> str:
    more, last = divmod(number, len(_DIGITS))
    return (_digits(more) if more else "") + _DIGITS[last]
