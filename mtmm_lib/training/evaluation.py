"""Evaluation: what a model makes of data, where nothing is learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.training.history import Losses

#: Samples per forward pass where nothing is learned: large enough to be fast, small
#: enough for memory.
CHUNK = 512


def evaluate(model: nn.Module, data: Batch | Iterable[Batch]) -> dict[str, float]:
    """Each task's metric over all samples that have its label.

    The predictions of all samples are collected first, so that metrics that are no
    averages are exact.

    Args:
        model: a `Model` or `DecisionFusion`; it is evaluated where it is.
        data: a `Batch` with all samples, or an iterable of `Batch`es.

    Returns:
        task → metric, NaN for a task without a label; further metrics of a task as
        `task/metric`.
    """
    device = next(iter(model.parameters()), torch.empty(0)).device
    with modes_kept(model):
        return measure(model, data, device)[1]


def measure(
    model: nn.Module, data: Batch | Iterable[Batch], device: torch.device
) -> tuple[Losses, dict[str, float]]:
    """Each task's mean loss over its labels (tasks without one left out), and its
    metric."""
    model.eval()
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    predictions: list[dict[str, Tensor]] = []
    seen: list[Batch] = []
    with torch.no_grad():
        for batch in chunks(data):
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


def chunks(data: Batch | Iterable[Batch]) -> Iterator[Batch]:
    """Batches of a size that one forward pass takes at once."""
    if isinstance(data, Batch):
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]
    else:
        yield from (batch for batch in data if len(batch))


def check_selection(model: nn.Module, valid: Batch | Iterable[Batch]) -> None:
    """Raises `ValueError` when there are supervised tasks but `valid` has a label of
    none of them."""
    tasks = [task for task in model.tasks.values() if task.supervised]
    if tasks and not any(
        task.labelled(batch).any() for batch in chunks(valid) for task in tasks
    ):
        raise ValueError(
            "valid has no label for any of the supervised tasks "
            f"{[t.name for t in tasks]}, so that no epoch can be chosen by it; leave "
            "valid out"
        )


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
