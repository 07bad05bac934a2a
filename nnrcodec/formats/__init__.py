"""Model files: one module per format, all with the same two functions, `load` and `save`.

`load` and `save` here choose the module by the ending of the file name. PyTorch is imported only
by the formats that need it, and only when they are used.
"""

from nnrcodec.formats.atomic import check_output, is_device, write_atomically
from nnrcodec.formats.files import FORMATS, is_model_file, load, save
from nnrcodec.formats.reading import MAX_STREAM_BYTES, read_stream_file

__all__ = [
    "FORMATS",
    "MAX_STREAM_BYTES",
    "check_output",
    "is_device",
    "is_model_file",
    "load",
    "read_stream_file",
    "save",
    "write_atomically",
]
