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
    from nnrcodec.api import decode, decode_file, decode_model, encode, encode_file, load_into
    from nnrcodec.config import (
        CabacConfig,
        DistillationConfig,
        EncoderConfig,
        LayerRank,
        LowRankConfig,
        TensorConfig,
        UniformConfig,
    )
    from nnrcodec.decoder.updates import UpdateDecoder
    from nnrcodec.encoder.report import EncodeReport, EncodeResult, TensorReport
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
    from nnrcodec.folders import decode_folder, encode_folder
    from nnrcodec.formats import load, save
    from nnrcodec.inspection import inspect
    from nnrcodec.limits import Limits
    from nnrcodec.model.model import Model, Tensor

__all__ = [
    "BitstreamError",
    "CabacConfig",
    "ConfigError",
    "DistillationConfig",
    "EncodeReport",
    "EncodeResult",
    "EncoderConfig",
    "EncodingError",
    "LayerRank",
    "LimitExceededError",
    "Limits",
    "LowRankConfig",
    "Model",
    "ModelError",
    "NnrError",
    "PayloadError",
    "SyntaxElementError",
    "Tensor",
    "TensorConfig",
    "TensorReport",
    "TruncatedBitstreamError",
    "UniformConfig",
    "UnitOrderError",
    "UnsupportedFeatureError",
    "UpdateDecoder",
    "UpdateEncoder",
    "__version__",
    "decode",
    "decode_file",
    "decode_folder",
    "decode_model",
    "encode",
    "encode_file",
    "encode_folder",
    "inspect",
    "load",
    "load_into",
    "save",
]

_MODULES = {
    **dict.fromkeys(
        (
            *("decode", "decode_file", "decode_model"),
            *("encode", "encode_file", "load_into"),
        ),
        "api",
    ),
    **dict.fromkeys(
        (
            *("CabacConfig", "LayerRank", "EncoderConfig", "LowRankConfig"),
            *("DistillationConfig", "TensorConfig", "UniformConfig"),
        ),
        "config",
    ),
    **dict.fromkeys(("EncodeReport", "EncodeResult", "TensorReport"), "encoder.report"),
    **dict.fromkeys(("decode_folder", "encode_folder"), "folders"),
    **dict.fromkeys(("load", "save"), "formats"),
    **dict.fromkeys(("Model", "Tensor"), "model.model"),
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
