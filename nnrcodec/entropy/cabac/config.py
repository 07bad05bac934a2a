"""How DeepCABAC codes levels: what an encoder may choose."""

from __future__ import annotations

from dataclasses import dataclass

from nnrcodec.checks import check_fields
from nnrcodec.errors import ConfigError

LARGEST_SCAN_ORDER = 4
LONGEST_UNARY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CabacConfig:
    """How DeepCABAC codes levels.

    Parameters
    ----------
    scan_order : int
        0 goes row by row. 1, 2, 3, 4 go by blocks of 8, 16, 32, 64 rows and columns; a large tensor
        then decodes in several threads, and takes a little more. Tensors of one row or one column
        are always coded row by row.
    cabac_unary_length : int, optional
        How many flags tell a magnitude before its remainder does, 1 to 256; by default what suits
        each tensor.
    row_skipping : bool
        Whether rows of zeros may cost one flag.
    optimise_parameters : bool
        Whether to search how fast, and from where, each context learns.
    """

    scan_order: int = 0
    cabac_unary_length: int | None = None
    row_skipping: bool = True
    optimise_parameters: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.scan_order <= LARGEST_SCAN_ORDER:
            raise ConfigError(
                f"scan_order is {self.scan_order}, allowed are 0 to {LARGEST_SCAN_ORDER}"
            )
        length = self.cabac_unary_length
        if length is not None and not 1 <= length <= LONGEST_UNARY:
            raise ConfigError(
                f"cabac_unary_length is {length}, allowed are 1 to {LONGEST_UNARY}, or None for a "
                "choice tensor by tensor"
            )
