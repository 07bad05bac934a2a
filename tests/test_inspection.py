from __future__ import annotations

import pytest
from fuzz import streams

import nnrcodec
from nnrcodec.errors import SyntaxElementError, UnsupportedFeatureError
from nnrcodec.inspection import TensorInfo
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
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
    for tensor in nnrcodec.inspect(streams.with_graph()).tensors:
        assert (tensor.qp is None) == (tensor.coder == "raw")
        if tensor.qp is not None:
            whole, part = divmod(tensor.qp, 4)
            assert tensor.step_size == (1 + part / 4) * 2.0**whole


def test_units_fill_the_stream() -> None:
    data = streams.with_graph()
    info = nnrcodec.inspect(data)
    assert info.stream_bytes == len(data) == sum(u.unit_bytes for u in info.units)
    assert [u.name for u in info.units][:4] == ["NNR_STR", "NNR_MPS", "NNR_TPL", "NNR_XDU"]
    starts = [u.bit_offset // 8 for u in info.units]
    assert starts == sorted(starts)
    assert info.record_bytes == info.units[2].unit_bytes
    assert info.writer == f"nnrcodec {nnrcodec.__version__}"


@pytest.mark.parametrize("name", streams.STREAMS)
def test_a_graph_is_noticed(name: str) -> None:
    assert nnrcodec.inspect(streams.STREAMS[name]()).has_graph == (name != "tensors only")


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
