from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnrcodec.model.dtypes import (
    DTYPES,
    cast,
    from_little_endian,
    is_float,
    is_pattern,
    item_bytes,
    to_little_endian,
)

FLOATS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0), elements=st.floats(width=32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_names_and_sizes_are_those_of_pytorch(dtype: str) -> None:
    theirs = getattr(torch, dtype)
    assert item_bytes(dtype) == theirs.itemsize
    assert is_float(dtype) == (theirs.is_floating_point and not is_pattern(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4)])
def test_values_come_back_from_their_bytes(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.asarray(cast(np.random.default_rng(0).integers(0, 2, shape), dtype))
    data = to_little_endian(values, dtype)
    assert data.nbytes == values.size * item_bytes(dtype)
    back = from_little_endian(memoryview(data.tobytes()), dtype, shape)
    assert back.dtype == DTYPES[dtype]
    assert back.flags.writeable
    assert back.shape == shape
    assert np.array_equal(back, values)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint64"])
def test_bytes_are_little_endian_whatever_the_array_is(dtype: str) -> None:
    values = np.array([1, 2], DTYPES[dtype])
    swapped = values.astype(values.dtype.newbyteorder(">"))
    little = values.astype(values.dtype.newbyteorder("<"))
    assert to_little_endian(swapped, dtype).tobytes() == little.tobytes()


@given(FLOATS)
def test_bfloat16_is_rounded_as_by_pytorch(values: np.ndarray) -> None:
    expected = torch.from_numpy(values).to(torch.bfloat16)
    ours = cast(values, "bfloat16")
    np.testing.assert_array_equal(ours, expected.float().numpy())
    bits = to_little_endian(ours, "bfloat16").view(np.int16)
    finite = ~np.isnan(values)
    assert (bits == expected.view(torch.int16).numpy())[finite].all()


@given(FLOATS)
def test_float16_is_rounded_as_by_pytorch(values: np.ndarray) -> None:
    expected = torch.from_numpy(values).to(torch.float16).numpy()
    np.testing.assert_array_equal(cast(values, "float16"), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_a_signalling_nan_stays_a_nan_and_warns_nobody(dtype: str) -> None:
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(cast(signalling, dtype)).all()
