"""Networks as their users have them: wrapped, with inputs that are no tensors, changing these."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from networks import values
from torch import nn
from torch.nn.utils import parametrizations

import nnrcodec
from nnrcodec.errors import ModelError
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x)
        return result


def names(model: Model) -> list[str]:
    assert model.graph is not None
    return [value.name for value in model.graph.inputs]


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda module: torch.compile(module)])
@torch.no_grad()
def test_wrappers_are_taken_off(wrap: Any) -> None:
    module, x = Layer(), values((3, 4))
    model = model_of_module(wrap(module), (x,))
    assert list(model.tensors) == ["linear.weight", "linear.bias"]
    assert torch.equal(build_module(model)(x), module(x))


class Mixed(Layer):
    """Takes all kinds of inputs."""

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        others: dict[str, torch.Tensor],
        twice: bool,
        scale: float | None,
        *more: Any,
    ) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) + others["bias"] * (2 if twice else 1)
        if scale is not None:
            result = result * scale
        for pair, mode in more:
            result = result + pair[0] - pair[1] if mode == "minus" else result
        return result


@torch.no_grad()
def test_inputs_that_are_no_tensors(caplog: pytest.LogCaptureFixture) -> None:
    module, (x, a, b, c) = Mixed().eval(), (values((3, 4)) * n for n in range(1, 5))
    inputs = (x, {"bias": a}, True, 0.5, ([b, c], "minus"))
    model = model_of_module(module, inputs)
    assert names(model) == ["x", "others_bias", "more_0_0_0", "more_0_0_1"]
    assert "fixed in the graph as they are in the example: twice = True, scale = 0.5" in caplog.text
    assert "inputs of their own, in this order: x, others_bias, more_0_0_0" in caplog.text
    decoded = build_module(model)
    assert torch.equal(decoded(x, a, b, c), module(*inputs))
    longer = [torch.cat([value, value]) for value in (x, a, b, c)]
    expected = module(longer[0], {"bias": longer[1]}, True, 0.5, (longer[2:], "minus"))
    assert torch.equal(decoded(*longer), expected)
    assert module(*inputs).shape == (3, 4)  # its forward is as it was


def test_a_condition_on_an_input_in_a_list_is_kept() -> None:
    class Asking(Layer):
        def forward(self, pair: list[torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
            return self.linear(pair[0]) * (2 if pair[1].shape[0] % 2 else 3)

    module = Asking().eval()
    model = model_of_module(module, ([values((3, 4)), values((5, 4))],))
    decoded = build_module(model)
    inputs = values((2, 4)), values((7, 4))
    torch.testing.assert_close(decoded(*inputs), module([*inputs]))
    with pytest.raises(ValueError, match=r"pair_1.shape\[0\] is 6"):
        decoded(values((2, 4)), values((6, 4)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((values((3, 4)), object()), "is a object"),
        ((values((3, 4)), 1, 2), "does not take these example inputs"),
        ((None,), "none of the example inputs is, or has in it, a tensor"),
    ],
)
def test_what_can_be_no_input(inputs: tuple[Any, ...], message: str) -> None:
    class Two(Layer):
        def forward(self, x: Any, y: Any = None) -> torch.Tensor:  # type: ignore[override]
            result: torch.Tensor = self.linear(x)
            return result

    with pytest.raises(ModelError, match=message):
        model_of_module(Two(), inputs)


CHANGES = {
    "product": lambda x: x.mul_(2) + 1,
    "part": lambda x: (x[:, :2].zero_(), x.relu_())[1],
    "first layer": nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)),
    "mean": lambda x: x.sub_(x.mean(0)).div_(x.std(0) + 1),
    "returned": lambda x: (x.add_(1), x)[1],
}


@pytest.mark.parametrize("name", CHANGES)
@torch.no_grad()
def test_inputs_that_are_changed_are_copied(name: str) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = CHANGES[name]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x)
            return result

    module, x = Changing().eval(), values((3, 4)) - 0.5
    decoded = build_module(model_of_module(module, (x.clone(),)))
    given = x.clone()
    found = decoded(given)
    assert torch.equal(given, x)
    assert torch.equal(found, module(x.clone()))
    longer = torch.cat([x, x])  # that the network changes its input does not fix sizes
    assert torch.equal(decoded(longer), module(longer.clone()))


def test_a_buffer_that_changes_is_refused_with_a_way_out() -> None:
    class Counting(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x) + self.calls

    with pytest.raises(ModelError, match=r"calls'.*from call to call.*without example inputs"):
        model_of_module(Counting(), (values((3, 4)),))


Pair = namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class Outcome:
    logits: torch.Tensor
    hidden: torch.Tensor


class Odd(OrderedDict[str, torch.Tensor]):
    pass


@torch.no_grad()
def test_classes_of_outputs_become_plain(caplog: pytest.LogCaptureFixture) -> None:
    torch.export.register_dataclass(Outcome, serialized_type_name="tests.Outcome")

    class Returning(Layer):
        def forward(self, x: torch.Tensor) -> Any:
            y = super().forward(x)
            return {"pair": Pair(y, x), 3: Outcome(y + 1, x), "ordered": OrderedDict(a=x)}

    module, x = Returning().eval(), values((3, 4))
    found = build_module(model_of_module(module, (x,)))(x)
    assert type(found["pair"]) is tuple
    assert torch.equal(found["pair"][0], module(x)["pair"].first)
    assert type(found["3"]) is dict
    assert torch.equal(found["3"]["logits"], module(x)[3].logits)
    assert torch.equal(found["ordered"]["a"], x)
    assert "a Pair that is returned becomes a tuple: first, second" in caplog.text
    assert "a Outcome that is returned becomes a dict" in caplog.text


@torch.no_grad()
def test_parametrizations_are_folded_where_a_graph_cannot_have_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        parametrizations.orthogonal(nn.Linear(4, 4)),
        parametrizations.spectral_norm(nn.Linear(4, 4)),
    ).eval()
    x, before = values((3, 4)), set(module.state_dict())
    stream = nnrcodec.encode(module, (x,), calib=None, config=nnrcodec.EncoderConfig(lossless=True))
    decoded = nnrcodec.decode_model(stream)
    torch.testing.assert_close(decoded(x), module(x))
    assert set(module.state_dict()) == before
