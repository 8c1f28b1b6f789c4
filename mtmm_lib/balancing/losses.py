r"""Loss balancers: one weighted sum of the tasks' losses, whose gradient is the update.

Every balancer, of losses or of gradients, is used through the `Balancer` protocol. The
loss balancers here differ in where the weights come from:

| | Weights | Their sum over T tasks |
|---|---|---|
| `StaticWeights` | given | what is given; T by default: the sum of the losses |
| `UncertaintyWeights` | a noise for each task, learned | T or T/2 at first, and more as losses shrink |
| `RandomWeights` | drawn in each step | 1 |
| `DynamicWeightAverage` | how fast each loss fell in the last epochs | T |
| `GeometricMean` | the losses themselves | the sum of the geometric mean over T times each loss |
| `SmoothTchebycheff` | the losses themselves: nearly all for the largest | at most the largest given weight |
| `FAMO` | learned, so that all logarithms of losses fall alike | 1 |
| `GradNorm` | learned, so that gradients have like lengths | T |

All scale the gradients of the heads, too: they change the objective, not only how the
trunk is updated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor, nn

from mtmm_lib.balancing.gradients import (
    SMALL,
    Level,
    TaskGradients,
    numbers,
    outside,
    positive,
)

if TYPE_CHECKING:
    from mtmm_lib.model import Output


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
    r"""The weighted sum with fixed weights, $\ell = \sum_t w_t \ell_t +
    \text{penalties}$.

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


@dataclass(eq=False)
class UncertaintyWeights(LossBalancer):
    r"""Each task's noise is learned along, and a noisy task counts less (Kendall et
    al., 2018).

    $\mathcal L = \sum_t c_t\,e^{-s_t}\,\ell_t + \tfrac12 s_t$ is minimised over the
    model and over the $s_t = \log\sigma_t^2$, from zero on. With $c = \tfrac12$ it is
    the negative log-likelihood of Gaussians of variance $\sigma_t^2$, for squared
    errors (tasks that are `gaussian`); with c = 1 that of a softmax whose scores are
    divided by $\sigma_t^2$, approximately, for all other losses.

    It may well be negative, since a density may be larger than one, and nothing is
    clipped. For given losses it is lowest at $e^{s_t} = 2 c_t \ell_t$, where the
    weights are $\tfrac12 / \ell_t$: the update is then that of $\tfrac12 \sum_t \log
    \ell_t$, as in `GeometricMean` but for its length.

    Args:
        lr: learning rate of Adam for the $s_t$. They are updated from the same losses
            as the model, as if they were parameters of it.
    """

    lr: float = 0.01
    log_variances: dict[str, float] = _state()
    moments: dict[str, list[float]] = _state()

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        weights, slopes = {}, {}
        for name, loss in losses.items():
            factor = 0.5 if model.tasks[name].gaussian else 1.0
            weights[name] = factor * math.exp(-self.log_variances.setdefault(name, 0.0))
            slopes[name] = 0.5 - weights[name] * loss
        _adam(self.log_variances, slopes, self.moments, self.lr)
        return weights


