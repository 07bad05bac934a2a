"""Factors multiplied out: from a model with two thin layers in place of one to the original."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.graph.graph import Graph, Splice, TensorRef
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Factors, Model, Tensor
from nnrcodec.reduce.convolutions import join
from nnrcodec.reduce.schemes import Scheme


def check_factors(model: Model) -> None:
    """Raise unless the tensors of a model are what its factors say.

    Parameters
    ----------
    model : Model
        Such as it comes out of a stream.

    Raises
    ------
    ModelError
        A factor is not there, has another shape or is not of floats, or a rank is higher than the
        scheme can have.
    """
    for factors in model.factors:
        scheme = Scheme.of(factors)
        if factors.rank > scheme.maximum_rank:
            raise ModelError(
                f"layer {factors.layer!r} has at most rank {scheme.maximum_rank}, "
                f"not {factors.rank}"
            )
        names = (factors.u, factors.v)
        for name, shape in zip(names, scheme.factor_shapes(factors.rank), strict=True):
            tensor = model.tensors.get(name)
            if tensor is None or tensor.shape != shape or not is_float(tensor.dtype):
                raise ModelError(
                    f"layer {factors.layer!r} needs a float tensor {name!r} of {shape}"
                )


def merge(model: Model) -> Model:
    """Multiply factors out: the original architecture, names and order.

    Nothing is multiplied before the kernel is read; the shapes can be compared with limits first.

    Parameters
    ----------
    model : Model
        A model that `nnrcodec.reduce.low_rank.decompose` made, or one that was decoded from it.

    Returns
    -------
    Model
        Without factors. Kernels are products formed in float64 and rounded to float32, and then
        to their dtype if that is narrower.

    Raises
    ------
    ModelError
        The tensors or the graph do not fit what the factors say.
    """
    check_factors(model)
    kernels: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    factor_of: dict[str, Factors] = {}
    for factors in model.factors:
        if factors.u in factor_of:
            raise ModelError(f"layer {factors.layer!r} has factors twice")
        factor_of[factors.u] = factor_of[factors.v] = factors
        kernels[factors.u] = _merged_kernel(model, factors)
        if factors.v_bias in model.tensors:
            names[factors.v_bias] = f"{factors.layer}.bias"
        merged = {kernels[factors.u].name, names.get(factors.v_bias, "")}
        if not model.tensors.keys().isdisjoint(merged - {""}):
            raise ModelError(f"there already is a weight or bias of layer {factors.layer!r}")

    def tensors() -> Iterator[Tensor]:
        for tensor in model.tensors.values():
            if tensor.name in kernels:
                yield kernels[tensor.name]
            elif tensor.name in names:
                yield replace(tensor, name=names[tensor.name])
            elif tensor.name not in factor_of:
                yield tensor

    graph = model.graph and _merged_graph(model.graph, model.factors).rename(names)
    merged_model = Model.of(tensors(), graph, onnx=model.onnx)
    if graph is None or model.onnx is None:
        return merged_model
    of_file = {n: old for n, old in model.onnx.names.items() if n in merged_model.tensors}
    names = {**graph.original_names, **of_file}
    return replace(merged_model, graph=replace(graph, original_names=names))


def _merged_kernel(model: Model, factors: Factors) -> Tensor:
    u, v = model.tensors[factors.u], model.tensors[factors.v]

    def read() -> np.ndarray:
        return cast(Scheme.of(factors).merge(u.read(), v.read()), u.dtype)

    return Tensor(f"{factors.layer}.weight", u.dtype, factors.kernel_shape, read, u.role)


def _merged_graph(graph: Graph, all_factors: Iterable[Factors]) -> Graph:
    splices = {}
    for factors in all_factors:
        u, v = TensorRef(factors.u), TensorRef(factors.v)
        error = ModelError(f"the graph does not use {u.name!r} and {v.name!r} one after the other")
        users = graph.users(v)
        for user in users:
            first, second = graph.nodes[user - 1], graph.nodes[user]
            follows = user > 0 and second.args[:2] == (graph.ref(user - 1), v)
            follows = follows and first.args[1:2] == (u,)
            alone = graph.uses(graph.ref(user - 1)) == [user]
            weight, scheme = f"{factors.layer}.weight", Scheme.of(factors)
            joined = join(first, second, weight, scheme) if follows and alone else None
            if joined is None:
                raise error
            splices[user] = Splice(user - 1, user + 1, (joined,))
        if len(graph.uses(v)) != len(users) or len(graph.uses(u)) != len(users):
            raise error
    return graph.splice(splices[user] for user in sorted(splices))
