"""What is looked at before the first step: mistakes that are found before time is
spent."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from operator import index, length_hint
from typing import Any

import torch
from torch import Tensor

from mtmm_lib.balancing import Balancer
from mtmm_lib.batch import MISSING_CLASS, Batch, row_mask, valid_tokens
from mtmm_lib.model import TaskModel
from mtmm_lib.training.hooks import patience
from mtmm_lib.training.schedules import Schedule

Data = Batch | Iterable[Batch]


def check_settings(
    epochs: int, batch_size: int, lr: float, weight_decay: float, clip: float | None
) -> None:
    if not (
        isinstance(epochs, Integral)
        and isinstance(batch_size, Integral)
        and epochs >= 0
        and batch_size >= 1
    ):
        raise ValueError(
            "expected whole numbers epochs >= 0 and batch_size >= 1, got "
            f"{epochs!r} and {batch_size!r}"
        )
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if not (isinstance(value, Real | Tensor) and 0 <= float(value) < math.inf):
            raise ValueError(f"{name} is a finite number >= 0, got {value!r}")
    if clip is not None and not (isinstance(clip, Real | Tensor) and clip > 0):
        raise ValueError(f"clip is the largest norm of a gradient, > 0, got {clip!r}")


def whole_seed(seed: object) -> int:
    """A seed as an int of Python: others of the same value, those of numpy say, would
    give other random numbers, or none."""
    if not isinstance(seed, Integral):
        raise TypeError(f"a seed is a whole number, got {seed!r}")
    return index(seed)


def check_model(model: object) -> None:
    if not isinstance(model, TaskModel):
        raise ValueError(
            f"expected a model that is built, a Model or DecisionFusion, got {model!r}"
        )


#: What one of each kind looks like, and with how many arguments it is called, where
#: that might happen only later.
FUNCTIONS = {
    "optimizer": ("torch.optim.SGD", None),
    "schedule": ("cosine(warmup=0.1)", 1),
    "select": ("mean_loss", 2),
    "after_epoch": ("patience(5)", 1),
}


def check_functions(**given: Any) -> None:
    """Refuses what cannot be called where a function is needed, if anything is
    given."""
    for name, function in given.items():
        example, count = FUNCTIONS[name]
        if function is None:
            continue
        if not callable(function):
            raise ValueError(
                f"{name} is a function, such as {example}, got a "
                f"{type(function).__name__}"
            )
        if count is None:
            continue
        if function is patience or isinstance(function, type):
            raise ValueError(
                f"{name} is a function, such as {example}, got "
                f"{function.__name__}, which makes one: {name}={function.__name__}(…)"
            )
        try:
            inspect.signature(function).bind(*range(count))
        except TypeError as error:
            raise ValueError(
                f"{name} is called with {count} argument{'s' if count > 1 else ''}, as "
                f"{example} is, and what was given cannot be: {error}"
            ) from error
        except ValueError:  # what is written in C need not tell
            pass


def check_balancer(balancer: Balancer) -> None:
    if not isinstance(balancer, Balancer):
        raise ValueError(
            "balancer is an object of a class derived from Balancer, such as "
            f"StaticWeights(), got {balancer!r}"
        )


def check_schedule(schedule: Schedule | None, train: Data) -> None:
    """A schedule needs to know how far training has come within an epoch."""
    if schedule is not None and not length_hint(train, 0):
        raise ValueError(
            f"a schedule needs the number of steps of an epoch, but train, a "
            f"{type(train).__name__}, has no length; give it a __len__"
        )


def check_optimizer(model: TaskModel, optimizer: torch.optim.Optimizer) -> None:
    """A parameter of the model that the optimizer does not hold stays as it is; one
    that is none of the model's is a mistake."""
    own = {id(p) for p in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = sum(id(p) not in own for p in held)
    if foreign:
        raise ValueError(
            f"{foreign} of the optimizer's {len(held)} parameters are none of the "
            "model's: it was made for another model, or before the model's "
            "parameters were replaced; make it anew, or give its class"
        )


def check_data(model: TaskModel, data: Data, name: str) -> None:
    """What the data is, and where it is in memory, every sample."""
    if isinstance(data, Batch):
        if not len(data):
            raise ValueError(f"{name} has no samples")
        model.check(data)
    elif not isinstance(data, Iterable) or isinstance(data, Iterator):
        raise ValueError(
            f"{name} is a Batch, or an iterable of Batches that can be gone through "
            "once per epoch, such as a DataLoader or a list; got "
            f"{type(data).__name__}"
        )


def check_labels(model: TaskModel, train: Data) -> None:
    """Warns of tasks that `train`, where it is in memory, has no label for.

    Raises:
        ValueError: when it has none for any task.
    """
    if isinstance(train, Batch):
        labelled = {
            name: bool(task.labelled(train).any()) for name, task in model.tasks.items()
        }
        if not any(labelled.values()):
            raise ValueError(
                f"train has no label for any of the tasks {sorted(labelled)}"
            )
        warn_unlabelled([name for name, found in labelled.items() if not found])


def told_complete(model: TaskModel, data: Batch) -> Batch:
    """The data, told which tasks have every entry of their target for every sample, so
    that no step has to look."""
    complete = []
    for name, task in model.tasks.items():
        if name in data.targets and task.labelled(data).all():
            target = task.target(data)
            missing = (
                target.isnan()
                if target.is_floating_point()
                else target == MISSING_CLASS
            )
            if not missing.any():
                complete.append(name)
    return data.knowing(complete)


def warn_unlabelled(names: list[str]) -> None:
    if names:
        warnings.warn(
            f"train has no label for {'tasks' if names[1:] else 'task'} "
            f"{', '.join(map(repr, names))}: nothing is learned for it",
            UserWarning,
            stacklevel=2,
        )


def check_selection(model: TaskModel, valid: Data) -> None:
    """Raises `ValueError` when there are supervised tasks but `valid` has a label of
    none of them."""
    tasks = [task for task in model.tasks.values() if task.supervised]
    if tasks and not any(
        task.labelled(batch).any()
        for batch in batches(model, valid, "valid")
        for task in tasks
    ):
        raise ValueError(
            "valid has no label for any of the supervised tasks "
            f"{[t.name for t in tasks]}, so that no epoch "
            "can be chosen by it; leave valid out"
        )


def strange_input(model: TaskModel, data: Batch, first: int = 0) -> str | None:
    """Says which number that a model reads is none: the usual reason for a loss that is
    none. `first` is the index of the first sample."""
    for name in model.modalities:
        x = data.inputs[name]
        wrong = ~x.isfinite() & row_mask(data.mask(name), x)
        if name in data.lengths:
            wrong &= row_mask(valid_tokens(data.lengths[name], x.shape[1]), x)
        rows = wrong.reshape(len(x), -1).any(1)
        if rows.any():
            i = int(rows.nonzero()[0])
            return (
                f"inputs[{name!r}] of sample {first + i} has the value "
                f"{x[i][wrong[i]][0].item()} ({int(rows.sum())} of {len(x)} samples "
                "have such); fill them in, or mark the modality as absent there"
            )
    return None


def batches(
    model: TaskModel, data: Data, name: str, *, targets: bool = True
) -> Iterator[Batch]:
    """The batches of `data` that have samples, each looked at as it comes, where that
    was not done for all of them at once."""
    if isinstance(data, Batch):
        yield data
        return
    if not isinstance(data, Iterable):
        raise ValueError(
            f"{name} is a Batch or an iterable of Batches, got {type(data).__name__}"
        )
    first = 0
    for batch in data:
        if not isinstance(batch, Batch):
            raise ValueError(
                f"{name} is a {type(data).__name__} that gives objects of type "
                f"{type(batch).__name__}, but Batches are needed; Batch.from_arrays "
                "makes one of arrays, and DataLoader(…, collate_fn=collate) makes them "
                "of samples"
            )
        if len(batch):
            model.check(batch, first, targets=targets)
            yield batch
        first += len(batch)
