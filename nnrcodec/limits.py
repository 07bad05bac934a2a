"""What a decoder accepts from strangers.

The size of a stream does not bound the size of what it decodes to: an all-zero tensor costs a few
bytes whatever its shape, and deflated text hardly more. So every declared size is compared with
`Limits` before anything is allocated or computed. What is enough for a large network is far too
much for a stream of some hundred bytes; therefore most limits grow with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_GROWING = (
    "units",
    "decoded_bytes",
    "record_bytes",
    "record_values",
    "onnx_bytes",
    "graph_nodes",
    "program_work",
    "factors",
    "merge_macs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a stream may declare.

    Of each X that has them, a stream of n bytes may declare ``free_X + X_per_byte * n``, and
    ``max_X`` at most. The default values are chosen, by measuring the worst streams that we know,
    so that decoding takes no more than two seconds of processor time and 0.2 s for each 10 kB.

    Parameters
    ----------
    max_dimensions : int
        Dimensions of a tensor.
    max_elements : int
        Elements of one tensor.
    max_units, free_units, units_per_byte : int, int, float
        Units in a stream.
    max_decoded_bytes, free_decoded_bytes, decoded_bytes_per_byte : int, int, float
        Bytes of all decoded tensors together.
    max_record_bytes, free_record_bytes, record_bytes_per_byte : int, int, float
        Bytes of the container record once inflated.
    max_record_values, free_record_values, record_values_per_byte : int, int, float
        Values in the JSON of the record: numbers, strings, lists and objects.
    max_onnx_bytes, free_onnx_bytes, onnx_bytes_per_byte : int, int, float
        Bytes of the graph of an ONNX file once inflated, without weights.
    max_graph_nodes, free_graph_nodes, graph_nodes_per_byte : int, int, float
        Nodes of a graph.
    max_value_bytes : int
        Bytes of one value that a graph takes or computes, at the sizes that it gives as examples.
    max_program_work, free_program_work, program_work_per_byte : int, int, float
        Work to write a network to a .pt2 file, in plain operators.
    max_factors, free_factors, factors_per_byte : int, int, float
        Layers that were decomposed.
    max_merge_macs, free_merge_macs, merge_macs_per_byte : int, int, float
        Multiply-adds to multiply out what stands for a weight.

    Examples
    --------
    >>> limits = Limits().for_stream(16_000)
    >>> limits.max_units, limits.max_graph_nodes
    (5096, 6600)
    """

    max_dimensions: int = 16
    max_elements: int = 2**31
    max_value_bytes: int = 2**32

    max_units: int = 2**15
    free_units: int = 4096
    units_per_byte: float = 1 / 16

    max_decoded_bytes: int = 2**36
    free_decoded_bytes: int = 2**27
    decoded_bytes_per_byte: float = 256

    max_record_bytes: int = 2**24
    free_record_bytes: int = 2**20
    record_bytes_per_byte: float = 64

    max_record_values: int = 1_000_000
    free_record_values: int = 2**17
    record_values_per_byte: float = 4

    max_onnx_bytes: int = 2**24
    free_onnx_bytes: int = 2**19
    onnx_bytes_per_byte: float = 1

    max_graph_nodes: int = 200_000
    free_graph_nodes: int = 5_000
    graph_nodes_per_byte: float = 0.1

    max_program_work: int = 200_000
    free_program_work: int = 900
    program_work_per_byte: float = 0.01

    max_factors: int = 100_000
    free_factors: int = 200
    factors_per_byte: float = 1 / 40

    max_merge_macs: int = 10**15
    free_merge_macs: int = 2 * 10**9
    merge_macs_per_byte: float = 1e5

    def for_stream(self, stream_bytes: int) -> Limits:
        """Return the limits for a stream: every maximum as low as its size says.

        Parameters
        ----------
        stream_bytes : int
            Size of the stream.
        """
        lowered = {
            f"max_{x}": min(
                getattr(self, f"max_{x}"),
                getattr(self, f"free_{x}") + int(getattr(self, f"{x}_per_byte") * stream_bytes),
            )
            for x in _GROWING
        }
        return replace(self, **lowered)

    def trusting(self) -> Limits:
        """Return limits that do not depend on the size of a stream, for makers one trusts."""
        return replace(self, **{f"free_{x}": getattr(self, f"max_{x}") for x in _GROWING})

    def lifted(self) -> Limits:
        """Return limits that nothing grows beyond, for streams that one has made oneself."""
        bounds = {f"{bound}_{x}": 2**62 for bound in ("max", "free") for x in _GROWING}
        return replace(self, **bounds)

    def allowed(self, x: str) -> str:
        """Return what is allowed of one of the limits that grow, for an error.

        Parameters
        ----------
        x : str
            Such as ``units``.
        """
        return (
            f"at most {getattr(self, f'max_{x}')} allowed for a stream of this size; if you trust "
            f"the stream, take nnr-decode --trust, or raise free_{x} of nnrcodec.Limits"
        )
