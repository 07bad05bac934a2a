"""Values of earlier units on which the syntax of the next unit depends."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnrcodec.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext:
    """Values of earlier units; `nnrcodec.syntax.unit.next_context` updates them.

    Parameters
    ----------
    limits : Limits
        Limits of the decoder.
    general_profile_idc : int
        Of NNR_STR; -1 before it.
    mps_present : bool
        Whether there was an NNR_MPS.
    mps_topology_indexed_reference_flag, mps_parent_signalling_enabled_flag : int
        Of NNR_MPS.
    quantization_method_flags, qp_density, quantization_parameter : int
        Of NNR_MPS, or of the NNR_LPS that has replaced them.
    """

    limits: Limits = field(default_factory=Limits)
    general_profile_idc: int = -1
    mps_present: bool = False
    mps_topology_indexed_reference_flag: int = 0
    mps_parent_signalling_enabled_flag: int = 0
    quantization_method_flags: int = 0
    qp_density: int = 0
    quantization_parameter: int = 0