@dataclass(eq=False)
class RandomWeights(LossBalancer):
    r"""Weights from a softmax of Gaussian numbers, new ones in each step (Lin et al.,
    2022): the litmus test of what other weights are worth.

    On average it is a T-th of the sum of the losses.

    Args:
        seed: of the draws.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        return _softmax(
            dict(
                zip(losses, self.rng.standard_normal(len(losses)).tolist(), strict=True)
            )
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]


@dataclass(eq=False)
class DynamicWeightAverage(LossBalancer):
    r"""Slow tasks get more weight (Liu et al., 2019, MTAN).

    $w_t = T \cdot \mathrm{softmax}_t(r_t / \tau)$ with $r_t = \bar\ell_t(e - 1) /
    \bar\ell_t(e - 2)$, the ratio of the mean losses of the last two epochs; all weights
    are one in the first two epochs. With τ = 2, the weights of losses that do not grow
    differ by a factor of at most $\sqrt e = 1.65$.

    Args:
        temperature: τ; a large one makes the weights equal.
    """

    temperature: float = 2.0
    means: list[dict[str, float]] = field(default_factory=list, init=False, repr=False)

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        before, last = self.means if len(self.means) == 2 else ({}, {})
        ratios = {
            name: last[name] / before[name]
            if name in last and before.get(name, 0) > 0
            else 1.0
            for name, task in model.tasks.items()
            if task.balanced
        }
        weights = _softmax(
            {name: ratio / self.temperature for name, ratio in ratios.items()}
        )
        return {name: len(weights) * weights[name] for name in losses}

    def after_epoch(self, losses: dict[str, float]) -> None:
        self.means = [*self.means, dict(losses)][-2:]


@dataclass(eq=False)
class GeometricMean(LossBalancer):
    r"""The geometric mean of the losses, $(\prod_t \ell_t)^{1/T}$ (Chennupati et al.,
    2019).

    Its gradient is $\sum_t w_t \nabla\ell_t$ with $w_t = \frac{1}{T \ell_t} (\prod_s
    \ell_s)^{1/T}$: relative progress counts the same for every task, in whatever unit
    its loss is measured.

    Raises:
        ValueError: in training, for a negative loss.
    """

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        logs = {name: math.log(loss + SMALL) for name, loss in positive(losses).items()}
        mean = math.fsum(logs.values()) / len(logs)
        return {name: math.exp(mean - log) / len(logs) for name, log in logs.items()}


@dataclass(eq=False)
class SmoothTchebycheff(LossBalancer):
    r"""The smooth maximum of the weighted losses (Lin et al., 2024).

    $\mu \log \sum_t \exp(\lambda_t (\ell_t - z_t) / \mu)$, whose gradient has the
    weights $w_t = \lambda_t\,\mathrm{softmax}_t(\lambda_t (\ell_t - z_t) / \mu)$. For
    small μ it is $\max_t \lambda_t(\ell_t - z_t)$, all of whose minima over λ together
    are the Pareto front, also where it is not convex and no weighted sum gets to; for
    large μ it is a weighted sum.

    Args:
        weights: λ, task → weight; 1/T for a task left out.
        mu: μ > 0, in units of the weighted losses.
        ideal: z, task → a loss that cannot be beaten; 0 for a task left out.

    Raises:
        ValueError: for a μ that is not positive; in training, for a task that the model
            does not have.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    mu: float = 0.1
    ideal: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mu <= 0:
            raise ValueError(f"mu needs to be positive, got {self.mu}")

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        tasks = model.tasks
        share = _by_task(
            self.weights, 1 / len(tasks), tasks, "SmoothTchebycheff has weights"
        )
        ideal = _by_task(self.ideal, 0.0, tasks, "SmoothTchebycheff has ideals")
        heights = {
            name: share[name] * (loss - ideal[name]) / self.mu
            for name, loss in losses.items()
        }
        return {name: share[name] * part for name, part in _softmax(heights).items()}


