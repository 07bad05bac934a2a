"""How the levels of a tensor are coded: what decides it outside the payload, and what inside.

Owns the records that decoder, encoder, compiled and plain code share, and the list of contexts
that have a parameter set in the payload.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnrcodec.entropy.cabac.tables import (
    GREATER,
    REMAINDERS,
    SIGN,
    SIGNIFICANCE_HISTORY,
    SIGNIFICANCE_TEMPORAL,
    remainder_context,
)

DEFAULT_UNARY_LENGTH = 10
"""cabac_unary_length where the header does not say it."""


def matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a tensor as it is coded: the first dimension and the others."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def effective_scan_order(shape: Sequence[int], scan_order: int) -> int:
    """Return the scan order of a tensor: one of a single row or column has no blocks."""
    height, width = matrix(shape)
    return scan_order if height > 1 and width > 1 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSyntax:
    """Everything outside a payload that decides how the levels of one tensor are coded.

    Parameters
    ----------
    height, width : int
        First dimension, and product of the others.
    general_profile_idc : int
        Of the start unit.
    dq_flag : int
        Whether quantization is dependent.
    cabac_unary_length : int
        Most greater-than flags of a level.
    scan_order : int
        Of the header; `block_size` says what comes of it.
    codebook_size, codebook_zero : int
        Number of entries, 0 without a codebook, and which one is coded as level 0.
    parent_node_id_present_flag : int
        Of the header.
    base : ndarray of int32, shape (height, width), optional
        Levels of the update before, if temporal_context_modeling_flag is set.
    history : ndarray of uint8 or bool, shape (height, width), optional
        Where an earlier update had a level other than 0; None is nowhere.
    """

    height: int
    width: int
    general_profile_idc: int = 1
    dq_flag: int = 0
    cabac_unary_length: int = 10
    scan_order: int = 0
    codebook_size: int = 0
    codebook_zero: int = 0
    parent_node_id_present_flag: int = 0
    base: np.ndarray | None = None
    history: np.ndarray | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether there is more than one row and more than one column."""
        return self.height > 1 and self.width > 1

    @property
    def block_size(self) -> int:
        """Rows and columns of a block; 0 if the scan goes row by row."""
        return 4 << self.scan_order if self.is_matrix and self.scan_order else 0

    @property
    def count_block_rows(self) -> int:
        """Rows of blocks, each but the first with an entry point."""
        return -(-self.height // self.block_size) if self.block_size else 1

    @property
    def codebook_entries(self) -> int:
        """Entries of the codebook as far as they matter to levels: edition 1 ignores them."""
        return self.codebook_size if self.general_profile_idc == 1 else 0

    @property
    def largest_difference(self) -> int:
        """Largest magnitude of a level with this codebook."""
        return max(self.codebook_zero, self.codebook_size - 1 - self.codebook_zero)

    @property
    def has_matrix_flags(self) -> bool:
        """Whether the payload has row_skip_flag, and in updates that of history."""
        return self.general_profile_idc == 1 and self.is_matrix and self.codebook_entries != 1


@dataclass(frozen=True, slots=True)
class LevelParameters:
    """What a payload says of a tensor before its levels.

    Parameters
    ----------
    hist_dep_sig_prob_enabled_flag, row_skip_flag : int
        Whether significance depends on history, and whether rows of zeros are flagged.
    parameter_sets : tuple of int, optional
        Set 0 to 8 of each context that `listed_contexts` lists; None is 0 for all.
    """

    hist_dep_sig_prob_enabled_flag: int = 0
    row_skip_flag: int = 0
    parameter_sets: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """Where a row of blocks begins.

    Parameters
    ----------
    cabac_offset : int
        The decoder's offset register there, 0 to 255.
    dq_state : int
        State of dependent quantization.
    bit_offset : int
        Bits shifted in since the entry point before, or since the first level.
    """

    cabac_offset: int
    dq_state: int
    bit_offset: int


def listed_contexts(syntax: LevelSyntax, hist_dep_sig_prob_enabled_flag: int) -> np.ndarray:
    """Return the contexts whose parameter sets are in the payload, in their order.

    Parameters
    ----------
    syntax : LevelSyntax
        How the levels are coded.
    hist_dep_sig_prob_enabled_flag : int
        Of the payload.

    Returns
    -------
    ndarray of int64, shape (n,)
        Numbers as in `nnrcodec.entropy.cabac.tables`.
    """
    entries, zero = syntax.codebook_entries, syntax.codebook_zero
    unary_length, most = syntax.cabac_unary_length, syntax.largest_difference
    states = 8 if syntax.dq_flag else 1
    temporal = syntax.base is not None
    two_signs = not entries or 0 < zero < entries - 1
    remainder = remainder_context(unary_length)

    listed: list[int] = []
    if entries != 1:
        listed.extend(range(3 * states))
        if temporal:
            listed.extend(range(SIGNIFICANCE_TEMPORAL, SIGNIFICANCE_TEMPORAL + 2 * states))
        if hist_dep_sig_prob_enabled_flag:
            listed.extend(range(SIGNIFICANCE_HISTORY, SIGNIFICANCE_HISTORY + states))
        if two_signs:
            listed.extend(range(SIGN, SIGN + (5 if temporal else 3)))
    length = 2 * unary_length
    listed.extend(GREATER + a for a in range(length) if not entries or a < 2 * most)
    if temporal:
        listed.extend(
            GREATER + a
            for a in range(length, 2 * length)
            if not entries or a < 2 * (most - 1) + length
        )
    listed.extend(
        remainder + a
        for a in range(REMAINDERS)
        if not entries or unary_length - 1 + (2 << a) - 1 < most
    )
    return np.array(listed, np.int64)
