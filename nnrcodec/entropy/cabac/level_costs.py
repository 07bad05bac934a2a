"""What levels cost, and the parameters with which they cost least.

Owns the encoder's choice of parameter sets, skipped rows and history: it lists the bins of the
levels (of the first ones, of large tensors) and adds up what each costs in a context of each set.
Not normative: any choice decodes.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import LevelParameters, LevelSyntax, listed_contexts
from nnrcodec.entropy.cabac.payload import (
    announced,
    contexts_of,
    kernels,
    loop_array,
    loop_options,
    skipped_rows,
)
from nnrcodec.entropy.cabac.tables import PARAMETER_SETS, count_contexts

_MOST_LEVELS = 1 << 15
"""Levels looked at; adaptation makes all the same where a tensor goes on in the same way."""

_BINS_PER_LEVEL = 24
_SET_BITS = 5
"""Bits by which a set must win: three for its number, and what its flag costs about."""


def choose_parameters(
    levels: np.ndarray,
    syntax: LevelSyntax,
    *,
    row_skipping: bool = True,
    optimise: bool = True,
    history: bool = True,
) -> tuple[LevelParameters, float]:
    """Choose what a payload says of a tensor before its levels.

    Parameters
    ----------
    levels : ndarray of int32, shape (height, width)
        As `nnrcodec.entropy.cabac.payload.PayloadEncoder.levels` takes them.
    syntax : LevelSyntax
        How they are coded.
    row_skipping : bool
        Whether rows of zeros may be flagged. With dependent quantization and blocks that is never
        done where the decoder's state and a quantizer's would part (spec/deepcabac.md).
    optimise : bool
        Whether contexts may have sets other than 0.
    history : bool
        Whether significance may depend on the history of `syntax`.

    Returns
    -------
    parameters : LevelParameters
    bits : float
        Estimated length of the levels with them.
    """
    levels = loop_array(levels, syntax, np.int32)
    skips = [0]
    histories = [0]
    zero_rows = 0
    if syntax.has_matrix_flags:
        zero_rows = int((~levels.any(axis=1)).sum())
        if row_skipping and zero_rows and _may_skip(syntax):
            skips.append(1)
        if history and syntax.history is not None and syntax.parent_node_id_present_flag:
            histories.append(1)
    attempts: list[tuple[float, int, LevelParameters]] = []
    for skip in skips:
        flag_bits = _entropy(zero_rows, levels.shape[0]) if skip else 0.0
        for by_history in histories:
            parameters = LevelParameters(by_history, skip)
            parameters, bits = _with_sets(levels, syntax, parameters, optimise)
            attempts.append((bits + flag_bits, len(attempts), parameters))
    bits, _, parameters = min(attempts)
    return parameters, bits


def _may_skip(syntax: LevelSyntax) -> bool:
    """Return whether skipped rows leave the state of dependent quantization as zeros do."""
    several = syntax.block_size and syntax.width > syntax.block_size
    return not (syntax.dq_flag and several and syntax.width % 4)


def _with_sets(
    levels: np.ndarray, syntax: LevelSyntax, parameters: LevelParameters, optimise: bool
) -> tuple[LevelParameters, float]:
    """Return parameters with the cheapest sets, and the bits of the levels with them."""
    loops = kernels()
    most = min(levels.size, _MOST_LEVELS)
    bins = np.empty(_BINS_PER_LEVEL * most + 4 * loops.PADDING + levels.shape[0], np.int16)
    sets = len(PARAMETER_SETS) if optimise else 1
    costs = np.zeros((count_contexts(syntax.cabac_unary_length), sets), np.int64)
    with announced():
        count, seen = loops.list_bins(
            (levels, *contexts_of(syntax, parameters), skipped_rows(levels, parameters)),
            loop_options(syntax),
            (0, syntax.count_block_rows),
            most,
            bins,
        )
        loops.set_costs(bins[:count], loops.context_states(np.arange(sets)), costs)

    scale = levels.size / seen
    bits = costs[listed_contexts(syntax, parameters.hist_dep_sig_prob_enabled_flag)]
    bits = bits * (scale / loops.COST_UNIT)
    bits[:, 1:] += _SET_BITS
    chosen = bits.argmin(axis=1)
    total = float(bits.min(axis=1).sum()) + scale * _bypass_bits(levels, syntax, seen)
    best = LevelParameters(
        parameters.hist_dep_sig_prob_enabled_flag,
        parameters.row_skip_flag,
        tuple(chosen.tolist()) if chosen.any() else None,
    )
    return best, total


def _bypass_bits(levels: np.ndarray, syntax: LevelSyntax, seen: int) -> int:
    """Return the bits without contexts of about the first `seen` levels."""
    magnitude = np.abs(levels.ravel()[:seen].astype(np.int64))
    if syntax.dq_flag:
        magnitude = (magnitude + 1) >> 1
    beyond = magnitude[magnitude > syntax.cabac_unary_length] - syntax.cabac_unary_length
    return int(np.frexp(beyond.astype(np.float64))[1].sum() - beyond.size)


def _entropy(ones: int, count: int) -> float:
    """Return the bits of `count` flags of which some are 1."""
    if not 0 < ones < count:
        return 1.0
    p = ones / count
    return float(-count * (p * np.log2(p) + (1 - p) * np.log2(1 - p)))
