"""The profiles: which units a stream may have, and how tensors get into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nnrcodec.config import EncoderConfig, Profile
from nnrcodec.encoder import ext, nnc
from nnrcodec.encoder.coded import CodedUnit
from nnrcodec.encoder.differences import Base
from nnrcodec.encoder.grouping import Group
from nnrcodec.quant.quantized import Quantized


class EncodeGroup(Protocol):
    """Codes tensors that belong together."""

    def __call__(
        self,
        group: Group,
        names: Mapping[str, str],
        config: EncoderConfig,
        known: Mapping[str, Quantized],
        /,
    ) -> list[CodedUnit]:
        """Return units, and what is in them.

        Parameters
        ----------
        group : Group
            What to code.
        names : mapping of str to str
            What tensors are called in their units, where that is not their name.
        config : EncoderConfig
            How.
        known : mapping of str to Quantized
            Tensors of which the levels are known already.
        """


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """What holds for the streams of a profile.

    Parameters
    ----------
    encode_group : EncodeGroup
        Codes tensors with the units of the profile.
    blocks : bool
        Whether tensors of one layer may share a unit.
    reserved_suffixes : tuple of str
        How no name in a unit may end.
    """

    encode_group: EncodeGroup
    blocks: bool
    reserved_suffixes: tuple[str, ...]


PROFILES: Mapping[Profile, ProfileRules] = {
    "ext": ProfileRules(ext.encode_group, blocks=False, reserved_suffixes=()),
    # deployed decoders take names that end so for parts of a decomposed tensor
    "nnc": ProfileRules(nnc.encode_group, blocks=True, reserved_suffixes=("_G", "_H")),
}


def rules_of(config: EncoderConfig, base: Base | None) -> ProfileRules:
    """Return what holds for a stream: for an update, that of profile nnc without blocks."""
    if base is None:
        return PROFILES[config.profile]
    whole, differences, new = PROFILES[config.profile], base.encode_group, base.turnover.new

    def encode_group(
        group: Group,
        names: Mapping[str, str],
        config: EncoderConfig,
        known: Mapping[str, Quantized],
    ) -> list[CodedUnit]:
        is_new = not new.keys().isdisjoint(tensor.name for tensor in group.tensors.values())
        encode = whole.encode_group if is_new else differences
        return encode(group, names, config, known)

    return ProfileRules(
        encode_group, blocks=False, reserved_suffixes=PROFILES["nnc"].reserved_suffixes
    )
