"""Low-rank reduction: layers replaced by two thin ones.

`decompose` replaces a layer ``L`` with weight ``L.weight`` by ``L.u`` and ``L.v``, in the tensors
and in the graph; `nnrcodec.decoder.merging.merge` is the way back. Both leave their input
untouched.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.graph import Splice, TensorRef
from nnrcodec.graph.names import without_unused_names
from nnrcodec.messages import some
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Factors, Model, Role, SchemeName, Tensor
from nnrcodec.reduce.candidates import Candidate, candidates
from nnrcodec.reduce.convolutions import split
from nnrcodec.reduce.ranks import LowRankConfig
from nnrcodec.reduce.schemes import Scheme

Factorize = Callable[
    [str, Tensor, np.ndarray, Scheme, int],
    tuple[np.ndarray, np.ndarray, np.ndarray | None, float],
]
"""Returns the factors of one layer, in place of the truncated singular value decomposition.

It is called with the name of the layer, its weight, the values of the weight, a scheme and a rank.
It returns U and V in the shapes of the scheme, the correction of the bias or None, and the error of
the factors. Among the schemes for a layer the one with the lowest error is used, so the error may
have any scale that is the same for all schemes. Only a layer with an `own_bias` can have a
correction.
"""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What was done to one layer, and why.

    Parameters
    ----------
    layer : str
        Name of the weight without ``.weight``.
    shape : tuple of int
        Shape of the weight before.
    rank : int or None
        Channels between the two layers; None if the layer was left alone.
    energy_kept : float
        Part of the sum of squared singular values that this rank keeps at most; 1 if the layer was
        left alone.
    parameters_before, parameters_after : int
        Elements of the weight, and of its factors.
    reason : str or None
        Why the layer was left alone; None if it was decomposed.
    scheme : "separable", "channel", "linear" or None
        How it was decomposed; None if it was left alone.
    """

    layer: str
    shape: tuple[int, ...]
    rank: int | None
    energy_kept: float
    parameters_before: int
    parameters_after: int
    reason: str | None
    scheme: SchemeName | None = None


def decompose(
    model: Model, config: LowRankConfig, factorize: Factorize | None = None
) -> tuple[Model, tuple[LayerReport, ...]]:
    """Replace layers by two thin ones each, in the schemes of `nnrcodec.reduce.schemes`.

    Eligible are convolutions of one to three axes with one group, transposed ones too, and linear
    layers, whose weight is used for nothing else. Without a graph it is the shape of the weight
    that decides; what shapes do not tell, that a kernel is grouped or transposed, remains unseen.

    Parameters
    ----------
    model : Model
        With or without a graph.
    config : LowRankConfig
        Which layers, and how to choose schemes and ranks.
    factorize : callable, optional
        Makes the factors in place of the truncated singular value decomposition of the weight,
        which has the least error in the weight itself (Frobenius norm). See `Factorize`.

    Returns
    -------
    model : Model
        ``L.weight`` has become ``L.u.weight`` and ``L.v.weight``, of its dtype and in its place;
        the bias of the layer, ``L.bias``, is called ``L.v.bias``.
    reports : tuple of LayerReport
        One for each float parameter with two or more dimensions, in the order of the model.

    Raises
    ------
    ConfigError
        A layer that is given a rank does not exist, cannot be decomposed, or has no such rank.
    ModelError
        What `factorize` returns does not fit.
    """
    if config.needs_inputs:
        raise ConfigError(
            "ranks that follow from what they do to the output need calibration inputs"
        )
    ranks = config.ranks or {}
    weights = {
        tensor.name.removesuffix(".weight"): tensor
        for tensor in model.tensors.values()
        if tensor.role is Role.PARAMETER and is_float(tensor.dtype) and len(tensor.shape) > 1
    }
    for layer in ranks:
        if layer not in weights:
            hint = f"there are {some(weights) or 'none'}"
            if near := difflib.get_close_matches(layer, weights, n=3, cutoff=0.4):
                hint = f"do you mean {' or '.join(near)}?"
            raise ConfigError(f"there is no layer {layer!r} with a weight; {hint}")
    reports = []
    for layer, weight in weights.items():
        result = candidates(layer, weight, model, config)
        if isinstance(result, str):
            if layer in ranks:
                raise ConfigError(f"layer {layer!r} cannot be decomposed: {result}")
            size = weight.size
            reports.append(LayerReport(layer, weight.shape, None, 1.0, size, size, result))
            continue
        best = min((_pair(layer, weight, c, factorize) for c in result), key=lambda p: p.error)
        model = _with_pair(model, best)
        reports.append(best.report())
    return model, tuple(reports)


