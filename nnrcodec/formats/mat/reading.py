"""A MATLAB file as a model: with the graph of its network, or its arrays as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.mat import level5, level73
from nnrcodec.formats.mat.layers import Network, Residual, UnknownLayerError
from nnrcodec.formats.mat.network import network_of, networks_in
from nnrcodec.formats.mat.values import Struct
from nnrcodec.formats.mat.wrapper import Wrapping
from nnrcodec.graph.names import with_safe_names
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import LeftOut, Source, Wrapper

_SIZES = (64, 96, 224, 227)
"""Heights and widths of pictures that a network is tried with."""

ALL = "all"


def load_level5(path: Path, key: str | None = None, residual: Residual | None = None) -> Model:
    """Read a file of versions 5 to 7; parameters and errors as of `load_level73`."""
    return _model(path, level5.read(path), key, residual)


def load_level73(path: Path, key: str | None = None, residual: Residual | None = None) -> Model:
    """Read a file of version 7.3.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        The path of a network, where a file has several; "all" for all arrays, without a graph.
    residual : "none", "subtract" or "add", optional
        What is done with the output of a network, which files do not say: nothing, or it is taken
        from or added to its input.

    Raises
    ------
    ModelError
        The file is damaged, or has no numbers, or several networks.
    ConfigError
        There is no such network, or none to which `residual` can apply; or h5py is not installed.
    """
    return _model(path, level73.read(path), key, residual)


def _model(path: Path, root: Struct, key: str | None, residual: Residual | None) -> Model:
    networks = {".".join(at): (at, value) for at, value in networks_in(root).items()}
    if key is None and len(networks) > 1:
        names = ", ".join(map(repr, list(networks)[:20]))
        more = f" and {len(networks) - 20} more" if len(networks) > 20 else ""
        raise ModelError(
            f"{path} has several networks ({names}{more}): choose one with --key NAME (key= in "
            "Python), or all of the file, without a graph, with --key all"
        )
    if key is not None and key != ALL and key not in networks:
        known = ", ".join(map(repr, list(networks)[:20]))
        raise ConfigError(f"{path} has no network {key!r}; there are {known or 'none'}, and all")
    if key == ALL or not networks:
        if residual is not None:
            raise ConfigError(f"{path}: there is no network here that --residual could apply to")
        return _plain(path, root, everything=key == ALL)
    chosen = key if key is not None else next(iter(networks))
    value = networks[chosen][1]
    others = tuple(other for name, (other, _) in networks.items() if name != chosen)
    network = network_of(value)
    wrapping = Wrapping(network.places, has_network=True, not_chosen=others)
    model = _with_graph(path, network, residual)
    coded = model.tensors if model is not None else _tensors_of(network)
    wrapper = wrapping.wrapper(root, frozenset(coded))
    if model is None:
        if residual is not None:
            raise ConfigError(f"{path}: --residual needs a graph, and {network.problem}")
        network.notes.append(
            f"its weights are coded, without a graph, because {network.problem}; so nothing can be "
            "calibrated"
        )
        model = Model.of(coded.values())
    if not model.tensors and not wrapping.tensors:
        raise ModelError(f"{path} holds no arrays of numbers")
    source = _source(wrapper, wrapping, network.notes, chosen if len(networks) > 1 else "")
    tensors = [*model.tensors.values(), *wrapping.tensors]
    return with_safe_names(Model.of(tensors, model.graph, ties=model.ties, source=source))


def _plain(path: Path, root: Struct, *, everything: bool) -> Model:
    wrapping = Wrapping(everything=everything)
    wrapper = wrapping.wrapper(root)
    if not wrapping.tensors:
        objects = [
            left.what for left in wrapping.left_out if "object" in left.what or "class" in left.what
        ]
        hint = f", but {objects[0]}; save the struct that its saveobj() gives" if objects else ""
        raise ModelError(f"{path} holds no arrays of numbers{hint}")
    return Model.of(wrapping.tensors, source=_source(wrapper, wrapping, []))


def _source(
    wrapper: Wrapper | None, wrapping: Wrapping, notes: list[str], coded: str = ""
) -> Source:
    left_out: tuple[LeftOut, ...] = tuple(wrapping.left_out)
    return Source("", wrapper, left_out, coded, (*notes, *wrapping.notes))


def _tensors_of(network: Network) -> dict[str, Tensor]:
    """Return the tensors of all layers, as a state dict has them."""
    return {
        f"{layer.name}.{name}": Tensor.of(
            f"{layer.name}.{name}",
            values,
            role=Role.BUFFER if name.startswith("running") else Role.PARAMETER,
        )
        for layer in network.layers
        for name, values in layer.tensors.items()
    }


def _with_graph(path: Path, network: Network, residual: Residual | None) -> Model | None:
    """Return the tensors of a network with its graph; None, and why in it, if it cannot be run."""
    import torch

    from nnrcodec.formats.mat.module import MatNetwork
    from nnrcodec.graph.export import model_of_module

    if network.problem:
        return None
    try:
        module = MatNetwork(network, residual or "none").eval()
    except UnknownLayerError as error:
        network.problem = str(error)
        return None
    sizes = [network.size] if network.size else [(size, size) for size in _SIZES]
    for height, width in sizes:
        generator = torch.Generator().manual_seed(0)
        inputs = tuple(
            torch.rand(1, channels, height, width, generator=generator)
            for channels in network.inputs.values()
        )
        try:
            shapes = MatNetwork(network).shapes(*(tuple(value.shape) for value in inputs))
        except UnknownLayerError as error:
            network.problem = str(error)
            return None
        except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError) as error:
            network.problem = f"it does not run on inputs of {height}x{width}: {error}"
            continue
        _look_at_residual(path, network, residual, [tuple(v.shape) for v in inputs], shapes)
        try:
            model = model_of_module(module, inputs)
        except ModelError as error:
            network.problem = str(error)
            continue
        network.problem = ""
        return model
    return None


def _look_at_residual(
    path: Path,
    network: Network,
    residual: Residual | None,
    inputs: Sequence[tuple[int, ...]],
    outputs: Sequence[tuple[int, ...]],
) -> None:
    """Raise if a residual does not fit; note that it can be chosen if the file leaves it open."""
    shapes = [*inputs, *outputs]
    fits = len(inputs) == len(outputs) == 1 and inputs[0] == outputs[0]
    if residual in ("subtract", "add") and not fits:
        raise ConfigError(
            f"{path}: --residual {residual} needs one output of the size of its one input, and the "
            f"shapes of inputs and output are {', '.join(map(str, shapes))}"
        )
    if residual is None and fits and not any(layer.kind == "sum" for layer in network.layers):
        network.notes.append(
            "the file does not say whether its network gives a picture, or a residual such as "
            "noise: its output is taken as it is; choose with --residual subtract, add or none "
            "(residual= in Python): subtract gives input - output, as of DnCNN, add input + output"
        )


def residual_of(residual: str | None) -> Residual | None:
    """Return a residual, checked.

    Raises
    ------
    ConfigError
        It is none of the known ones.
    """
    match residual:
        case None | "none" | "subtract" | "add":
            return residual
    raise ConfigError(f"residual={residual!r}: expected 'none', 'subtract' or 'add'")
