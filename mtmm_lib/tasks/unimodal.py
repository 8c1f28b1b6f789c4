r"""Unimodal tasks: a supervised task asked of one modality alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from mtmm_lib.batch import MISSING_CLASS, Batch, Output, row_mask
from mtmm_lib.tasks.base import Task


class UnimodalTask(Task):
    r"""A supervised task asked of one modality alone, by a head of its own on that
    modality's features.

    It has the target, loss and metric of the given task, and the name `task/modality`.
    Where the modality is absent there is no label. It is a help in training: it counts
    neither for relative gains nor for the choice of the best epoch.

    Raises:
        ValueError: for a task that is not supervised.
    """

    supervised = False

    def __init__(self, task: Task, modality: str) -> None:
        super().__init__(f"{task.name}/{modality}", reads=modality)
        if not task.supervised:
            raise ValueError(
                f"{task!r} is not supervised, so there is no target to ask one "
                "modality for"
            )
        self.task = copy.copy(task)
        self.task.reads = self.reads
        self.pooled, self.higher_is_better = task.pooled, task.higher_is_better
        self.balanced, self.gaussian = task.balanced, task.gaussian

    def _alone(self, batch: Batch) -> Batch:
        """The batch with the target missing where the modality is."""
        target, (modality,) = self.task.target(batch), self.reads
        missing = torch.nan if target.is_floating_point() else MISSING_CLASS
        seen = torch.where(row_mask(batch.mask(modality), target), target, missing)
        # not by `replace`, which would check the whole batch anew at every step
        return Batch.unchecked(
            batch.inputs, {self.task.name: seen}, batch.present, batch.lengths
        )

    def _as_own(self, output: Output) -> Output:
        return replace(
            output, predictions={self.task.name: output.predictions[self.name]}
        )

    def head(self, dims: dict[str, int]) -> nn.Module:
        return self.task.head(dims)

    def check(self, batch: Batch, first: int = 0) -> None:
        self.task.check(batch, first)

    def labelled(self, batch: Batch) -> Tensor:
        return self.task.labelled(self._alone(batch))

    def weight(self, batch: Batch) -> Tensor:
        return self.task.weight(self._alone(batch))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return self.task.loss(self._as_own(output), self._alone(batch))

    def metric(self, output: Output, batch: Batch) -> Tensor:
        return self.task.metric(self._as_own(output), self._alone(batch))

    def scores(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        scores = self.task.scores(self._as_own(output), self._alone(batch))
        return {
            self.name + name.removeprefix(self.task.name): value
            for name, value in scores.items()
        }

    def readable(self, prediction: Tensor) -> Tensor:
        return self.task.readable(prediction)


def unimodal_tasks(task: Task, modalities: Iterable[str]) -> list[UnimodalTask]:
    r"""The same question to each modality alone, as tasks beside the joint one.

    With the tasks `[task, *unimodal_tasks(task, modalities)]`, every encoder has a loss
    that no other modality can satisfy in its place, and any balancer may weigh joint
    and unimodal losses: fixed weights as in Gradient-Blend (Wang et al., 2020), or
    gradients, the idea of MMPareto (Wei & Hu, 2024), with a `GradientBalancer` at level
    `"parameters"`. The sharing stage is built for the joint task alone.

    Args:
        task: a supervised task.
        modalities: the modalities to ask.
    """
    return [UnimodalTask(task, modality) for modality in modalities]
