r"""What all balancers have in common, and the plain weighted sum."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Output


class Balancer(Protocol):
    r"""What `fit` asks of a balancer: `backward`, and where it needs them any of these.

    - `after_step(losses)`: called after the parameters moved. `losses()` computes the
      losses of the same batch again, without gradients, for balancers that follow the
      progress of a step.
    - `after_epoch(losses)`: called with each task's mean loss of the epoch, task →
      float.
    - `state_dict()` and `load_state_dict(state)`: what a checkpoint has to hold, of
      tensors, numbers, strings, lists and dicts.

    With several processes the losses have the values of the whole batch on each of
    them, so that all processes find the same weights; their gradients, which `fit` adds
    up, are each process's own share. A balancer that draws random numbers therefore
    needs a generator of its own, seeded alike everywhere.
    """

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: nn.Module
    ) -> dict[str, float]:
        """Adds one update's gradients to the parameters' `.grad`.

        Args:
            losses: task → scalar, with gradients; any subset of the tasks, never empty.
            output: the forward pass that they come from; its `penalties` are added
                unweighted.
            model: the model, for balancers that treat shared and task parameters
                differently.

        Returns:
            task → the weight that its loss had in this step.
        """
        ...


class StaticWeights:
    r"""The weighted sum with fixed weights,
    $\ell = \sum_t w_t \ell_t + \text{penalties}$.

    The weights are part of the objective and scale the gradients of the heads too. A
    task's weight stays what it is when another task has no label in a batch; nothing is
    renormalised.

    Args:
        weights: task → weight; one for a task left out, and for all of them by default.

    Raises:
        ValueError: in training, when `weights` names a task that the model does not
            have.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}

    def __repr__(self) -> str:
        return f"StaticWeights({self.weights})"

    def of(self, tasks: Iterable[str]) -> dict[str, float]:
        """Task → weight, for all the given tasks; raises `ValueError` when a weight is
        for none of them."""
        return _by_task(self.weights, 1.0, tasks, "StaticWeights has weights")

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: nn.Module
    ) -> dict[str, float]:
        weights = self.of(model.tasks)
        terms = [
            loss if weights[name] == 1.0 else weights[name] * loss
            for name, loss in losses.items()
        ]
        terms += output.penalties.values()
        sum(terms[1:], terms[0]).backward()
        return {name: weights[name] for name in losses}


def _by_task(
    given: Mapping[str, float], default: float, tasks: Iterable[str], what: str
) -> dict[str, float]:
    """What is given for some tasks, for all of them."""
    tasks = list(tasks)
    if not given.keys() <= set(tasks):
        raise ValueError(
            f"{what} for {sorted(given.keys() - set(tasks))}, but the model's tasks "
            f"are {sorted(tasks)}"
        )
    return {name: float(given.get(name, default)) for name in tasks}


class LossBalancer:
    """Base of the balancers that look at the values of the losses: a subclass says what
    weights they get.

    Subclasses are dataclasses: the fields of their constructors are settings, all other
    fields are the state that a checkpoint holds.
    """

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        """Task → weight, for these losses; one step of whatever is learned is taken."""
        raise NotImplementedError

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: nn.Module
    ) -> dict[str, float]:
        """See `Balancer`. Penalties, and the losses of tasks that are not `balanced`,
        are added unweighted."""
        balanced, unweighted = outside(losses, output, model)
        weights = self.weigh(numbers(balanced), model) if balanced else {}
        _backward(weights, balanced, unweighted)
        return {name: weights.get(name, 1.0) for name in losses}

    def state_dict(self) -> dict[str, Any]:
        return {
            f.name: copy.deepcopy(getattr(self, f.name))
            for f in fields(self)
            if not f.init
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, copy.deepcopy(value))


def _backward(
    weights: dict[str, float], losses: dict[str, Tensor], unweighted: Tensor | None
) -> None:
    terms = [weights[name] * loss for name, loss in losses.items()]
    terms += [] if unweighted is None else [unweighted]
    sum(terms[1:], terms[0]).backward()


def _state() -> Any:
    """A field of a balancer's state: task → number."""
    return field(default_factory=dict, init=False, repr=False)


def _adam(
    values: dict[str, float],
    gradients: dict[str, float],
    moments: dict[str, list[float]],
    lr: float,
    weight_decay: float = 0.0,
) -> None:
    """One step of Adam (Kingma & Ba, 2015), with an L2 penalty, for some numbers of a
    dictionary; the others, of tasks without a label, stay and do not age."""
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


def _softmax(scores: dict[str, float]) -> dict[str, float]:
    largest = max(scores.values())
    powers = {name: math.exp(score - largest) for name, score in scores.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


#: Added to a loss whose logarithm is taken, so that a loss of zero does no harm.
SMALL = 1e-8


def outside(
    losses: Mapping[str, Tensor], output: Output, model: nn.Module
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The losses to balance, and the sum of what is added unweighted (`None` for
    nothing): penalties, and the losses of tasks that want no part in balancing."""
    inside = {name: loss for name, loss in losses.items() if model.tasks[name].balanced}
    others = [loss for name, loss in losses.items() if name not in inside]
    others += output.penalties.values()
    return inside, sum(others[1:], others[0]) if others else None


def positive(losses: dict[str, float]) -> dict[str, float]:
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


def numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses as numbers, by one transfer from the device."""
    return dict(
        zip(
            losses,
            torch.stack([loss.detach() for loss in losses.values()]).tolist(),
            strict=True,
        )
    )
