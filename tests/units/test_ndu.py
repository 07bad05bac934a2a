from __future__ import annotations

import numpy as np
import pytest
from data_units import BLOCK, INT, block_of, header_of, update_of

from nnrcodec.entropy.cabac.level_syntax import EntryPoint
from nnrcodec.errors import SyntaxElementError, UnsupportedFeatureError
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import Codebook
from nnrcodec.syntax.topology import TopologyElementsIdsList
from nnrcodec.units.ndu import (
    Part,
    TensorHistory,
    entry_points_of,
    level_syntax_of,
    matrix,
    members_of,
    next_history,
    parts_by_id,
    parts_in_payload,
)

DC, LS, BN, BI = 1, 2, 4, 8
CONTEXT = StreamContext(general_profile_idc=1)


def test_ids_and_payload_have_different_orders() -> None:
    assert [part.value for part in parts_by_id(LS | BN | BI)] == [
        *("weight", "scaling", "beta", "gamma", "mean", "variance", "bias"),
    ]
    assert [part.value for part in parts_in_payload(LS | BN | BI)] == [
        *("scaling", "bias", "beta", "gamma", "mean", "variance", "weight"),
    ]
    assert [part.value for part in parts_by_id(DC | BI)] == ["G", "H", "bias"]
    assert [part.value for part in parts_in_payload(DC | BI)] == ["bias", "G", "H"]


def test_members_of_a_block() -> None:
    names = ["w", "s", "beta", "gamma", "mean", "var", "b"]
    members = members_of(block_of(names, 6, 2, 3, 3, types=LS | BN | BI))
    assert [m.name for m in members] == ["s", "b", "beta", "gamma", "mean", "var", "w"]
    assert [m.shape for m in members] == [(6,)] * 6 + [(6, 2, 3, 3)]
    assert [m.is_weight for m in members] == [False] * 6 + [True]


def test_members_of_a_decomposed_block() -> None:
    header = block_of(
        ["w_G", "w_H", "b"],
        *(6, 2, 3),
        types=DC | BI,
        decomposition_rank=2,
        g_number_of_rows=9,
        codebook_present_flag=1,
        codebook=Codebook(),
        codebook_h=Codebook(codebook_zero_value=7),
    )
    assert [(m.name, m.part, m.shape) for m in members_of(header)] == [
        ("b", Part.BIAS, (6,)),
        ("w_G", Part.G, (9, 2)),
        ("w_H", Part.H, (2, 4)),
    ]
    assert [m.codebook for m in members_of(header)] == [None, header.codebook, header.codebook_h]


@pytest.mark.parametrize(("name", "shape"), [("w_G", (4, 3)), ("w_H", (3, 6))])
def test_a_part_outside_a_block_is_known_by_its_name(name: str, shape: tuple[int, ...]) -> None:
    header = header_of(
        name, 4, 6, compressed_parameter_types=DC, decomposition_rank=3, g_number_of_rows=4
    )
    (member,) = members_of(header)
    assert (member.part.value, member.shape) == (name[-1], shape)


