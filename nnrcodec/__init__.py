"""Neural Network Coding (ISO/IEC 15938-17): small files from trained networks, and back.

::

    data = nnrcodec.encode(model, example_inputs=(x,))     # bytes
    model = nnrcodec.decode_model(data)                    # a torch.nn.Module that runs
    state = nnrcodec.decode(data)                          # name -> array
    nnrcodec.load_into(my_module, data)                    # the receiver has the class

Importing this package imports nothing else: every name is loaded when it is used first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnrcodec.version import __version__

if TYPE_CHECKING:
    from nnrcodec.api import decode, decode_model, encode, load_into
    from nnrcodec.config import (
        CabacConfig,
        Choice,
        DistillationConfig,
        EncoderConfig,
        LowRankConfig,
        UniformConfig,
    )
    from nnrcodec.decoder.updates import UpdateDecoder
    from nnrcodec.encoder.updates import UpdateEncoder
    from nnrcodec.errors import (
        BitstreamError,
        ConfigError,
        EncodingError,
        LimitExceededError,
        ModelError,
        NnrError,
        PayloadError,
        SyntaxElementError,
        TruncatedBitstreamError,
        UnitOrderError,
        UnsupportedFeatureError,
    )
    from nnrcodec.inspection import inspect
    from nnrcodec.limits import Limits

__all__ = [
    "BitstreamError",
    "CabacConfig",
    "Choice",
    "ConfigError",
    "DistillationConfig",
    "EncoderConfig",
    "EncodingError",
    "LimitExceededError",
    "Limits",
    "LowRankConfig",
    "ModelError",
    "NnrError",
    "PayloadError",
    "SyntaxElementError",
    "TruncatedBitstreamError",
    "UniformConfig",
    "UnitOrderError",
    "UnsupportedFeatureError",
    "UpdateDecoder",
    "UpdateEncoder",
    "__version__",
    "decode",
    "decode_model",
    "encode",
    "inspect",
    "load_into",
]

_MODULES = {
    **dict.fromkeys(("decode", "decode_model", "encode", "load_into"), "api"),
    **dict.fromkeys(
        (
            *("CabacConfig", "Choice", "EncoderConfig", "LowRankConfig"),
            *("DistillationConfig", "UniformConfig"),
        ),
        "config",
    ),
    "inspect": "inspection",
    "Limits": "limits",
    "UpdateEncoder": "encoder.updates",
    "UpdateDecoder": "decoder.updates",
}
"""Where the names are that are not errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"nnrcodec.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
