"""Training one small model per seed, all of them at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtmm_lib.balancing import (
    Balancer,
    GradientBalancer,
    GradNorm,
    LossBalancer,
    StaticWeights,
)
from mtmm_lib.balancing.base import SMALL, divide, positive
from mtmm_lib.balancing.meetings import TaskGradients
from mtmm_lib.bar import bar
from mtmm_lib.batch import Batch, Output, row_mask
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import at_progress
from mtmm_lib.training.checks import (
    check_balancer,
    check_data,
    check_functions,
    check_labels,
    check_model,
    check_schedule,
    check_selection,
    check_settings,
    strange_input,
    whole_seed,
)
from mtmm_lib.training.evaluation import CHUNK, frozen_modules, modes_kept, train_mode
from mtmm_lib.training.history import Losses, TrainingError
from mtmm_lib.training.schedules import Rates, Schedule
from mtmm_lib.training.seeds import derive_seed, permutation
from mtmm_lib.training.selection import Select, score

Value = TypeVar("Value")
AnyModel = TypeVar("AnyModel", bound=TaskModel)

#: Group of a `Batch` ("inputs", …) → key → tensor `[R, N, ...]`: R batches side by
#: side.
Stacked = dict[str, dict[str, Tensor]]


def fit_many(
    build: Callable[[], AnyModel],
    train: Sequence[Batch],
    *,
    seeds: Sequence[int],
    valid: Sequence[Batch] | None = None,
    balancer: Balancer | None = None,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    select: Select | None = None,
    progress: bool = True,
) -> list[AnyModel]:
    r"""Trains one small model per seed, all at once as one batched network
    (`torch.func.vmap`).

    Each model becomes, to rounding, what `fit` would make of it:

        torch.manual_seed(seed)
        model = build()
        fit(model, train[i], valid=valid[i], balancer=balancer, seed=seed, ...)

    Missing labels and modalities are treated alike, and so are balancers, of which each
    model has a copy of its own; dropout alone draws other numbers. What it saves is the
    overhead of many small operations; large models gain nothing.

    Args:
        build: makes a fresh model; called once per seed, with torch's random numbers
            seeded by it.
        train: one `Batch` per seed, all of the same shapes.
        seeds: one per model.
        valid: one `Batch` per seed, all of the same shapes; each model keeps its own
            best epoch.
        balancer: `StaticWeights`, any loss balancer, or `GradNorm` and
            `GradientBalancer` at level `"features"`; by default the plain sum.
        epochs, batch_size, lr, weight_decay, schedule, select: as in `fit`, on the CPU.
        optimizer: called as in `fit`; one that treats every number by itself, as AdamW,
            the default, and `torch.optim.SGD` do.
        clip: as in `fit`, by each model's own norm.
        progress: show a bar of the epochs.

    Returns:
        the trained models, in the order of the seeds.

    Raises:
        ValueError: when the numbers of seeds and batches, the shapes, or the models'
            parameters differ; for another balancer, a model with batch normalisation,
            and whatever `fit` refuses before its first step (named: the seed).
        TypeError: for seeds that are no whole numbers.
        TrainingError: when a loss, or a gradient that a balancer looks at, is not
            finite (named: the task, the seed, the step).

    Warns:
        UserWarning: when one of the Batches in `train` has no label for some task.
    """
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds are whole numbers, one per model, got {seeds!r}")
    seeds = [whole_seed(seed) for seed in seeds]
    check_settings(epochs, batch_size, lr, weight_decay, clip)
    if isinstance(build, TaskModel):
        raise ValueError(
            "build is a function that makes a fresh model, such as lambda: Model(…), "
            "got a model"
        )
    check_functions(optimizer=optimizer, schedule=schedule, select=select)
    if not seeds:
        raise ValueError("expected at least one seed, got none")
    for name, batches in (("train", train), ("valid", valid)):
        if batches is not None and (
            isinstance(batches, Batch) or len(batches) != len(seeds)
        ):
            raise ValueError(
                f"{name} needs a sequence of {len(seeds)} Batches, one per seed"
            )
    balancer = StaticWeights() if balancer is None else balancer
    check_balancer(balancer)
    with torch.random.fork_rng([]):
        models = []
        for seed in seeds:
            torch.default_generator.manual_seed(seed)
            models.append(build())
        for i, (seed, model) in enumerate(zip(seeds, models, strict=True)):
            with _named(seed):
                check_model(model)
                check_data(model, train[i], "train")
                check_labels(model, train[i])
                if valid is not None:
                    check_data(model, valid[i], "valid")
                    check_selection(model, valid[i])
        check_schedule(schedule, train[0])
        torch.default_generator.manual_seed(derive_seed(*seeds))
        with modes_kept(models[0]):
            replicas = _Replicas(models, train, seeds, balancer)
            adamw = partial(torch.optim.AdamW, fused=True)
            moves = (optimizer or adamw)(
                replicas.leaves(), lr=lr, weight_decay=weight_decay
            )
            rates = Rates(moves, schedule)
            choice = None if valid is None else _Choice(replicas, valid, seeds, select)
            size = len(train[0])
            steps = math.ceil(size / batch_size)
            disable = None if progress else True
            for epoch in bar(range(epochs), desc="epochs", disable=disable):
                train_mode(replicas.template, replicas.frozen)
                order = torch.stack([permutation(size, seed, epoch) for seed in seeds])
                for i, chosen in enumerate(torch.split(order, batch_size, 1)):
                    done = (epoch + i / steps) / epochs
                    rates.set(done)
                    step = epoch * steps + i + 1
                    problems = zip(seeds, models, train, strict=True)
                    with at_progress(done), _placed(step, epoch, problems):
                        replicas.step(chosen, moves, clip)
                replicas.balance.after_epoch()
                if choice is not None:
                    better = choice.better(epoch)
                    if better.any():
                        replicas.keep(better)
        replicas.unstack(models)
    return models


class _Replicas:
    """R models of one architecture as one: every operation works on all of them.

    Take ten models, each with a trunk of 1,000 parameters, a digit's head of 330 and an
    ink's head of 33. Trained one by one, they would make ten times as many operations
    on small tensors as one of them, and most of the time would go into calling these.
    So parameters are stacked, the trunk's weights to `[10, 20, 50]` say, and `vmap`
    turns the forward pass of one model into one pass for all.

    *Blocks.* The optimizer has no use for shapes. Everything that it may treat alike is
    laid out in one block `[R, n]`, here at first `[10, 1363]`: model r's parameters are
    row r. One fused step of AdamW then moves all models.

    *Rows.* `fit` leaves a parameter alone in a step in which no task that reaches it
    has a label: its gradient is `None`, and neither weight decay nor momentum moves it.
    Here model 3's batch may have an ink and model 4's none. So parameters that only
    some tasks reach are split off, `[10, 1330]` and `[10, 33]`, and of the latter the
    optimizer sees each row as a parameter of its own, which may have a gradient or not.
    A row is a view: it shares the block's memory, and what the step writes there is
    what the next forward pass reads. What a task with all its labels reaches moves in
    every step, and needs no rows. (So nothing is split where all labels are there.)

    *The cut.* A balancer that compares gradients at the features weights what goes back
    through the trunk, and leaves alone what a task has for itself. For it the heads are
    split off, too, each as a block that is one task's own.
    """

    def __init__(
        self,
        models: Sequence[TaskModel],
        train: Sequence[Batch],
        seeds: Sequence[int],
        balancer: Balancer,
    ) -> None:
        self.template, self.tasks, self.seeds = models[0], models[0].tasks, seeds
        self.train = _stack(train, "train")
        states = [_state(model) for model in models]
        shapes = [{name: v.shape for name, v in state.items()} for state in states]
        if any(other != shapes[0] for other in shapes):
            raise ValueError(
                "build() made models with different parameters, but one architecture "
                "is needed"
            )
        self.frozen = frozen_modules(self.template)
        train_mode(self.template, self.frozen)
        _refuse_batch_norm(self.template)
        probe = _Probe(self.template, train[0], _at_features(balancer))
        self.balance = _Balance(balancer, models, seeds, probe)
        full = {
            t
            for t, task in self.tasks.items()
            if all(task.labelled(batch).all() for batch in train)
        }
        # Parameters with the same key are one block: whose own they are, and the tasks
        # of which one has to have a label for them to move (none: they always do).
        groups: dict[tuple[str | None, frozenset[str]], list[str]] = {}
        for name, tasks in probe.reach.items():
            key = probe.own.get(name), frozenset() if tasks & full else tasks
            groups.setdefault(key, []).append(name)
        self.layout = [
            {name: shapes[0][name] for name in names} for names in groups.values()
        ]
        self.blocks = [
            torch.stack(
                [torch.cat([state[n].flatten() for n in names]) for state in states]
            ).requires_grad_()
            for names in groups.values()
        ]
        self.owners = [owner for owner, _ in groups]
        moved = {name for names in groups.values() for name in names}
        self.fixed = {
            n: torch.stack([s[n] for s in states]) for n in states[0] if n not in moved
        }
        #: Blocks that move row by row, with their tasks and rows.
        self.rows = [
            (block, tasks, [nn.Parameter(row) for row in block.detach()])
            for (_, tasks), block in zip(groups, self.blocks, strict=True)
            if tasks
        ]
        self.best: list[Tensor] | None = None

    def leaves(self) -> list[Tensor]:
        """What the optimizer moves: whole blocks, and rows of the others."""
        in_rows = {id(block) for block, *_ in self.rows}
        whole = [block for block in self.blocks if id(block) not in in_rows]
        return whole + [row for *_, rows in self.rows for row in rows]

    def look(self, data: Stacked) -> dict[str, Any]:
        """The forward pass of all models on their batches.

        Returns:
            `losses` and numbers of `labels` `[R, T]`; `weight` `[R, T]`, what each
            loss counts in a mean over batches; the sum of the `penalties` `[R]`; the
            `cut` `[R, B, ...]`; and `predictions`, task → `[R, B, ...]`.
        """

        def one(state: dict[str, Tensor], groups: Stacked) -> dict[str, Any]:
            batch = Batch(**groups)
            output = functional_call(self.template, state, (batch,))
            losses, labels, weight = [], [], []
            for task in self.tasks.values():
                view = task.view(batch)
                seen = (
                    output
                    if view is None
                    else functional_call(self.template, state, (view,))
                )
                losses.append(task.loss(seen, batch))
                labels.append(task.labelled(batch).sum())
                weight.append(task.weight(batch))
            return {
                "losses": torch.stack(losses),
                "labels": torch.stack(labels),
                "weight": torch.stack(weight),
                "penalties": sum(output.penalties.values(), torch.zeros(())),
                "cut": output.shared if self.balance.at_features else torch.zeros(()),
                "predictions": output.predictions,
            }

        state = dict(self.fixed)
        for block, shapes in zip(self.blocks, self.layout, strict=True):
            state |= _named_parts(block, shapes)
        # the fused kernels of attention know nothing of vmap
        with sdpa_kernel(SDPBackend.MATH):
            return vmap(one, randomness="different")(state, data)

    def step(
        self, chosen: Tensor, optimizer: torch.optim.Optimizer, clip: float | None
    ) -> None:
        """One step with the samples `chosen` `[R, B]`."""
        models, size = len(chosen), next(iter(self.train["inputs"].values())).shape[1]
        index = (chosen + size * torch.arange(models).unsqueeze(1)).flatten()
        data = _map(
            self.train,
            lambda x: x.flatten(0, 1)[index].reshape(models, -1, *x.shape[2:]),
        )
        for block in self.blocks:
            block.grad = None
        seen = self.look(data)
        _check_finite(seen["losses"], list(self.tasks), self.seeds)
        found = [
            {name for name, count in zip(self.tasks, row, strict=True) if count}
            for row in seen["labels"].tolist()
        ]
        self.balance.backward(seen, found, self.blocks, self.owners)
        if clip is not None:
            self._clip(clip)
        for block, tasks, rows in self.rows:
            gradients = torch.zeros_like(block) if block.grad is None else block.grad
            for row, gradient, labelled in zip(rows, gradients, found, strict=True):
                row.grad = gradient if tasks & labelled else None
        optimizer.step()
        self.balance.after_step(
            seen["losses"], found, lambda: self.look(data)["losses"]
        )

    def _clip(self, most: float) -> None:
        """Shortens each model's gradient to the norm `most`, as
        `nn.utils.clip_grad_norm_` does for one."""
        gradients = [block.grad for block in self.blocks if block.grad is not None]
        squares = [gradient.square().sum(1) for gradient in gradients]
        norms = torch.stack(squares).sum(0).sqrt()
        factors = (most / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.unsqueeze(1))

    @torch.no_grad()
    def keep(self, better: Tensor) -> None:
        """Remembers the weights of the models for which `better` `[R]` is true."""
        was = self.best or self.blocks
        self.best = [
            torch.where(better.unsqueeze(1), now, old)
            for now, old in zip(self.blocks, was, strict=True)
        ]

    @torch.no_grad()
    def unstack(self, models: Sequence[TaskModel]) -> None:
        """Gives each model its best weights, or its last ones where there was no
        choice."""
        for r, model in enumerate(models):
            state = _state(model)
            for block, shapes in zip(
                self.best or self.blocks, self.layout, strict=True
            ):
                for name, part in _named_parts(block[r], shapes).items():
                    state[name].copy_(part)


class _Probe:
    """Which tasks a parameter serves, found out by one model on two samples.

    Attributes:
        reach: parameter → the tasks whose losses depend on it, for all parameters that
            are trained and reached. A penalty counts in every step, as any task's.
        balanced: the tasks that take part in balancing and learn anything at all.
        meets: those of them whose losses depend on the cut.
        own: parameter → the balanced task that it serves without passing the cut.

    Raises:
        ValueError: where gradients are compared at the features, what `TaskGradients`
            has against the model.
    """

    def __init__(self, model: TaskModel, batch: Batch, at_features: bool) -> None:
        batch = batch[:2]
        output = model(batch)
        views = {name: task.view(batch) for name, task in model.tasks.items()}
        losses = {
            name: task.loss(
                output if views[name] is None else model(views[name]), batch
            )
            for name, task in model.tasks.items()
        }
        names: dict[Tensor, str] = {
            p: name for name, p in model.named_parameters() if p.requires_grad
        }
        if not names:
            raise ValueError("the model has no parameter to train")
        serves = _reached(names, list(losses.items()))
        held = _reached(names, [("", term) for term in output.penalties.values()])
        self.reach = {
            name: frozenset(losses if held[name] else tasks)
            for name, tasks in serves.items()
            if tasks or held[name]
        }
        learned, _ = divide(losses, output, model.tasks)
        self.balanced = list(learned)
        self.meets: set[str] = set()
        self.own: dict[str, str] = {}
        if at_features and learned:
            try:
                gradients = TaskGradients(
                    learned, output.shared, "features", list(names), keep_graph=True
                )
            except ValueError as error:
                raise ValueError(
                    f"{error}; fit_many compares gradients at the features alone, fit "
                    "also at the parameters"
                ) from error
            there = zip(learned, gradients.meeting(), strict=True)
            self.meets = {name for name, meets in there if meets}
            for p, _ in gradients.own:
                (self.own[names[p]],) = serves[names[p]] & set(learned)


def _reached(
    parameters: Mapping[Tensor, str], terms: Sequence[tuple[str, Tensor]]
) -> dict[str, set[str]]:
    """Parameter → the names of the terms that depend on it."""
    found: dict[str, set[str]] = {name: set() for name in parameters.values()}
    for term, value in terms:
        if value.requires_grad:
            gradients = torch.autograd.grad(
                value, list(parameters), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(parameters.values(), gradients, strict=True):
                if gradient is not None:
                    found[name].add(term)
    return found


class _Balance:
    """A balancer for each model, each with a state of its own.

    All weights of a step are found in one go of Python, R times some small dictionaries
    or a T × T matrix; the gradients that they need, and the backward pass that they
    steer, are batched over the models.
    """

    def __init__(
        self,
        balancer: Balancer,
        models: Sequence[TaskModel],
        seeds: Sequence[int],
        probe: _Probe,
    ) -> None:
        self.kind, self.seeds, self.tasks = balancer, seeds, models[0].tasks
        self.at_features = _at_features(balancer)
        self.balanced, self.meets = probe.balanced, probe.meets
        self.each = [copy.deepcopy(balancer) for _ in models]
        for one, model in zip(self.each, models, strict=True):
            one.start(model)
        shape = len(models), len(self.tasks)
        self.sums = torch.zeros(shape, dtype=torch.float64)
        self.counts = torch.zeros(shape, dtype=torch.long)

    def backward(
        self,
        seen: Mapping[str, Any],
        found: Sequence[set[str]],
        blocks: Sequence[Tensor],
        owners: Sequence[str | None],
    ) -> None:
        """Sets the blocks' gradients, from a forward pass of `_Replicas.look`.

        Args:
            seen: the forward pass.
            found: for each model, the tasks that have a label.
            blocks: the parameters.
            owners: for each block the task whose own it is.
        """
        losses, extra = seen["losses"], seen["penalties"].sum()
        if not self.at_features:
            weights = self._weights(losses, found)
            ((weights * losses).sum() + extra).backward()
            return
        cut, names = seen["cut"], list(self.tasks)
        separate = isinstance(self.kind, GradientBalancer)
        terms = losses
        if isinstance(self.kind, GradientBalancer) and self.kind.log_losses:
            terms = (losses + SMALL).log()
        at_cut = {}  # task → its gradients [R, B, ...] at the cut
        for name in self.balanced:
            own = [
                block
                for block, owner in zip(blocks, owners, strict=True)
                if separate and owner == name
            ]
            wanted = [cut, *own] if name in self.meets else own
            if wanted:
                gradients = list(
                    torch.autograd.grad(
                        terms[:, names.index(name)].sum(), wanted, retain_graph=True
                    )
                )
                if name in self.meets:
                    at_cut[name] = gradients.pop(0)
                for block, gradient in zip(own, gradients, strict=True):
                    block.grad = gradient
        weights = self._weights(losses, found, at_cut)
        if not separate:
            ((weights * losses).sum() + extra).backward()
            return
        others = [t for t, name in enumerate(names) if name not in self.balanced]
        extra = extra + losses[:, others].sum()
        if at_cut:
            each = [(weights[:, names.index(n)], g) for n, g in at_cut.items()]
            total = sum(row_mask(w, g) * g for w, g in each)
            # The product with its own gradient, held fixed, stands for what lies
            # behind the cut.
            extra = extra + (cut * total).sum()
        if extra.requires_grad:
            extra.backward()

    def _weights(
        self,
        losses: Tensor,
        found: Sequence[set[str]],
        at_cut: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Weights `[R, T]` of the losses `[R, T]`; one for what is not balanced."""
        if isinstance(self.kind, StaticWeights):
            return torch.tensor([*self.kind.of(self.tasks).values()]).expand_as(losses)
        grams = _gramians(at_cut) if at_cut else np.zeros((len(losses), 0, 0))
        places = {name: t for t, name in enumerate(at_cut or {})}
        rows = []
        for r, (values, names) in enumerate(
            zip(losses.detach().tolist(), found, strict=True)
        ):
            here = {
                name: value
                for name, value in zip(self.tasks, values, strict=True)
                if name in names and name in self.balanced
            }
            with _named(self.seeds[r]):
                weights = self._weigh(self.each[r], here, grams[r], places)
            rows.append([weights.get(name, 1.0) for name in self.tasks])
        return torch.tensor(rows, dtype=losses.dtype)

    def _weigh(
        self,
        balancer: Balancer,
        losses: dict[str, float],
        gramian: np.ndarray,
        places: Mapping[str, int],
    ) -> dict[str, float]:
        """Task → weight, from the balancer of one model; what it looks at are the
        losses that it has here, and the Gramian of those that meet at the cut."""
        if not losses:
            return {}
        if isinstance(balancer, LossBalancer):
            return balancer.weigh(losses, self.tasks)
        meeting = [name for name in losses if name in places]
        at = [places[name] for name in meeting]
        gramian = gramian[np.ix_(at, at)]
        squares = dict(zip(meeting, np.diagonal(gramian).tolist(), strict=True))
        wrong = [name for name, square in squares.items() if not math.isfinite(square)]
        if wrong:
            raise FloatingPointError(f"the gradients of tasks {wrong} are not finite")
        if isinstance(balancer, GradNorm):
            lengths = {name: math.sqrt(squares.get(name, 0.0)) for name in losses}
            return balancer.weigh(losses, self.tasks, lengths)
        assert isinstance(balancer, GradientBalancer)
        if balancer.log_losses:
            positive(losses)
        if len(meeting) < 2:
            return {}
        return dict(zip(meeting, balancer.weigh(gramian).tolist(), strict=True))

    def after_step(
        self, losses: Tensor, found: Sequence[set[str]], again: Callable[[], Tensor]
    ) -> None:
        """Tells the balancers what they ask for, where they do.

        Args:
            losses: of the step, `[R, T]`.
            found: for each model, the tasks that have a label.
            again: computes the losses once more, after the step.
        """
        labelled = torch.tensor([[name in row for name in self.tasks] for row in found])
        self.sums += torch.where(labelled, losses.detach(), 0)
        self.counts += labelled
        if type(self.kind).after_step is Balancer.after_step:
            return
        with torch.no_grad():
            now = again()
        for balancer, values, names in zip(self.each, now, found, strict=True):
            if names:
                each = zip(self.tasks, values, strict=True)
                told = {name: value for name, value in each if name in names}
                balancer.after_step(partial(dict, told))

    def after_epoch(self) -> None:
        """Tells the balancers each task's mean loss of the epoch."""
        means = self.sums / self.counts
        for balancer, row, counts in zip(self.each, means, self.counts, strict=True):
            each = zip(self.tasks, row.tolist(), counts.tolist(), strict=True)
            balancer.after_epoch({name: mean for name, mean, count in each if count})
        self.sums.zero_()
        self.counts.zero_()


