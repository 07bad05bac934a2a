"""What a decoder accepts from strangers.

The size of a stream does not bound the size of what it decodes to: an all-zero tensor costs a few
bytes whatever its shape. So every declared size is compared with `Limits` before anything is
allocated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a stream may declare.

    Parameters
    ----------
    max_units : int
        Units in a stream.
    max_dimensions : int
        Dimensions of a tensor.
    max_elements : int
        Elements of one tensor.
    max_decoded_bytes : int
        Bytes of all decoded tensors together.
    max_expansion : int
        Decoded bytes per byte of the stream, applied above `free_decoded_bytes`.
    free_decoded_bytes : int
        Decoded bytes that any stream may ask for, however short it is.
    max_record_bytes : int
        Bytes of the container record once inflated.
    max_graph_nodes : int
        Nodes of a graph.
    max_value_bytes : int
        Bytes of one value that a graph takes or computes, at the sizes that it gives as examples.
    max_program_work : int
        Work to write a network to a .pt2 file, in plain operators.
    max_factors : int
        Layers that were decomposed; the time to merge them grows with the square.
    """

    max_units: int = 1_000_000
    max_dimensions: int = 16
    max_elements: int = 2**31
    max_decoded_bytes: int = 2**36
    max_expansion: int = 2**12
    free_decoded_bytes: int = 2**28
    max_record_bytes: int = 2**24
    max_graph_nodes: int = 200_000
    max_value_bytes: int = 2**32
    max_program_work: int = 200_000
    max_factors: int = 1_000

    def decoded_bytes_allowed(self, stream_bytes: int) -> int:
        """Return how many bytes a stream of `stream_bytes` bytes may decode to."""
        return min(
            self.max_decoded_bytes,
            max(self.free_decoded_bytes, self.max_expansion * stream_bytes),
        )
