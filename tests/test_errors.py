from __future__ import annotations

import pytest

from nnrcodec import errors
from nnrcodec.errors import BitstreamError, EncodingError, NnrError, UnsupportedFeatureError

STREAM_ERRORS = {
    "TruncatedBitstreamError",
    "SyntaxElementError",
    "UnitOrderError",
    "PayloadError",
    "LimitExceededError",
}


def test_the_tree_is_as_drawn() -> None:
    found = {
        name: error
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, Exception)
    }
    assert all(issubclass(error, NnrError) for error in found.values())
    drawn = {name for name in found if name in (errors.__doc__ or "")}
    assert drawn == set(found)
    assert {n for n, e in found.items() if issubclass(e, BitstreamError)} == STREAM_ERRORS | {
        "BitstreamError"
    }


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "it is wrong"),
        ({"bit_offset": 0}, "bit 0: it is wrong"),
        ({"path": "unit[1]"}, "unit[1]: it is wrong"),
        (
            {"bit_offset": 9, "path": "unit[1] NNR_MPS/x", "clause": "spec/record.md"},
            "unit[1] NNR_MPS/x, bit 9, spec/record.md: it is wrong",
        ),
    ],
)
def test_a_bitstream_error_says_what_and_where(where: dict[str, object], text: str) -> None:
    assert str(BitstreamError("it is wrong", **where)) == text  # type: ignore[arg-type]


def test_an_unsupported_feature_is_named_and_placed() -> None:
    error = UnsupportedFeatureError("not yet", feature="NNR_AGG", bit_offset=8, path="unit[2]")
    assert str(error) == "unit[2], bit 8: not yet"
    assert error.feature == "NNR_AGG"
    assert str(UnsupportedFeatureError("not yet")) == "not yet"


def test_an_encoding_error_names_the_element() -> None:
    assert str(EncodingError("8 is not in u(3)", path="mps/qp")) == "mps/qp: 8 is not in u(3)"
    assert str(EncodingError("8 is not in u(3)")) == "8 is not in u(3)"
