import pytest

from nnrcodec.graph.graph import Local, Node, Ref, TensorRef, Word
from nnrcodec.reduce.convolutions import join, obstacle, split, stride
from nnrcodec.reduce.schemes import Scheme

W, B, U, V = (TensorRef(name) for name in ("w", "b", "u", "v"))
SAME, VALID = Word("padding", "same"), Word("padding", "valid")
PLAIN, PADDED = "aten.conv2d.default", "aten.conv2d.padding"
TRANSPOSED, LINE, FULLY = (
    "aten.conv_transpose2d.input",
    "aten.conv1d.default",
    "aten.linear.default",
)
SEPARABLE, CHANNEL = Scheme("separable", (8, 4, 3, 3)), Scheme("channel", (8, 4, 3, 3))

CONVOLUTIONS = [
    Node(PLAIN, (Ref(0), W)),
    Node(PLAIN, (Ref(0), W, None)),
    Node(PLAIN, (Ref(0), W, B)),
    Node(PLAIN, (Ref(0), W, B, (2, 3))),
    Node(PLAIN, (Ref(0), W, None, (2, 2), (1, 2))),
    Node(PLAIN, (TensorRef("image"), W, B, (1, 2), (3, 0), (2, 1), 1)),
    Node(PADDED, (Ref(0), W)),
    Node(PADDED, (Ref(0), W, B, (1, 1), SAME)),
    Node(PADDED, (Ref(0), W, None, (3, 2), VALID, (2, 3), 1)),
]
TRANSPOSED_CONVOLUTIONS = [
    Node(TRANSPOSED, (Ref(0), W)),
    Node(TRANSPOSED, (Ref(0), W, B, (2, 3))),
    Node(TRANSPOSED, (Ref(0), W, None, (2, 2), (1, 2), (1, 0), 1, (1, 3))),
]
OTHERS = [
    (Node(LINE, (Ref(0), W)), Scheme("channel", (8, 4, 3))),
    (Node(LINE, (Ref(0), W, B, (2,), (1,))), Scheme("channel", (8, 4, 3))),
    (Node("aten.conv1d.padding", (Ref(0), W, B, (1,), SAME)), Scheme("channel", (8, 4, 4))),
    (
        Node("aten.conv_transpose1d.default", (Ref(0), W, B, (2,), (1,), (1,))),
        Scheme("channel", (8, 4, 3), transposed=True),
    ),
    (Node(FULLY, (Ref(0), W)), Scheme("linear", (8, 4))),
    (Node(FULLY, (Ref(0), W, B)), Scheme("linear", (8, 4))),
    *((node, CHANNEL) for node in CONVOLUTIONS),
    *((node, SEPARABLE) for node in CONVOLUTIONS),
    *((n, Scheme("channel", (8, 4, 3, 3), transposed=True)) for n in TRANSPOSED_CONVOLUTIONS),
    *((n, Scheme("separable", (8, 4, 3, 3), transposed=True)) for n in TRANSPOSED_CONVOLUTIONS),
]


def parts(node, scheme=SEPARABLE):
    first, second = split(node, "u", "v", scheme)
    args = (Ref(7), *second.args[1:])  # as Graph.splice does with Local(0)
    return first, Node(second.op, args)


@pytest.mark.parametrize(("node", "scheme"), OTHERS)
def test_join_gives_back_what_was_split(node, scheme):
    assert obstacle(node, W) is None
    assert join(*parts(node, scheme), "w", scheme) == node


def test_the_second_layer_of_the_channel_scheme_only_mixes_channels():
    node = Node(PADDED, (Ref(3), W, B, (1, 1), SAME, (2, 2)))
    assert split(node, "u", "v", CHANNEL) == (
        Node(PADDED, (Ref(3), U, None, (1, 1), SAME, (2, 2))),
        Node(PLAIN, (Local(0), V, B)),
    )
    node = Node(TRANSPOSED, (Ref(3), W, B, (2, 2)))
    assert split(node, "u", "v", CHANNEL) == (
        Node(TRANSPOSED, (Ref(3), U, None, (2, 2))),
        Node(PLAIN, (Local(0), V, B)),
    )


def test_output_padding_parts_along_its_axes():
    node = Node(TRANSPOSED, (Ref(3), W, B, (2, 3), (1, 4), (1, 2), 1, (5, 6)))
    assert split(node, "u", "v", SEPARABLE) == (
        Node(TRANSPOSED, (Ref(3), U, None, (2, 1), (1, 0), (1, 0), 1, (5, 1))),
        Node(TRANSPOSED, (Local(0), V, B, (1, 3), (0, 4), (0, 2), 1, (1, 6))),
    )


def test_strides():
    assert stride(Node(PLAIN, (Ref(0), W, None, 2))) == (2, 2)
    assert stride(Node(PLAIN, (Ref(0), W, None, (2, 3)))) == (2, 3)
    assert stride(Node(LINE, (Ref(0), W))) == (1,)
    assert stride(Node(FULLY, (Ref(0), W))) == ()


