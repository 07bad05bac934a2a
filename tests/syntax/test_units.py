"""The worked examples, field by field, and streams that must come back byte by byte."""

import pytest
from syntax.streams import (
    BLOCK,
    CODEBOOK,
    DEPENDENT,
    ENTRY_POINT,
    INTEGER_0,
    INTEGER_1,
    MPS,
    MPS_PARENT,
    STR,
    STREAMS,
    TPL,
    UNIFORM,
    stream,
    vectors,
)

from nnrcodec.errors import EncodingError
from nnrcodec.syntax.constants import NnrUnitType, TopologyStorageFormat
from nnrcodec.syntax.data_unit import Codebook, NnrCompressedDataUnitHeader
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet, NnrStartUnit
from nnrcodec.syntax.topology import NnrTopologyUnit, TopologyElementsIdsList
from nnrcodec.syntax.unit import (
    NnrUnitHeader,
    OpaqueUnit,
    Unit,
    read_units,
    write_unit,
    write_units,
)


def data_unit(profile, *, payload_bytes, **elements):
    """Read and compare the last unit of a stream."""
    *_, unit = read_units(stream(STR[profile], MPS, TPL, elements.pop("hex")))
    assert len(unit.payload) == payload_bytes
    common = {"input_parameters_present_flag": 1, "tensor_dimensions_flag": 1}
    common |= {"cabac_unary_length_flag": 1, "node_id_present_flag": profile}
    assert unit.body == NnrCompressedDataUnitHeader(**common | elements)
    return unit


def test_units_before_the_data():
    start, mps, tpl, _ = read_units(STREAMS["uniform"])
    assert start.header == NnrUnitHeader(0, 4, NnrUnitType.NNR_STR, 1, 0)
    assert start.body == NnrStartUnit(general_profile_idc=1)
    assert mps.body == NnrModelParameterSet(
        topology_carriage_flag=1, mps_quantization_method_flags=1, mps_qp_density=2
    )
    assert tpl.body == NnrTopologyUnit(topology_data=b"\0")
    assert [u.bit_offset for u in (start, mps, tpl)] == [0, 32, 96]


def test_mps_of_an_update():
    *_, mps = read_units(stream(STR[1], MPS_PARENT))
    assert mps.body.mps_parent_signalling_enabled_flag == 1
    assert mps.body.nnr_pre_flag == 0
    *_, mps = read_units(stream(STR[1], "00 08 06 81 0c 40 00 80"))
    assert mps.body.nnr_pre_flag == 1


def test_uniform():
    unit = data_unit(
        1,
        hex=UNIFORM,
        payload_bytes=8,
        nnr_compressed_data_unit_payload_type=1,
        topology_elem_id="b",
        count_tensor_dimensions=1,
        tensor_dimensions=[5],
        cabac_unary_length_minus1=1,
    )
    assert unit.header.nnr_unit_size == 20
    assert unit.payload_bit_offset == unit.bit_offset + 12 * 8
    assert unit.context.qp_density == 2
    assert unit.context.quantization_parameter == 0


def test_dependent():
    data_unit(
        1,
        hex=DEPENDENT,
        payload_bytes=8,
        nnr_compressed_data_unit_payload_type=1,
        topology_elem_id="w",
        dq_flag=1,
        count_tensor_dimensions=2,
        tensor_dimensions=[3, 3],
        cabac_unary_length_minus1=0,
    )


@pytest.mark.parametrize(("profile", "unit"), [(0, INTEGER_0), (1, INTEGER_1)])
def test_integer(profile, unit):
    data_unit(
        profile,
        hex=unit,
        payload_bytes=5,
        topology_elem_id="n",
        count_tensor_dimensions=1,
        tensor_dimensions=[4],
        cabac_unary_length_minus1=0,
    )


def test_block():
    data_unit(
        1,
        hex=BLOCK,
        payload_bytes=11,
        nnr_compressed_data_unit_payload_type=3,
        nnr_multiple_topology_elements_present_flag=1,
        topology_elements_ids_list=TopologyElementsIdsList(0, ["c.weight", "c.bias"]),
        compressed_parameter_types=8,
        count_tensor_dimensions=2,
        tensor_dimensions=[2, 2],
        cabac_unary_length_minus1=0,
    )


def test_entry_point():
    unit = data_unit(
        1,
        hex=ENTRY_POINT,
        payload_bytes=7,
        nnr_compressed_data_unit_payload_type=1,
        topology_elem_id="w",
        count_tensor_dimensions=2,
        tensor_dimensions=[9, 2],
        cabac_unary_length_minus1=0,
        scan_order=1,
        cabac_offset_list=[95],
        bit_offset_delta1=18,
    )
    assert unit.body.bit_offset_list() == [18]


def test_codebook():
    unit = data_unit(
        1,
        hex=CODEBOOK,
        payload_bytes=6,
        nnr_compressed_data_unit_payload_type=1,
        topology_elem_id="w",
        codebook_present_flag=1,
        codebook=Codebook(2, 4, -1, 0, [3], [1, 9]),
        count_tensor_dimensions=2,
        tensor_dimensions=[3, 3],
        cabac_unary_length_minus1=0,
    )
    assert unit.body.codebook.entries() == [-4, 0, 2, 12]


