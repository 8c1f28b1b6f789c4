"""What is called after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import torch

from mtmm_lib.model import TaskModel
from mtmm_lib.training.history import History


@dataclass(frozen=True, eq=False)
class EpochState:
    """What training has come to, for a function called after each epoch.

    Args:
        epoch: the epoch that has just ended; the first is 0.
        epochs: how many there will be.
        history: with the epoch's losses and metrics as its last entries.
        model: the model; nothing is changed by evaluating it.
        optimizer: the optimizer.
    """

    epoch: int
    epochs: int
    history: History
    model: TaskModel
    optimizer: torch.optim.Optimizer


#: Called after each epoch; training stops where it returns something true.
AfterEpoch = Callable[[EpochState], object]


def patience(epochs: int) -> AfterEpoch:
    """Stops training when none of the last `epochs` epochs was the best so far: early
    stopping, as in `fit(..., after_epoch=patience(5))`.

    What it knows follows from the history alone, so that an interrupted run stops where
    the uninterrupted one does.

    Args:
        epochs: how many epochs may go by without a better one, at least 1.

    Raises:
        ValueError: for fewer than 1, and in training, where no epoch is chosen.
    """
    if not isinstance(epochs, Integral) or epochs < 1:
        got = epochs if isinstance(epochs, Real) else type(epochs).__name__
        raise ValueError(
            f"patience needs at least 1 epoch, got {got}; it is given as in "
            "after_epoch=patience(5)"
        )
    return partial(_patience, epochs)


def _patience(epochs: int, state: EpochState) -> bool:
    best = state.history.best_epoch
    if best is None:
        raise ValueError(
            "patience waits for a better epoch, but none is chosen: it needs `valid` "
            "and a supervised task with labels there"
        )
    return state.epoch - best >= epochs
