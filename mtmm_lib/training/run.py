"""One training run: its state, and what it does in an epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import length_hint
from typing import Any

import torch
from torch import Tensor, nn

from mtmm_lib.balancing import Balancer
from mtmm_lib.batch import Batch, Output
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import at_progress
from mtmm_lib.training.checks import Data, batches, strange_input, warn_unlabelled
from mtmm_lib.training.evaluation import frozen_modules, measure, train_mode
from mtmm_lib.training.history import History, Losses, TrainingError
from mtmm_lib.training.hooks import AfterEpoch, EpochState
from mtmm_lib.training.place import Place
from mtmm_lib.training.schedules import Rates
from mtmm_lib.training.seeds import permutation
from mtmm_lib.training.selection import Select, score

#: Looking at a loss waits for it, and costs as much as a small layer.
LOOK_EVERY = 50


@dataclass(kw_only=True)
class Run:
    """The state of one training run and what it does in an epoch."""

    model: TaskModel
    train: Data
    valid: Data | None
    balancer: Balancer
    optimizer: torch.optim.Optimizer
    rates: Rates
    clip: float | None
    place: Place
    epochs: int
    batch_size: int
    seed: int
    select: Select | None
    compile: bool
    history: History = field(default_factory=History)
    best: dict[str, Any] | None = None
    stopped: bool = False

    def __post_init__(self) -> None:
        self.frozen = frozen_modules(self.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.moved = [
            p for group in self.optimizer.param_groups for p in group["params"]
        ]

    def epoch(self, forward: Callable[[Batch], Output]) -> None:
        """One pass over the data, then validation."""
        start, place, index = time.perf_counter(), self.place, len(self.history)
        train_mode(self.model, self.frozen)
        log = _Log(index, sum(self.history.steps), self._strange_input)
        steps = length_hint(self.train, 0)  # 0 for an iterable that cannot tell
        if isinstance(self.train, Batch):
            steps = math.ceil(steps / self.batch_size)
        place.seed(self.seed, index)
        for i, (batch, own) in enumerate(self._batches(index)):
            # from here on each process draws for itself: their samples differ
            if i == 0:
                place.seed(self.seed, index, place.rank)
            log.batches = i + 1
            progress = (index + (i / steps if steps else 0)) / self.epochs
            self.rates.set(progress)
            try:
                with at_progress(progress):
                    self._step(forward, batch, own, log)
            except Exception as error:
                log.flush()  # says so if a loss that is not finite is to blame
                if not isinstance(error, FloatingPointError):
                    raise
                raise TrainingError(
                    f"at step {log.step} (epoch {index}) {error}"
                ) from error
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
            self._validate(index, self.valid)
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
            indices, own = self.place.part(chosen)
            yield self.train[indices], own

    def _strange_input(self, epoch: int, count: int) -> str | None:
        """Says which number in the first `count` batches of an epoch is none. Those of
        a loader are drawn once more, so that no step has to keep or look at them."""
        if isinstance(self.train, Batch):
            return strange_input(self.model, self.train)
        self.place.seed(self.seed, epoch)  # the same order, if torch draws it
        first = 0
        for batch in islice(batches(self.model, self.train, "train"), count):
            if found := strange_input(self.model, batch, first):
                return f"in the order of the epoch, {found}"
            first += len(batch)
        return None

    def _step(
        self, forward: Callable[[Batch], Output], batch: Batch, own: bool, log: _Log
    ) -> None:
        for p in self.trained:
            p.grad = None
        losses, output = self._losses(forward, batch, own)
        if not losses:
            return
        log.add(losses)
        log.add_weights(self.balancer.backward(losses, output, self.model))
        if self.place.world > 1:
            self.place.sum_gradients(self.moved)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.moved, self.clip)
        self.optimizer.step()
        if type(self.balancer).after_step is not Balancer.after_step:
            with torch.no_grad():
                self.balancer.after_step(lambda: self._losses(forward, batch, own)[0])

    def _losses(
        self, forward: Callable[[Batch], Output], batch: Batch, own: bool
    ) -> tuple[dict[str, Tensor], Output]:
        """The losses, with the whole batch's values, and the forward pass that they
        come from."""
        with self.place.autocast():
            output = forward(batch)
            losses = self.model.losses(output, batch)
        if self.place.world > 1:
            return self.place.whole(losses, output, batch, own, self.model.tasks)
        return losses, output

    def hear(self, after_epoch: AfterEpoch | None) -> None:
        """Asks whether training stops here."""
        if after_epoch is None:
            return
        stop = False
        if self.place.rank == 0:
            state = EpochState(
                len(self.history) - 1,
                self.epochs,
                self.history,
                self.model,
                self.optimizer,
            )
            stop = bool(after_epoch(state))
        self.stopped = self.place.from_first(stop)

    def _validate(self, epoch: int, valid: Data) -> None:
        try:
            with self.place.autocast():
                measured = measure(self.model, valid, self.place.device)
        except FloatingPointError as error:
            raise TrainingError(
                f"in validation after epoch {epoch}: {error}"
            ) from error
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
    """Losses and weights of an epoch. The losses stay tensors for some steps, and are
    then looked at together."""

    def __init__(
        self,
        epoch: int,
        before: int,
        strange_input: Callable[[int, int], str | None],
    ) -> None:
        self.epoch, self.before, self.strange_input = epoch, before, strange_input
        self.batches = self.steps = 0
        self.pending: list[tuple[int, str, Tensor]] = []
        self.losses: dict[str, tuple[float, int]] = {}
        self.weights: dict[str, tuple[float, int]] = {}

    @property
    def step(self) -> int:
        """The number of the present step, counted over all epochs."""
        return self.before + self.steps

    def add(self, losses: dict[str, Tensor]) -> None:
        if len(self.pending) >= LOOK_EVERY * len(losses):
            self.flush()
        self.steps += 1
        for name, loss in losses.items():
            self.pending.append((self.step, name, loss.detach()))

    def flush(self) -> None:
        if not self.pending:
            return
        steps, names, losses = zip(*self.pending, strict=True)
        self.pending.clear()
        for step, name, value in zip(
            steps, names, torch.stack(losses).tolist(), strict=True
        ):
            if not math.isfinite(value):
                reason = self.strange_input(self.epoch, self.batches) or (
                    "look for such values in its inputs and targets, or take a smaller "
                    "learning rate"
                )
                raise TrainingError(
                    f"the loss of task {name!r} is {value} at step {step} (epoch "
                    f"{self.epoch}); {reason}"
                )
            total, count = self.losses.get(name, (0.0, 0))
            self.losses[name] = total + value, count + 1

    def add_weights(self, weights: dict[str, float]) -> None:
        for name, value in weights.items():
            total, count = self.weights.get(name, (0.0, 0))
            self.weights[name] = total + value, count + 1

    @staticmethod
    def means(sums: dict[str, tuple[float, int]]) -> Losses:
        return {name: float(total / count) for name, (total, count) in sums.items()}
