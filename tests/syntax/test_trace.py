"""What a trace looks like."""

import json

from syntax.streams import STREAMS

from nnrcodec.syntax.trace import TraceEvent
from nnrcodec.syntax.unit import read_units

LINES = """\
        0     1  unit[0]/nnr_unit_size_flag                                       0
        1    15  unit[0]/nnr_unit_size                                            4
       16     6  unit[0]/nnr_unit_type                                            0 (NNR_STR)
       22     1  unit[0]/independently_decodable_flag                             1
       23     1  unit[0]/partial_data_counter_present_flag                        0
       24     8  unit[0] NNR_STR/general_profile_idc                              1
"""


def trace(name):
    events = []
    list(read_units(STREAMS[name], trace=events.append))
    return events


def test_lines():
    assert "".join(f"{event}\n" for event in trace("uniform")[:6]) == LINES


def test_subscripts_and_structures():
    paths = [event.path for event in trace("codebook")]
    assert "unit[3] NNR_NDU/tensor_dimensions[1]" in paths
    assert "unit[3] NNR_NDU/codebook/codebook_delta_right[1]" in paths
    assert paths[-2:] == ["unit[3] NNR_NDU/byte_alignment()", "unit[3] NNR_NDU/payload"]


def test_json():
    events = [json.loads(json.dumps(event.as_dict())) for event in trace("block")]
    assert {
        "bit": 32 + 64 + 48 + 24,
        "bits": 5,
        "path": "unit[3] NNR_NDU/nnr_compressed_data_unit_payload_type",
        "descriptor": "u(5)",
        "value": 3,
        "name": "NNR_PT_BLOCK",
    } in events
    assert {event["value"] for event in events if "topology_data" in event["path"]} == {"00"}


def test_long_values():
    assert str(TraceEvent(0, 9000, "p", "u(9000)", 1 << 8999)).endswith("0" * 2249)
    assert str(TraceEvent(0, 160, "p", "bs(v)", bytes(20))).endswith(
        "20 bytes " + "00" * 16 + "..."
    )
