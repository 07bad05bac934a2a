"""What to ask of low rank: which schemes, and the rules from which ranks follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nnrcodec.checks import check_fields, check_whole
from nnrcodec.errors import ConfigError
from nnrcodec.model.model import SchemeName
from nnrcodec.reduce.schemes import SCHEMES, Optimise

SchemeRule = Literal["separable", "channel", "auto"]
"""Which schemes may be taken."""


@dataclass(frozen=True, slots=True)
class LayerRank:
    """Scheme and rank of one layer.

    Parameters
    ----------
    scheme : "separable", "channel" or "linear"
        How the layer becomes two.
    rank : int
        Channels between the two.
    """

    scheme: SchemeName
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """Which layers become two, how, and how many channels are between: at most one of four rules.

    Without a rule ranks follow from the error that is allowed, which needs calibration inputs. If
    `optimise` is "bytes", a layer becomes what its bits and its error make worth most, which may be
    what it is; else all layers together become as cheap as the error allows.

    Parameters
    ----------
    ranks : mapping of str to int or LayerRank, optional
        Rank by layer, or scheme and rank; all other layers are left alone. A rank alone is for the
        first of separable, channel and linear that fits the layer, unless `scheme` is "channel".
    energy : float, optional
        In (0, 1]: the smallest rank that keeps at least this part of the sum of squared singular
        values, in every layer that gets smaller by it.
    rank_ratio : float, optional
        In (0, 1]: the largest rank, but at least 1, at which the factors cost at most this part
        of the layer, in every layer that gets smaller by it.
    target_macs : float, optional
        In (0, 1]: schemes and ranks for which all layers together cost at most this part, in
        multiply-adds or what `optimise` says, with the least error of what the network puts out.
        Needs calibration inputs; see `nnrcodec.reduce.data_aware`.
    scheme : "separable", "channel" or "auto"
        "separable" takes ordinary convolutions of two axes; "channel" all convolutions, and linear
        layers; "auto" takes for each layer what has the lower error at the same `rank_ratio`, or
        costs less at the same `energy`.
    optimise : "bytes", "runtime" or "both"
        What a layer costs: its elements, its multiply-adds, or the larger part of the two.
    left_out : frozenset of str
        Layers that stay as they are; those of tensors that are kept are added.

    Raises
    ------
    ConfigError
        More than one rule is given, or something is out of range.
    """

    ranks: Mapping[str, int | LayerRank] | None = None
    energy: float | None = None
    rank_ratio: float | None = None
    target_macs: float | None = None
    scheme: SchemeRule = "separable"
    optimise: Optimise = "bytes"
    left_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)
        parts = {
            "energy": self.energy,
            "rank_ratio": self.rank_ratio,
            "target_macs": self.target_macs,
        }
        given = [rule for rule in (self.ranks, *parts.values()) if rule is not None]
        if len(given) > 1:
            raise ConfigError(f"give at most one of ranks, {', '.join(parts)}")
        for name, part in parts.items():
            if part is not None and not 0 < part <= 1:
                raise ConfigError(f"{name} must be above 0 and at most 1, not {part}")
        if self.ranks is not None:
            if not self.ranks:
                raise ConfigError("ranks must name at least one layer")
            checked = {layer: _checked(layer, choice) for layer, choice in self.ranks.items()}
            object.__setattr__(self, "ranks", checked)

    @property
    def rule(self) -> str | None:
        """Name of the rule that is given, if one is."""
        names = ("ranks", "energy", "rank_ratio", "target_macs")
        return next((name for name in names if getattr(self, name) is not None), None)

    @property
    def needs_inputs(self) -> bool:
        """Whether ranks follow from what they do to the output."""
        return self.rule in (None, "target_macs")


def parse_ranks(text: str) -> dict[str, int | LayerRank]:
    """Read ranks by layer as they are given on the command line.

    Parameters
    ----------
    text : str
        Such as ``net.2=32,net.4=channel:24``.

    Raises
    ------
    ConfigError
        The text has another form or names a layer twice.

    Examples
    --------
    >>> parse_ranks("net.2=32,net.4=channel:24")
    {'net.2': 32, 'net.4': LayerRank(scheme='channel', rank=24)}
    """
    ranks: dict[str, int | LayerRank] = {}
    for item in text.split(","):
        layer, _, value = (part.strip() for part in item.rpartition("="))
        word, colon, number = (part.strip() for part in value.rpartition(":"))
        scheme = next((name for name in SCHEMES if name == word), None)
        if not layer or (colon and scheme is None) or not (number.isascii() and number.isdigit()):
            raise ConfigError(
                f"{item!r} is not of the form layer=rank or layer=scheme:rank, such as net.2=32 or "
                f"net.2=channel:32; schemes are {', '.join(SCHEMES)}"
            )
        if layer in ranks:
            raise ConfigError(f"layer {layer!r} is given two ranks")
        ranks[layer] = int(number) if scheme is None else LayerRank(scheme, int(number))
    return ranks


def _checked(layer: str, choice: int | LayerRank) -> int | LayerRank:
    """Return a rank, or scheme and rank, whose numbers are those of Python."""
    if not isinstance(layer, str):
        raise ConfigError(f"ranks names layer {layer!r}, expected a text such as 'net.2'")
    if not isinstance(choice, LayerRank):
        return check_whole(f"the rank of layer {layer!r}", choice, least=1)
    if choice.scheme not in SCHEMES:
        raise ConfigError(
            f"the scheme of layer {layer!r} is {choice.scheme!r}, expected one of "
            f"{', '.join(SCHEMES)}"
        )
    return LayerRank(
        choice.scheme, check_whole(f"the rank of layer {layer!r}", choice.rank, least=1)
    )
