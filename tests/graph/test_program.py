"""Exporting a decoded network takes neither the memory nor the time that its author wants."""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.formats import save
from nnrcodec.graph import program as programs
from nnrcodec.graph.graph import Argument, Dim, Graph, Input, Node, Ref, Word
from nnrcodec.graph.module import build_module
from nnrcodec.graph.program import program_of_module
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model

LIMITS = Limits(max_program_work=900)


class Making:
    """A graph that is put together node by node."""

    def __init__(self, *inputs: Input, **dims: Dim) -> None:
        self.inputs, self.dims = inputs, dims
        self.nodes: list[Node] = []

    def __call__(self, op: str, *args: Argument) -> Ref:
        self.nodes.append(Node(op, args))
        return Ref(len(self.inputs) + len(self.nodes) - 1)

    def export(self, output: Ref, limits: Limits = LIMITS) -> torch.export.ExportedProgram:
        graph = Graph(self.inputs, tuple(self.nodes), output, self.dims)
        return program_of_module(build_module(Model.of([], graph)), limits)


def vector(*dims: Dim) -> Making:
    names = [f"d{i}" for i in range(len(dims))]
    inputs = Input("x", "uint8", tuple(names))
    return Making(inputs, **dict(zip(names, dims, strict=True)))


def test_inputs_take_no_memory() -> None:
    make = Making(Input("x", "uint8", (2**31,)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    program = make.export(make("aten.bitwise_not.default", Ref(0)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # in KiB
    (example,) = program.example_inputs[0]
    assert example.shape == (2**31,)
    assert example.untyped_storage().nbytes() == 1


def test_example_inputs_can_be_run() -> None:
    make = vector(Dim(0, None, 5))
    program = make.export(make("aten.add.Tensor", Ref(0), 1))
    args, kwargs = program.example_inputs
    assert torch.equal(program.module()(*args, **kwargs), torch.ones(5, dtype=torch.uint8))
    assert program.module()(torch.zeros(9, dtype=torch.uint8)).shape == (9,)


def repeated_squares(make: Making) -> Ref:
    """Sizes whose values stay 1 while their expressions double: (d0 - d1)^(2^n)."""
    a, b = (make("aten.sym_size.int", Ref(0), axis) for axis in (0, 1))
    value = make("operator.sub", a, b)
    for _ in range(30):
        value = make("operator.mul", value, value)
    return make("aten.zeros.default", (value,))


def sums_multiplied_out(make: Making) -> Ref:
    """Polynomials in eight sizes."""
    sizes = [make("aten.sym_size.int", Ref(0), axis) for axis in range(8)]
    value: Argument = 0
    for size in sizes:
        value = make("operator.sub", size, value)
    value = make("operator.sub", value, 3)
    for _ in range(3):
        value = make("operator.mul", value, value)
    return make("aten.zeros.default", (value,))


def shared_parts(make: Making) -> Ref:
    """Expressions that use the one before twice."""
    value = make("aten.sym_size.int", Ref(0), 0)
    for i in range(60):
        product = make(
            "operator.mul",
            make("operator.mod", value, 7 + i),
            make("operator.floordiv", value, 3 + i),
        )
        value = make("operator.add", product, 5 + i)
    return make("aten.zeros.default", (value,))


def large_powers(make: Making) -> Ref:
    """A size of 1 to the power of 2^n, which is beyond all numbers for another size."""
    value = make("operator.floordiv", make("aten.sym_size.int", Ref(0), 0), 3)
    for _ in range(60):
        value = make("operator.mul", value, value)
    return make("aten.zeros.default", (value,))


def many_conditions(make: Making) -> Ref:
    """Every node asks something new of sizes."""
    size = make("aten.sym_size.int", Ref(0), 0)
    result = Ref(0)
    for i in range(60):
        part = make("operator.floordiv", make("operator.add", size, i), 7 + i)
        result = make("aten.view.default", make("aten.zeros.default", (part, 4)), (2, -1))
    return result


def many_nodes(make: Making) -> Ref:
    value = Ref(0)
    for _ in range(901):
        value = make("aten.relu.default", value)
    return value


def outer_products(make: Making) -> Ref:
    """The number of elements is squared again and again."""
    value = Ref(0)
    for _ in range(40):
        product = make(
            "aten.mul.Tensor",
            make("aten.unsqueeze.default", value, 0),
            make("aten.unsqueeze.default", value, 1),
        )
        value = make("aten.flatten.using_ints", product)
    return value


ATTACKS = {
    repeated_squares: (Dim(0, None, 6), Dim(0, None, 5)),
    sums_multiplied_out: tuple(Dim(0, None, 5 + i % 2) for i in range(8)),
    shared_parts: (Dim(0, None, 7),),
    large_powers: (Dim(2, 1000, 4),),
    many_conditions: (Dim(0, None, 2**20),),
    many_nodes: (Dim(0, None, 2),),
    outer_products: (Dim(0, None, 2),),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attacks_on_the_exporter_end_early(attack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    run_node = programs.run_node
    monkeypatch.setattr(programs, "run_node", lambda m, p, v: (ran.append(p), run_node(m, p, v))[1])
    make = vector(*ATTACKS[attack])
    with pytest.raises(LimitExceededError, match="exporting this network takes"):
        make.export(attack(make))
    assert len(ran) <= 901
    assert len(ran) < len(make.nodes)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten.unbind.int", ()),
        ("aten.split.Tensor", (1,)),
        ("aten.chunk.default", (10**6,)),
        ("aten.tensor_split.sections", (10**6,)),
    ],
)
def test_lists_are_not_made_if_they_are_too_long(op: str, args: tuple[Argument, ...]) -> None:
    make = Making(Input("x", "uint8", (10**7,)))
    items = make(op, Ref(0), *args)
    with pytest.raises(LimitExceededError, match="too much work"):
        make.export(make("operator.getitem", items, 0))


def test_recurrent_layers_are_not_run_for_a_million_steps() -> None:
    make = Making(
        Input("x", "float32", (10**6, 1, 1)),
        *(Input(name, "float32", (1, 1, 1)) for name in ("h", "c")),
        *(Input(name, "float32", (4, 1)) for name in ("w", "u")),
    )
    weights = ((Ref(1), Ref(2)), (Ref(3), Ref(4)), False, 1, 0.0, False, False, False)
    result = make("aten.lstm.input", Ref(0), *weights)
    with pytest.raises(LimitExceededError, match="too much work"):
        make.export(make("operator.getitem", result, 0))


def test_what_an_operator_refuses_is_an_error_of_the_graph() -> None:
    make = Making(Input("x", "float32", (4, 5)))
    with pytest.raises(SyntaxElementError, match=r"nodes\[0\].*aten.mm.default refuses"):
        make.export(make("aten.mm.default", Ref(0), Ref(0)))


@pytest.mark.parametrize("op", ["torch.sym_ite", "operator.mod"])
def test_errors_of_arithmetic_on_sizes_are_our_own(op: str) -> None:
    make = vector(Dim(0, None, 4))
    size = make("aten.sym_size.int", Ref(0), 0)
    other = make("operator.sub", size, size)
    args = (size, 1, 0.5) if op == "torch.sym_ite" else (size, other)
    with pytest.raises((BitstreamError, UnsupportedFeatureError)):
        make.export(make("aten.zeros.default", (make(op, *args),)))


def test_a_network_that_cannot_be_exported_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def export(*_: Any, **__: Any) -> None:
        raise RuntimeError("no\nsuch luck")

    monkeypatch.setattr(torch.export, "export", export)
    make = vector(Dim(0, None, 4))
    with pytest.raises(UnsupportedFeatureError, match=r"cannot export this network \(no\)"):
        make.export(make("aten.relu.default", Ref(0)))


def test_work_is_counted_the_same_every_time() -> None:
    """The limit that is just enough stays just enough."""

    def net() -> tuple[Making, Ref]:
        make = vector(Dim(0, None, 40))
        value = make("aten.to.dtype", Ref(0), Word("dtype", "float32"))
        value = make("aten.unsqueeze.default", value, 0)
        for _ in range(3):
            value = make("aten.max_pool1d.default", value, (2,))
        return make, value

    def is_enough(work: int) -> bool:
        make, value = net()
        try:
            make.export(value, Limits(max_program_work=work))
        except LimitExceededError:
            return False
        return True

    least = next(work for work in range(1, 200) if is_enough(work))
    assert not is_enough(least - 1)
    assert is_enough(least)


def test_sizes_with_an_example_of_one_stay_open() -> None:
    make = vector(Dim(0, None, 1))
    program = make.export(make("aten.add.Tensor", Ref(0), 1))
    for size in (2, 7):
        assert program.module()(torch.zeros(size, dtype=torch.uint8)).shape == (size,)


def test_sizes_that_pytorch_fixes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    make = vector(Dim(0, None, 4))
    make.export(make("aten.view.default", Ref(0), (2, 2)))
    assert "fixes axis 0 of input 'x' to 4" in caplog.text


def test_a_network_that_returns_nothing_cannot_be_saved(tmp_path: Path) -> None:
    graph = Graph((Input("x", "float32", (2,)),), (), ())
    with pytest.raises(UnsupportedFeatureError, match="cannot export"):
        save(Model.of([], graph), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_an_empty_list_cannot_be_saved() -> None:
    make = Making(Input("x", "float32", (0, 3)))
    make("aten.unbind.int", Ref(0))
    with pytest.raises(UnsupportedFeatureError, match="empty list"):
        make.export(make("aten.relu.default", Ref(0)))


def test_a_file_does_not_say_where_this_package_is_installed(tmp_path: Path) -> None:
    graph = Graph((Input("x", "float32", (2,)),), (Node("aten.relu.default", (Ref(0),)),), Ref(1))
    save(Model.of([], graph), tmp_path / "x.pt2")
    with zipfile.ZipFile(tmp_path / "x.pt2") as file:
        content = b"".join(map(file.read, file.namelist()))
    assert b"aten.relu.default" in content
    assert str(Path(programs.__file__).parent).encode() not in content
