"""What the inputs of a network are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import model_of
from torch import nn

from nnrcodec.calibration.kinds import Kind, Taken, kinds_of
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref, TensorRef
from nnrcodec.model.model import Model, Tensor


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], batch_first: bool) -> None:
        super().__init__()
        self.layer = kind(5, 4, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class Called(nn.Module):
    """Calls layers after something without weights."""

    def __init__(self, before, *layers: nn.Module) -> None:
        super().__init__()
        self.before, self.layers = before, nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.before(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_a_recurrent_layer_takes_are_features(kind, batch_first: bool) -> None:
    (taken,) = kinds_of(model_of(Recurrent(kind, batch_first).eval(), (3, 7, 5)))
    assert taken == Taken(Kind.FEATURES, time=int(batch_first), channels=2)


@pytest.mark.parametrize(
    ("module", "shape", "taken"),
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), Taken(Kind.PICTURE)),
        (nn.Conv1d(1, 4, 3), (2, 1, 50), Taken(Kind.SIGNAL, time=2)),
        (nn.Conv1d(2, 4, 3), (2, 2, 50), Taken(Kind.SIGNAL, time=2, channels=1)),
        (nn.Conv1d(40, 4, 3), (2, 40, 50), Taken(Kind.FEATURES, time=2, channels=1)),
        (nn.Conv1d(40, 40, 3, groups=40), (2, 40, 50), Taken(Kind.FEATURES, time=2, channels=1)),
        (
            Called(lambda x: (x / 2).transpose(1, 2), nn.Conv1d(30, 4, 3)),
            (2, 50, 30),
            Taken(Kind.FEATURES, time=1, channels=2),
        ),
        (
            Called(lambda x: x[:, None] - x.mean(), nn.Conv1d(1, 4, 3)),
            (2, 50),
            Taken(Kind.SIGNAL, time=1),
        ),
        (
            Called(lambda x: x[:, None, :, None], nn.Conv2d(1, 4, (9, 1))),
            (2, 50),
            Taken(Kind.SIGNAL, time=1),
        ),
        (
            Called(lambda x: x.flatten(0, 1)[:, None], nn.Conv1d(1, 4, 9)),
            (2, 6, 50),
            Taken(Kind.SIGNAL, time=2),
        ),
        (Called(lambda x: x.mT, nn.Conv1d(1, 4, 9)), (2, 50, 1), Taken(Kind.SIGNAL, time=1)),
        (Called(lambda x: x[:, None], nn.Conv2d(1, 4, 3)), (2, 9, 50), Taken(Kind.NOISE, time=1)),
        (nn.Linear(6, 3), (2, 6), Taken(Kind.NOISE, time=1)),
        (nn.Linear(6, 3), (2, 5, 6), Taken(Kind.NOISE, time=1)),
        (nn.ReLU(), (2, 5, 6), Taken(Kind.NOISE, time=1)),
        (nn.Conv3d(1, 2, 3), (2, 1, 5, 5, 5), Taken(Kind.NOISE, time=1)),
    ],
)
def test_the_first_layer_tells_what_real_numbers_are(
    module: nn.Module, shape: tuple[int, ...], taken: Taken
) -> None:
    assert kinds_of(model_of(module.eval(), shape)) == (taken,)


def beside(first: Input, second: Input) -> Kind:
    """Return what the second input of a network is; the first may index a table."""
    table = Tensor.of("table.weight", np.ones((9, 2), np.float32))
    node = Node("aten.embedding.default", (TensorRef(table.name), Ref(0)))
    nodes = (node,) if first.dtype == "int64" else ()
    dims = {name: Dim(1, None, 3) for name in ("n", "t")}
    taken, other = kinds_of(Model.of([table], Graph((first, second), nodes, Ref(0), dims)))
    assert not nodes or taken == Taken(Kind.TOKENS, time=1, rows=9)
    return other.kind


@pytest.mark.parametrize(
    ("dtype", "shape", "kind"),
    [
        ("int64", ("n", "t"), Kind.MASK),
        ("bool", ("n", "t"), Kind.MASK),
        ("float32", ("n", "t"), Kind.MASK),
        ("float32", ("n", 1, 1, "t"), Kind.MASK),
        ("bool", ("t", "t"), Kind.MASK),
        ("int64", ("n",), Kind.UNKNOWN),
        ("int64", ("t",), Kind.UNKNOWN),
        ("int64", ("n", 5), Kind.UNKNOWN),
        ("float32", ("n", 5), Kind.NOISE),
        ("float32", ("n", 3, 7, 7), Kind.PICTURE),
        ("uint8", ("n", 3, 7, 7), Kind.PICTURE),
    ],
)
def test_what_has_the_axes_of_tokens_is_a_mask(
    dtype: str, shape: tuple[int | str, ...], kind: Kind
) -> None:
    assert beside(Input("x", "int64", ("n", "t")), Input("y", dtype, shape)) is kind


def test_only_integers_with_the_axes_of_features_are_a_mask() -> None:
    features = Input("x", "float32", ("n", "t", 4))
    assert beside(features, Input("y", "bool", ("n", "t"))) is Kind.MASK
    assert beside(features, Input("y", "float32", ("n", "t"))) is Kind.NOISE
