"""Convolutions and linear layers followed by a batch norm, found by the graph, not by names."""

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
    """A convolution or linear layer with the batch norm that is the only user of its result.

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
        Constant that is added to the variance.
    channel_shape : tuple of int
        Shape for broadcasting to the weight, with output channels along axes 0 and 2: (N, 1, 1), or
        for a transposed convolution (groups, inputs of a group, outputs of a group).
    convolution, batch_norm : Ref
        The values of the two nodes.
    result : Ref
        The normalized tensor: `batch_norm`, or the node that selects it from a list.
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
    """Return the convolutions and linear layers whose only user is a batch norm.

    Convolutions have one, two or three axes and may be grouped or transposed. The batch norm must
    use its running statistics. Each tensor of both must be used once in the whole graph, because a
    shared tensor would need a different value for each layer.

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
    results = Normalizations.of(model).results().values()
    return tuple(result for result in results if isinstance(result, NormalizedConvolution))


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
"""Returns a list whose first item is the normalized tensor."""


def layer_name(weight: str) -> str:
    """Return the name of a layer by that of its weight."""
    return weight.removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class Normalizations:
    """The search for normalized layers in a model.

    Parameters
    ----------
    model : Model
        With a graph.
    graph : Graph
        Its graph.
    axes : list of int or None
        Number of axes of each value; None where it is not known.
    """

    model: Model
    graph: Graph
    axes: list[int | None]

    @classmethod
    def of(cls, model: Model) -> Normalizations:
        """Return the search in a model, which must have a graph."""
        graph = model.graph
        if graph is None:
            raise ModelError(
                "batch norms are found in the graph of a network, and this model has tensors only: "
                "it takes a .pt2 file or example inputs"
            )
        return cls(model, graph, _axes(graph, model.tensors))

    def results(self) -> dict[str, NormalizedConvolution | str]:
        """Return the normalized layer of each weight, or why there is none."""
        results: dict[str, NormalizedConvolution | str] = {}
        for position, node in enumerate(self.graph.nodes):
            weight = _arguments(node).get("weight") if node.op in _LAYERS else None
            if isinstance(weight, TensorRef) and weight.name not in results:
                results[weight.name] = self.layer_at(position, weight.name)
        return results

    def layer_at(self, position: int, weight: str) -> NormalizedConvolution | str:
        """Return the layer at a position with its batch norm, or why it has none."""
        node, value = self.graph.nodes[position], self.graph.ref(position)
        normalizing = [user for user in self.graph.users(value) if self.normalizes(user, value)]
        if not normalizing:
            return "no batch norm follows it"
        if len(self.graph.uses(value)) > 1:
            return "a batch norm is not the only user of its result"
        batch_norm = self.graph.ref(normalizing[0])
        result = self.result_of(normalizing[0])
        if result is None:
            return "the statistics of the batch norm after it are used as well"
        arguments = _arguments(self.graph.nodes[normalizing[0]])
        mean, var, eps = (arguments.get(name) for name in ("running_mean", "running_var", "eps"))
        gamma, beta = arguments.get("weight"), arguments.get("bias")
        bias = _arguments(node).get("bias")
        if arguments.get("training", False) is not False or mean is None or var is None:
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
        """Return the normalized tensor; None if the statistics in the same list are used."""
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
        """Return the channel shape of a layer, or why its tensors or shapes do not qualify.

        Parameters
        ----------
        node : Node
            The layer.
        weight : str
            Name of its weight.
        vectors : list of str
            Names of all other tensors of the layer and its batch norm.
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
    """Return the shape of a weight in which axes 0 and 2 are its output channels.

    Ordinary weights have all output channels in their first axis. Those of transposed convolutions
    have input channels there, group by group, and the output channels of a group in the second.
    """
    given = _arguments(node)
    groups = given.get("groups", 1)
    if len(shape) < 2 or 0 in shape or type(groups) is not int or groups < 1 or shape[0] % groups:
        return None
    if node.op in _TRANSPOSED or given.get("transposed") is True:
        return groups, shape[0] // groups, shape[1]
    return shape[0], 1, 1


# The number of axes of values. A batch norm is over axis 1: this is the channel axis of a layer if
# its input has a batch axis, and, for a linear layer, no others.


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
"""Operators whose result has as many axes as the argument with most axes."""


def _axes(graph: Graph, tensors: Mapping[str, Tensor]) -> list[int | None]:
    """Return the number of axes of each value; None where it is not known."""
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
            arguments = _arguments(node)
            axes = [axes_of(argument) for argument in arguments.values()]
            known.append(_axes_of_result(operator, arguments, axes))
    return known


def _axes_of_result(
    operator: str, given: dict[str, Argument], axes_of_arguments: list[int | None]
) -> int | None:
    """Return the number of axes of a result, from the arguments and their numbers of axes."""
    name = operator if operator.startswith("__") else operator.removesuffix("_")
    if name in {"view", "_unsafe_view", "reshape", "expand"}:
        size = given.get("size", given.get("shape"))
        return len(size) if isinstance(size, tuple) else None
    first = axes_of_arguments[0] if axes_of_arguments else None
    if first is None or name in _AS_MANY_AXES:
        return first
    if name in _BROADCASTING:
        known = [axes for axes in axes_of_arguments if axes is not None]
        return max(known) if len(known) == len(axes_of_arguments) else None
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
