"""Where in a stream an error comes from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nnrcodec.entropy.cabac.payload import PayloadDecoder
from nnrcodec.errors import BitstreamError, PayloadError, UnsupportedFeatureError
from nnrcodec.syntax.unit import Unit


@contextmanager
def located(unit: Unit, decoder: PayloadDecoder | None = None) -> Iterator[None]:
    """Say in errors which unit they come from, and how far its payload was decoded.

    Parameters
    ----------
    unit : Unit
        Any unit.
    decoder : PayloadDecoder, optional
        Of its payload.
    """
    try:
        yield
    except (BitstreamError, UnsupportedFeatureError) as error:
        if error.path is None:
            in_payload = isinstance(error, PayloadError)
            error.path = f"{unit.path}/payload" if in_payload else unit.path
            error.bit_offset = unit.payload_bit_offset if in_payload else unit.bit_offset
            if in_payload and decoder is not None:
                end = 8 * len(unit.payload)
                error.bit_offset += min(max(decoder.bit_position, 0), end)
        raise
