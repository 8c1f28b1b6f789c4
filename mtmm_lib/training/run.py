"""One training run: its state, and what it does in an epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import torch
from torch import Tensor

from mtmm_lib.balancing import Balancer
from mtmm_lib.batch import Batch, Output
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import at_progress
from mtmm_lib.training.checks import Data, batches, warn_unlabelled
from mtmm_lib.training.evaluation import measure
from mtmm_lib.training.history import History, Losses, TrainingError
from mtmm_lib.training.place import Place
from mtmm_lib.training.seeds import permutation
from mtmm_lib.training.selection import Select, score


@dataclass
class Run:
    """The state of one training run and what it does in an epoch."""

    model: TaskModel
    train: Data
    valid: Data | None
    balancer: Balancer
    optimizer: torch.optim.Optimizer
    place: Place
    epochs: int
    batch_size: int
    seed: int
    select: Select | None
    history: History = field(default_factory=History)
    best: dict[str, Any] | None = None

    def epoch(self, forward: Callable[[Batch], Output]) -> None:
        """One pass over the data, then validation."""
        start, place, index = time.perf_counter(), self.place, len(self.history)
        self.model.train()
        log = _Log(
            index,
            sum(self.history.steps),
            every=1 if place.device.type == "cpu" else 50,
        )
        steps = length_hint(self.train, 0)  # 0 for an iterable that cannot tell
        if isinstance(self.train, Batch):
            steps = math.ceil(steps / self.batch_size)
        place.seed(self.seed, index)
        for i, (batch, own) in enumerate(self._batches(index)):
            # from here on each process draws for itself: their samples differ
            if i == 0:
                place.seed(self.seed, index, place.rank)
            with at_progress((index + (i / steps if steps else 0)) / self.epochs):
                self._step(forward, batch, own, log)
        if not log.steps:
            raise TrainingError(
                f"no batch of epoch {index} has a label for any of the tasks "
                f"{sorted(self.model.tasks)}"
            )
        log.flush()
        losses = log.means(log.losses)
        if index == 0 and not isinstance(self.train, Batch):
            warn_unlabelled([name for name in self.model.tasks if name not in losses])
        self.balancer.after_epoch(losses)
        self.history.train_loss.append(losses)
        self.history.weights.append(log.means(log.weights))
        self.history.steps.append(log.steps)
        if self.valid is not None:
            self._validate(index)
        self.history.seconds.append(time.perf_counter() - start)

    def _batches(self, epoch: int) -> Iterator[tuple[Batch, bool]]:
        """This process's part of each batch, and whether it counts."""
        if not isinstance(self.train, Batch):
            for batch in batches(self.model, self.train, "train"):
                part, own = self.place.part(batch)
                yield part.to(self.place.device), own
            return
        order = permutation(len(self.train), self.seed, epoch).to(self.place.device)
        for chosen in order.split(self.batch_size):
            part, own = self.place.part(chosen)
            yield self.train[part], own

    def _step(
        self, forward: Callable[[Batch], Output], batch: Batch, own: bool, log: _Log
    ) -> None:
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

        def compute() -> tuple[dict[str, Tensor], Output]:
            with self.place.autocast():
                output = forward(batch)
                losses = self.model.losses(output, batch)
            if self.place.world > 1:
                return self.place.whole(losses, output, batch, own, self.model.tasks)
            return losses, output

        losses, output = compute()
        if not losses:
            return
        log.add(losses)
        try:
            weights = self.balancer.backward(losses, output, self.model)
        except FloatingPointError as error:
            log.flush()  # says so if a loss is to blame
            raise TrainingError(
                f"at step {log.step} (epoch {log.epoch}) {error}"
            ) from error
        log.add_weights(weights)
        if self.place.world > 1:
            self.place.sum_gradients(self.optimizer)
        self.optimizer.step()
        with torch.no_grad():
            self.balancer.after_step(lambda: compute()[0])

    def _validate(self, epoch: int) -> None:
        with self.place.autocast():
            measured = measure(self.model, self.valid, self.place.device)
        losses, metrics = self.place.from_first(measured)
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the validation loss of task {name!r} is {loss} after epoch "
                    f"{epoch}"
                )
        self.history.valid_loss.append(losses)
        self.history.valid.append(metrics)
        value = score(self.model.tasks, self.history.valid_loss, metrics, self.select)
        if value is not None and (self.best is None or value < self.best["score"]):
            self.best = {
                "score": value,
                "model": copy.deepcopy(self.model.state_dict()),
            }
            self.history.best_epoch = epoch

    def restore_best(self) -> None:
        """Ends the run with the best weights, where there was a choice."""
        if self.best is not None:
            self.model.load_state_dict(self.best["model"])


class _Log:
    """Losses and weights of an epoch; looks at the numbers `every` so many steps, since
    looking waits."""

    def __init__(self, epoch: int, before: int, every: int) -> None:
        self.epoch, self.before, self.every = epoch, before, every
        self.steps = 0
        self.pending: list[tuple[int, tuple[str, ...], Tensor]] = []
        self.losses: dict[str, tuple[float, int]] = {}
        self.weights: dict[str, tuple[float, int]] = {}

    @property
    def step(self) -> int:
        """The number of the present step, counted over all epochs."""
        return self.before + self.steps

    def add(self, losses: dict[str, Tensor]) -> None:
        self.steps += 1
        values = torch.stack([loss.detach() for loss in losses.values()])
        self.pending.append((self.step, tuple(losses), values))
        if len(self.pending) >= self.every:
            self.flush()

    def flush(self) -> None:
        for step, names, values in self.pending:
            for name, value in zip(names, values.tolist(), strict=True):
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss of task {name!r} is {value} at step {step} (epoch "
                        f"{self.epoch}); look for such values in its inputs and "
                        "targets, or take a smaller learning rate"
                    )
                total, count = self.losses.get(name, (0.0, 0))
                self.losses[name] = total + value, count + 1
        self.pending.clear()

    def add_weights(self, weights: dict[str, float]) -> None:
        for name, value in weights.items():
            total, count = self.weights.get(name, (0.0, 0))
            self.weights[name] = total + value, count + 1

    @staticmethod
    def means(sums: dict[str, tuple[float, int]]) -> Losses:
        return {name: float(total / count) for name, (total, count) in sums.items()}
