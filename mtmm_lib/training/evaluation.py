"""Evaluation: what a model makes of data, where nothing is learned."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output, cat
from mtmm_lib.model import TaskModel
from mtmm_lib.training.checks import Data, batches, check_model
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
        FloatingPointError: when a prediction for a sample with a label is not finite
            (named: the task, the sample's index in the data).
    """
    check_model(model)
    if isinstance(data, Batch):
        model.check(data)
    with modes_kept(model):
        return measure(model, data, _device(model))[1]


def evaluate_losses(model: TaskModel, data: Data) -> Losses:
    """Each task's mean loss over all samples that have its label, in evaluation mode:
    what a `History` holds for validation data, for any data.

    Arguments and errors are those of `evaluate`.

    Returns:
        task → loss, without the tasks that have no label.
    """
    check_model(model)
    if isinstance(data, Batch):
        model.check(data)
    with modes_kept(model):
        return measure(model, data, _device(model))[0]


def predict(model: TaskModel, data: Data) -> dict[str, Tensor]:
    """What a model says of each sample, on the scale that a person reads.

    Args:
        model: a `Model` or `DecisionFusion`; it predicts where it is.
        data: a `Batch` with all samples, or an iterable of `Batch`es. Targets are not
            needed.

    Returns:
        task → predictions for all samples, in their order, on the CPU: probabilities of
        classes, numbers in the units of the target, as the task's `readable` says. A
        warning names the first sample whose prediction is no number.

    Raises:
        ValueError: for data without samples, or with such as the model cannot take.
    """
    check_model(model)
    if isinstance(data, Batch):
        model.check(data, targets=False)
    found: list[dict[str, Tensor]] = []
    with modes_kept(model), torch.no_grad():
        model.eval()
        for batch in chunks(model, data, targets=False):
            predictions = model(batch.to(_device(model))).predictions
            found.append(
                {
                    name: task.readable(predictions[name]).cpu()
                    for name, task in model.tasks.items()
                }
            )
    if not found:
        raise ValueError("the data to predict has no samples")
    whole = {name: cat([part[name] for part in found]) for name in found[0]}
    for name, prediction in whole.items():
        everybody = torch.ones(len(prediction), dtype=torch.bool)
        if told := _not_finite(name, prediction, everybody):
            warnings.warn(told, UserWarning, stacklevel=2)
    return whole


def _device(model: TaskModel) -> torch.device:
    return next(iter(model.parameters()), torch.empty(0)).device


def measure(
    model: TaskModel, data: Data, device: torch.device
) -> tuple[Losses, dict[str, float]]:
    """Each task's mean loss over its labels (tasks without one left out), and its
    metrics."""
    model.eval()
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    predictions: list[dict[str, Tensor]] = []
    seen: list[Batch] = []
    with torch.no_grad():
        for batch in chunks(model, data):
            batch = batch.to(device)
            output = model(batch)
            for name, loss in model.losses(output, batch).items():
                weight = model.tasks[name].weight(batch)
                sums[name] = sums.get(name, 0) + loss.double() * weight
                weights[name] = weights.get(name, 0) + weight
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
            {name: cat([p[name] for p in predictions]) for name in predictions[0]}
        )
        targets = Batch.cat(seen)
        for name, task in model.tasks.items():
            # A metric need not show it: NaN for every class counts as the first one.
            labelled = task.labelled(targets)
            if told := _not_finite(name, merged.predictions[name], labelled):
                raise FloatingPointError(told)
        metrics = {
            name: float(value)
            for task in model.tasks.values()
            for name, value in task.scores(merged, targets).items()
        }
    losses = {
        name: float(total / weights[name])
        for name, total in sums.items()
        if weights[name] > 0  # a class may have the weight 0
    }
    return losses, metrics


def _not_finite(task: str, prediction: Tensor, counted: Tensor) -> str:
    """A sentence about the first of the counted samples whose prediction is no number;
    empty where there is none."""
    wrong = ~prediction.isfinite().reshape(len(counted), -1).all(1) & counted
    if not wrong.any():
        return ""
    first = int(wrong.nonzero()[0])
    return (
        f"the prediction of task {task!r} for sample {first} of the data is not finite "
        f"({int(wrong.sum())} of {len(wrong)} are not); look for such values in its "
        "inputs, or in the model's weights"
    )


def chunks(model: TaskModel, data: Data, *, targets: bool = True) -> Iterator[Batch]:
    """Batches of a size that one forward pass takes at once."""
    for batch in batches(model, data, "data", targets=targets):
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


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that training leaves in evaluation mode: those that are in it and
    belong to a part that has parameters, all of them frozen, and is in it, too.

    A dropout layer has no parameters: alone it is trained with, within a frozen
    backbone in evaluation mode it draws nothing.
    """
    found = []
    for part in model.modules():
        parameters = list(part.parameters())
        if (
            parameters
            and not part.training
            and not any(p.requires_grad for p in parameters)
        ):
            found += [module for module in part.modules() if not module.training]
    return found


def train_mode(model: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """Puts a model into training mode, but for what is frozen."""
    model.train()
    for module in frozen:
        module.training = False
