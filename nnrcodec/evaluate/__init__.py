"""Evaluation of coded networks: size, memory, run time, and what they are there for.

::

    from nnrcodec.evaluate import PsnrTask, evaluate, write_report

    found = evaluate("filter.pt2", {"a": "a.nnr", "b": "b.nnr"}, PsnrTask("pictures"))
    found.networks[1].score.value
    write_report(found, "page")
"""

from nnrcodec.evaluate.evaluation import Evaluation, NetworkResult, evaluate
from nnrcodec.evaluate.measure import Seconds
from nnrcodec.evaluate.report import write_report
from nnrcodec.evaluate.tasks import (
    AccuracyTask,
    CallableTask,
    OutputsTask,
    PsnrTask,
    Score,
    Task,
)

__all__ = [
    "AccuracyTask",
    "CallableTask",
    "Evaluation",
    "NetworkResult",
    "OutputsTask",
    "PsnrTask",
    "Score",
    "Seconds",
    "Task",
    "evaluate",
    "write_report",
]
