"""Everything this package raises on purpose.

::

    NnrError
    ├─ BitstreamError          the stream is wrong (bit_offset, path, clause)
    │  ├─ TruncatedBitstreamError   it ends too early
    │  ├─ SyntaxElementError        an element has a value it must not have
    │  ├─ UnitOrderError            a unit stands where it must not
    │  ├─ PayloadError              entropy-coded data contradict themselves or their digest
    │  └─ LimitExceededError        it declares more than `Limits` allow
    ├─ UnsupportedFeatureError legal, but not implemented or from a newer version
    ├─ ConfigError             the caller asked for something impossible
    ├─ ModelError              a tensor or an operator of the model cannot be coded
    └─ EncodingError           a value does not fit its syntax element

Decoding any bytes returns or raises `BitstreamError` or `UnsupportedFeatureError`; anything else
is a defect of this package.
"""

from __future__ import annotations

LONGEST_MESSAGE = 1000
"""Characters of a message about a stream: a name in it may be of any length."""


class NnrError(Exception):
    """Base class of all errors of this package."""


class BitstreamError(NnrError):
    """The stream is wrong.

    Parameters
    ----------
    message : str
        What is wrong and what was expected.
    bit_offset : int, optional
        Position in bits from the start of the stream.
    path : str, optional
        Where in the stream: unit and syntax element, such as ``unit[3] NNR_NDU/dq_flag``.
    clause : str, optional
        The rule that is broken, as a clause or a section of ``spec/``.
    """

    def __init__(
        self,
        message: str,
        *,
        bit_offset: int | None = None,
        path: str | None = None,
        clause: str | None = None,
    ) -> None:
        message = shortened(message)
        super().__init__(message)
        self.message = message
        self.bit_offset = bit_offset
        self.path = None if path is None else shortened(path)
        self.clause = clause

    def __str__(self) -> str:
        where = []
        if self.path:
            where.append(self.path)
        if self.bit_offset is not None:
            where.append(f"bit {self.bit_offset}")
        if self.clause:
            where.append(self.clause)
        return f"{', '.join(where)}: {self.message}" if where else self.message


class TruncatedBitstreamError(BitstreamError):
    """The stream ends before the element that must follow."""


class SyntaxElementError(BitstreamError):
    """A syntax element has a value outside its legal range."""


class UnitOrderError(BitstreamError):
    """A unit is missing, doubled or out of place."""


class PayloadError(BitstreamError):
    """A payload cannot be decoded, or decodes to something else than its digest says."""


class LimitExceededError(BitstreamError):
    """The stream declares more than the caller's `Limits` allow."""


class UnsupportedFeatureError(NnrError):
    """The stream or the model is legal, but uses something this version does not have.

    Parameters
    ----------
    message : str
        What is not supported, and what to do instead if anything can be done.
    feature : str, optional
        The feature, by its name in the standard or in ``spec/``.
    bit_offset, path : optional
        Position as in `BitstreamError`.
    """

    def __init__(
        self,
        message: str,
        *,
        feature: str | None = None,
        bit_offset: int | None = None,
        path: str | None = None,
    ) -> None:
        message = shortened(message)
        super().__init__(message)
        self.message = message
        self.feature = feature
        self.bit_offset = bit_offset
        self.path = None if path is None else shortened(path)

    def __str__(self) -> str:
        where = [self.path] if self.path else []
        if self.bit_offset is not None:
            where.append(f"bit {self.bit_offset}")
        return f"{', '.join(where)}: {self.message}" if where else self.message


class ConfigError(NnrError):
    """The caller asked for something impossible."""


class ModelError(NnrError):
    """A tensor or an operator of the model cannot be coded; the message names it."""


class EncodingError(NnrError):
    """A value does not fit the syntax element that must carry it.

    Parameters
    ----------
    message : str
        Name, value and allowed range.
    path : str, optional
        The syntax element.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


def shortened(text: str) -> str:
    """Return a text without its middle if it is too long to read."""
    if len(text) <= LONGEST_MESSAGE:
        return text
    half = LONGEST_MESSAGE // 2
    return f"{text[:half]} [...] {text[-half:]}"
