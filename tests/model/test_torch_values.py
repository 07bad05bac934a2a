import numpy as np
import pytest
import torch

from nnrcodec.model.dtypes import DTYPES, item_bytes
from nnrcodec.model.model import Role, Tensor
from nnrcodec.model.torch_values import from_torch, to_torch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4)])
def test_every_dtype_goes_there_and_back(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    size = item_bytes(dtype)
    bits = torch.randint(0, 2, (*shape, size), dtype=torch.uint8, generator=generator)
    value = bits.view(getattr(torch, dtype)).reshape(shape)
    tensor = from_torch("a", value)
    assert (tensor.name, tensor.dtype, tensor.shape) == ("a", dtype, shape)
    assert tensor.role is Role.PARAMETER
    assert tensor.read().dtype == DTYPES[dtype]
    back = to_torch(tensor)
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    assert _bits(back) == _bits(value)


def _bits(value):
    return value.reshape(-1).view(torch.uint8).tolist()


def test_parameters_and_views_are_read_as_they_look():
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    tensor = from_torch("a", parameter.T)
    assert tensor.read().flags.c_contiguous
    np.testing.assert_array_equal(tensor.read(), [[0, 3], [1, 4], [2, 5]])


def test_values_are_those_at_the_time_of_reading():
    value = torch.zeros(2)
    tensor = from_torch("a", value)
    value += 1
    np.testing.assert_array_equal(tensor.read(), [1, 1])


def test_an_array_that_must_not_be_written_is_copied():
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    to_torch(Tensor.of("a", array)).add_(1)
    np.testing.assert_array_equal(array, 0)
