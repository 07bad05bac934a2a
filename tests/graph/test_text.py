"""The JSON form: what is written is read back, and anything else is refused with our errors."""

import copy
import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.errors import BitstreamError, LimitExceededError, SyntaxElementError
from nnrcodec.graph.check import check
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref, TensorRef, Word
from nnrcodec.graph.text import from_json, to_json
from nnrcodec.limits import Limits

GRAPH = Graph(
    inputs=(Input("image", "float32", ("n", 1, "h", 8)), Input("tokens", "int64", ())),
    nodes=(
        Node("aten.conv2d.default", (Ref(0), TensorRef("a.weight"), None, (1, 1), (2, 2))),
        Node("aten.sym_size.int", (Ref(2), 2)),
        Node("operator.mul", (Ref(3), 2)),
        Node("aten.reshape.default", (Ref(2), (Ref(4), -1))),
        Node("aten.split.Tensor", (Ref(5), 3), (("dim", 1),)),
        Node("operator.getitem", (Ref(6), 0)),
        Node("aten.cat.default", ((Ref(7), Ref(5)),)),
        Node("aten.clamp.default", (Ref(8), -math.inf, 1e-05)),
        Node("aten.to.dtype", (Ref(9), Word("dtype", "bfloat16")), (("copy", True),)),
        Node("aten.index.Tensor", (Ref(10), (None, Ref(1)))),
        Node("aten.mul.Tensor", (Ref(11), 0.5)),
        Node("aten.einsum.default", (Word("equation", "ij->ji"), (Ref(12),))),
    ),
    output={"out": [Ref(13), (Ref(3), None, 2, 0.5, True, -math.inf)], "b": TensorRef("a.weight")},
    dims={"n": Dim(0, None, 2), "h": Dim(3, 64, 16)},
)


def valid():
    return json.loads(json.dumps(to_json(GRAPH), allow_nan=False))


def test_graph_is_read_as_written():
    assert from_json(valid()) == GRAPH
    check(GRAPH, {"a.weight"})


def test_nan_is_read_as_written():
    graph = Graph((), (), (math.nan, 1.0))
    nan, one = from_json(to_json(graph)).output
    assert math.isnan(nan)
    assert isinstance(one, float)


def test_tensor_that_is_not_there_is_refused():
    with pytest.raises(SyntaxElementError, match=r"graph/nodes\[0\]/weight.*no tensor 'a.weight'"):
        check(GRAPH, {"b.weight"})


def set_item(value, path, item):
    *way, last = path
    for key in way:
        value = value[key]
    value[last] = item


