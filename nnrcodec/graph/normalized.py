"""Convolutions and linear layers that a batch norm follows, as the graph tells; names do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnrcodec.errors import ModelError
from nnrcodec.graph.graph import Argument, Graph, Node, Ref, TensorRef
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.model.dtypes import is_float
from nnrcodec.model.model import Model, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedConvolution:
    """A convolution or linear layer with the batch norm that is all that uses its result.

    Parameters
    ----------
    weight : str
        Name of its weight.
    bias : str or None
        Name of its bias.
    gamma, beta : str or None
        Names of weight and bias of the batch norm.
    running_mean, running_var : str
        Names of its statistics.
    eps : float
        What is added to the variance.
    channel_shape : tuple of int
        Shape of the weight with the axes that do not matter put together: axes 0 and 2 are its
        output channels. It is (N, 1, 1) unless the convolution is transposed, and then
        (groups, inputs of each, outputs of each).
    convolution, batch_norm : Ref
        The values of the two nodes.
    result : Ref
        The normalized tensor: `batch_norm`, or the value of the node that takes it from a list.
    """

    weight: str
    bias: str | None
    gamma: str | None
    beta: str | None
    running_mean: str
    running_var: str
    eps: float
    channel_shape: tuple[int, int, int]
    convolution: Ref
    batch_norm: Ref
    result: Ref

    @property
    def layer(self) -> str:
        """Name of the weight without ``.weight``."""
        return layer_name(self.weight)


def normalized_convolutions(model: Model) -> tuple[NormalizedConvolution, ...]:
    """Return the convolutions and linear layers that are used by a batch norm only.

    Convolutions have one, two or three axes and may be grouped or transposed. The batch norm must
    use its running statistics. Each of the tensors of both must be used once in the whole graph:
    what layers share would have to be different for each of them.

    Parameters
    ----------
    model : Model
        With a graph.

    Returns
    -------
    tuple of NormalizedConvolution
        In the order of the graph.

    Raises
    ------
    ModelError
        If the model has no graph.
    """
    found = Normalizations.of(model).results().values()
    return tuple(each for each in found if isinstance(each, NormalizedConvolution))


_LINEAR = "aten.linear.default"
_TRANSPOSED = frozenset(
    {
        "aten.conv_transpose1d.default",
        "aten.conv_transpose2d.input",
        "aten.conv_transpose3d.input",
    }
)
_LAYERS = _TRANSPOSED | {
    _LINEAR,
    "aten.convolution.default",
    *(f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")),
}
_BATCH_NORM = "aten.batch_norm.default"
_BATCH_NORM_WITH_STATISTICS = "aten._native_batch_norm_legit_no_training.default"
"""Returns a list, of which the first is the normalized tensor."""


def layer_name(weight: str) -> str:
    """Return the name of a layer by that of its weight."""
    return weight.removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class Normalizations:
    """A model with what the search needs to know of its graph.

    Parameters
    ----------
    model : Model
        With a graph.
    graph : Graph
        Its graph.
    axes : list of int or None
        How many axes each value has, where that is known.
    """

    model: Model
    graph: Graph
    axes: list[int | None]

    @classmethod
    def of(cls, model: Model) -> Normalizations:
        """Return what the search needs to know of a model, which must have a graph."""
        graph = model.graph
        if graph is None:
            raise ModelError(
                "batch norms are found in the graph of a network, and this model has tensors only: "
                "it takes a .pt2 file or example inputs"
            )
        return cls(model, graph, _axes(graph, model.tensors))

    def results(self) -> dict[str, NormalizedConvolution | str]:
        """Return for each weight of a layer what was found, or why it does not qualify."""
        found: dict[str, NormalizedConvolution | str] = {}
        for position, node in enumerate(self.graph.nodes):
            weight = _arguments(node).get("weight") if node.op in _LAYERS else None
            if isinstance(weight, TensorRef) and weight.name not in found:
                found[weight.name] = self.found_at(position, weight.name)
        return found

    def found_at(self, position: int, weight: str) -> NormalizedConvolution | str:
        """Return the layer at a position together with its batch norm, or why it has none."""
        node, value = self.graph.nodes[position], self.graph.ref(position)
        normalizing = [user for user in self.graph.users(value) if self.normalizes(user, value)]
        if not normalizing:
            return "no batch norm follows it"
        if len(self.graph.uses(value)) > 1:
            return "a batch norm is not all that uses its result"
        batch_norm = self.graph.ref(normalizing[0])
        result = self.result_of(normalizing[0])
        if result is None:
            return "the statistics of the batch norm after it are used as well"
        given = _arguments(self.graph.nodes[normalizing[0]])
        mean, var, eps = (given.get(name) for name in ("running_mean", "running_var", "eps"))
        gamma, beta, bias = given.get("weight"), given.get("bias"), _arguments(node).get("bias")
        if given.get("training", False) is not False or mean is None or var is None:
            return "the batch norm after it computes its statistics from its input"
        if isinstance(eps, bool) or not isinstance(eps, int | float):
            return "the eps of the batch norm after it is computed by the graph"
        names = []
        for tensor in (mean, var, gamma, beta, bias):
            if not isinstance(tensor, TensorRef | None):
                return "its bias or a tensor of the batch norm after it is computed by the graph"
            names.append(None if tensor is None else tensor.name)
        shape = self.channel_shape(node, weight, [name for name in names if name is not None])
        if isinstance(shape, str):
            return shape
        return NormalizedConvolution(
            weight=weight,
            bias=names[4],
            gamma=names[2],
            beta=names[3],
            running_mean=str(names[0]),
            running_var=str(names[1]),
            eps=float(eps),
            channel_shape=shape,
            convolution=value,
            batch_norm=batch_norm,
            result=result,
        )

    def normalizes(self, position: int, value: Ref) -> bool:
        """Return whether the node at a position is a batch norm of a value."""
        node = self.graph.nodes[position]
        is_batch_norm = node.op in (_BATCH_NORM, _BATCH_NORM_WITH_STATISTICS)
        return is_batch_norm and _arguments(node)["input"] == value

    def result_of(self, position: int) -> Ref | None:
        """Return the normalized tensor; None if the statistics beside it are used."""
        value = self.graph.ref(position)
        if self.graph.nodes[position].op == _BATCH_NORM:
            return value
        users = self.graph.users(value)
        once = len(self.graph.uses(value)) == 1
        if not (once and users and self.graph.nodes[users[0]].args == (value, 0)):
            return None
        return self.graph.ref(users[0])

    def channel_shape(
        self, node: Node, weight: str, vectors: list[str]
    ) -> tuple[int, int, int] | str:
        """Return how a layer has its channels, or what is wrong with its tensors or shapes.

        Parameters
        ----------
        node : Node
            The layer.
        weight : str
            Name of its weight.
        vectors : list of str
            Names of all other tensors of it and its batch norm.
        """
        for name in (weight, *vectors):
            if name not in self.model.tensors:
                return f"there is no tensor {name!r}"
            if len(self.graph.uses(TensorRef(name))) > 1:
                return f"{name!r} is used more than once"
            if not is_float(self.model.tensors[name].dtype):
                return f"{name!r} is of dtype {self.model.tensors[name].dtype}"
        shape = self.model.tensors[weight].shape
        channels = _channel_shape(node, shape)
        if channels is None:
            return f"its weight of shape {shape} is empty or does not fit its groups"
        outputs = channels[0] * channels[2]
        if any(self.model.tensors[name].shape != (outputs,) for name in vectors):
            return f"its bias or the batch norm after it does not have its {outputs} channels"
        value = _arguments(node)["input"]
        axes = self.axes[value.index] if isinstance(value, Ref) else None
        if axes is None:
            return "it is not known how many axes its input has, and which are its channels"
        if axes != len(shape):
            return f"its input has {axes} axes, so that the batch norm is not over its channels"
        return channels


def _arguments(node: Node) -> dict[str, Argument]:
    """Return the arguments of a node by name."""
    names = (parameter.name for parameter in OPERATORS[node.op].positional)
    return {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}


def _channel_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the shape that parts the output channels of a weight into its axes 0 and 2.

    Plain weights have all of them in their first axis. Those of transposed convolutions have one
    group of input channels after the other there, each with its output channels in the second.
    """
    given = _arguments(node)
    groups = given.get("groups", 1)
    if len(shape) < 2 or 0 in shape or type(groups) is not int or groups < 1 or shape[0] % groups:
        return None
    if node.op in _TRANSPOSED or given.get("transposed") is True:
        return groups, shape[0] // groups, shape[1]
    return shape[0], 1, 1


