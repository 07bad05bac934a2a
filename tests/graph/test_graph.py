"""Cutting graphs apart and putting them together again."""

import pytest

from nnrcodec.graph.check import check
from nnrcodec.graph.graph import Graph, Input, Local, Node, Ref, Splice, TensorRef

IMAGE = Input("image", "float32", (1, 4, 8, 8))


def conv(source, weight, bias=None):
    return Node("aten.conv2d.default", (source, TensorRef(weight), bias))


def relu(source):
    return Node("aten.relu.default", (source,))


CHAIN = Graph(
    (IMAGE,),
    (
        conv(Ref(0), "a.weight", TensorRef("a.bias")),
        relu(Ref(1)),
        conv(Ref(2), "b.weight"),
        Node("aten.cat.default", ((Ref(3), Ref(1)), 1)),
    ),
    {"all": [Ref(4), (Ref(2), None)]},
)


def test_chain_is_legal():
    check(CHAIN, {"a.weight", "a.bias", "b.weight"})


def test_tensor_names_come_in_order_of_use():
    assert CHAIN.tensor_names() == ("a.weight", "a.bias", "b.weight")


def test_users_and_outputs():
    assert CHAIN.users(Ref(1)) == (1, 3)
    assert CHAIN.users(TensorRef("b.weight")) == (2,)
    assert CHAIN.users(Ref(4)) == ()
    assert CHAIN.is_output(Ref(2))
    assert not CHAIN.is_output(Ref(1))


def test_node_of_finds_the_producer():
    assert CHAIN.node_of(Ref(2)) == relu(Ref(1))
    assert CHAIN.node_of(Ref(0)) is None
    assert CHAIN.node_of(CHAIN.ref(3)) == CHAIN.nodes[3]


def test_one_node_becomes_two():
    two = (conv(Ref(0), "a.u.weight"), conv(Local(0), "a.v.weight", TensorRef("a.bias")))
    split = CHAIN.splice([Splice(0, 1, two)])
    assert split.nodes == (
        conv(Ref(0), "a.u.weight"),
        conv(Ref(1), "a.v.weight", TensorRef("a.bias")),
        relu(Ref(2)),
        conv(Ref(3), "b.weight"),
        Node("aten.cat.default", ((Ref(4), Ref(2)), 1)),
    )
    assert split.output == {"all": [Ref(5), (Ref(3), None)]}
    check(split)


def test_two_nodes_become_one_again():
    two = (conv(Ref(0), "a.u.weight"), conv(Local(0), "a.v.weight", TensorRef("a.bias")))
    split = CHAIN.splice([Splice(0, 1, two)])
    assert split.splice([Splice(0, 2, (CHAIN.nodes[0],))]) == CHAIN


def test_node_is_removed_in_favour_of_an_earlier_value():
    without = CHAIN.splice([Splice(1, 2, (), result=Ref(1))])
    assert without.nodes == (
        CHAIN.nodes[0],
        conv(Ref(1), "b.weight"),
        Node("aten.cat.default", ((Ref(2), Ref(1)), 1)),
    )
    assert without.output == {"all": [Ref(3), (Ref(1), None)]}


def test_result_may_be_any_of_the_new_nodes():
    graph = CHAIN.splice([Splice(1, 2, (relu(Ref(1)), relu(Local(0))), result=Local(0))])
    assert graph.nodes[3] == conv(Ref(2), "b.weight")


@pytest.mark.parametrize(
    ("start", "stop", "nodes", "message"),
    [
        (0, 2, (relu(Ref(0)),), "still used"),
        (1, 2, (), "result"),
        (1, 2, (relu(Ref(2)),), "not a value before"),
        (1, 2, (relu(Local(0)),), "earlier one"),
        (1, 1, (), "no nodes"),
        (3, 5, (), "no nodes"),
    ],
)
def test_impossible_cuts_are_refused(start, stop, nodes, message):
    with pytest.raises(ValueError, match=message):
        CHAIN.splice([Splice(start, stop, nodes)])


def test_several_runs_are_replaced_at_once():
    halves = (conv(Ref(0), "a.u.weight"), conv(Local(0), "a.v.weight"))
    graph = CHAIN.splice(
        [Splice(0, 1, halves), Splice(1, 2, (), Ref(1)), Splice(2, 3, (conv(Ref(1), "c.weight"),))]
    )
    assert graph.nodes == (
        conv(Ref(0), "a.u.weight"),
        conv(Ref(1), "a.v.weight"),
        conv(Ref(2), "c.weight"),
        Node("aten.cat.default", ((Ref(3), Ref(2)), 1)),
    )


def test_runs_must_be_in_order():
    with pytest.raises(ValueError, match="no nodes"):
        CHAIN.splice([Splice(2, 3, (relu(Ref(1)),)), Splice(0, 1, (relu(Ref(0)),))])


def test_uses_are_counted_each_time():
    graph = Graph(
        CHAIN.inputs,
        (relu(Ref(0)), Node("aten.add.Tensor", (Ref(1), Ref(1))), relu(Ref(1))),
        {"a": [Ref(1), Ref(3), Ref(3)], "b": TensorRef("w")},
    )
    assert graph.uses(Ref(1)) == [1, 1, 2, 3]
    assert graph.users(Ref(1)) == (1, 2)
    assert graph.uses(Ref(3)) == [3, 3]
    assert graph.users(Ref(3)) == ()
    assert graph.is_output(Ref(1))
    assert graph.is_output(TensorRef("w"))
    assert not graph.is_output(Ref(2))
    assert not graph.uses(Ref(2))
