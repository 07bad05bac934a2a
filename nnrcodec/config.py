"""What an encoder is asked to do, as one frozen record.

Owns `EncoderConfig`, which puts the configurations of the tools together; each tool keeps its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

from nnrcodec.checks import check_fields
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.errors import ConfigError
from nnrcodec.quant.uniform import UniformConfig
from nnrcodec.reduce.distillation import DistillationConfig
from nnrcodec.reduce.ranks import LayerRank, LowRankConfig

__all__ = [
    "CabacConfig",
    "DistillationConfig",
    "EncoderConfig",
    "Entropy",
    "LayerRank",
    "LowRankConfig",
    "Profile",
    "TensorConfig",
    "UniformConfig",
    "as_config",
]

T = TypeVar("T", UniformConfig, CabacConfig)

Preset = Literal["transparent", "balanced", "small"]
Profile = Literal["ext", "nnc"]
"""Which units a stream may have: ours as well, or those of the standard only."""

Entropy = Literal["auto", "cabac", "ans"]
"""Which coder levels go through; auto is the better of both, tensor by tensor."""


Coder = Literal["auto", "cabac", "ans", "lossless"]
"""What a tensor may be coded by: levels as in `Entropy`, or its bit patterns without loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorConfig:
    """What holds for some tensors only; None leaves it to `EncoderConfig`.

    Parameters
    ----------
    coder : "auto", "cabac", "ans" or "lossless", optional
        As `EncoderConfig.entropy`, or without loss.
    qp : int, optional
        Quantization parameter, whatever the dimensions of the tensor are.
    scale : float, optional
        Factor of the default step size, beside that of the whole network.
    dq, codebook : bool, optional
        As in `EncoderConfig`.
    lambda_ : float, optional
        As in `EncoderConfig`.
    scan_order, unary_length : int, optional
        As in `CabacConfig`.

    Raises
    ------
    ConfigError
        If a value has another type or is out of range, or qp and scale are both given.
    """

    coder: Coder | None = None
    qp: int | None = None
    scale: float | None = None
    dq: bool | None = None
    codebook: bool | None = None
    lambda_: float | None = None
    scan_order: int | None = None
    unary_length: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        UniformConfig(scale=1.0 if self.scale is None else self.scale)
        CabacConfig(
            scan_order=self.scan_order or 0,
            cabac_unary_length=self.unary_length,
        )
        if self.qp is not None and self.scale is not None:
            raise ConfigError("qp and scale both decide on the step size: give one of them")

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The fields that are given, but are for levels, which lossless coding has none of."""
        if self.coder != "lossless":
            return ()
        given = (f.name for f in fields(self) if getattr(self, f.name) is not None)
        return tuple(name for name in given if name != "coder")

    def over(self, other: TensorConfig | None) -> TensorConfig:
        """Return what holds where `other` was said before: what this one says comes first."""
        if other is None or self.coder == "lossless":
            return self
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        said = {name: value for name, value in said.items() if value is not None}
        if said and other.coder == "lossless":
            return self
        if "qp" in said:
            other = replace(other, scale=None)
        if "scale" in said:
            other = replace(other, qp=None)
        return replace(other, **said)


@dataclass(frozen=True, slots=True, init=False)
class EncoderConfig:
    """All choices of an encoder; a tool whose configuration is None is off.

    All are given by name. The fields of `UniformConfig` and of `CabacConfig` may be given here
    directly: ``EncoderConfig(qp=-20)`` is short for
    ``EncoderConfig(quantization=UniformConfig(qp=-20))``.

    Parameters
    ----------
    profile : "ext" or "nnc"
        "nnc" writes only what decoders of ISO/IEC 15938-17 know. "ext" adds a unit of our own, for
        tensors that are smaller with rANS or have to be stored as they are.
    entropy : "auto", "cabac" or "ans"
        "cabac" codes with DeepCABAC, "ans" with rANS (static tables), which needs profile "ext".
        "auto" takes the better one for each tensor.
    quantization : UniformConfig
        Step sizes.
    dq : bool
        Dependent quantization: finer than its step size says, by a search for the best path. Off,
        without calibration inputs, each weight is rounded by itself.
    lambda_ : float, optional
        What a bit costs in a search, in squared steps; 0 looks for the least squared error and
        None is the default of `nnrcodec.quant.search.feedback` with calibration inputs, and of
        `nnrcodec.quant.search.trellis` without.
    codebook : bool
        Try a list of the levels that occur, which helps tensors with few different values.
    cabac : CabacConfig
        How DeepCABAC codes levels.
    blocks : bool
        In profile "nnc", put a kernel, its bias and its batch norm into one unit.
    short_names : bool
        Call tensors by their numbers in data units; the record has their names. Names are a large
        part of small updates. An update calls tensors as its base model does.
    record : bool
        Write the container record: graph, digests, dtypes and what else the standard has no place
        for. A stream without it is for decoders that know the standard only; needs profile "nnc".
    fold_batch_norm : bool
        Multiply batch norms into the convolutions before them; needs a graph.
    low_rank : LowRankConfig, optional
        Which layers become pairs of thin ones, how, and of which rank.
    distillation : DistillationConfig, optional
        With calibration inputs: train a network of low rank to do what the original does.
    preset : "transparent", "balanced" or "small"
        How near the output of the network is to stay to that of the original: no visible change, a
        small one for about a bit less a weight, or more for two bits less
        (`nnrcodec.calibration.fidelity`). It counts where no qp, scale or target is given.
    max_loss : float, optional
        Make the stream as small as a loss of at most so much allows, in the unit of the score that
        the caller measures; see `nnrcodec.encoder.search`.
    target_bytes : int, optional
        Make the stream as good as so many bytes allow.
    lossless : bool
        Code all tensors bit for bit, by a unit of profile "ext".
    keep : iterable of str
        Patterns (as of file names: ``*``, ``?``, ``[...]``) of tensors to code bit for bit.
    tensors : mapping of str to TensorConfig
        By pattern, what holds for some tensors only. Of several patterns that fit a tensor the
        later ones come first; `keep` comes before all of them.
    threads : int, optional
        How many tensors to code at once; by default as many as there are processors. The stream
        does not depend on it.
    qp, nonweight_qp, qp_density, scale : optional
        Fields of `quantization`, which is then not given itself.
    scan_order, cabac_unary_length, row_skipping, optimise_parameters : optional
        Fields of `cabac`, which is then not given itself.

    Raises
    ------
    ConfigError
        If a value has another type or is out of range, or two choices do not go together; the
        message says what is allowed.

    Examples
    --------
    >>> EncoderConfig(qp=-20).quantization.qp
    -20
    >>> EncoderConfig(qp=-20) == EncoderConfig(quantization=UniformConfig(qp=-20))
    True

    To change one of them, replace the configuration that it is a field of:

    >>> from dataclasses import replace
    >>> config = EncoderConfig(qp=-20, dq=False)
    >>> finer = replace(config, quantization=replace(config.quantization, qp=-24))
    """

    profile: Profile
    entropy: Entropy
    quantization: UniformConfig
    dq: bool
    lambda_: float | None
    codebook: bool
    cabac: CabacConfig
    blocks: bool
    short_names: bool
    record: bool
    fold_batch_norm: bool
    low_rank: LowRankConfig | None
    distillation: DistillationConfig | None
    preset: Preset
    max_loss: float | None
    target_bytes: int | None
    lossless: bool
    keep: tuple[str, ...]
    tensors: Mapping[str, TensorConfig] | None
    threads: int | None

    def __init__(
        self,
        *,
        profile: Profile = "ext",
        entropy: Entropy = "auto",
        quantization: UniformConfig | None = None,
        dq: bool = True,
        lambda_: float | None = None,
        codebook: bool = False,
        cabac: CabacConfig | None = None,
        blocks: bool = True,
        short_names: bool = False,
        record: bool = True,
        fold_batch_norm: bool = False,
        low_rank: LowRankConfig | None = None,
        distillation: DistillationConfig | None = None,
        preset: Preset = "transparent",
        max_loss: float | None = None,
        target_bytes: int | None = None,
        lossless: bool = False,
        keep: Iterable[str] = (),
        tensors: Mapping[str, TensorConfig] | None = None,
        threads: int | None = None,
        qp: int | None = None,
        nonweight_qp: int | None = None,
        qp_density: int | None = None,
        scale: float | None = None,
        scan_order: int | None = None,
        cabac_unary_length: int | None = None,
        row_skipping: bool | None = None,
        optimise_parameters: bool | None = None,
    ) -> None:
        given = dict(locals())
        if isinstance(keep, str):
            given["keep"] = (keep,)
        elif isinstance(keep, Iterable):
            given["keep"] = tuple(keep)
        if isinstance(tensors, Mapping):
            given["tensors"] = dict(tensors) or None
        given["quantization"] = _gathered("quantization", UniformConfig, given)
        given["cabac"] = _gathered("cabac", CabacConfig, given)
        for field in fields(self):
            object.__setattr__(self, field.name, given[field.name])
        self._check()

    def _check(self) -> None:
        """Raise unless the choices are possible, and go together."""
        check_fields(self)
        if self.entropy == "ans" and self.profile == "nnc":
            raise ConfigError(
                "profile 'nnc' has no rANS (entropy 'ans'): use entropy 'cabac', or profile 'ext'"
            )
        if self.profile != "nnc" and not self.record:
            raise ConfigError(
                "a stream without a record is for decoders of the standard: use profile 'nnc', too"
            )
        if self.codebook and self.entropy == "ans":
            raise ConfigError("a codebook goes with DeepCABAC: use entropy 'auto' or 'cabac'")
        if self.lambda_ is not None and not (math.isfinite(self.lambda_) and self.lambda_ >= 0):
            raise ConfigError(f"lambda is {self.lambda_}, expected a number of at least 0")
        if self.distillation is not None and self.low_rank is None:
            raise ConfigError("distillation is for networks of low rank: give low_rank as well")
        if self.max_loss is not None and not (math.isfinite(self.max_loss) and self.max_loss > 0):
            raise ConfigError(f"max_loss is {self.max_loss}, expected a number above 0")
        if self.target_bytes is not None and self.target_bytes < 1:
            raise ConfigError(f"target_bytes is {self.target_bytes}, expected at least 1")
        if self.max_loss is not None and self.target_bytes is not None:
            raise ConfigError("max_loss and target_bytes both decide on the size: give one of them")
        if self.has_target and self.quantization.qp is not None:
            raise ConfigError("max_loss and target_bytes look for step sizes: give no qp with them")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}, expected at least 1")
        self._check_tensors()
        if self.lossless:
            self._check_lossless()

    def _check_tensors(self) -> None:
        """Raise unless what is said of single tensors goes with the rest."""
        for pattern in self.keep:
            if not isinstance(pattern, str):
                raise ConfigError(f"keep names {pattern!r}, expected a pattern such as 'fc.*'")
        for pattern, own in self.settings.items():
            if not isinstance(pattern, str) or not isinstance(own, TensorConfig):
                raise ConfigError(
                    f"tensors has {pattern!r}: {own!r}, expected a TensorConfig by pattern, such "
                    "as {'fc.*': TensorConfig(qp=-20)}"
                )
            if own.coder == "ans" and self.profile == "nnc":
                raise ConfigError(f"profile 'nnc' has no rANS, which is asked for {pattern!r}")
        if not (self.lossless or self.kept_patterns):
            return
        if self.profile == "nnc":
            raise ConfigError(
                "lossless coding needs a unit of our own, which profile 'nnc' does not have: use "
                "profile 'ext'; or a fine qp, which decoders of the standard read"
            )
        if self.distillation is not None:
            raise ConfigError("distillation changes all weights: keep none, or do without it")

    def _check_lossless(self) -> None:
        """Raise if there are options for what is not without loss."""
        changes = {
            "low_rank": self.low_rank is not None,
            "fold_batch_norm": self.fold_batch_norm,
            "max_loss": self.max_loss is not None,
            "target_bytes": self.target_bytes is not None,
            "qp": self.quantization.qp is not None or self.quantization.nonweight_qp is not None,
            "scale": self.quantization.scale != 1.0,
            "codebook": self.codebook,
            "preset": self.preset != "transparent",
            f"entropy {self.entropy!r}": self.entropy != "auto",
            **{
                f"what is set for {pattern!r}": own.coder != "lossless"
                for pattern, own in self.settings.items()
            },
        }
        for name, given in changes.items():
            if given:
                raise ConfigError(
                    f"{name} is for coding with loss, but lossless is asked for: give one of the "
                    "two; to keep single tensors bit for bit, give keep"
                )

    @property
    def settings(self) -> Mapping[str, TensorConfig]:
        """What holds for some tensors only, by pattern."""
        return self.tensors or {}

    @property
    def kept_patterns(self) -> tuple[str, ...]:
        """Patterns of tensors that are coded without loss."""
        lossless = (p for p, own in self.settings.items() if own.coder == "lossless")
        return (*self.keep, *lossless)

    def for_tensor(self, *names: str) -> EncoderConfig:
        """Return what holds for a tensor.

        Parameters
        ----------
        *names : str
            What it is called: in its network, and in the stream.
        """
        own: TensorConfig | None = None
        for pattern, said in self.settings.items():
            if fits(pattern, names):
                own = said.over(own)
        if any(fits(pattern, names) for pattern in self.keep):
            own = TensorConfig(coder="lossless")
        if own is None:
            return self
        return self._with(own)

    def _with(self, own: TensorConfig) -> EncoderConfig:
        plain: dict[str, Any] = {
            "keep": (),
            "tensors": None,
            "max_loss": None,
            "target_bytes": None,
        }
        if own.coder == "lossless":
            return EncoderConfig(lossless=True, threads=self.threads)
        quantization, cabac = self.quantization, self.cabac
        if own.qp is not None:
            quantization = replace(quantization, qp=own.qp, nonweight_qp=own.qp)
        if own.scale is not None:
            quantization = replace(quantization, scale=quantization.scale * own.scale)
        if own.scan_order is not None:
            cabac = replace(cabac, scan_order=own.scan_order)
        if own.unary_length is not None:
            cabac = replace(cabac, cabac_unary_length=own.unary_length)
        return replace(
            self,
            **plain,
            quantization=quantization,
            cabac=cabac,
            entropy=self.entropy if own.coder is None else own.coder,
            dq=self.dq if own.dq is None else own.dq,
            codebook=self.codebook if own.codebook is None else own.codebook,
            lambda_=self.lambda_ if own.lambda_ is None else own.lambda_,
        )

    @property
    def has_target(self) -> bool:
        """Whether step sizes are to be found for a target."""
        return self.max_loss is not None or self.target_bytes is not None


def fits(pattern: str, names: Iterable[str]) -> bool:
    """Return whether a pattern, as of file names, fits one of the names of a tensor."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def as_config(config: EncoderConfig | None) -> EncoderConfig:
    """Return the configuration that a caller gives, or the default one.

    Raises
    ------
    ConfigError
        If it is neither None nor an `EncoderConfig`.
    """
    if config is None:
        return EncoderConfig()
    if not isinstance(config, EncoderConfig):
        raise ConfigError(
            f"config is a {type(config).__name__}, expected an EncoderConfig, such as "
            "EncoderConfig(qp=-20), or None"
        )
    return config


def _gathered(name: str, kind: type[T], given: Mapping[str, Any]) -> T:
    """Return the configuration of a tool: as it is given, or of the fields that are given."""
    own = {f.name: given[f.name] for f in fields(kind) if given[f.name] is not None}
    if given[name] is None:
        return kind(**own)
    if own:
        raise ConfigError(f"{next(iter(own))} is a field of {name}: give only one of the two")
    whole: T = given[name]
    return whole
