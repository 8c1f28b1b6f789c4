"""Training: one loop for every model, task and balancer."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch

from mtmm_lib.balancing import Balancer, StaticWeights
from mtmm_lib.bar import bar
from mtmm_lib.batch import Batch
from mtmm_lib.model import TaskModel
from mtmm_lib.training.checkpoint import Checkpoint
from mtmm_lib.training.checks import (
    Data,
    check_balancer,
    check_data,
    check_functions,
    check_labels,
    check_model,
    check_optimizer,
    check_schedule,
    check_selection,
    check_settings,
    told_complete,
    whole_seed,
)
from mtmm_lib.training.evaluation import modes_kept
from mtmm_lib.training.history import History
from mtmm_lib.training.hooks import AfterEpoch
from mtmm_lib.training.place import Place
from mtmm_lib.training.run import Run
from mtmm_lib.training.schedules import Rates, Schedule
from mtmm_lib.training.selection import Select


def fit(
    model: TaskModel,
    train: Data,
    *,
    valid: Data | None = None,
    balancer: Balancer | None = None,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: torch.optim.Optimizer
    | Callable[..., torch.optim.Optimizer]
    | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    device: torch.device | str = "auto",
    precision: Literal["auto", "float32", "bf16"] = "auto",
    compile: bool = False,
    seed: int = 0,
    select: Select | None = None,
    after_epoch: AfterEpoch | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    r"""Trains a model in place.

    Each epoch visits the samples once, in an order that follows from `(seed, epoch)`
    alone. A step is forward pass → the tasks' losses → the balancer's backward pass →
    the optimizer's step; a task without a label in the batch is left out, and a batch
    without any label takes no step. Within a step, `training_progress()` is the part of
    all steps that lie behind. Parts whose parameters are all frozen and that come in
    evaluation mode, a backbone say, stay in it: their batch normalisation does not
    move, their dropout draws nothing. The model comes back in the mode and on the
    device that it came in; the caller's random state is left alone, and the weights
    that the model starts from are the caller's.

    Several processes (started by `torchrun`) share each batch and give the result of
    one process to rounding: each takes its part of the same permutation, a task's loss
    is divided by the number of its labels in the whole batch, and gradients are added
    up. Every process needs the same data.

    Args:
        model: a `Model` or `DecisionFusion`.
        train: a `Batch` with all samples, which is kept on the device and sliced there;
            or a `DataLoader` (or another iterable that can be gone through again each
            epoch) of `Batch`es; `DataLoader(…, collate_fn=collate)` makes them of
            samples.
        valid: likewise. It is evaluated after each epoch, and in the end the weights of
            the best epoch are restored. Where no task is supervised, nothing can be
            chosen by, and the last weights stay.
        balancer: turns the losses into one update; by default their plain sum. Its
            state begins anew, unless the run goes on from a checkpoint.
        epochs: passes over the data; 0 leaves the model as it is.
        batch_size: samples per step over all processes; a `DataLoader` has its own.
        lr, weight_decay: learning rate and decoupled weight decay.
        optimizer: called as `optimizer(parameters, lr=lr, weight_decay=weight_decay)`,
            as in `torch.optim.SGD`; or a finished optimizer, whose own settings hold.
            By default AdamW (Loshchilov & Hutter, 2019) in PyTorch's fused form, with
            the decay on all parameters: its steps hardly depend on the overall scale of
            the loss, which differs so much between tasks and balancers.
        schedule: the part of all steps that lie behind, in [0, 1) → a factor of the
            learning rate, the same for all groups of the optimizer;
            `cosine(warmup=0.1)` is one. Afterwards the optimizer has its own rates
            again.
        clip: gradients whose norm, over all parameters, is above this are scaled down
            to it (Pascanu et al., 2013).
        device: `"auto"`: CUDA where there is one, otherwise the CPU.
        precision: `"bf16"` computes forward passes in bfloat16 where that is safe
            (autocast), with weights in float32. `"auto"`: bf16 on CUDA devices that
            support it, otherwise float32.
        compile: compile the forward pass with `torch.compile`.
        seed: of the order of the samples and of whatever the forward pass draws,
            dropout say.
        select: says which epoch is best: called with the validation losses of the
            supervised tasks that have labels, and all metrics as `evaluate` returns
            them, it returns a number, the lower the better. By default it is the
            geometric mean of the losses, which does not depend on their units;
            `mean_loss` is the arithmetic one.
        after_epoch: called after each epoch with an `EpochState`, for whatever is to be
            written down; where it returns something true, as `patience(5)` does when no
            better epoch has come for five, training stops. With several processes the
            first one calls it.
        checkpoint: a file that is written after each epoch, never half, and from which
            an interrupted run goes on; the end result is the same bit for bit (on the
            CPU, for a `train` in memory; `after_epoch` may be called again for the
            epoch that was interrupted). A finished or stopped run returns at once, and
            goes on where `epochs` is larger than before; what depends on the progress,
            a schedule, say, then counts against the new `epochs` from there on.
        progress: show a bar of the epochs.

    Returns:
        the `History`.

    Raises:
        TrainingError: when a loss, or a gradient that a balancer looks at, is not
            finite (named: the task, the step, and the first input that is not finite,
            for which the epoch's batches are gone through once more), or an epoch has
            no label at all.
        ValueError: before the first step, for settings out of range, data without
            samples or labels, or with such as the model cannot take, an optimizer of
            another model, a checkpoint that cannot be read or belongs to another
            configuration; and for negative losses without a `select`.
        TypeError: for a seed that is no whole number.

    Warns:
        UserWarning: when `train` has no label for some task.
    """
    check_model(model)
    check_settings(epochs, batch_size, lr, weight_decay, clip)
    seed = whole_seed(seed)
    check_functions(schedule=schedule, select=select, after_epoch=after_epoch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter to train")
    place = Place(device, precision)
    balancer = StaticWeights() if balancer is None else balancer
    check_balancer(balancer)
    home = parameters[0].device
    with modes_kept(model), place.seeded(), _kept_buffers(compile), ExitStack() as ends:
        check_data(model, train, "train")
        check_labels(model, train)
        if valid is not None:
            check_data(model, valid, "valid")
            check_selection(model, valid)
        check_schedule(schedule, train)

        @ends.callback
        def give_back() -> None:
            model.to(home)
            for p in parameters:
                p.grad = None

        if isinstance(train, Batch):
            train = told_complete(model, train).to(place.device)
        if isinstance(valid, Batch):
            valid = valid.to(place.device)
        model.to(place.device)
        place.same_everywhere(model)
        if optimizer is None:
            optimizer = torch.optim.AdamW(
                parameters, lr=lr, weight_decay=weight_decay, fused=True
            )
        elif not isinstance(optimizer, torch.optim.Optimizer):
            check_functions(optimizer=optimizer)
            optimizer = optimizer(parameters, lr=lr, weight_decay=weight_decay)
        check_optimizer(model, optimizer)
        rates = Rates(optimizer, schedule)
        ends.callback(rates.restore)
        run = Run(
            model=model,
            train=train,
            valid=valid,
            balancer=balancer,
            optimizer=optimizer,
            rates=rates,
            clip=clip,
            place=place,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            select=select,
            compile=compile,
        )
        balancer.start(model)
        file = None if checkpoint is None else Checkpoint(checkpoint, run)
        if file is not None:
            file.load()
        forward = torch.compile(model) if compile else model
        with bar(
            total=epochs,
            initial=len(run.history),
            desc="epochs",
            disable=None if progress and place.rank == 0 else True,
        ) as shown:
            while len(run.history) < epochs and not run.stopped:
                run.epoch(forward)
                run.hear(after_epoch)
                if file is not None:
                    file.save()
                shown.update()
        run.restore_best()
    return run.history


def _kept_buffers(compiled: bool) -> AbstractContextManager[None]:
    """A compiled backward pass may write over what it has read, unless it is told that
    others will follow: a gradient balancer goes back through one forward pass once for
    each task."""
    if not compiled:
        return nullcontext()
    from torch._functorch import config

    kept: AbstractContextManager[None] = config.patch(donated_buffer=False)
    return kept
