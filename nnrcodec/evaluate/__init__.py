"""Evaluation of coded networks: size, quality, run time and memory.

::

    from nnrcodec.evaluate import PsnrTask, evaluate, write_report

    evaluation = evaluate("filter.pt2", {"a": "a.nnr", "b": "b.nnr"}, PsnrTask("pictures"))
    evaluation.networks[1].score.value
    write_report(evaluation, "page")
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
