"""Tasks: a task is any learning signal. It owns a head, a loss and a metric."""

from mtmm_lib.tasks.base import Task, at_progress, training_progress
from mtmm_lib.tasks.dense import Segmentation, SequenceTagging
from mtmm_lib.tasks.supervised import (
    Classification,
    MultiLabel,
    Ordinal,
    Regression,
    Supervised,
)
from mtmm_lib.tasks.unimodal import UnimodalTask, unimodal_tasks

__all__ = [
    "Classification",
    "MultiLabel",
    "Ordinal",
    "Regression",
    "Segmentation",
    "SequenceTagging",
    "Supervised",
    "Task",
    "UnimodalTask",
    "at_progress",
    "training_progress",
    "unimodal_tasks",
]