def own_bias(model: Model, layer: str) -> Tensor | None:
    """Return the bias that belongs to one layer alone, ``L.bias``; None if there is none.

    Parameters
    ----------
    model : Model
        In which the layer is still one.
    layer : str
        Name of the layer.
    """
    bias = model.tensors.get(f"{layer}.bias")
    if bias is None or not is_float(bias.dtype):
        return None
    if model.graph is not None:
        reference = TensorRef(bias.name)
        users = model.graph.users(TensorRef(f"{layer}.weight"))
        if model.graph.is_output(reference) or model.graph.users(reference) != users:
            return None
    return bias


@dataclass(frozen=True, slots=True)
class _Pair:
    """The factors of a layer."""

    layer: str
    weight: Tensor
    candidate: Candidate
    u: np.ndarray
    v: np.ndarray
    bias_correction: np.ndarray | None
    error: float

    @property
    def factors(self) -> Factors:
        scheme = self.candidate.scheme
        return Factors(
            self.layer, scheme.kernel_shape, self.candidate.rank, scheme.name, scheme.transposed
        )

    def report(self) -> LayerReport:
        scheme, rank = self.candidate.scheme, self.candidate.rank
        return LayerReport(
            self.layer,
            self.weight.shape,
            rank,
            self.candidate.decomposition.energy_kept(rank),
            self.weight.size,
            scheme.elements(rank),
            None,
            scheme.name,
        )


def _pair(layer: str, weight: Tensor, candidate: Candidate, factorize: Factorize | None) -> _Pair:
    scheme, rank, decomposition = candidate.scheme, candidate.rank, candidate.decomposition
    if factorize is None:
        u, v = decomposition.factors(rank)
        return _Pair(layer, weight, candidate, u, v, None, decomposition.error(rank))
    u, v, bias_correction, error = factorize(layer, weight, weight.read(), scheme, rank)
    pair = _Pair(layer, weight, candidate, u, v, bias_correction, error)
    shapes, correction = (pair.u.shape, pair.v.shape), pair.bias_correction
    if shapes != scheme.factor_shapes(rank):
        raise ModelError(
            f"the factors of layer {layer!r} have shapes {shapes}, expected "
            f"{scheme.factor_shapes(rank)}"
        )
    if correction is not None and correction.shape != (scheme.outputs,):
        raise ModelError(
            f"the correction of the bias of layer {layer!r} has shape {correction.shape}, "
            f"expected {(scheme.outputs,)}"
        )
    return pair


def _with_pair(model: Model, pair: _Pair) -> Model:
    factors, dtype = pair.factors, pair.weight.dtype
    bias = f"{pair.layer}.bias"
    changed = {
        pair.weight.name: tuple(
            Tensor.of(name, cast(values, dtype), dtype)
            for name, values in ((factors.u, pair.u), (factors.v, pair.v))
        )
    }
    if pair.bias_correction is not None:
        model = _with_corrected_bias(model, pair.layer, pair.bias_correction)
    graph = model.graph
    if graph is None:
        outputs = (pair.candidate.scheme.outputs,)
        has_bias = bias in model.tensors and model.tensors[bias].shape == outputs
    else:
        users = graph.users(TensorRef(pair.weight.name))
        has_bias = any(TensorRef(bias) in graph.nodes[user].args for user in users)
        has_bias = has_bias and not graph.is_output(TensorRef(bias))
        scheme, nodes = pair.candidate.scheme, graph.nodes
        graph = graph.splice(
            Splice(user, user + 1, split(nodes[user], factors.u, factors.v, scheme))
            for user in users
        )
    if has_bias:
        changed[bias] = (replace(model.tensors[bias], name=factors.v_bias),)
        graph = graph and graph.rename({bias: factors.v_bias})

    def tensors() -> Iterator[Tensor]:
        for tensor in model.tensors.values():
            yield from changed.get(tensor.name, (tensor,))

    pair_for_one = replace(
        model,
        tensors={t.name: t for t in tensors()},
        graph=graph,
        factors=(*model.factors, factors),
    )
    return without_unused_names(pair_for_one)


def _with_corrected_bias(model: Model, layer: str, correction: np.ndarray) -> Model:
    bias = own_bias(model, layer)
    if bias is None or bias.shape != correction.shape:
        raise ModelError(f"layer {layer!r} has no bias of its own that could be corrected")
    values = cast(bias.read().astype(np.float64) + correction, bias.dtype)
    corrected = Tensor.of(bias.name, values, bias.dtype, bias.role)
    return replace(model, tensors={**model.tensors, bias.name: corrected})
