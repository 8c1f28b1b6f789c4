r"""Loss balancers: one weighted sum of the tasks' losses, whose gradient is the update.

Every balancer, of losses or of gradients, is a `Balancer`. The loss balancers here
differ in where the weights come from:

| | Weights | Their sum over T tasks |
|---|---|---|
| `StaticWeights` | given | what is given; T by default: the sum of the losses |
| `UncertaintyWeights` | learned: a task's noise | T or T/2, more as losses shrink |
| `RandomWeights` | drawn in each step | 1 |
| `DynamicWeightAverage` | how fast each loss fell in the last epochs | T |
| `GeometricMean` | all losses | Σ of geometric mean / (T times a loss) |
| `SmoothTchebycheff` | the largest loss | at most the largest given weight |
| `FAMO` | learned, so that all logarithms of losses fall alike | 1 |
| `GradNorm` | learned, so that gradients have like lengths | T |

All scale the gradients of the heads, too: they change the objective, not only how the
trunk is updated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from mtmm_lib.balancing.base import (
    SMALL,
    LossBalancer,
    adam,
    numbers,
    of_each,
    positive,
    softmax,
    state,
)
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import Task


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
    weights are $\tfrac12 / \ell_t$: the update is then that of
    $\tfrac12 \sum_t \log \ell_t$, as in `GeometricMean` but for its length.

    Args:
        lr: learning rate of Adam for the $s_t$. They are updated from the same losses
            as the model, as if they were parameters of it.
    """

    lr: float = 0.01
    log_variances: dict[str, float] = state()
    moments: dict[str, list[float]] = state()

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        weights, slopes = {}, {}
        for name, loss in losses.items():
            factor = 0.5 if tasks[name].gaussian else 1.0
            weights[name] = factor * math.exp(-self.log_variances.setdefault(name, 0.0))
            slopes[name] = 0.5 - weights[name] * loss
        adam(self.log_variances, slopes, self.moments, self.lr)
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

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        drawn = self.rng.standard_normal(len(losses)).tolist()
        return softmax(dict(zip(losses, drawn, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]


@dataclass(eq=False)
class DynamicWeightAverage(LossBalancer):
    r"""Slow tasks get more weight (Liu et al., 2019, MTAN).

    $w_t = T \cdot \mathrm{softmax}_t(r_t / \tau)$ with
    $r_t = \bar\ell_t(e - 1) / \bar\ell_t(e - 2)$, the ratio of the mean losses of the
    last two epochs; all weights are one in the first two epochs. With τ = 2, the
    weights of losses that do not grow differ by a factor of at most $\sqrt e = 1.65$.

    Args:
        temperature: τ; a large one makes the weights equal.
    """

    temperature: float = 2.0
    means: list[dict[str, float]] = state(list)

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        before, last = self.means if len(self.means) == 2 else ({}, {})
        ratios = {
            name: last[name] / before[name]
            if name in last and before.get(name, 0) > 0
            else 1.0
            for name, task in tasks.items()
            if task.balanced
        }
        weights = softmax(
            {name: ratio / self.temperature for name, ratio in ratios.items()}
        )
        return {name: len(weights) * weights[name] for name in losses}

    def after_epoch(self, losses: Mapping[str, float]) -> None:
        self.means = [*self.means, dict(losses)][-2:]


@dataclass(eq=False)
class GeometricMean(LossBalancer):
    r"""The geometric mean of the losses, $(\prod_t \ell_t)^{1/T}$ (Chennupati et al.,
    2019).

    Its gradient is $\sum_t w_t \nabla\ell_t$ with
    $w_t = \frac{1}{T \ell_t} (\prod_s \ell_s)^{1/T}$: relative progress counts the same
    for every task, in whatever unit its loss is measured.

    Raises:
        ValueError: in training, for a negative loss.
    """

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
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

    def start(self, model: TaskModel) -> None:
        super().start(model)
        self._told(model.tasks)

    def _told(
        self, tasks: Mapping[str, Task]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Task → λ and task → z, for all tasks."""
        weights = of_each(
            self.weights, 1 / len(tasks), tasks, "SmoothTchebycheff has weights"
        )
        return weights, of_each(self.ideal, 0.0, tasks, "SmoothTchebycheff has ideals")

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        share, ideal = self._told(tasks)
        heights = {
            name: share[name] * (loss - ideal[name]) / self.mu
            for name, loss in losses.items()
        }
        return {name: share[name] * part for name, part in softmax(heights).items()}


@dataclass(eq=False)
class FAMO(LossBalancer):
    r"""Fast adaptive multitask optimisation (Liu et al., 2023): as in MGDA for the
    logarithms of the losses, but from their values alone.

    The weights are $w_t = c\,z_t / \tilde\ell_t$ with $z = \mathrm{softmax}(\xi)$,
    $\tilde\ell_t$ the loss above its minimum, and c such that they sum to one. After
    the step the losses of the same batch are computed again, and where
    $\log\tilde\ell_t$ fell more than elsewhere, $\xi_t$ falls, too: with
    $\delta_t = \log\tilde\ell_t - \log\tilde\ell_t'$, Adam descends along
    $z_t\,(\delta_t - \sum_s z_s \delta_s)$. That costs another forward pass, and no
    further backward pass.

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
    scores: dict[str, float] = state()
    moments: dict[str, list[float]] = state()
    before: dict[str, float] = state()

    def start(self, model: TaskModel) -> None:
        super().start(model)
        of_each(self.minima, 0.0, model.tasks, "FAMO has minima")

    def weigh(
        self, losses: Mapping[str, float], tasks: Mapping[str, Task]
    ) -> dict[str, float]:
        lowest = of_each(self.minima, 0.0, tasks, "FAMO has minima")
        self.before = self._logs(losses, lowest)
        return softmax(
            {
                name: self.scores.setdefault(name, 0.0) - log
                for name, log in self.before.items()
            }
        )

    def after_step(self, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Compares the losses before and after the step; without a loss to balance in
        this step, there is nothing to compare."""
        before, self.before = self.before, {}
        if not before:
            return
        again = {name: loss for name, loss in losses().items() if name in before}
        after = self._logs(numbers(again), self.minima)
        fell = {name: before[name] - log for name, log in after.items()}
        shares = softmax({name: self.scores[name] for name in fell})
        mean = sum(shares[name] * value for name, value in fell.items())
        slopes = {name: shares[name] * (value - mean) for name, value in fell.items()}
        adam(self.scores, slopes, self.moments, self.lr, self.weight_decay)

    @staticmethod
    def _logs(
        losses: Mapping[str, float], lowest: Mapping[str, float]
    ) -> dict[str, float]:
        """Task → logarithm of its loss above its minimum."""
        above = positive(
            {name: loss - lowest.get(name, 0.0) for name, loss in losses.items()}
        )
        return {name: math.log(loss + SMALL) for name, loss in above.items()}