def test_rows_of_blocks_of_decomposed_tensors():
    header = NnrCompressedDataUnitHeader(
        compressed_parameter_types=1,
        decomposition_rank=9,
        g_number_of_rows=17,
        tensor_dimensions=[33, 4],
        scan_order=1,
    )
    assert header.num_block_rows_minus1 == 4  # the tensor itself
    header.topology_elem_id = "w_G"
    assert header.num_block_rows_minus1 == 2
    header.topology_elem_id = "w_H"
    assert header.num_block_rows_minus1 == 1
    header.nnr_multiple_topology_elements_present_flag = 1
    assert header.num_block_rows_minus1 == 3


def test_unknown_units_are_skipped_by_their_size():
    _, _, aggregate, private = read_units(STREAMS["opaque"])
    assert aggregate.header.nnr_unit_type == NnrUnitType.NNR_AGG
    assert (aggregate.body, bytes(aggregate.payload)) == (OpaqueUnit(), b"\1\2")
    assert (private.header.nnr_unit_type, bytes(private.payload)) == (40, b"\xff")
    assert (private.header.nnr_unit_size_flag, private.header.nnr_unit_size) == (1, 6)
    assert (aggregate.path, private.path) == ("unit[2] NNR_AGG", "unit[3] 40")


@pytest.mark.parametrize("name", STREAMS)
def test_read_then_write_is_identical(name):
    data = STREAMS[name]
    assert b"".join(write_units(read_units(data))) == data


def test_vectors_read_then_write_is_identical():
    assert len(vectors()) == 66
    for file in vectors():
        data = file.read_bytes()
        read_trace, write_trace = [], []
        units = list(read_units(data, trace=read_trace.append))
        assert b"".join(write_units(units, trace=write_trace.append)) == data, file.name
        assert read_trace == write_trace, file.name


def test_topology_data_are_any_bytes():
    tpl = Unit(NnrUnitHeader(nnr_unit_type=3), NnrTopologyUnit(128, 1, None, None, b"\xff\0x\0"))
    data = stream(STR[0], MPS) + write_unit(tpl, mps_context())
    *_, unit = read_units(data)
    assert unit.body == tpl.body
    *_, unit = read_units(stream(STR[0], MPS, TPL.replace("0e 00", "0e 03")))
    assert unit.body.topology_storage_format is TopologyStorageFormat.NNR_TPL_PYT


def mps_context(profile=0):
    *_, unit = read_units(stream(STR[profile], MPS, TPL))
    return unit.context


@pytest.mark.parametrize(("payload", "size", "flag"), [(32764, 32767, 0), (32765, 32770, 1)])
def test_the_size_field_is_as_short_as_it_can_be(payload, size, flag):
    unit = Unit(NnrUnitHeader(nnr_unit_type=50), OpaqueUnit(), bytes(payload))
    data = write_unit(unit, mps_context())
    assert len(data) == size
    *_, unit = read_units(stream(STR[0], MPS) + data)
    assert (unit.header.nnr_unit_size, unit.header.nnr_unit_size_flag) == (size, flag)


def test_a_long_size_field_is_kept():
    data = stream("80 00 00 06 02 01", "80 00 00 0a 06 81 00 40 00 80")
    assert b"".join(write_units(read_units(data))) == data


def test_the_payload_is_a_slice_of_the_stream():
    data = bytearray(STREAMS["uniform"])
    *_, unit = read_units(data)
    data[-1] = 7
    assert unit.payload[-1] == 7


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"scan_order": 5}, "/scan_order: 5 is not in 0..4"),
        ({"dq_flag": 2}, r"/dq_flag: 2 is not in u\(1\)"),
        ({"dq_flag": None}, "/dq_flag: None cannot be coded"),
        ({"topology_elem_id": "a\0"}, "/topology_elem_id: .* zero"),
        ({"tensor_dimensions": [3]}, "/tensor_dimensions: 1 elements, but 2"),
        ({"put_node_depth": 1}, "/put_node_depth: 1 is not coded here"),
        ({"cabac_offset_list": [1]}, "/cabac_offset_list: 1 elements, of which 0 are coded"),
        ({"codebook_present_flag": 1}, "/codebook: None is not a Codebook"),
    ],
)
def test_what_does_not_fit_is_not_written(change, path):
    elements = {
        "nnr_compressed_data_unit_payload_type": 1,
        "input_parameters_present_flag": 1,
        "topology_elem_id": "w",
        "tensor_dimensions_flag": 1,
        "count_tensor_dimensions": 2,
        "tensor_dimensions": [3, 3],
    }
    body = NnrCompressedDataUnitHeader(**elements)
    unit = Unit(NnrUnitHeader(nnr_unit_type=5), body, index=2)
    write_unit(unit, mps_context())
    unit.body = NnrCompressedDataUnitHeader(**elements | change)
    with pytest.raises(EncodingError, match=r"unit\[2\] NNR_NDU" + path):
        write_unit(unit, mps_context())
