"""Neural Network Coding (ISO/IEC 15938-17): small files from trained networks, and back.

::

    data = nnrcodec.encode(model, example_inputs=(x,))     # bytes
    model = nnrcodec.decode_model(data)                    # a torch.nn.Module that runs
    state = nnrcodec.decode(data)                          # name -> array
    nnrcodec.load_into(my_module, data)                    # the receiver has the class

Importing this package does not import PyTorch.
"""

from nnrcodec.api import decode, decode_model, encode, load_into
from nnrcodec.config import (
    CabacConfig,
    Choice,
    EncoderConfig,
    LowRankConfig,
    RecoveryConfig,
    UniformConfig,
)
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
from nnrcodec.update_encoding import UpdateEncoder
from nnrcodec.updates import UpdateDecoder
from nnrcodec.version import __version__

__all__ = [
    "BitstreamError",
    "CabacConfig",
    "Choice",
    "ConfigError",
    "EncoderConfig",
    "EncodingError",
    "LimitExceededError",
    "Limits",
    "LowRankConfig",
    "ModelError",
    "NnrError",
    "PayloadError",
    "RecoveryConfig",
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
