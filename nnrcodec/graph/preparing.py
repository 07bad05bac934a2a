"""What is done with a module before it is exported: wrappers off, and only tensors as inputs."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils import parametrize

from nnrcodec.errors import ModelError
from nnrcodec.graph.generality import Examples
from nnrcodec.messages import logger_of

logger = logger_of(__name__)

_MOST_LEAVES = 1000


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the network within `torch.compile` and `torch.nn.DataParallel`, which is logged."""
    while True:
        compiled = getattr(module, "_orig_mod", None)
        if isinstance(compiled, torch.nn.Module):
            kind, inner = "torch.compile", compiled
        elif isinstance(module, torch.nn.DataParallel):
            kind, inner = "DataParallel", module.module
        elif isinstance(module, torch.nn.parallel.DistributedDataParallel):
            kind, inner = "DistributedDataParallel", module.module
        else:
            return module
        logger.info("the network within %s is encoded, under its own names", kind)
        module = inner


def without_parametrizations(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return a copy in which tensors that are computed from others have their values.

    None if there are none. So a layer with spectral norm becomes a plain one.
    """
    if not any(parametrize.is_parametrized(part) for part in module.modules()):
        return None
    folded, names = copy.deepcopy(module), []
    parts = dict(folded.named_modules())
    for path, original in module.named_modules():
        if not parametrize.is_parametrized(original):
            continue
        values = {name: getattr(original, name).detach() for name in original.parametrizations}
        # PyTorch would take the property off the class, which original and copy share
        part = parts[path]
        del part.parametrizations
        part.__class__ = type(part).__bases__[0]
        for name, value in values.items():
            part.register_parameter(name, torch.nn.Parameter(value.clone(), requires_grad=False))
            names.append(f"{path}.{name}".lstrip("."))
    logger.warning(
        "tensors that are computed from others (parametrizations) are coded as their values: %s%s",
        ", ".join(names[:5]),
        f" and {len(names) - 5} more" if len(names) > 5 else "",
    )
    return folded


@contextlib.contextmanager
def tensors_only(
    module: torch.nn.Module, examples: Sequence[Any]
) -> Iterator[tuple[Examples, bool]]:
    """Let a module take tensors only, one by one, for as long as the context lasts.

    Tensors in lists, tuples and mappings become inputs of their own; what is no tensor stays as it
    is in the examples. Both are logged.

    Yields
    ------
    examples : tuple of Tensor
    is_changed : bool
        Whether the inputs are others than those of the module.

    Raises
    ------
    ModelError
        An example is something else.
    """
    if all(isinstance(example, torch.Tensor) for example in examples):
        yield tuple(examples), False
        return
    original = module.forward
    named = _by_name(original, examples)
    found: dict[str, torch.Tensor] = {}
    fixed: list[str] = []
    rebuild = [_flattened(name, value, found, fixed) for name, value in named]
    if not found:
        raise ModelError("none of the example inputs is, or has in it, a tensor")
    if fixed:
        logger.warning(
            "inputs that are no tensors are fixed in the graph as they are in the example: %s",
            ", ".join(fixed[:20]),
        )
    apart = [name for name in found if name not in dict(named)]
    if apart:
        logger.warning(
            "tensors in lists and mappings are inputs of their own, in this order: %s",
            ", ".join(list(found)[:20]),
        )

    def forward(*tensors: torch.Tensor) -> Any:
        given = dict(zip(found, tensors, strict=True))
        return original(*(build(given) for build in rebuild))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in found]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield tuple(found.values()), True
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _by_name(forward: Callable[..., Any], examples: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the examples with the names of the arguments that they are for."""
    try:
        bound = inspect.signature(forward).bind(*examples)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the network does not take these example inputs: {error}") from error
    named: list[tuple[str, Any]] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            named += [(f"{name}_{place}", item) for place, item in enumerate(value)]
        else:
            named.append((name, value))
    return named


def _flattened(
    name: str, value: Any, found: dict[str, torch.Tensor], fixed: list[str]
) -> Callable[[Mapping[str, torch.Tensor]], Any]:
    """Note the tensors in a value under names; return what makes the value of others."""
    if len(found) + len(fixed) > _MOST_LEAVES:
        raise ModelError(f"the example inputs have more than {_MOST_LEAVES} values")
    if isinstance(value, torch.Tensor):
        unique = re.sub(r"\W", "_", name)
        while unique in found:
            unique += "_"
        found[unique] = value
        return lambda given: given[unique]
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        fixed.append(f"{name} = {value!r}"[:60])
        return lambda _: value
    if isinstance(value, Mapping):
        parts = {key: _flattened(f"{name}_{key}", v, found, fixed) for key, v in value.items()}
        return lambda given: {key: part(given) for key, part in parts.items()}
    if isinstance(value, list | tuple):
        items = [_flattened(f"{name}_{place}", v, found, fixed) for place, v in enumerate(value)]
        if hasattr(value, "_fields"):
            return lambda given: type(value)(*(item(given) for item in items))
        return lambda given: type(value)(item(given) for item in items)
    raise ModelError(
        f"example input {name!r} is a {type(value).__name__}: tensors, numbers, texts, None, and "
        "lists and mappings of them can be inputs"
    )
