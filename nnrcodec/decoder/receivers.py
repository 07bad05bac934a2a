"""How names of decoded tensors fit those of a module of the receiver's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nnrcodec.errors import ModelError
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model
from nnrcodec.model.source import prefixes_of, tensors_named

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module"}
"""Parts of names that come from `DataParallel` and such, and from `torch.compile`."""

_DEEPEST = 3
"""Parts in front of a name that may be too many."""

logger = logger_of(__name__)

Change = Callable[[str], str]


def tensors_beside(model: Model) -> set[str]:
    """Return the names of tensors that stand beside the state dict in the file they are from.

    They are not for the module, which is logged.

    Parameters
    ----------
    model : Model
        Decoded.
    """
    wrapper = None if model.source is None else model.source.wrapper
    if wrapper is None or wrapper.kind != "torch" or len([*prefixes_of(wrapper.content)]) != 1:
        return set()
    beside = set(tensors_named(wrapper.content))
    if beside:
        logger.warning(
            "not loaded into the module: %s, which are beside the state dict in the file",
            ", ".join(map(repr, sorted(beside)[:10])),
        )
    return beside


def fitting_names(own: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return the names in a module of tensors whose names differ by a prefix.

    Parameters
    ----------
    own : iterable of str
        All names of the module.
    names : iterable of str
        All names of the stream.

    Returns
    -------
    dict of str to str
        The name in the module by that in the stream; empty if they are the same already, or do not
        fit this way either. A change is logged.
    """
    own, names = list(own), list(names)
    if set(own) == set(names) or not own or not names:
        return {}
    for of_stream, of_module in _changes(own, names):
        receivers = {of_module(name): name for name in own}
        found = {name: receivers.get(of_stream(name)) for name in names}
        if len(receivers) == len(own) and set(found.values()) == set(own):
            renamed = {name: str(other) for name, other in found.items()}
            example = names[0]
            logger.warning(
                "names of the stream and of the module differ by a prefix: %r is loaded as %r, and "
                "all others alike",
                example,
                renamed[example],
            )
            return renamed
    return {}


def _changes(own: list[str], names: list[str]) -> Iterator[tuple[Change, Change]]:
    """Yield what may make names of stream and module the same."""
    yield _without_wrappers, _without_wrappers
    for first in range(min(_DEEPEST, _common_parts(names)) + 1):
        for second in range(min(_DEEPEST, _common_parts(own)) + 1):
            yield _without_parts(first), _without_parts(second)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_parts(count: int) -> Change:
    return lambda name: ".".join(name.split(".")[count:])


def _common_parts(names: list[str]) -> int:
    """Return how many parts in front all names have, and the same ones."""
    parts = [name.split(".")[:-1] for name in names]
    count = 0
    for same in zip(*parts, strict=False):
        if len(set(same)) > 1:
            break
        count += 1
    return count


def require_agreement(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise unless a state dict fits that of a module.

    Parameters
    ----------
    own, state : mapping of str to torch.Tensor
        That of the module, and the one to load.

    Raises
    ------
    ModelError
        With the first names that are the reason.
    """
    problems = [f"{name!r} is in the module only" for name in own.keys() - state.keys()]
    problems += [f"{name!r} is in the stream only" for name in state.keys() - own.keys()]
    problems += [
        f"{name!r} has shape {tuple(own[name].shape)} in the module, {tuple(value.shape)} in the "
        "stream"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    if not problems:
        return
    shown = "; ".join(sorted(problems)[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    missing = own.keys() - state.keys()
    norms = {_layer(name) for name in missing if name.endswith(".running_mean")}
    folded = ""
    if norms and {_layer(name) for name in missing} == norms:
        folded = (
            "; the stream has no batch norms, so they were probably folded into the convolutions "
            "before them (--fold-batch-norm): run it with nnrcodec.decode_model, or encode without"
        )
    raise ModelError(f"stream and module do not agree: {shown}{more}{folded}")


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
