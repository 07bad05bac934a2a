"""Evaluation of coded networks: size, memory, run time, and what they are there for."""

from nnrcodec.evaluate.evaluation import Evaluation, NetworkResult, evaluate
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
    "Task",
    "evaluate",
    "write_report",
]
