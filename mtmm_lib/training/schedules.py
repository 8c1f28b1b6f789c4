"""Learning rates that change in the course of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

#: The part of all steps that lie behind, in [0, 1) → a factor of the learning rate. It
#: depends on nothing else, so that a run that goes on after an interruption goes on
#: with the same rates.
Schedule = Callable[[float], float]


def cosine(warmup: float = 0.0) -> Schedule:
    r"""Half a cosine from 1 down to 0, after a linear warm-up (Loshchilov & Hutter,
    2017; Goyal et al., 2017).

    With p the part of all steps that lie behind and w = `warmup`, the factor is p / w
    for p < w, and $\frac12 (1 + \cos \pi \frac{p - w}{1 - w})$ from there on. The very
    first step of a warm-up moves nothing.

    Args:
        warmup: the part of training in which the rate grows, in [0, 1).

    Raises:
        ValueError: for a `warmup` outside [0, 1).
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup lies in [0, 1), got {warmup}")
    return partial(_cosine, warmup)


def _cosine(warmup: float, progress: float) -> float:
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


class Rates:
    """An optimizer's learning rates: those that it came with, times a factor.

    Args:
        optimizer: each of its groups keeps its own rate, so that their ratios stay.
        schedule: the factor; `None`: the rates are left alone.

    Raises:
        ValueError: when the schedule gives something else than numbers that are finite
            and not negative.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, schedule: Schedule | None
    ) -> None:
        self.optimizer, self.schedule = optimizer, schedule
        self.base = [float(group["lr"]) for group in optimizer.param_groups]
        #: The factor at 0, 1 %, … of training, by which a checkpoint knows a schedule.
        self.course = []
        if schedule is not None:
            if callable(schedule(0.0)):
                raise ValueError(
                    "a schedule gives a factor of the learning rate, but this one gave "
                    "a function: schedule=cosine() in place of schedule=cosine?"
                )
            self.course = [float(schedule(i / 100)) for i in range(100)]
        for i, factor in enumerate(self.course):
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(
                    "a schedule gives finite factors >= 0 of the learning rate, got "
                    f"{factor} after {i} % of training"
                )

    def set(self, progress: float) -> None:
        """The rates for a step."""
        if self.schedule is not None:
            self._multiply(float(self.schedule(progress)))

    def restore(self) -> None:
        """The rates that the optimizer came with."""
        if self.schedule is not None:
            self._multiply(1.0)

    def _multiply(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.base, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * rate)
            else:
                group["lr"] = factor * rate
