"""Evaluation: what a model makes of data, where nothing is learned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.model import TaskModel
from mtmm_lib.training.checks import Data, batches
from mtmm_lib.training.history import Losses

#: Samples per forward pass where nothing is learned: large enough to be fast, small
#: enough for memory.
CHUNK = 512


def evaluate(model: TaskModel, data: Data) -> dict[str, float]:
    """Each task's metric over all samples that have its label.

    The predictions of all samples are collected first, so that metrics that are no
    averages are exact.

    Args:
        model: a `Model` or `DecisionFusion`; it is evaluated where it is.
        data: a `Batch` with all samples, or an iterable of `Batch`es.

    Returns:
        task → metric, NaN for a task without a label; further metrics of a task as
        `task/metric`.

    Raises:
        ValueError: for data without samples, or with such as the model cannot take.
    """
    if isinstance(data, Batch):
        model.check(data)
    device = next(iter(model.parameters()), torch.empty(0)).device
    with modes_kept(model):
        return measure(model, data, device)[1]


def measure(
    model: TaskModel, data: Data, device: torch.device
) -> tuple[Losses, dict[str, float]]:
    """Each task's mean loss over its labels (tasks without one left out), and its
    metric."""
    model.eval()
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    predictions: list[dict[str, Tensor]] = []
    seen: list[Batch] = []
    with torch.no_grad():
        for batch in chunks(model, data):
            batch = batch.to(device)
            output = model(batch)
            for name, loss in model.losses(output, batch).items():
                count = model.tasks[name].weight(batch)
                sums[name] = sums.get(name, 0) + loss.double() * count
                counts[name] = counts.get(name, 0) + count
            predictions.append(output.predictions)
            # Who is present stays; the inputs, by far the largest part, make room for
            # that.
            there = {name: batch.mask(name) for name in batch.inputs}
            seen.append(
                Batch(there, batch.targets, batch.present) if batch.targets else batch
            )
        if not seen:
            raise ValueError("the data to evaluate on has no samples")
        merged = Output(
            {name: torch.cat([p[name] for p in predictions]) for name in predictions[0]}
        )
        targets = Batch.cat(seen)
        metrics = {
            name: float(value)
            for task in model.tasks.values()
            for name, value in task.scores(merged, targets).items()
        }
    losses = {
        name: float(total / counts[name])
        for name, total in sums.items()
        if counts[name] > 0  # a class may have the weight 0
    }
    return losses, metrics


def chunks(model: TaskModel, data: Data) -> Iterator[Batch]:
    """Batches of a size that one forward pass takes at once."""
    for batch in batches(model, data, "data"):
        if isinstance(data, Batch):
            yield from (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
        else:
            yield batch


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """A context. Afterwards every part of the model is in training or evaluation mode
    as before."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