MUTATIONS = {
    "operator outside the list": (("ops", 0), "os.system"),
    "operator that does not exist": (("ops", 0), "aten.nonexistent.default"),
    "built-in function": (("ops", 0), "builtins.eval"),
    "library loader": (("ops", 0), "torch.ops.load_library"),
    "attribute of a namespace": (("ops", 0), "operator.attrgetter"),
    "method call": (("ops", 0), "operator.methodcaller"),
    "dunder": (("ops", 0), "aten.__class__"),
    "deep dunder": (("ops", 0), "aten.conv2d.default.__globals__"),
    "other module": (("ops", 0), "torch.load"),
    "operator of another overload": (("ops", 0), "aten.conv2d"),
    "operator with blanks": (("ops", 0), " aten.conv2d.default"),
    "operator that is a number": (("ops", 0), 7),
    "random operator": (("ops", 0), "aten.bernoulli.default"),
    "no such operator": (("nodes", 0, 0), 99),
    "negative operator": (("nodes", 0, 0), -1),
    "truth value as operator": (("nodes", 0, 0), False),
    "empty node": (("nodes", 0), []),
    "node that is an object": (("nodes", 0), {}),
    "reference to itself": (("nodes", 0, 1), {"r": 0}),
    "reference forward": (("nodes", 0, 1), {"r": -1}),
    "reference before the inputs": (("nodes", 0, 1), {"r": 3}),
    "reference that is a string": (("nodes", 0, 1), {"r": "1"}),
    "huge reference": (("nodes", 0, 1), {"r": 10**400}),
    "truth value as reference": (("nodes", 0, 1), {"r": True}),
    "number as tensor": (("nodes", 0, 1), 5),
    "size as tensor": (("nodes", 3, 1), {"r": 1}),
    "list of tensors as tensor": (("nodes", 6, 1, 0), {"r": 2}),
    "none as tensor": (("nodes", 0, 1), None),
    "tensor as size": (("nodes", 3, 2, 0), {"r": 3}),
    "tensor name as size": (("nodes", 3, 2, 0), "a.weight"),
    "tensor as list of tensors": (("nodes", 5, 1), {"r": 2}),
    "number as list": (("nodes", 3, 2), 4),
    "none in a list": (("nodes", 3, 2, 0), None),
    "float as integer": (("nodes", 0, 4, 0), 1.0),
    "truth value as integer": (("nodes", 0, 4, 0), True),
    "huge integer": (("nodes", 0, 4, 0), 2**63),
    "huge number": (("nodes", 10, 2), -(10**400)),
    "infinity as number": (("nodes", 7, 2), math.inf),
    "unknown float": (("nodes", 7, 2), {"f": "infinity"}),
    "float that is a number": (("nodes", 7, 2), {"f": 1}),
    "unknown word": (("nodes", 8, 2), {"dtype": "complex64"}),
    "word of another kind": (("nodes", 8, 2), {"memory_format": "channels_last"}),
    "word of no kind": (("nodes", 8, 2), {"device": "cuda"}),
    "word that is a list": (("nodes", 8, 2), {"dtype": ["float32"]}),
    "object of two members": (("nodes", 8, 2), {"dtype": "float32", "r": 1}),
    "empty object": (("nodes", 8, 2), {}),
    "code as equation": (("nodes", 11, 1), {"equation": "__import__('os')"}),
    "deep lists": (("nodes", 3, 2), [[[[1]]]]),
    "unknown keyword": (("nodes", 4, -1), {"k": {"out": {"r": 1}}}),
    "keyword given twice": (("nodes", 4, -1), {"k": {"self": {"r": 1}}}),
    "keywords that are a list": (("nodes", 4, -1), {"k": []}),
    "too many arguments": (("nodes", 1), [1, {"r": 1}, 2, 3]),
    "too few arguments": (("nodes", 1), [1, {"r": 1}]),
    "input named by code": (("inputs", 0, 0), "x); import os; ("),
    "input without name": (("inputs", 0, 0), ""),
    "input named as another": (("inputs", 1, 0), "image"),
    "input of unknown dtype": (("inputs", 0, 1), "float8"),
    "input of unknown dimension": (("inputs", 0, 2, 0), "w"),
    "input of negative size": (("inputs", 0, 2, 1), -1),
    "input of fractional size": (("inputs", 0, 2, 1), 1.5),
    "input with too few members": (("inputs", 0), ["image", "float32"]),
    "inputs that are an object": (("inputs",), {}),
    "dimension named by code": (("dims", "a b"), [0, None, 2]),
    "dimension without bounds": (("dims", "n"), [0, None]),
    "dimension with a negative bound": (("dims", "n"), [-1, None, 2]),
    "dimension with its example outside": (("dims", "h"), [3, 64, 65]),
    "dims that are a list": (("dims",), []),
    "additional member": (("code",), "print()"),
    "output out of range": (("output",), {"r": 0}),
    "list of tensors returned": (("output",), {"r": 8}),
    "word returned": (("output",), {"dtype": "float32"}),
    "huge integer returned": (("output",), 2**64),
    "dictionary that is a list": (("output",), {"dict": []}),
    "list that is a dictionary": (("output",), {"list": {}}),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_is_refused_with_its_place(mutation):
    path, item = MUTATIONS[mutation]
    value = valid()
    set_item(value, path, item)
    with pytest.raises(SyntaxElementError) as caught:
        from_json(value, path="record/graph")
    assert caught.value.path.startswith("record/graph")


def test_write_into_a_tensor_of_the_model_is_refused():
    for argument in ((TensorRef("a"),), ()):
        kwargs = () if argument else (("self", TensorRef("a")),)
        graph = Graph((), (Node("aten.zero_.default", argument, kwargs),), None)
        with pytest.raises(SyntaxElementError, match="would change"):
            check(graph)


@pytest.mark.parametrize("member", ["inputs", "dims", "ops", "nodes", "output"])
def test_missing_member_is_refused(member):
    value = valid()
    del value[member]
    with pytest.raises(SyntaxElementError, match="members"):
        from_json(value)


def test_too_many_nodes_are_refused_before_they_are_read():
    value = valid()
    value["nodes"] = [None] * 101
    with pytest.raises(LimitExceededError, match="101 nodes"):
        from_json(value, Limits(max_graph_nodes=100))


def test_too_many_axes_are_refused():
    value = valid()
    value["inputs"][0][2] = [1] * 17
    with pytest.raises(LimitExceededError, match="17 dimensions"):
        from_json(value)


def test_deep_output_is_refused_and_a_flatter_one_is_not():
    for depth in (16, 17, 900):
        value = valid()
        value["output"] = None
        for _ in range(depth):
            value["output"] = [value["output"]]
        if depth == 16:
            from_json(value)
        else:
            with pytest.raises(SyntaxElementError, match="containers"):
                from_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused(value):
    with pytest.raises(BitstreamError):
        from_json(value)


@given(st.randoms(use_true_random=False), JSON)
def test_any_mutation_is_read_or_refused(randomness, item):
    value = valid()
    mutate(value, item, randomness)
    try:
        graph = from_json(value)
    except BitstreamError:
        return
    again = json.loads(json.dumps(to_json(graph), allow_nan=False))
    assert to_json(from_json(again)) == to_json(graph)


def mutate(value, item, randomness: random.Random):
    """Put `item`, or another part of the value, in the place of a random part."""
    places = []

    def visit(part):
        for key in list(part) if isinstance(part, dict) else range(len(part)):
            places.append((part, key))
            if isinstance(part[key], dict | list):
                visit(part[key])

    visit(value)
    part, key = randomness.choice(places)
    donor, donor_key = randomness.choice(places)
    part[key] = copy.deepcopy(donor[donor_key]) if randomness.random() < 0.7 else item


def test_reading_a_graph_does_not_import_torch():
    code = (
        "import sys, nnrcodec.graph.graph, nnrcodec.graph.operators, nnrcodec.graph.text;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
