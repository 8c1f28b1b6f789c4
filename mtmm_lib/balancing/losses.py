r"""Loss balancers: one weighted sum of the tasks' losses, whose gradient is the update.

Every balancer, of losses or of gradients, is used through the `Balancer` protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from mtmm_lib.model import Output


class Balancer(Protocol):
    r"""What `fit` asks of a balancer: `backward`, and where it needs them any of these.

    - `after_step(losses)`: called after the parameters moved. `losses()` computes the losses of the same
      batch again, without gradients, for balancers that follow the progress of a step.
    - `after_epoch(losses)`: called with each task's mean loss of the epoch, task → float.
    - `state_dict()` and `load_state_dict(state)`: what a checkpoint has to hold, of tensors, numbers,
      strings, lists and dicts.

    With several processes the losses have the values of the whole batch on each of them, so that all
    processes find the same weights; their gradients, which `fit` adds up, are each process's own share.
    A balancer that draws random numbers therefore needs a generator of its own, seeded alike everywhere.
    """

    def backward(self, losses: dict[str, Tensor], output: Output, model: nn.Module) -> dict[str, float]:
        """Adds one update's gradients to the parameters' `.grad`.

        Args:
            losses: task → scalar, with gradients; any subset of the tasks, never empty.
            output: the forward pass that they come from; its `penalties` are added unweighted.
            model: the model, for balancers that treat shared and task parameters differently.

        Returns:
            task → the weight that its loss had in this step.
        """
        ...


class StaticWeights:
    r"""The weighted sum with fixed weights, $\ell = \sum_t w_t \ell_t + \text{penalties}$.

    The weights are part of the objective and scale the gradients of the heads too. A task's weight stays
    what it is when another task has no label in a batch; nothing is renormalised.

    Args:
        weights: task → weight; one for a task left out, and for all of them by default.

    Raises:
        ValueError: in training, when `weights` names a task that the model does not have.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}

    def __repr__(self) -> str:
        return f"StaticWeights({self.weights})"

    def of(self, tasks: Iterable[str]) -> dict[str, float]:
        """Task → weight, for all the given tasks; raises `ValueError` when a weight is for none of them."""
        tasks = list(tasks)
        if not self.weights.keys() <= set(tasks):
            raise ValueError(
                f"StaticWeights has weights for {sorted(self.weights.keys() - set(tasks))}, "
                f"but the model's tasks are {sorted(tasks)}"
            )
        return {name: self.weights.get(name, 1.0) for name in tasks}

    def backward(self, losses: dict[str, Tensor], output: Output, model: nn.Module) -> dict[str, float]:
        weights = self.of(model.tasks)
        terms = [loss if weights[name] == 1.0 else weights[name] * loss for name, loss in losses.items()]
        terms += output.penalties.values()
        sum(terms[1:], terms[0]).backward()
        return {name: weights[name] for name in losses}


LOSS_BALANCERS: dict[str, type[Balancer]] = {cls.__name__: cls for cls in (StaticWeights,)}
