from __future__ import annotations

import numpy as np
import pytest
from data_units import block_of, coded, header_of, stream_of, unit_of, update_of
from fuzz import streams

import nnrcodec
from nnrcodec.container.record import Record, TensorEntry
from nnrcodec.errors import PayloadError, SyntaxElementError, UnsupportedFeatureError
from nnrcodec.inspection import TensorInfo
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import Codebook, NnrCompressedDataUnitHeader
from nnrcodec.syntax.topology import TopologyElementsIdsList
from nnrcodec.syntax.trace import TraceEvent
from nnrcodec.syntax.unit import NnrUnitHeader, Unit


def test_tensors_are_described_without_decoding() -> None:
    info = nnrcodec.inspect(streams.tensors_only())
    described = {t.names[0]: (t.shape, t.dtype, t.coder) for t in info.tensors}
    assert described == {
        "conv.weight": ((12, 8, 3, 3), "float32", "ans"),
        "conv.bias": ((12,), "float16", "raw"),
        "scale": ((), "float64", "raw"),
        "counts": ((200,), "int64", "ans"),
        "wide": ((40,), "int64", "ans"),
        "mask": ((5, 9), "bool", "ans"),
        "zeros": ((30, 30), "float32", "ans"),
    }


def test_step_sizes_are_those_of_the_quantization_parameters() -> None:
    info = nnrcodec.inspect(streams.with_graph())
    steps = 1 << (info.qp_density or 0)  # in an octave
    for tensor in info.tensors:
        assert (tensor.qp is None) == (tensor.coder == "raw")
        if tensor.qp is not None:
            whole, part = divmod(tensor.qp, steps)
            assert tensor.step_size == (1 + part / steps) * 2.0**whole


def test_units_fill_the_stream() -> None:
    data = streams.with_graph()
    info = nnrcodec.inspect(data)
    assert info.stream_bytes == len(data) == sum(u.unit_bytes for u in info.units)
    assert [u.name for u in info.units][:4] == ["NNR_STR", "NNR_MPS", "NNR_TPL", "NNR_XDU"]
    starts = [u.bit_offset // 8 for u in info.units]
    assert starts == sorted(starts)
    assert info.units[-1].name == "NNR_TPL"
    assert info.record_bytes == info.units[2].unit_bytes + info.units[-1].unit_bytes
    assert info.writer == f"nnrcodec {nnrcodec.__version__}"


@pytest.mark.parametrize("name", streams.STREAMS)
def test_a_graph_is_noticed(name: str) -> None:
    without = ("tensors only", "lossless")
    assert nnrcodec.inspect(streams.STREAMS[name]()).has_graph == (name not in without)


def test_ranks_of_factors_are_told() -> None:
    ranks = {t.names[0]: t.rank for t in nnrcodec.inspect(streams.low_rank()).tensors if t.rank}
    assert ranks == {"2.u.weight": 3, "2.v.weight": 3, "4.u.weight": 5, "4.v.weight": 5}


def test_bits_per_weight_are_those_of_the_unit() -> None:
    info = nnrcodec.inspect(streams.tensors_only())
    for tensor in info.tensors:
        elements = 1
        for size in tensor.shape or ():
            elements *= size
        assert tensor.bits_per_weight == 8 * tensor.unit_bytes / elements


@pytest.mark.parametrize("shape", [None, (0,), (3, 0)])
def test_without_elements_there_are_no_bits_per_weight(shape: tuple[int, ...] | None) -> None:
    assert TensorInfo(("w",), shape, None, "raw", None, None, None, 9).bits_per_weight is None


def test_a_trace_covers_every_bit() -> None:
    events: list[TraceEvent] = []
    data = streams.with_graph()
    nnrcodec.inspect(data, trace=events.append)
    assert sum(event.bit_length for event in events) == 8 * len(data)


def test_a_stream_without_a_record_is_described() -> None:
    units = streams.units_of(streams.tensors_only())
    info = nnrcodec.inspect(streams.stream_of(units[:2] + units[3:]))
    assert (info.writer, info.record_bytes, info.has_graph) == (None, 0, False)
    assert [t.dtype for t in info.tensors] == [
        "float32", "float16", "float64", "int32", "int32", "int32", "float32",
    ]  # fmt: skip


def test_data_units_of_the_standard_are_described() -> None:
    units = streams.units_of(streams.tensors_only())[:2]
    one = NnrCompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=2,
        topology_elem_id="fc.weight",
        input_parameters_present_flag=1,
        tensor_dimensions_flag=1,
        count_tensor_dimensions=2,
        tensor_dimensions=[3, 4],
    )
    header = NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_NDU)
    info = nnrcodec.inspect(streams.stream_of([*units, Unit(header, one, b"abc")]))
    (tensor,) = info.tensors
    assert (tensor.names, tensor.shape, tensor.coder) == (("fc.weight",), (3, 4), "raw")
    assert (tensor.dtype, tensor.coding, tensor.qp) == ("float32", None, None)


LEVELS = np.arange(-6, 6, dtype=np.int32).reshape(3, 4)