@dataclass(eq=False)
class FAMO(LossBalancer):
    r"""Fast adaptive multitask optimisation (Liu et al., 2023): as in MGDA for the
    logarithms of the losses, but from their values alone.

    The weights are $w_t = c\,z_t / \tilde\ell_t$ with $z = \mathrm{softmax}(\xi)$,
    $\tilde\ell_t$ the loss above its minimum, and c such that they sum to one. After
    the step the losses of the same batch are computed again, and where
    $\log\tilde\ell_t$ fell more than elsewhere, $\xi_t$ falls, too: with $\delta_t =
    \log\tilde\ell_t - \log\tilde\ell_t'$, Adam descends along $z_t\,(\delta_t - \sum_s
    z_s \delta_s)$. That costs another forward pass, and no further backward pass.

    In a training loop of one's own, call `after_step` with a function that computes the
    losses again.

    Args:
        lr: learning rate for ξ.
        weight_decay: γ, the pull of ξ to zero, that is, of the weights to those of
            `GeometricMean`.
        minima: task → a loss that cannot be beaten; 0 for a task left out.

    Raises:
        ValueError: in training, for a loss below its minimum, or a minimum of a task
            that the model does not have.
    """

    lr: float = 0.025
    weight_decay: float = 1e-3
    minima: Mapping[str, float] = field(default_factory=dict)
    scores: dict[str, float] = _state()
    moments: dict[str, list[float]] = _state()
    before: dict[str, float] = _state()

    def weigh(self, losses: dict[str, float], model: nn.Module) -> dict[str, float]:
        self._lowest = _by_task(self.minima, 0.0, model.tasks, "FAMO has minima")
        self.before = self._logs(losses)
        return _softmax(
            {
                name: self.scores.setdefault(name, 0.0) - log
                for name, log in self.before.items()
            }
        )

    def after_step(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Compares the losses before and after the step."""
        again = {name: loss for name, loss in losses().items() if name in self.before}
        after = self._logs(numbers(again))
        fell = {name: self.before[name] - log for name, log in after.items()}
        shares = _softmax({name: self.scores[name] for name in fell})
        mean = sum(shares[name] * value for name, value in fell.items())
        slopes = {name: shares[name] * (value - mean) for name, value in fell.items()}
        _adam(self.scores, slopes, self.moments, self.lr, self.weight_decay)

    def _logs(self, losses: dict[str, float]) -> dict[str, float]:
        above = positive(
            {name: loss - self._lowest[name] for name, loss in losses.items()}
        )
        return {name: math.log(loss + SMALL) for name, loss in above.items()}


@dataclass(eq=False)
class GradNorm(LossBalancer):
    r"""Gradients of like length, longer for tasks that lag behind (Chen et al., 2018).

    With $G_t = w_t \lVert g_t\rVert$, the mean $\bar G$ and the relative inverse
    training rates $r_t = \frac{\ell_t / \ell_t(0)}{\mathrm{mean}_s\,\ell_s /
    \ell_s(0)}$, the weights descend along the gradient of $\sum_t |G_t - \bar G
    r_t^\alpha|$, in which $\bar G r_t^\alpha$ counts as a constant, and are then
    multiplied by a number such that their sum is T. That gradient is written down here
    and reaches nothing but the weights. $\ell_t(0)$ is the loss of the first batch with
    a label of the task.

    Args:
        alpha: α ≥ 0; 0 for equal lengths, more to pull back laggards harder.
        lr: learning rate of Adam for the weights, which start at one and are kept
            positive.
        level: where gradients are measured: `"features"`, where they leave the trunk,
            or `"parameters"`, all that two or more tasks share, which costs a backward
            pass for each task. The paper takes some layer of parameters, mostly the
            last shared one, the gradients of which are those at the features times its
            input.
    """

    alpha: float = 1.5
    lr: float = 0.025
    level: Level = "features"
    weights: dict[str, float] = _state()
    first: dict[str, float] = _state()
    moments: dict[str, list[float]] = _state()

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: nn.Module
    ) -> dict[str, float]:
        """See `Balancer`. Penalties, and the losses of tasks that are not `balanced`,
        are added unweighted."""
        balanced, unweighted = outside(losses, output, model)
        weights = {}
        if balanced:
            parameters = [p for p in model.parameters() if p.requires_grad]
            gradients = TaskGradients(
                balanced, output.shared, self.level, parameters, keep_graph=True
            )
            lengths = np.sqrt(np.diagonal(gradients.gramian())).tolist()
            weights = self.weigh(
                numbers(balanced), model, dict(zip(balanced, lengths, strict=True))
            )
        _backward(weights, balanced, unweighted)
        return {name: weights.get(name, 1.0) for name in losses}

    def weigh(
        self, losses: dict[str, float], model: nn.Module, lengths: dict[str, float]
    ) -> dict[str, float]:
        """The present weights; those of the next step are learned from the lengths of
        the gradients."""
        for name, task in model.tasks.items():
            if task.balanced:
                self.weights.setdefault(name, 1.0)
        now = {name: self.weights[name] for name in losses}
        rates = {
            name: loss / max(self.first.setdefault(name, loss), SMALL)
            for name, loss in losses.items()
        }
        mean_rate = max(math.fsum(rates.values()) / len(rates), SMALL)
        mean = math.fsum(now[name] * lengths[name] for name in now) / len(now)
        slopes = {}
        for name, rate in rates.items():
            excess = (
                now[name] * lengths[name]
                - mean * (max(rate, 0.0) / mean_rate) ** self.alpha
            )
            slopes[name] = math.copysign(lengths[name], excess) if excess else 0.0
        _adam(self.weights, slopes, self.moments, self.lr)
        self.weights = {
            name: max(weight, 1e-6) for name, weight in self.weights.items()
        }
        total = sum(self.weights.values())
        self.weights = {
            name: len(self.weights) * weight / total
            for name, weight in self.weights.items()
        }
        return now


LOSS_BALANCERS: dict[str, type[Balancer]] = {
    cls.__name__: cls
    for cls in (
        StaticWeights,
        UncertaintyWeights,
        RandomWeights,
        DynamicWeightAverage,
        GeometricMean,
        SmoothTchebycheff,
        FAMO,
        GradNorm,
    )
}