class _Choice:
    """The validation of R models, and which of them are better than ever before."""

    def __init__(
        self,
        replicas: _Replicas,
        valid: Sequence[Batch],
        seeds: Sequence[int],
        select: Select | None,
    ) -> None:
        self.replicas, self.valid, self.seeds = replicas, valid, seeds
        self.select = select
        self.data = _stack(valid, "valid")
        self.losses: list[list[Losses]] = [[] for _ in valid]
        self.lowest = [math.inf] * len(valid)

    def better(self, epoch: int) -> Tensor:
        """Bool `[R]`, after an epoch."""
        better = []
        losses, outputs = self._measure()
        for r, (seed, batch, course) in enumerate(
            zip(self.seeds, self.valid, self.losses, strict=True)
        ):
            course.append(losses[r])
            for name, loss in losses[r].items():
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the validation loss of task {name!r} is {loss} for seed "
                        f"{seed} after epoch {epoch}"
                    )
            tasks, metrics = self.replicas.tasks, {}
            if self.select is not None:
                metrics = {
                    name: float(value)
                    for task in tasks.values()
                    for name, value in task.scores(outputs[r], batch).items()
                }
            with _named(seed):
                found = score(tasks, course, metrics, self.select)
            better.append(found is not None and found < self.lowest[r])
            if found is not None:
                self.lowest[r] = min(self.lowest[r], found)
        return torch.tensor(better)

    @torch.no_grad()
    def _measure(self) -> tuple[list[Losses], list[Output]]:
        """For each model its losses (tasks without a label left out), and its
        predictions."""
        replicas = self.replicas
        replicas.template.eval()
        total = weight = torch.zeros(())
        predictions: list[dict[str, Tensor]] = []
        size = len(self.valid[0])
        for start in range(0, size, CHUNK):
            part = slice(start, start + CHUNK)
            seen = replicas.look(_map(self.data, itemgetter((slice(None), part))))
            total = total + seen["losses"].double() * seen["weight"]
            weight = weight + seen["weight"]
            predictions.append(seen["predictions"])
        means = [
            {
                name: mean
                for name, mean, counts in zip(replicas.tasks, *row, strict=True)
                if counts > 0
            }
            for row in zip((total / weight).tolist(), weight.tolist(), strict=True)
        ]
        whole = {n: torch.cat([p[n] for p in predictions], 1) for n in predictions[0]}
        outputs = [
            Output({name: values[r] for name, values in whole.items()})
            for r in range(len(means))
        ]
        return means, outputs


