"""Go over the test models of the onnx package: what is translated is equal, or refused.

    python examples/onnx/zoo.py                 all operators, a table
    python examples/onnx/zoo.py Conv Resize     these, with every case that is not equal

The onnx package has a model for nearly every option of every operator, with an input and the output
that it must have. Each is translated in three ways: as it is, when all inputs but the first are
initializers, and when the sizes of the first are dynamic as well (then it is exported at sizes of
our own choice). `wrong` must be 0 everywhere: what is not translated exactly has to be refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EQUAL, REFUSED, WRONG = "equal", "refused", "wrong"
WAYS = ("as it is", "with initializers", "with dynamic sizes")


class Case(NamedTuple):
    """A model, its inputs, and what must come out."""

    name: str
    op: str
    proto: Any
    inputs: list[Any]
    outputs: list[Any]


def cases_of_nodes() -> Iterator[Case]:
    """Yield the cases of single operators that the onnx package makes."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    for case in collected:
        if case.model is None or "_expanded" in case.name:
            continue
        op = case.model.graph.node[0].op_type
        for inputs, outputs in case.data_sets:
            yield Case(case.name, op, case.model, list(inputs), list(outputs))


def cases_of_files() -> Iterator[Case]:
    """Yield the cases that come with the onnx package as files."""
    import onnx

    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.glob("*/*/model.onnx")):
        proto = onnx.load(path)
        for folder in sorted(path.parent.glob("test_data_set_*")):
            values = [
                [
                    _value(file)
                    for file in sorted(
                        folder.glob(f"{kind}_*.pb"), key=lambda f: int(f.stem.split("_")[1])
                    )
                ]
                for kind in ("input", "output")
            ]
            yield Case(path.parent.name, path.parent.parent.name, proto, *values)


def _value(file: Path) -> Any:
    import onnx

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        return onnx.numpy_helper.to_array(tensor)
    except Exception:  # it holds a sequence or a map, and no tensor
        return None


def outcome(case: Case, way: str) -> tuple[str, str]:
    """Translate a case in one of `WAYS`, run it, and compare; return what came of it, and why."""
    import onnx
    import torch

    from nnrcodec.errors import NnrError
    from nnrcodec.formats.onnx.slots import take_weights
    from nnrcodec.formats.onnx.translation import translate
    from nnrcodec.graph.module import build_module

    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    graph = proto.graph
    if not all(
        isinstance(value, np.ndarray | np.generic) for value in (*case.inputs, *case.outputs)
    ):
        return REFUSED, "values that are no tensors"
    inputs, outputs = [np.asarray(v) for v in case.inputs], [np.asarray(v) for v in case.outputs]
    initial = {tensor.name for tensor in graph.initializer}
    declared = [value for value in graph.input if value.name not in initial]
    if way != WAYS[0]:
        for value, array in zip(declared[1:], inputs[1:], strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        inputs, declared = inputs[:1], declared[:1]
    if way == WAYS[2] and declared:
        for axis, dim in enumerate(declared[0].type.tensor_type.shape.dim):
            if axis != 1:
                dim.dim_param = f"size_{axis}"
    try:
        tensors = take_weights(graph)
        network = build_module(translate(proto, tensors))
    except NnrError as error:
        return REFUSED, str(error)
    try:
        with torch.no_grad():
            got = network(*(_to_torch(value) for value in inputs))
    except Exception as error:  # sizes that the graph does not take
        return REFUSED, f"when it runs: {type(error).__name__}: {error}"
    got = list(got) if isinstance(got, tuple) else [got]
    for left, right in zip(got, outputs, strict=True):
        left = left.detach()
        actual = left.numpy() if left.dtype != torch.bfloat16 else left.float().numpy()
        if actual.shape != right.shape:
            return WRONG, f"shape {actual.shape}, expected {right.shape}"
        if left.dtype != torch.bfloat16 and actual.dtype != right.dtype:
            return WRONG, f"dtype {actual.dtype}, expected {right.dtype}"
        tolerance = 3e-3 if right.dtype == np.float16 else 1e-4  # some have four digits only
        same = np.allclose(
            actual.astype(np.float64), right.astype(np.float64), tolerance, 1e-4, equal_nan=True
        )
        if not same:
            return WRONG, f"values differ by {np.abs(actual - right).max()}"
    return EQUAL, ""


def _to_torch(value: np.ndarray) -> Any:
    import torch

    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(value))


def main() -> int:
    """Print the table; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description="the test models of the onnx package, translated")
    parser.add_argument("operators", nargs="*", metavar="OPERATOR")
    parser.add_argument("--files", action="store_true", help="only what comes as files")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, str] = {}
    cases = [*cases_of_files()] if options.files else [*cases_of_nodes(), *cases_of_files()]
    for case in cases:
        if options.operators and case.op not in options.operators:
            continue
        for way in WAYS:
            try:
                result, why = outcome(case, way)
            except Exception as error:
                result, why = WRONG, f"not an error of ours: {type(error).__name__}: {error}"
            table[case.op][result] += 1
            line = why.splitlines()[0][:160] if why else ""
            if result == WRONG or (options.operators and result == REFUSED):
                print(f"{case.name}, {way}: {result}: {line}", flush=True)
            elif result == REFUSED:
                reasons.setdefault(case.op, line)
    print(f"{'operator':28}{EQUAL:>8}{REFUSED:>9}{WRONG:>7}  one that is refused")
    total: Counter[str] = Counter()
    for op, counts in sorted(table.items()):
        total.update(counts)
        row = "".join(f"{counts[k]:>{w}}" for k, w in ((EQUAL, 8), (REFUSED, 9), (WRONG, 7)))
        print(f"{op:28}{row}  {reasons.get(op, '')}")
    print(f"{'all':28}{total[EQUAL]:>8}{total[REFUSED]:>9}{total[WRONG]:>7}")
    return 1 if total[WRONG] else 0


if __name__ == "__main__":
    sys.exit(main())
