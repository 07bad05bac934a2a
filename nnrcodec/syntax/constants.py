"""Enumerations of the standard, with its names and values.

A value outside its enumeration is reserved or private: it is read and written as a plain ``int``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class NnrUnitType(IntEnum):
    """nnr_unit_type; 7..31 are reserved, 32..63 private: 32 is our extended data unit."""

    NNR_STR = 0
    NNR_MPS = 1
    NNR_LPS = 2
    NNR_TPL = 3
    NNR_QNT = 4
    NNR_NDU = 5
    NNR_AGG = 6
    NNR_XDU = 32


class QuantizationMethodFlags(IntFlag):
    """mps_quantization_method_flags and lps_quantization_method_flags."""

    NNR_QSU = 1
    NNR_QCB = 2


class TopologyStorageFormat(IntEnum):
    """topology_storage_format; 7..127 are reserved, 128..255 private."""

    NNR_TPL_UNREC = 0
    NNR_TPL_NNEF = 1
    NNR_TPL_ONNX = 2
    NNR_TPL_PYT = 3
    NNR_TPL_TEF = 4
    NNR_TPL_PRUN = 5
    NNR_TPL_REFLIST = 6


class CompressionFormat(IntEnum):
    """topology_compression_format and quantization_compression_format."""

    NNR_PT_RAW = 0
    NNR_DFL = 1


class NnrRepType(IntEnum):
    """nnr_rep_type of a pruning topology container."""

    NNR_TPL_BMSK = 0
    NNR_TPL_DICT = 1


class NnrCompressedDataUnitPayloadType(IntEnum):
    """nnr_compressed_data_unit_payload_type."""

    NNR_PT_INT = 0
    NNR_PT_FLOAT = 1
    NNR_PT_RAW_FLOAT = 2
    NNR_PT_BLOCK = 3


class CompressedParameterTypes(IntFlag):
    """compressed_parameter_types: the tensors of a block."""

    NNR_CPT_DC = 1
    NNR_CPT_LS = 2
    NNR_CPT_BN = 4
    NNR_CPT_BI = 8


class NnrDecompressedDataFormat(IntEnum):
    """nnr_decompressed_data_format."""

    TENSOR_INT32 = 0
    TENSOR_FLOAT32 = 1
    TENSOR_INT2 = 2
    TENSOR_INT3 = 3
    TENSOR_INT4 = 4
    TENSOR_INT8 = 5
    TENSOR_INT16 = 6
    TENSOR_INT64 = 7
    TENSOR_FLOAT16 = 8
    TENSOR_FLOAT64 = 9


class ParentNodeIdType(IntEnum):
    """parent_node_id_type."""

    ICNN_NDU_ID = 0
    ICNN_NDU_PL_SHA256 = 1
    ICNN_NDU_PL_SHA512 = 2