# How many axes values have. A batch norm is over axis 1: that is where the channels of a layer are
# if its input has an axis for the batch, and, for a linear layer, no other.


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AS_MANY_AXES = _words(
    """
    relu relu6 selu silu mish hardswish hardsigmoid sigmoid log_sigmoid tanh leaky_relu prelu rrelu
    elu celu gelu hardtanh hardshrink softshrink softplus threshold glu softmax log_softmax
    _softmax _log_softmax dropout feature_dropout alpha_dropout feature_alpha_dropout
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d pixel_shuffle pixel_unshuffle
    channel_shuffle pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear
    batch_norm instance_norm layer_norm group_norm rms_norm
    _native_batch_norm_legit_no_training cat concat concatenate split split_with_sizes chunk
    slice narrow permute flip transpose alias detach lift_fresh contiguous clone roll to _to_copy
    type_as getitem
    """
)
"""Operators whose result, or each item of it, has as many axes as their first argument."""

_BROADCASTING = _words(
    """
    add sub rsub subtract mul multiply div divide true_divide maximum minimum pow square neg abs
    sqrt rsqrt exp log reciprocal clamp clamp_min clamp_max where addcmul addcdiv
    """
)
"""Operators whose result has as many axes as the one of their arguments that has most."""


def _axes(graph: Graph, tensors: Mapping[str, Tensor]) -> list[int | None]:
    """Return how many axes each value has; None for what is not known."""
    known: list[int | None] = [len(value.shape) for value in graph.inputs]
    operators = [node.op.split(".")[1] for node in graph.nodes]
    if not {"squeeze_", "unsqueeze_"}.isdisjoint(operators):  # these change earlier values, too
        return [None] * (len(known) + len(operators))

    def axes_of(argument: Argument) -> int | None:
        if isinstance(argument, tuple):
            return axes_of(argument[0]) if argument else None
        if isinstance(argument, Ref):
            return known[argument.index]
        if isinstance(argument, TensorRef):
            return len(tensors[argument.name].shape) if argument.name in tensors else None
        return 0

    for node, operator in zip(graph.nodes, operators, strict=True):
        if OPERATORS[node.op].result == "Scalar":
            known.append(0)
        else:
            given = _arguments(node)
            several = [axes_of(argument) for argument in given.values()]
            known.append(_axes_of_result(operator, given, several))
    return known


def _axes_of_result(
    operator: str, given: dict[str, Argument], several: list[int | None]
) -> int | None:
    """Return the axes of a result, from the arguments and how many axes each of them has."""
    name = operator if operator.startswith("__") else operator.removesuffix("_")
    if name in {"view", "_unsafe_view", "reshape", "expand"}:
        size = given.get("size", given.get("shape"))
        return len(size) if isinstance(size, tuple) else None
    first = several[0] if several else None
    if first is None or name in _AS_MANY_AXES:
        return first
    if name in _BROADCASTING:
        return None if None in several else max(axes for axes in several if axes is not None)
    match name:
        case "flatten":
            start, end = given.get("start_dim", 0), given.get("end_dim", -1)
            if first and type(start) is int and type(end) is int:
                return first - (end % first - start % first)
        case "unsqueeze":
            return first + 1
        case "select":
            return first - 1
        case "mean" | "sum" | "amax" | "amin":
            reduced = given.get("dim")
            if given.get("keepdim") is True:
                return first
            if isinstance(reduced, tuple) and reduced:
                return first - len(reduced)
    return None
