"""Levels of a tensor, as the configuration wants them."""

from __future__ import annotations

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.entropy.cabac.level_syntax import DEFAULT_UNARY_LENGTH, effective_scan_order
from nnrcodec.errors import ModelError
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Tensor
from nnrcodec.quant.policy import Policy
from nnrcodec.quant.prior import has_prior, quantize_for_prior
from nnrcodec.quant.quantized import (
    Quantized,
    are_quantizable,
    quantize_by_search,
    quantize_uniform,
)
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import MAX_LEVEL

logger = logger_of(__name__)


def read_checked(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor; what is not finite is said.

    Raises
    ------
    ModelError
        If it is empty.
    """
    if tensor.size == 0:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {tensor.shape} is empty: nothing to code"
        )
    values = tensor.read()
    if DTYPES[tensor.dtype].kind in "fc":
        for what, where in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
            # infinities in what is no weight, such as a mask, are meant
            if where.any() and not (what == "infinite" and tensor.exact):
                first = np.unravel_index(int(np.argmax(where)), where.shape)
                logger.warning(
                    "tensor %r: %d of %d values are %s, the first at %s; it is carried bit for bit",
                    tensor.name,
                    int(np.count_nonzero(where)),
                    where.size,
                    what,
                    list(map(int, first)),
                )
    return values


def levels_at(
    tensor: Tensor,
    values: np.ndarray,
    config: EncoderConfig,
    qp: int,
    *,
    dq: bool,
    is_weight: bool = True,
) -> Quantized:
    """Quantize a tensor at a qp.

    Weights are quantized with error feedback, for inputs as layers have them in general
    (`nnrcodec.quant.prior`), unless the user wants values rounded.

    Parameters
    ----------
    tensor : Tensor
        Gives name and dtype.
    values : ndarray of float
        Finite.
    config : EncoderConfig
        How.
    qp : int
        Of the step size, as the stream has it.
    dq : bool
        Whether the levels shall be those of dependent quantization.
    is_weight : bool
        Whether tensors that look like weights are: differences of them are not.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    density = config.quantization.qp_density
    unary_length = config.cabac.cabac_unary_length or DEFAULT_UNARY_LENGTH
    scan_order = effective_scan_order(values.shape, config.cabac.scan_order)
    in_coded_order = scan_order == 0 or not dq
    if config.dq and is_weight and in_coded_order and has_prior(values.shape):
        return quantize_for_prior(
            values,
            qp,
            density,
            dtype=tensor.dtype,
            name=tensor.name,
            lambda_=config.lambda_,
            unary_length=unary_length,
            dq=dq,
        )
    if not dq:
        return quantize_uniform(values, qp, density, dtype=tensor.dtype, name=tensor.name)
    return quantize_by_search(
        values,
        qp,
        density,
        dtype=tensor.dtype,
        name=tensor.name,
        lambda_=config.lambda_,
        unary_length=unary_length,
        scan_order=scan_order,
    )


def quantize_reals(
    tensor: Tensor, values: np.ndarray, like: np.ndarray, config: EncoderConfig, *, dq: bool
) -> Quantized | None:
    """Quantize a tensor with a step size that a unit of the standard can carry.

    Parameters
    ----------
    tensor : Tensor
        Gives name and dtype.
    values : ndarray of float
        At least one dimension.
    like : ndarray of float
        The values that the default step size is for; `values` themselves, unless these are a
        difference.
    config : EncoderConfig
        How.
    dq : bool
        Whether to look for levels of dependent quantization.

    Returns
    -------
    Quantized or None
        None if the values are infinite, or too small or large for any step size.

    Raises
    ------
    ConfigError
        If the qp that was asked for does not fit.
    """
    if not are_quantizable(values):
        return None
    policy, density = Policy(config.quantization), config.quantization.qp_density
    peak = float(np.abs(values).max())
    if peak > MAX_LEVEL / 2 * step_size(policy.carried_qps[-1], density):
        return None
    qp = policy.carried(tensor.name, like, peak, dq=dq)
    quantized = levels_at(tensor, values, config, qp, dq=dq, is_weight=like is values)
    if np.isfinite(quantized.value).all():
        return quantized
    return None if dq else _within_dtype(tensor, values, quantized, density)


def fit_int32(values: np.ndarray) -> bool:
    """Return whether all of some integers fit 32 bits."""
    bounds = np.iinfo(np.int32)
    return bounds.min <= int(values.min()) and int(values.max()) <= bounds.max


def int32_levels(values: np.ndarray, name: str, advice: str) -> np.ndarray:
    """Return integers as levels.

    Parameters
    ----------
    values : ndarray
        The integers.
    name, advice : str
        For the message: what they are, and what to do if they do not fit.

    Raises
    ------
    ModelError
        If one does not fit 32 bits.
    """
    if not fit_int32(values):
        raise ModelError(
            f"{name} has integers from {int(values.min())} to {int(values.max())}; profile nnc "
            f"has 32 bits: {advice}"
        )
    return values.astype(np.int32)


def _within_dtype(
    tensor: Tensor, values: np.ndarray, rounded: Quantized, qp_density: int
) -> Quantized:
    """Round values towards zero that rounding took out of the range of their dtype."""
    step = step_size(rounded.qp, qp_density)
    towards_zero = np.trunc(values.astype(np.float64) / step).astype(np.int32)
    levels = np.where(np.isfinite(rounded.value), rounded.levels, towards_zero)
    return Quantized.of(levels, rounded.qp, qp_density, tensor.dtype)