def _at_features(balancer: Balancer) -> bool:
    """Whether a balancer compares gradients at the features.

    Raises:
        ValueError: for one that cannot be batched over models.
    """
    kind = type(balancer)
    for plain in (StaticWeights, LossBalancer):
        if isinstance(balancer, plain) and kind.backward is plain.backward:
            return False
    for base in (GradNorm, GradientBalancer):
        if isinstance(balancer, base) and kind.backward is base.backward:
            if balancer.level != "parameters":
                return True
    raise ValueError(
        "fit_many takes StaticWeights, loss balancers, and GradNorm or "
        f"GradientBalancer at level 'features', got {balancer!r}; call fit for each "
        "seed instead"
    )


def _refuse_batch_norm(model: TaskModel) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"{name} is a {type(module).__name__}, the running means of which "
                "fit_many cannot follow; call fit for each seed instead, or take "
                "nn.LayerNorm"
            )


def _gramians(gradients: Mapping[str, Tensor]) -> np.ndarray:
    """float64 `[R, T, T]`, from gradients `[R, ...]` of T tasks."""
    each = torch.stack([g.flatten(1).double() for g in gradients.values()], 1)
    return (each @ each.mT).numpy()


def _check_finite(losses: Tensor, tasks: Sequence[str], seeds: Sequence[int]) -> None:
    if not losses.isfinite().all():
        r, t = (~losses.isfinite()).nonzero()[0].tolist()
        raise FloatingPointError(
            f"the loss of task {tasks[t]!r} is {losses[r, t].item()} for seed "
            f"{seeds[r]}"
        )