def test_a_name_alone_makes_no_part() -> None:
    (member,) = members_of(header_of("w_G", 4, 6))
    assert (member.part, member.shape, member.size) == (Part.WEIGHT, (4, 6), 24)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (header_of("w", 4, 0), "every one must be at least 1"),
        (header_of("w", 4, 6, compressed_parameter_types=DC), "must end in _G or _H"),
        (
            header_of("w_G", 7, compressed_parameter_types=DC, decomposition_rank=1,
                      g_number_of_rows=3),
            "do not fit 7 elements",
        ),
        (
            header_of("w_G", 6, compressed_parameter_types=DC, g_number_of_rows=3),
            "the rank must be at least 1",
        ),
        (
            header_of("w_G", 6, compressed_parameter_types=DC, decomposition_rank=1),
            "the rows must divide",
        ),
        (header_of("w", 4, nnr_compressed_data_unit_payload_type=BLOCK), "several tensors"),
        (block_of(["w", "b", "c"], 4, 6, types=BI), "has 2 tensors, not 3"),
        (block_of(["w", "b"], types=BI), "has no dimensions"),
    ],
)  # fmt: skip
def test_headers_that_contradict_themselves(header: object, message: str) -> None:
    with pytest.raises(SyntaxElementError, match=message):
        members_of(header)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "feature"),
    [
        (header_of("w", 4, 6, first_tensor_dimension_shift=1), "first_tensor_dimension_shift"),
        (
            header_of("w", 4, nnr_multiple_topology_elements_present_flag=1),
            "topology_tensor_dimension_mapping",
        ),
        (header_of("w", 4, topology_elem_id=None), "mps_topology_indexed_reference_flag"),
        (
            header_of("w", 4, nnr_compressed_data_unit_payload_type=BLOCK,
                      topology_elements_ids_list=TopologyElementsIdsList(0, [], [1, 2])),
            "mps_topology_indexed_reference_flag",
        ),
    ],
)  # fmt: skip
def test_what_is_not_supported(header: object, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        members_of(header)  # type: ignore[arg-type]
    assert caught.value.feature == feature


def test_matrices() -> None:
    assert [matrix(shape) for shape in ((), (5,), (5, 2, 3))] == [(1, 1), (5, 1), (5, 6)]


def test_only_the_weight_of_a_block_has_a_scan_order() -> None:
    header = block_of(["w", "b"], 20, 30, types=BI, scan_order=2, dq_flag=1)
    bias, weight = (level_syntax_of(header, CONTEXT, m) for m in members_of(header))
    assert (bias.scan_order, bias.height, bias.width, bias.dq_flag) == (0, 20, 1, 1)
    assert (weight.scan_order, weight.height, weight.width, weight.dq_flag) == (2, 20, 30, 1)


def test_integers_are_never_quantized_dependently() -> None:
    header = header_of("w", 3, nnr_compressed_data_unit_payload_type=INT, dq_flag=1)
    (member,) = members_of(header)
    assert level_syntax_of(header, CONTEXT, member).dq_flag == 0


def test_codebook_profile_and_unary_length_reach_the_levels() -> None:
    codebook = Codebook(2, 5, 1, 0, [0, 0, 0], [0])
    header = header_of(
        "w", 3, cabac_unary_length_minus1=30, codebook_present_flag=1, codebook=codebook
    )
    (member,) = members_of(header)
    syntax = level_syntax_of(header, CONTEXT, member)
    assert (syntax.codebook_size, syntax.codebook_zero, syntax.cabac_unary_length) == (5, 3, 31)
    edition_1 = level_syntax_of(header, StreamContext(general_profile_idc=0), member)
    assert (syntax.general_profile_idc, edition_1.general_profile_idc) == (1, 0)


def test_history_is_used_only_where_the_header_has_a_parent() -> None:
    levels = np.arange(6, dtype=np.int32).reshape(2, 3)
    history = TensorHistory(levels, levels > 3)
    for temporal in (0, 1):
        header = update_of("w", 2, 3, temporal=temporal)
        (member,) = members_of(header)
        syntax = level_syntax_of(header, CONTEXT, member, history)
        assert (syntax.base is not None) == bool(temporal)
        assert syntax.history is not None
        assert syntax.history.sum() == 2
    header = header_of("w", 2, 3)
    syntax = level_syntax_of(header, CONTEXT, members_of(header)[0], history)
    assert syntax.base is syntax.history is None


def test_histories_add_up() -> None:
    header = update_of("w", 3, device_id=2, parameter_id=7)
    first = next_history(None, np.array([1, 0, 0], np.int32), header)
    second = next_history(first, np.array([0, -5, 0], np.int32), header)
    assert (first.put_node_depth, second.put_node_depth) == (1, 2)
    assert second.levels.tolist() == [0, -5, 0]
    assert second.nonzero.tolist() == [True, True, False]
    assert (second.device_id, second.parameter_id) == (2, 7)


def test_entry_points_are_those_of_the_weight() -> None:
    header = block_of(
        ["w", "b"],
        *(20, 30),
        types=BI,
        scan_order=1,
        dq_flag=1,
        cabac_offset_list=[10, 11],
        dq_state_list=[3, 4],
        bit_offset_delta1=100,
        bit_offset_delta2=[-20],
    )
    bias, weight = members_of(header)
    assert entry_points_of(header, bias, level_syntax_of(header, CONTEXT, bias)) is None
    found = entry_points_of(header, weight, level_syntax_of(header, CONTEXT, weight))
    assert found == [EntryPoint(10, 3, 100), EntryPoint(11, 4, 80)]


def test_entry_points_of_g_come_before_those_of_h() -> None:
    header = block_of(
        ["w_G", "w_H"],
        *(20, 30),
        types=DC,
        decomposition_rank=9,
        g_number_of_rows=20,
        scan_order=1,
        cabac_offset_list=[10, 11, 12],
        bit_offset_delta1=5,
        bit_offset_delta2=[1, 1],
    )
    found = [
        entry_points_of(header, m, level_syntax_of(header, CONTEXT, m)) for m in members_of(header)
    ]
    assert found == [[EntryPoint(10, 0, 5), EntryPoint(11, 0, 6)], [EntryPoint(12, 0, 7)]]


def test_entry_points_of_one_column_mean_nothing() -> None:
    header = header_of("w", 20, 1, scan_order=1, cabac_offset_list=[1, 2], bit_offset_delta2=[0])
    (member,) = members_of(header)
    assert entry_points_of(header, member, level_syntax_of(header, CONTEXT, member)) is None