@pytest.mark.parametrize(
    ("elements", "dtype", "coding"),
    [
        ({}, "float32", "uniform"),
        ({"dq_flag": 1}, "float32", "dependent"),
        ({"nnr_compressed_data_unit_payload_type": 0}, "int32", "integer"),
        (
            {"codebook_present_flag": 1,
             "codebook": Codebook(0, 13, 0, 0, [0] * 6, [0] * 6)},
            "float64",
            "codebook",
        ),
    ],
)  # fmt: skip
def test_codings_of_the_standard(elements: dict[str, object], dtype: str, coding: str) -> None:
    levels = np.zeros((3, 4), np.int32) if "dq_flag" in elements else LEVELS
    data = stream_of(coded(header_of("w", 3, 4, **elements), {"w": levels}, -9),
                     mps_quantization_parameter=2)  # fmt: skip
    info = nnrcodec.inspect(data)
    (tensor,) = info.tensors
    assert (tensor.dtype, tensor.coding, tensor.coder) == (dtype, coding, "cabac")
    assert tensor.qp == (None if coding == "integer" else -7)
    assert tensor.step_size == (None if coding == "integer" else 0.3125)
    assert tensor.elements == 12
    assert not info.is_update
    assert nnrcodec.decode(data)["w"].dtype == dtype


def test_tensors_of_a_block() -> None:
    levels = {"w": LEVELS, "b": LEVELS[:, 0], "s": LEVELS[:, 1]}
    block = coded(block_of(["w", "s", "b"], 3, 4, types=2 | 8), levels)
    (tensor,) = nnrcodec.inspect(stream_of(block)).tensors
    assert tensor.names == ("w", "s", "b")
    assert tensor.shapes == ((3, 4), (3,), (3,))
    assert (tensor.shape, tensor.qp, tensor.elements) == (None, None, 18)
    assert tensor.bits_per_weight == 8 * tensor.unit_bytes / 18


def test_an_update_is_noticed() -> None:
    data = stream_of(coded(update_of("w", 3, 4), {"w": LEVELS}), update=1)
    assert nnrcodec.inspect(data).is_update


def test_names_and_dtypes_are_those_of_the_record() -> None:
    entries = (
        TensorEntry("w_G", "00000000", "float16", coded_name="w_G.0"),
        TensorEntry("s", "00000000", "float64", scalar=True),
    )
    record = streams.topology_unit(streams.record_data(Record(entries)))
    units = (
        coded(header_of("w_G.0", 3, 4), {"w_G.0": LEVELS}),
        coded(header_of("s", 1), {"s": [1]}),
    )
    matrix, scalar = nnrcodec.inspect(stream_of(record, *units)).tensors
    assert (matrix.names, matrix.dtype, matrix.shape) == (("w_G",), "float16", (3, 4))
    assert (scalar.names, scalar.dtype, scalar.shape) == (("s",), "float64", ())


def test_damaged_headers_of_the_standard_are_reported_with_their_place() -> None:
    unit = unit_of(header_of("w", 3, compressed_parameter_types=1), b"abc")
    with pytest.raises(SyntaxElementError, match=r"unit\[2\] NNR_NDU, bit \d+: 'w' is a part"):
        nnrcodec.inspect(stream_of(unit))
    unit = coded(header_of("w", 3), {"w": [1, 2, 3]})
    with pytest.raises(SyntaxElementError, match=r"unit\[2\] NNR_NDU.*float32 cannot hold"):
        nnrcodec.inspect(stream_of(unit, mps_quantization_parameter=4000))
    unit.payload = b"\0"
    with pytest.raises(PayloadError, match=r"unit\[2\] NNR_NDU/payload"):
        nnrcodec.inspect(stream_of(unit))


def test_names_of_a_block_are_listed() -> None:
    from nnrcodec.inspection import _names

    by_name = TopologyElementsIdsList(0, ["a.weight", "a.bias"])
    by_index = TopologyElementsIdsList(0, [], [4, 5])
    assert _names(NnrCompressedDataUnitHeader(topology_elements_ids_list=by_name)) == (
        "a.weight",
        "a.bias",
    )
    assert _names(NnrCompressedDataUnitHeader(topology_elements_ids_list=by_index)) == ("#4", "#5")
    assert _names(NnrCompressedDataUnitHeader(topology_elem_id_index=7)) == ("#7",)


def test_a_step_size_that_there_is_not_is_reported_with_its_place() -> None:
    units = streams.units_of(streams.tensors_only())
    units[3].body.quantization_parameter_offset = 60_000
    with pytest.raises(SyntaxElementError, match=r"unit\[3\] NNR_XDU.*float32 cannot hold"):
        nnrcodec.inspect(streams.stream_of(units))


def test_a_reserved_data_format_is_reported_with_its_place() -> None:
    units = streams.units_of(streams.tensors_only())
    units[5].body.xdu_data_format = 50
    units.pop(2)
    with pytest.raises(UnsupportedFeatureError, match=r"unit\[4\] NNR_XDU.*xdu_data_format 50"):
        nnrcodec.inspect(streams.stream_of(units))
