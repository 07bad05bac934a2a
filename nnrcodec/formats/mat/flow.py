"""What flows through a network of MatConvNet: order of layers, inputs, channels, outputs."""

from __future__ import annotations

import re

from nnrcodec.formats.mat.layers import Layer, Network, UnknownLayerError, axis_of

MOST_LAYERS = 3000

_LOSS = re.compile(r"loss|error|pdist|regression|objective")
_KEEP_CHANNELS = {"relu", "sigmoid", "tanh", "bnorm", "pool", "softmax", "dropout", "crop", "lrn"}
_SEVERAL = {"sum", "concat", "crop"}


def leave_out_losses(network: Network) -> None:
    """Take layers off the end that only compare an output with what it should be."""
    if len(network.layers) > MOST_LAYERS:
        raise UnknownLayerError(f"it has more than {MOST_LAYERS} layers")
    kept, left_out = list(network.layers), []
    while True:
        used = {name for layer in kept for name in layer.inputs}
        at_end = [layer for layer in kept if not used & {*layer.outputs}]
        losses = [layer for layer in at_end if _is_loss(layer)]
        if not losses:
            break
        left_out += losses
        kept = [layer for layer in kept if not any(layer is loss for loss in losses)]
    if left_out:
        names = ", ".join(f"{layer.name!r} ({layer.kind})" for layer in left_out)
        network.notes.append(
            f"the graph has no layers that compare the output with a label: {names}; they stay in "
            "the file that is written back"
        )
    network.layers = kept
    used = {name for layer in kept for name in layer.inputs}
    network.outputs = [name for layer in kept for name in layer.outputs if name not in used]


def _is_loss(layer: Layer) -> bool:
    return not layer.tensors and _LOSS.search(layer.kind.lower()) is not None


def order(network: Network) -> None:
    """Put layers in the order in which they can run, and find what has to be given."""
    made = [name for layer in network.layers for name in layer.outputs]
    if not network.layers or len(set(made)) != len(made):
        raise UnknownLayerError("it has no layers, or two of them give one variable")
    for layer in network.layers:
        several = layer.kind in _SEVERAL
        if len(layer.outputs) != 1 or not (layer.inputs and (several or len(layer.inputs) == 1)):
            raise UnknownLayerError(f"layer {layer.name!r} has {len(layer.inputs)} inputs")
    network.inputs = {
        name: 0 for layer in network.layers for name in layer.inputs if name not in set(made)
    }
    waiting: dict[int, set[str]] = {
        index: set(layer.inputs) - network.inputs.keys()
        for index, layer in enumerate(network.layers)
    }
    users: dict[str, list[int]] = {}
    for index, names in waiting.items():
        for name in names:
            users.setdefault(name, []).append(index)
    ready = [index for index, names in waiting.items() if not names]
    sorted_ = []
    while ready:
        index = ready.pop(0)
        sorted_.append(index)
        for name in network.layers[index].outputs:
            for user in users.get(name, []):
                waiting[user].discard(name)
                if not waiting[user]:
                    ready.append(user)
    if len(sorted_) != len(network.layers):
        raise UnknownLayerError("its layers need one another in a circle")
    network.layers = [network.layers[index] for index in sorted_]


def find_channels(network: Network) -> None:
    """Find the channels of every input, by the first filters that take it."""
    channels: dict[str, int] = {}
    for name in network.inputs:
        depth = _needed(name, network)
        if depth is None:
            raise UnknownLayerError(f"how many channels its input {name!r} has is not known")
        network.inputs[name] = channels[name] = depth
    for layer in network.layers:
        counts = [channels[name] for name in layer.inputs]
        layer.channels = counts[0]
        channels[layer.outputs[0]] = _channels_of(layer, counts)


def _needed(name: str, network: Network) -> int | None:
    names = {name}
    for layer in network.layers:
        if not names & {*layer.inputs}:
            continue
        if layer.kind == "conv":
            return int(layer.tensors["weight"].shape[1])
        if layer.kind == "convt":
            return int(layer.tensors["weight"].shape[0])
        if layer.kind == "bnorm":
            return int(layer.tensors["weight"].size)
        if layer.kind in _KEEP_CHANNELS or layer.kind == "sum":
            names.update(layer.outputs)
    return None


def _channels_of(layer: Layer, counts: list[int]) -> int:
    """Return the channels of what a layer gives."""
    weight = layer.tensors.get("weight")
    if layer.kind == "conv" and weight is not None:
        outputs, depth = weight.shape[:2]
        if counts[0] % depth or outputs % (counts[0] // depth or 1):
            raise UnknownLayerError(
                f"layer {layer.name!r} takes {depth} channels, and gets {counts[0]}"
            )
        return int(outputs)
    if layer.kind == "convt" and weight is not None:
        if weight.shape[0] != counts[0]:
            raise UnknownLayerError(
                f"layer {layer.name!r} takes {weight.shape[0]} channels, and gets {counts[0]}"
            )
        return int(weight.shape[1]) * layer.pair("numGroups")[0]
    if layer.kind == "bnorm" and weight is not None and weight.size != counts[0]:
        raise UnknownLayerError(
            f"layer {layer.name!r} takes {weight.size} channels, and gets {counts[0]}"
        )
    if layer.kind == "concat":
        return sum(counts) if axis_of(layer) == 1 else counts[0]
    return counts[0]
