"""What is in an extended data unit, our own: what its encoder and its decoder have to agree on."""

from __future__ import annotations

from nnrcodec.errors import ConfigError, SyntaxElementError, UnsupportedFeatureError
from nnrcodec.quant.step_size import step_size
from nnrcodec.syntax.extended_data_unit import FORMAT_OF_DTYPE, ExtendedDataUnit
from nnrcodec.units.ndu import Member, Part


def member_of(header: ExtendedDataUnit) -> Member:
    """Return the tensor of a unit."""
    return Member(header.topology_elem_id, Part.WEIGHT, tuple(header.tensor_dimensions))


def decoded_dtype(header: ExtendedDataUnit) -> str:
    """Return the dtype that a unit decodes to, before the record's dtype is applied.

    Raises
    ------
    UnsupportedFeatureError
        If its xdu_data_format is reserved.
    """
    for dtype, data_format in FORMAT_OF_DTYPE.items():
        if data_format == header.xdu_data_format:
            return dtype
    raise UnsupportedFeatureError(
        f"tensor {header.topology_elem_id!r} has xdu_data_format {header.xdu_data_format}, which "
        "this version does not know",
        feature="xdu_data_format",
    )


def tensor_qp(header: ExtendedDataUnit, base_qp: int, qp_density: int) -> int:
    """Return the quantization parameter of a unit with quantized levels.

    Parameters
    ----------
    header : ExtendedDataUnit
        Of the unit.
    base_qp, qp_density : int
        ``mps_quantization_parameter`` and ``mps_qp_density``.

    Raises
    ------
    SyntaxElementError
        If float32 cannot hold the step size.
    """
    qp = base_qp + header.quantization_parameter_offset
    try:
        step_size(qp, qp_density)
    except ConfigError as error:
        raise SyntaxElementError(str(error)) from None
    return qp
