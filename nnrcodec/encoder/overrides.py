"""What holds for single tensors: which are kept bit for bit, and whether patterns fit any."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from nnrcodec.config import EncoderConfig, fits
from nnrcodec.errors import ConfigError
from nnrcodec.graph.names import original_name
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model
from nnrcodec.reduce.ranks import LowRankConfig

logger = logger_of(__name__)

ConfigOf = Callable[[str], EncoderConfig]
"""Takes the name of a tensor in the stream, and returns what holds for it."""


def config_of(config: EncoderConfig, model: Model) -> ConfigOf:
    """Return what says for each tensor of a model what holds for it.

    Parameters
    ----------
    config : EncoderConfig
        Its patterns are of names as the network has them, or as they are in the stream.
    model : Model
        Knows the names.
    """
    if not (config.keep or config.tensors):
        return lambda _: config
    return lambda name: config.for_tensor(original_name(name, model.graph), name)


def kept(config: EncoderConfig, model: Model) -> frozenset[str]:
    """Return the names of the tensors that are coded without loss."""
    if not config.kept_patterns:
        return frozenset()
    of = config_of(config, model)
    return frozenset(name for name in model.tensors if of(name).lossless)


def without_layers(config: LowRankConfig, names: frozenset[str]) -> LowRankConfig:
    """Return a configuration of low rank that leaves out the layers of some tensors."""
    if not names:
        return config
    layers = {name.removesuffix(".weight").removesuffix(".bias") for name in names}
    return replace(config, left_out=config.left_out | layers)


def check_patterns(config: EncoderConfig, *models: Model) -> None:
    """Raise unless each pattern fits a tensor of one of the models, and say what has no effect.

    Raises
    ------
    ConfigError
        Naming the pattern, and names that are similar.
    """
    if not (config.keep or config.tensors):
        return
    names = {
        called
        for model in models
        for name in model.tensors
        for called in (name, original_name(name, model.graph))
    }
    for pattern in (*config.keep, *config.settings):
        if not any(fits(pattern, (name,)) for name in names):
            near = difflib.get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.4)
            hint = f"; do you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"no tensor has a name that fits {pattern!r}{hint}")
    for pattern, own in config.settings.items():
        if own.without_effect:
            logger.warning(
                "%r is coded bit for bit (coder=lossless), where %s has no effect",
                pattern,
                ", ".join(name.rstrip("_") for name in own.without_effect),
            )