@contextmanager
def _named(seed: int) -> Iterator[None]:
    """A context in which errors name the seed."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"for seed {seed}: {error}") from error
    except FloatingPointError as error:
        raise FloatingPointError(f"for seed {seed} {error}") from error
    except TrainingError as error:
        raise TrainingError(f"for seed {seed}: {error}") from error


@contextmanager
def _placed(
    step: int, epoch: int, problems: Iterable[tuple[int, TaskModel, Batch]]
) -> Iterator[None]:
    """A context in which what is not finite has a place in the training; `problems`
    are seeds, models and their data."""
    try:
        yield
    except FloatingPointError as error:
        reason = (
            "look for such values in the inputs and targets, or take a smaller "
            "learning rate"
        )
        for seed, model, batch in problems:
            if found := strange_input(model, batch):
                reason = f"of seed {seed}, {found}"
                break
        raise TrainingError(
            f"{error} at step {step} (epoch {epoch}); {reason}"
        ) from error


def _named_parts(block: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Name → its part `[..., *shape]` of a block `[..., n]`."""
    parts = torch.split(block, [shape.numel() for shape in shapes.values()], -1)
    return {
        name: part.reshape(*block.shape[:-1], *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def _state(model: TaskModel) -> dict[str, Tensor]:
    """Name → parameter or buffer, in the model's own memory; what is shared comes
    once."""
    return {
        name: value.detach()
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }


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
