import pytest

from nnrcodec.graph.graph import Local, Node, Ref, TensorRef, Word
from nnrcodec.reduce.convolutions import join, obstacle, split

W, B, U, V = (TensorRef(name) for name in ("w", "b", "u", "v"))
SAME, VALID = Word("padding", "same"), Word("padding", "valid")
PLAIN, PADDED = "aten.conv2d.default", "aten.conv2d.padding"

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


def parts(node):
    vertical, horizontal = split(node, "u", "v")
    args = (Ref(7), *horizontal.args[1:])  # as Graph.splice does with Local(0)
    return vertical, Node(horizontal.op, args)


@pytest.mark.parametrize("node", CONVOLUTIONS)
def test_join_gives_back_what_was_split(node):
    assert obstacle(node, W) is None
    assert join(*parts(node), "w") == node


def test_stride_padding_and_dilation_part_along_their_axes():
    node = Node(PLAIN, (Ref(3), W, B, (2, 3), (1, 4), (5, 6), 1))
    assert split(node, "u", "v") == (
        Node(PLAIN, (Ref(3), U, None, (2, 1), (1, 0), (5, 1), 1)),
        Node(PLAIN, (Local(0), V, B, (1, 3), (0, 4), (1, 6), 1)),
    )
    node = Node(PADDED, (Ref(3), W, None, (1, 1), SAME))
    assert split(node, "u", "v") == (
        Node(PADDED, (Ref(3), U, None, (1, 1), SAME)),
        Node(PADDED, (Local(0), V, None, (1, 1), SAME)),
    )


def test_one_number_stands_for_both_axes():
    vertical, horizontal = split(Node(PLAIN, (Ref(0), W, None, (2,), 1)), "u", "v")
    assert vertical.args[3:] == ((2, 1), (1, 0))
    assert horizontal.args[3:] == ((1, 2), (0, 1))


@pytest.mark.parametrize("node", CONVOLUTIONS)
def test_defaults_that_an_exporter_left_out_do_not_hinder_join(node):
    def trimmed(node):
        valid = VALID if node.op == PADDED else (0, 0)
        defaults = (None, None, None, (1, 1), valid, (1, 1), 1)
        args = node.args
        while len(args) > 2 and args[-1] == defaults[len(args) - 1]:
            args = args[:-1]
        return Node(node.op, args)

    vertical, horizontal = parts(node)
    assert trimmed(join(trimmed(vertical), trimmed(horizontal), "w")) == trimmed(node)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node("aten.conv_transpose2d.input", (Ref(0), W)), "used by aten.conv_transpose2d"),
        (Node("aten.add.Tensor", (W, Ref(0))), "used by aten.add.Tensor"),
        (Node(PLAIN, (Ref(0), W, B, (1, 1), (1, 1), (1, 1), 4)), "4 groups"),
        (Node(PLAIN, (Ref(0), W, None, (Ref(1), 1))), "not constant"),
        (Node(PLAIN, (Ref(0), W), (("stride", (1, 1)),)), "keyword"),
        (Node(PLAIN, (W, TensorRef("x"))), "not just the kernel"),
        (Node(PLAIN, (W, W)), "not just the kernel"),
        (Node(PLAIN, (W,)), "not just the kernel"),
    ],
)
def test_what_cannot_be_split_has_a_reason(node, reason):
    assert reason in obstacle(node, W)


@pytest.mark.parametrize(
    ("vertical", "horizontal"),
    [
        (Node(PLAIN, (Ref(0), U)), Node(PADDED, (Ref(1), V))),
        (Node("aten.relu.default", (Ref(0), U)), Node("aten.relu.default", (Ref(1), V))),
        (Node(PLAIN, (Ref(0), U, B)), Node(PLAIN, (Ref(1), V))),
        (Node(PLAIN, (Ref(0), U, None, (1, 2))), Node(PLAIN, (Ref(1), V))),
        (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (1, 0)))),
        (Node(PLAIN, (Ref(0), U)), Node(PLAIN, (Ref(1), V, None, (1, 1), (0, 0), (1, 1), 2))),
        (Node(PLAIN, (Ref(0), U), (("groups", 1),)), Node(PLAIN, (Ref(1), V))),
        (Node(PADDED, (Ref(0), U, None, (1, 1), SAME)), Node(PADDED, (Ref(1), V))),
    ],
)
def test_what_is_not_one_convolution_is_not_joined(vertical, horizontal):
    assert join(vertical, horizontal, "w") is None