def test_stride_padding_and_dilation_part_along_their_axes():
    node = Node(PLAIN, (Ref(3), W, B, (2, 3), (1, 4), (5, 6), 1))
    assert split(node, "u", "v", SEPARABLE) == (
        Node(PLAIN, (Ref(3), U, None, (2, 1), (1, 0), (5, 1), 1)),
        Node(PLAIN, (Local(0), V, B, (1, 3), (0, 4), (1, 6), 1)),
    )
    node = Node(PADDED, (Ref(3), W, None, (1, 1), SAME))
    assert split(node, "u", "v", SEPARABLE) == (
        Node(PADDED, (Ref(3), U, None, (1, 1), SAME)),
        Node(PADDED, (Local(0), V, None, (1, 1), SAME)),
    )


def test_one_number_stands_for_both_axes():
    vertical, horizontal = split(Node(PLAIN, (Ref(0), W, None, (2,), 1)), "u", "v", SEPARABLE)
    assert vertical.args[3:] == ((2, 1), (1, 0))
    assert horizontal.args[3:] == ((1, 2), (0, 1))


@pytest.mark.parametrize("scheme", [SEPARABLE, CHANNEL])
@pytest.mark.parametrize("node", CONVOLUTIONS)
def test_defaults_that_an_exporter_left_out_do_not_hinder_join(node, scheme):
    def trimmed(node):
        valid = VALID if node.op == PADDED else (0, 0)
        defaults = (None, None, None, (1, 1), valid, (1, 1), 1)
        args = node.args
        while len(args) > 2 and args[-1] == defaults[len(args) - 1]:
            args = args[:-1]
        return Node(node.op, args)

    first, second = parts(node, scheme)
    assert trimmed(join(trimmed(first), trimmed(second), "w", scheme)) == trimmed(node)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node("aten.bilinear.default", (Ref(0), Ref(1), W)), "used by aten.bilinear"),
        (Node(TRANSPOSED, (Ref(0), W, B, 2, 0, (Ref(1), 0))), "not constant"),
        (Node(TRANSPOSED, (Ref(0), W, B, 2, 0, 0, 3)), "3 groups"),
        (Node(FULLY, (W, W)), "not only the weight of a linear layer"),
        (Node("aten.add.Tensor", (W, Ref(0))), "used by aten.add.Tensor"),
        (Node(PLAIN, (Ref(0), W, B, (1, 1), (1, 1), (1, 1), 4)), "4 groups"),
        (Node(PLAIN, (Ref(0), W, None, (Ref(1), 1))), "not constant"),
        (Node(PLAIN, (Ref(0), W), (("stride", (1, 1)),)), "keyword"),
        (Node(PLAIN, (W, TensorRef("x"))), "not only the weight"),
        (Node(PLAIN, (W, W)), "not only the weight"),
        (Node(PLAIN, (W,)), "not only the weight"),
    ],
)
def test_what_cannot_be_split_has_a_reason(node, reason):
    assert reason in obstacle(node, W)


NOT_SEPARABLE = [
    (Node(PLAIN, (Ref(0), U)), Node(PADDED, (Ref(1), V))),
    (Node("aten.relu.default", (Ref(0), U)), Node("aten.relu.default", (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U, B)), Node(PLAIN, (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U, None, (1, 2))), Node(PLAIN, (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (1, 0)))),
    (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (0, 0), (1, 1), 2))),
    (Node(PLAIN, (Ref(0), U), (("groups", 1),)), Node(PLAIN, (Ref(1), V))),
    (Node(PADDED, (Ref(0), U, None, (1, 1), SAME)), Node(PADDED, (Ref(1), V))),
    (Node(TRANSPOSED, (Ref(0), U)), Node(TRANSPOSED, (Ref(1), V))),
    (Node(LINE, (Ref(0), U)), Node(LINE, (Ref(1), V))),
]
NO_CHANNEL_PAIR = [
    (Node(PLAIN, (Ref(0), U)), Node(PADDED, (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U)), Node("aten.relu.default", (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U, B)), Node(PLAIN, (Ref(1), V))),
    (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 2)))),
    (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (1, 1)))),
    (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (0, 0), (1, 1), 2))),
    (Node(PLAIN, (Ref(0), U, None, 1, 0, 1, 2)), Node(PLAIN, (Ref(1), V))),
    (Node(TRANSPOSED, (Ref(0), U)), Node(PLAIN, (Ref(1), V))),
]


@pytest.mark.parametrize(
    ("first", "second", "scheme"),
    [
        *((*pair, SEPARABLE) for pair in NOT_SEPARABLE),
        *((*pair, CHANNEL) for pair in NO_CHANNEL_PAIR),
    ],
)
def test_what_is_not_one_layer_is_not_joined(first, second, scheme):
    assert join(first, second, "w", scheme) is None
