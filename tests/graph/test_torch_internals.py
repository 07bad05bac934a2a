"""A version of PyTorch that lacks something says what."""

from __future__ import annotations

import logging
import sys
import types

import pytest
import torch

from nnrcodec.errors import UnsupportedFeatureError
from nnrcodec.graph.torch_internals import (
    expression_of,
    has_fast_bfloat16,
    hint_of,
    is_fixed,
    storage_key,
    without_memory,
)


def test_views_share_a_key_and_copies_do_not() -> None:
    tensor = torch.zeros(4)
    assert storage_key(tensor) == storage_key(tensor[1:].view(3, 1))
    assert storage_key(tensor) != storage_key(tensor.clone())


def test_tensors_without_memory_have_a_size() -> None:
    with without_memory():
        tensor = torch.zeros(2**20, 2**20, 2**20)
    assert tensor.shape == (2**20, 2**20, 2**20)
    assert storage_key(tensor) == storage_key(tensor[0])


def test_sizes_of_a_program_tell_what_they_stand_for() -> None:
    program = torch.export.export(
        torch.nn.Linear(3, 2),
        (torch.zeros(5, 3),),
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
    )
    (value,) = (n.meta["val"] for n in program.graph.nodes if n.name == "input")
    batch, channels = value.shape
    assert (hint_of(batch), hint_of(channels)) == (5, 3)
    assert (is_fixed(batch), is_fixed(channels)) == (False, True)
    assert str(expression_of(batch)).startswith("s")


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("node", lambda: expression_of(types.SimpleNamespace())),  # type: ignore[arg-type]
        ("node", lambda: hint_of(types.SimpleNamespace())),  # type: ignore[arg-type]
        ("_cdata", lambda: storage_key(types.SimpleNamespace(untyped_storage=object))),  # type: ignore[arg-type]
    ],
)
def test_an_attribute_that_pytorch_lacks_is_named(missing: str, use: object) -> None:
    with pytest.raises(UnsupportedFeatureError, match=missing) as caught:
        use()  # type: ignore[operator]
    assert str(torch.__version__) in str(caught.value)


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("torch._subclasses.fake_tensor", "FakeTensorMode"),
        ("torch.fx.experimental.symbolic_shapes", "ShapeEnv"),
    ],
)
def test_a_class_or_a_module_that_pytorch_lacks_is_named(
    module: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.delattr(f"{module}.{missing}")
        with pytest.raises(UnsupportedFeatureError, match=f"{module}.{missing}"):
            without_memory()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedFeatureError, match=module):
        without_memory()


def test_bfloat16_is_not_used_where_pytorch_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(has_fast_bfloat16(), bool)
    monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace())
    with caplog.at_level(logging.INFO):
        assert not has_fast_bfloat16()
    assert "_is_mkldnn_bf16_supported" in caplog.text
