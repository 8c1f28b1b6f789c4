"""Training one small model per seed, all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.batch import Batch
from mtmm_lib.model import Model
from mtmm_lib.tasks import at_progress
from mtmm_lib.training.checks import (
    check_data,
    check_labels,
    check_selection,
    check_settings,
)
from mtmm_lib.training.evaluation import (
    CHUNK,
    chunks,
    evaluate,
    frozen_modules,
    modes_kept,
    train_mode,
)
from mtmm_lib.training.history import Losses, TrainingError
from mtmm_lib.training.seeds import derive_seed, permutation
from mtmm_lib.training.selection import Select, score

Value = TypeVar("Value")


#: Group of a `Batch` ("inputs", …) → key → tensor `[R, N, ...]`: R batches side by
#: side.
Stacked = dict[str, dict[str, Tensor]]


def fit_many(
    build: Callable[[], Model],
    train: Sequence[Batch],
    *,
    seeds: Sequence[int],
    valid: Sequence[Batch] | None = None,
    weights: Mapping[str, float] | None = None,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    select: Select | None = None,
) -> list[Model]:
    r"""Trains one small model per seed, all at once as one batched network
    (`torch.func.vmap`).

    Each model becomes, to rounding, what `fit` would make of it:

        torch.manual_seed(seed) model = build() fit(model, train[i], valid=valid[i],
        balancer=StaticWeights(weights), seed=seed, ...)

    Missing labels and modalities are treated alike; dropout alone draws other numbers.
    What it saves is the overhead of many small operations; large models gain nothing.

    Args:
        build: makes a fresh model; called once per seed, with torch's random numbers
            seeded by it.
        train: one `Batch` per seed, all of the same shapes.
        seeds: one per model.
        valid: one `Batch` per seed, all of the same shapes; each model keeps its own
            best epoch.
        weights: task → weight of its loss, as in `StaticWeights`.
        epochs, batch_size, lr, weight_decay, select: as in `fit`, with its default
            optimizer, on the CPU.

    Returns:
        the trained models, in the order of the seeds.

    Raises:
        ValueError: when the numbers of seeds and batches, the shapes, or the models'
            parameters differ; and as in `fit`.
        TrainingError: when a loss is not finite (named: the task, the seed, the epoch).

    Warns:
        UserWarning: when one of the Batches in `train` has no label for some task.
    """
    check_settings(epochs, batch_size)
    seeds = list(seeds)
    if not seeds:
        raise ValueError("fit_many needs at least one seed, got none")
    for name, batches in (("train", train), ("valid", valid)):
        if batches is not None and (
            isinstance(batches, Batch) or len(batches) != len(seeds)
        ):
            raise ValueError(
                f"{name} needs a sequence of {len(seeds)} Batches, one per seed"
            )
    with torch.random.fork_rng([]):
        models = []
        for seed in seeds:
            torch.default_generator.manual_seed(seed)
            models.append(build())
        for model, batch in zip(models, train, strict=True):
            check_data(model, batch, "train")
            check_labels(model, batch)
        torch.default_generator.manual_seed(derive_seed(*seeds))
        replicas = _Replicas(
            models, train, StaticWeights(weights).of(models[0].tasks), lr, weight_decay
        )
        size = len(train[0])
        steps = -(-size // batch_size)
        choose = valid is not None and any(
            task.supervised for task in replicas.tasks.values()
        )
        if choose:
            for model, batch in zip(models, valid, strict=True):
                check_data(model, batch, "valid")
                check_selection(model, batch)
            held_out, lowest = (
                _stack(valid, "valid"),
                torch.full([len(seeds)], torch.inf, dtype=torch.double),
            )
            courses: list[list[Losses]] = [[] for _ in seeds]
        with modes_kept(models[0]):
            for epoch in range(epochs):
                order = torch.stack([permutation(size, seed, epoch) for seed in seeds])
                losses = []
                for i, chosen in enumerate(order.split(batch_size, 1)):
                    with at_progress((epoch + i / steps) / epochs):
                        losses.append(replicas.step(chosen))
                if choose:
                    loss, labels = replicas.measure(held_out)
                    losses.append(loss)
                for r, t in (~torch.stack(losses).isfinite()).any(0).nonzero().tolist():
                    raise TrainingError(
                        f"the loss of task {list(replicas.tasks)[t]!r} is not finite "
                        f"for seed {seeds[r]} in epoch {epoch}"
                    )
                if not choose:
                    continue
                if select is not None:
                    replicas.unstack(models, replicas.blocks)
                scores = []
                for r, (model, batch) in enumerate(zip(models, valid, strict=True)):
                    courses[r].append(
                        {
                            task: loss[r, t].item()
                            for t, task in enumerate(replicas.tasks)
                            if labels[r, t]
                        }
                    )
                    metrics = {} if select is None else evaluate(model, batch)
                    scores.append(score(replicas.tasks, courses[r], metrics, select))
                now = torch.tensor(scores, dtype=torch.double)
                replicas.keep(now < lowest)
                lowest = torch.minimum(lowest, now)
        replicas.unstack(models, replicas.best or replicas.blocks)
    return models


class _Replicas:
    """R models of one architecture with their parameters stacked: every operation works
    on all of them.

    `fit` leaves a parameter alone in a step in which no task that reaches it has a
    label. Here one model's batch may have such a label and another's not. So parameters
    are joined to blocks `[R, n]` that the same tasks reach, and the optimizer sees each
    model's row of a block as a parameter of its own. What a task with all its labels
    reaches moves in every step, and stays one parameter.
    """

    def __init__(
        self,
        models: Sequence[Model],
        train: Sequence[Batch],
        weights: Mapping[str, float],
        lr: float,
        weight_decay: float,
    ) -> None:
        self.template, self.tasks, self.weights = models[0], models[0].tasks, weights
        self.frozen = frozen_modules(self.template)
        self.train = _stack(train, "train")
        states = [_state(model) for model in models]
        shapes = [
            {name: value.shape for name, value in state.items()} for state in states
        ]
        if any(other != shapes[0] for other in shapes):
            raise ValueError(
                "build() made models with different parameters, but one architecture "
                "is needed"
            )
        # bad data fails here, with a clear message
        for model, batch in zip(models, train, strict=True):
            with torch.no_grad():
                for chunk in chunks(model, batch):
                    model.losses(model(chunk), chunk)
        full = {
            t
            for t, task in self.tasks.items()
            if all(task.labelled(b).all() for b in train)
        }
        groups: dict[frozenset[str], list[str]] = {}
        for name, tasks in _reach(self.template, train[0]).items():
            groups.setdefault(frozenset() if tasks & full else tasks, []).append(name)
        self.layout = [
            {name: shapes[0][name] for name in names} for names in groups.values()
        ]
        self.blocks = [
            torch.stack(
                [torch.cat([state[n].flatten() for n in names]) for state in states]
            ).requires_grad_()
            for names in groups.values()
        ]
        moved = {name for names in groups.values() for name in names}
        self.fixed = {
            n: torch.stack([s[n] for s in states]) for n in states[0] if n not in moved
        }
        #: Blocks that move row by row: the tasks of which one has to have a label, and
        #: the rows, which share the block's memory.
        self.rows = [
            (block, tasks, [nn.Parameter(row) for row in block.detach()])
            for tasks, block in zip(groups, self.blocks, strict=True)
            if tasks
        ]
        leaves = [
            block for tasks, block in zip(groups, self.blocks, strict=True) if not tasks
        ]
        leaves += [row for *_, rows in self.rows for row in rows]
        self.optimizer = torch.optim.AdamW(
            leaves, lr=lr, weight_decay=weight_decay, fused=True
        )
        self.best: list[Tensor] | None = None

    def _losses(self, data: Stacked) -> tuple[Tensor, Tensor, Tensor]:
        """Objectives `[R]`, the tasks' losses `[R, T]` and numbers of labels
        `[R, T]`."""

        def one(
            state: dict[str, Tensor], groups: Stacked
        ) -> tuple[Tensor, Tensor, Tensor]:
            batch = Batch.unchecked(**groups)
            output = functional_call(self.template, state, (batch,))
            losses, total = [], sum(output.penalties.values())
            for name, task in self.tasks.items():
                view = task.view(batch)
                seen = (
                    output
                    if view is None
                    else functional_call(self.template, state, (view,))
                )
                losses.append(task.loss(seen, batch))
                total = total + self.weights[name] * losses[-1]
            labels = torch.stack([task.weight(batch) for task in self.tasks.values()])
            return total, torch.stack(losses), labels

        state = dict(self.fixed)
        for block, shapes in zip(self.blocks, self.layout, strict=True):
            parts = block.split([shape.numel() for shape in shapes.values()], 1)
            for (name, shape), part in zip(shapes.items(), parts, strict=True):
                state[name] = part.reshape(len(block), *shape)
        # the fused kernels of attention know nothing of vmap
        with sdpa_kernel(SDPBackend.MATH):
            return vmap(one, randomness="different")(state, data)

    def step(self, chosen: Tensor) -> Tensor:
        """One step with the samples `chosen` `[R, B]`; returns the losses `[R, T]`."""
        train_mode(self.template, self.frozen)
        models, size = len(chosen), next(iter(self.train["inputs"].values())).shape[1]
        index = (chosen + size * torch.arange(models).unsqueeze(1)).flatten()
        data = _map(
            self.train, lambda x: x.flatten(0, 1)[index].unflatten(0, (models, -1))
        )
        for block in self.blocks:
            block.grad = None
        total, losses, labels = self._losses(data)
        total.sum().backward()
        names = list(self.tasks)
        found = [
            {name for name, count in zip(names, row, strict=True) if count}
            for row in labels.tolist()
        ]
        for block, tasks, rows in self.rows:
            for row, gradient, labelled in zip(rows, block.grad, found, strict=True):
                row.grad = gradient if tasks & labelled else None
        self.optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def measure(self, data: Stacked) -> tuple[Tensor, Tensor]:
        """Validation losses and numbers of labels, both `[R, T]`."""
        self.template.eval()
        total = count = torch.zeros(())
        for start in range(0, next(iter(data["inputs"].values())).shape[1], CHUNK):
            here = slice(start, start + CHUNK)
            _, losses, labels = self._losses(
                _map(data, lambda x, here=here: x[:, here])
            )
            total, count = total + losses.double() * labels, count + labels
        return total / torch.where(count > 0, count, 1), count

    def keep(self, better: Tensor) -> None:
        """Remembers the weights of the models for which `better` `[R]` is true."""
        was = self.best or self.blocks
        self.best = [
            torch.where(better.unsqueeze(1), now.detach(), old.detach())
            for now, old in zip(self.blocks, was, strict=True)
        ]

    def unstack(self, models: Sequence[Model], blocks: Sequence[Tensor]) -> None:
        """Gives each model its row of the blocks."""
        for r, model in enumerate(models):
            state = _state(model)
            for block, shapes in zip(blocks, self.layout, strict=True):
                parts = block.detach()[r].split(
                    [shape.numel() for shape in shapes.values()]
                )
                for (name, shape), part in zip(shapes.items(), parts, strict=True):
                    state[name].copy_(part.view(shape))


def _state(model: Model) -> dict[str, Tensor]:
    """Name → parameter or buffer, in the model's own memory; what is shared comes
    once."""
    return {
        name: value.detach()
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }


def _reach(model: Model, batch: Batch) -> dict[str, frozenset[str]]:
    """Parameter → the tasks whose losses depend on it, for parameters that are trained
    at all."""
    batch = batch[:2]
    output = model(batch)
    terms = [(frozenset(model.tasks), penalty) for penalty in output.penalties.values()]
    for name, task in model.tasks.items():
        view = task.view(batch)
        terms.append(
            (
                frozenset([name]),
                task.loss(output if view is None else model(view), batch),
            )
        )
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reach = dict.fromkeys(parameters, frozenset())
    for tasks, term in terms:
        gradients = torch.autograd.grad(
            term, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                reach[name] |= tasks
    return {name: tasks for name, tasks in reach.items() if tasks}


def _stack(batches: Sequence[Batch], name: str) -> Stacked:
    """Batches of the same shapes, side by side."""
    partly = {key for batch in batches for key in batch.present}
    each = [
        {
            "inputs": batch.inputs,
            "targets": batch.targets,
            "present": {key: batch.mask(key) for key in sorted(partly)},
            "lengths": batch.lengths,
        }
        for batch in batches
    ]
    shapes = [_map(groups, lambda x: tuple(x.shape)) for groups in each]
    for other in shapes[1:]:
        if other != shapes[0]:
            raise ValueError(
                f"the Batches of {name} need the same shapes, got {shapes[0]} and "
                f"{other}"
            )
    return {
        group: {
            key: torch.stack([groups[group][key] for groups in each])
            for key in each[0][group]
        }
        for group in each[0]
    }


def _map(
    groups: Stacked, function: Callable[[Tensor], Value]
) -> dict[str, dict[str, Value]]:
    return {
        group: {k: function(v) for k, v in tensors.items()}
        for group, tensors in groups.items()
    }
