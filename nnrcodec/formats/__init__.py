"""Model files: one module for each kind that is read or written, with `load` and `save`.

`load` here chooses the module by what is in the file, `save` by the ending of its name
(`nnrcodec.formats.files`). PyTorch and other libraries are imported only by the formats that need
them, and only when they are used.
"""

from nnrcodec.formats.atomic import check_output, is_device, write_atomically
from nnrcodec.formats.files import (
    FORMATS,
    SAVERS,
    Format,
    is_model_file,
    is_stream_file,
    load,
    save,
)
from nnrcodec.formats.reading import MAX_STREAM_BYTES, read_stream_file

__all__ = [
    "FORMATS",
    "MAX_STREAM_BYTES",
    "SAVERS",
    "Format",
    "check_output",
    "is_device",
    "is_model_file",
    "is_stream_file",
    "load",
    "read_stream_file",
    "save",
    "write_atomically",
]
