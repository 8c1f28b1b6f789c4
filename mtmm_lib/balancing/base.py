r"""What all balancers have in common, and the plain weighted sum."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mtmm_lib.batch import Output
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import Task

#: Added to a loss whose logarithm is taken, so that a loss of zero does no harm.
SMALL = 1e-8


class Balancer:
    r"""Base of all balancers: what `fit` calls, and when. Only `backward` has to be
    written; the other hooks do nothing until a subclass fills them in.

    What a balancer remembers belongs to names, of tasks and of parameters
    (`model.named_parameters()`), never to positions: tasks come and go with the labels
    of a batch, and parameters are frozen and unfrozen.

    With several processes the losses have the values of the whole batch on each of
    them, so that all processes find the same weights; their gradients, which `fit` adds
    up, are each process's own share. A balancer that draws random numbers therefore
    needs a generator of its own, seeded alike everywhere.

    Raises:
        TypeError: when a subclass is defined one of whose public methods is called
            nearly, but not quite, like a hook, `after_epochs` say: nobody would call
            it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            if name.startswith("_") or name in HOOKS or not callable(value):
                continue
            # At 0.9 a letter too many, too few, or two in the wrong order are close
            # to a hook, but `restart` and `after_batch` are words of their own.
            for hook in get_close_matches(name, HOOKS, n=1, cutoff=0.9):
                raise TypeError(
                    f"{cls.__name__} has a method {name!r}, which nothing calls: is "
                    f"the hook {hook!r} meant? (A helper of its own begins with an "
                    "underscore.)"
                )

    def start(self, model: TaskModel) -> None:
        """Called before the first step of a run that starts anew: puts the state back
        to what it was when the balancer was made, and checks that what it was told of
        tasks fits the model."""

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        """Adds one update's gradients to the parameters' `.grad`.

        A loss or a penalty that needs no gradient, since all that it depends on is
        frozen, adds nothing and has no part in the weights.

        Args:
            losses: task → scalar; any subset of the tasks, never empty.
            output: the forward pass that they come from; its `penalties` are added
                unweighted.
            model: the model, for balancers that treat shared and task parameters
                differently.

        Returns:
            task → the weight that its loss had in this step.
        """
        raise NotImplementedError

    def after_step(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Called after the parameters moved.

        Args:
            losses: computes the losses of the same batch again, without gradients, for
                balancers that follow the progress of a step.
        """

    def after_epoch(self, losses: Mapping[str, float]) -> None:
        """Called with each task's mean loss of the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold, of tensors, numbers, strings, lists and
        dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""


#: What `fit` calls.
HOOKS = [name for name in vars(Balancer) if not name.startswith("_")]


class StaticWeights(Balancer):
    r"""The weighted sum with fixed weights,
    $\ell = \sum_t w_t \ell_t + \text{penalties}$.

    The weights are part of the objective and scale the gradients of the heads too. A
    task's weight stays what it is when another task has no label in a batch; nothing is
    renormalised.

    Args:
        weights: task → weight; one for a task left out, and for all of them by default.

    Raises:
        TypeError: for weights that are no dict of numbers.
        ValueError: in training, when `weights` names a task that the model does not
            have.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        if not isinstance(weights or {}, Mapping) or not all(
            isinstance(weight, Real | Tensor) for weight in (weights or {}).values()
        ):
            raise TypeError(
                "weights is a dict from tasks to numbers, such as {'age': 2.0}, got "
                f"{weights!r}"
            )
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}

    def __repr__(self) -> str:
        return f"StaticWeights({self.weights})"

    def of(self, tasks: Iterable[str]) -> dict[str, float]:
        """Task → weight, for all the given tasks; raises `ValueError` when a weight is
        for none of them."""
        return of_each(self.weights, 1.0, tasks, "StaticWeights has weights")

    def start(self, model: TaskModel) -> None:
        self.of(model.tasks)

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        weights = self.of(model.tasks)
        add_gradients(weights, losses, output.penalties.values())
        return {name: weights[name] for name in losses}


def of_each(
    given: Mapping[str, float], default: float, tasks: Iterable[str], what: str
) -> dict[str, float]:
    """Task → what is given for it, or the default.

    Args:
        given: task → number, for some of the tasks.
        default: for the others.
        tasks: all tasks.
        what: the beginning of the error's sentence, "FAMO has minima" say.

    Raises:
        ValueError: when something is given for a task that there is not (named).
    """
    tasks = list(tasks)
    unknown = sorted(given.keys() - set(tasks))
    if unknown:
        raise ValueError(
            f"{what} for {unknown}, but the model's tasks are {sorted(tasks)}"
        )
    return {name: float(given.get(name, default)) for name in tasks}


def add_gradients(
    weights: Mapping[str, float],
    losses: Mapping[str, Tensor],
    unweighted: Iterable[Tensor],
) -> None:
    r"""Adds the gradient of $\sum_t w_t \ell_t$ and of what is added unweighted to
    `.grad`, by one backward pass. Terms that need no gradient are left out; if none
    does, nothing happens."""
    terms = [
        loss if weights[name] == 1.0 else weights[name] * loss
        for name, loss in losses.items()
    ]
    terms = [term for term in (*terms, *unweighted) if term.requires_grad]
    if terms:
        torch.autograd.backward(sum(terms[1:], terms[0]))


@dataclass(eq=False)
class Stateful(Balancer):
    """Base of the balancers that are dataclasses: the fields of their constructors are
    settings, all other fields (see `state`) are the state, which begins anew with each
    run and which a checkpoint holds."""

    def start(self, model: TaskModel) -> None:
        """The state becomes that of a new balancer with the same settings."""
        vars(self).update(vars(dataclasses.replace(self)))

    def state_dict(self) -> dict[str, Any]:
        return {
            f.name: copy.deepcopy(getattr(self, f.name))
            for f in fields(self)
            if not f.init
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, copy.deepcopy(value))


@dataclass(eq=False)
class LossBalancer(Stateful):
    """Base of the balancers that look at nothing but the values of the losses: a
    subclass, a dataclass too, says what weights they get."""

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        """One step of whatever is learned.

        Args:
            losses: task → loss, for those that take part in this step.
            tasks: all tasks of the model.

        Returns:
            task → weight, for these losses.
        """
        raise NotImplementedError

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        """See `Balancer`. Penalties, and the losses of tasks that are not `balanced`,
        are added unweighted."""
        balanced, unweighted = divide(losses, output, model.tasks)
        weights = self.weigh(numbers(balanced), model.tasks) if balanced else {}
        add_gradients(weights, balanced, unweighted)
        return {name: weights.get(name, 1.0) for name in losses}


def state(empty: Callable[[], Any] = dict) -> Any:
    """A field of a balancer's state: no setting, not shown, in the checkpoint; by
    default task → number.

    Args:
        empty: makes the first state.
    """
    return field(default_factory=empty, init=False, repr=False)


def divide(
    losses: Mapping[str, Tensor], output: Output, tasks: Mapping[str, Task]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Who takes part in balancing.

    Returns:
        the losses to balance; and what is added unweighted: penalties, and the losses
        of tasks that want no part in balancing. What needs no gradient is in neither.
    """
    learned = trained(losses)
    inside = {name: loss for name, loss in learned.items() if tasks[name].balanced}
    others = [loss for name, loss in learned.items() if name not in inside]
    others += [value for value in output.penalties.values() if value.requires_grad]
    return inside, others


def trained(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses that need a gradient. In several processes: on all of them, since a
    process without a label of a task has a stand-in for its loss, which always does."""
    needed = [loss.requires_grad for loss in losses.values()]
    if losses and processes() > 1:
        device = next(iter(losses.values())).device
        votes = sum_over_processes(torch.tensor(needed, device=device).float())
        needed = (votes == processes()).tolist()
    return {
        name: loss
        for (name, loss), yes in zip(losses.items(), needed, strict=True)
        if yes
    }


def processes() -> int:
    """How many processes train together."""
    distributed = torch.distributed
    return (
        distributed.get_world_size()
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of all processes' values, in place of this one's."""
    torch.distributed.all_reduce(value)
    return value


def numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, by one transfer from the device."""
    values = [loss.detach() for loss in losses.values()]
    return dict(
        zip(losses, torch.stack(values).tolist() if values else [], strict=True)
    )


def positive(losses: Mapping[str, float]) -> Mapping[str, float]:
    """The losses, after a look at them.

    Raises:
        ValueError: when one is negative (named: the task).
    """
    for name, value in losses.items():
        if value < 0:
            raise ValueError(
                f"this balancer takes logarithms, and the loss of task {name!r} is "
                f"{value:.4g}; use losses that cannot be negative, or another balancer"
            )
    return losses


def softmax(scores: Mapping[str, float]) -> dict[str, float]:
    """Task → share, positive and of sum one."""
    largest = max(scores.values())
    powers = {name: math.exp(score - largest) for name, score in scores.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


def adam(
    values: dict[str, float],
    gradients: Mapping[str, float],
    moments: dict[str, list[float]],
    lr: float,
    weight_decay: float = 0.0,
) -> None:
    """One step of Adam (Kingma & Ba, 2015), with an L2 penalty, for some numbers of a
    dictionary; the others, of tasks without a label, stay and do not age.

    Args:
        values: task → number, changed in place.
        gradients: task → slope, for the numbers that move.
        moments: task → mean of the slopes, of their squares, and number of steps;
            changed in place, empty at first.
        lr, weight_decay: as in `torch.optim.Adam`.
    """
    for name, gradient in gradients.items():
        gradient += weight_decay * values[name]
        mean, square, steps = moments.get(name, [0.0, 0.0, 0])
        mean, square, steps = (
            0.9 * mean + 0.1 * gradient,
            0.999 * square + 0.001 * gradient**2,
            steps + 1,
        )
        moments[name] = [mean, square, steps]
        scale = math.sqrt(square / (1 - 0.999**steps)) + 1e-8
        values[name] -= lr * mean / (1 - 0.9**steps) / scale
