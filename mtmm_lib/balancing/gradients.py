r"""Gradient balancers: one direction out of the tasks' gradients.

T losses give T gradients of what the tasks share. A gradient balancer looks at their
inner products, the Gramian $G_{st} = g_s^\top g_t$, asks a weighting
(`mtmm_lib.balancing.weightings`) for weights, and sets the gradient of the shared
parameters to $\sum_t w_t\,g_t$. What one task has for itself, its head above all, gets
the gradient of that task's loss, unweighted.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.balancing.base import (
    SMALL,
    Balancer,
    Stateful,
    adam,
    add_gradients,
    divide,
    numbers,
    positive,
    processes,
    state,
    sum_over_processes,
    trained,
)
from mtmm_lib.balancing.meetings import Level, TaskGradients, go_around
from mtmm_lib.balancing.weightings import Weighting
from mtmm_lib.batch import Output
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import Task


def backward(
    losses: Mapping[str, Tensor],
    z: Tensor | None,
    weighting: Weighting,
    level: Level = "parameters",
) -> dict[str, float]:
    r"""One balanced backward pass, for a training loop of one's own; like
    `sum(losses).backward()`.

        z = trunk(x)
        losses = {"digit": cross_entropy(digit(z), y), "ink": mse_loss(ink(z), v)}
        weights = backward(losses, z, weightings.upgrad)
        optimizer.step()

    Shared parameters get $\sum_t w_t\,g_t$ added to their `.grad`, all others the
    gradient of their own loss. With one loss alone there is nothing to balance, and it
    is backpropagated as it is. A loss that needs no gradient has no part in all this.

    Args:
        losses: task → scalar.
        z: the features, `[B, ...]`, that all losses are computed from; `None` will do
            at level `"parameters"`.
        weighting: of `mtmm_lib.balancing.weightings`, or any function from a Gramian to
            weights.
        level: `"parameters"`: gradients of all parameters that two or more losses
            reach, at the price of a backward pass through the trunk for each loss; at
            linear layers wider than the batch, of half a pass (see
            `mtmm_lib.balancing.meetings`).
            `"features"`: gradients of z, at the price of hardly more than one backward
            pass. The weights are then those of an approximation: of two losses that
            disagree at z it is not certain that they disagree at the parameters, nor
            the other way round. And gradients at z are shorter, the more samples a
            batch has: for `nash_mtl` and `fair_grad`, whose weights grow as gradients
            shrink, each level wants its own learning rate.

    Returns:
        task → weight.

    Raises:
        ValueError: at level `"features"`, when losses reach shared parameters around z.
        FloatingPointError: when a gradient is not finite.
    """
    weights = dict.fromkeys(losses, 1.0)
    learned = trained(losses)
    if learned:
        weigh = functools.partial(_weights, weighting)
        weights |= _balance(TaskGradients(learned, z, level), weigh, None)
    return weights


def _weights(weighting: Weighting, gramian: np.ndarray) -> np.ndarray:
    """What a weighting, which may be the user's, says, if it is weights."""
    weights = np.asarray(weighting(gramian), dtype=np.float64)
    if weights.shape != (len(gramian),) or not np.isfinite(weights).all():
        raise ValueError(
            f"a weighting returns a finite weight for each of the {len(gramian)} tasks "
            f"whose gradients meet, but {weighting!r} returned {weights}"
        )
    return weights


def _balance(
    gradients: TaskGradients, weighting: Weighting, unweighted: Tensor | None
) -> dict[str, float]:
    meeting, weights = gradients.meeting(), np.ones(len(gradients.names))
    if sum(meeting) > 1:
        weights[meeting] = weighting(gradients.gramian()[np.ix_(meeting, meeting)])
    gradients.apply(weights.tolist(), unweighted)
    return dict(zip(gradients.names, weights.tolist(), strict=True))


class GradientBalancer(Balancer):
    r"""Balances the tasks' gradients by a weighting; used as
    `fit(..., balancer=GradientBalancer(upgrad))`.

    DB-MTL (Lin et al., 2023) is
    `GradientBalancer(equal_norms, log_losses=True, momentum=0.9)`.

    Args:
        weighting: of `mtmm_lib.balancing.weightings`, or any function from a Gramian
            `[T, T]` to weights `[T]`; T is the number of tasks that have labels in the
            batch. An argument called `rng` gets a generator of the balancer's own.
            Options are given by `functools.partial(cagrad, c=0.4)`.
        level: where gradients are compared; see `backward`.
        log_losses: take $\log \ell_t$ for the loss of each task, which has to be
            positive: the gradients become $\nabla\ell_t / \ell_t$, also those of the
            heads, and no unit of a loss matters any more.
        momentum: β; compare and combine running means of the gradients,
            $\hat g_t \leftarrow \beta\,\hat g_t + (1 - \beta)\,g_t$ from zero on, kept
            for each task. It costs the memory of one more gradient per task, and needs
            level `"parameters"`: at the features each batch is another place.
        seed: of the generator.

    Raises:
        TypeError: for a weighting that is no function.
        ValueError: for an unknown level, or a momentum that is outside [0, 1) or at
            level `"features"`; in training, when the weighting does not return a finite
            weight for each task.
    """

    def __init__(
        self,
        weighting: Weighting,
        level: Level = "parameters",
        *,
        log_losses: bool = False,
        momentum: float = 0.0,
        seed: int = 0,
    ) -> None:
        if level not in ("parameters", "features"):
            raise ValueError(f"level is 'parameters' or 'features', got {level!r}")
        if not 0 <= momentum < 1 or (momentum and level == "features"):
            raise ValueError(
                f"momentum is in [0, 1), and 0 at level 'features', got {momentum}"
            )
        if not callable(weighting):
            raise TypeError(
                "weighting is a function of a Gramian, such as weightings.upgrad, got "
                f"{weighting!r}"
            )
        self.weighting, self.level, self.log_losses, self.momentum = (
            weighting,
            level,
            log_losses,
            momentum,
        )
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self._draws = "rng" in inspect.signature(weighting).parameters
        #: Task → name of a parameter → its running mean.
        self.means: dict[str, dict[str, Tensor]] = {}

    def __repr__(self) -> str:
        function: Any = self.weighting
        options: dict[str, Any] = {}
        if isinstance(function, functools.partial):
            function, options = function.func, function.keywords
        name = getattr(function, "__name__", "weighting")
        return (
            f"GradientBalancer({name}, {options}, level={self.level!r}, "
            f"log_losses={self.log_losses}, momentum={self.momentum}, seed={self.seed})"
        )

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        """See `mtmm_lib.balancing.Balancer`. Penalties, and the losses of tasks that
        are not `balanced`, are added unweighted.

        Raises:
            ValueError: at level `"features"`, for tasks whose losses go around the cut
                (named), and for models without one; with `log_losses`, for a negative
                loss.
            FloatingPointError: when a gradient is not finite (named: the task).
        """
        balanced, unweighted = divide(losses, output, model.tasks)
        weights = dict.fromkeys(losses, 1.0)
        values = {name: 1.0 for name in balanced}
        if self.log_losses:
            values = {
                name: value + SMALL
                for name, value in positive(numbers(balanced)).items()
            }
            balanced = {name: (loss + SMALL).log() for name, loss in balanced.items()}
        together = sum(unweighted[1:], unweighted[0]) if unweighted else None
        if together is not None and (self.level == "parameters" or not balanced):
            torch.autograd.backward(together, retain_graph=bool(balanced))
            together = None
        if balanced:
            names: dict[Tensor, str] = {
                p: name for name, p in model.named_parameters() if p.requires_grad
            }
            gradients = TaskGradients(
                balanced,
                output.shared,
                self.level,
                list(names),
                whole=bool(self.momentum),
            )
            if self.momentum:
                self._average(gradients, names)
            found = _balance(gradients, self.weigh, together)
            weights |= {name: weight / values[name] for name, weight in found.items()}
        return weights

    def weigh(self, gramian: np.ndarray) -> np.ndarray:
        """Weights `[T]` for the Gramian `[T, T]` of the tasks whose gradients meet."""
        weighting: Callable[..., np.ndarray] = self.weighting
        if self._draws:
            weighting = functools.partial(weighting, rng=self.rng)
        return _weights(weighting, gramian)

    def _average(self, gradients: TaskGradients, names: Mapping[Tensor, str]) -> None:
        """Running means take the place of the gradients."""
        for place in gradients.meetings:
            name = names[place.at]
            for t, gradient in place.there().items():
                means = self.means.setdefault(gradients.names[t], {})
                mean = means.get(name, torch.zeros_like(gradient)).to(gradient.device)
                mean.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
                place.rows[t] = means[name] = mean

    def start(self, model: TaskModel) -> None:
        self.rng, self.means = np.random.default_rng(self.seed), {}

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.means = copy.deepcopy(state["means"])


@dataclass(eq=False)
class GradNorm(Stateful):
    r"""Gradients of like length, longer for tasks that lag behind (Chen et al., 2018).

    With $G_t = w_t \lVert g_t\rVert$, the mean $\bar G$ and the relative inverse
    training rates
    $r_t = \frac{\ell_t / \ell_t(0)}{\mathrm{mean}_s\,\ell_s / \ell_s(0)}$, the weights
    descend along the gradient of $\sum_t |G_t - \bar G r_t^\alpha|$, in which
    $\bar G r_t^\alpha$ counts as a constant, and are then multiplied by a number such
    that their sum is T. That gradient is written down here and reaches nothing but the
    weights. $\ell_t(0)$ is the loss of the first batch with a label of the task.

    Args:
        alpha: α ≥ 0; 0 for equal lengths, more to pull back laggards harder.
        lr: learning rate of Adam for the weights, which start at one and are kept
            positive.
        level: where gradients are measured. The paper takes one layer, mostly the last
            one that is shared. `"features"`: where they leave what is shared, for
            hardly more than one backward pass; the gradients of the last shared layer
            are those times its inputs. `"parameters"`: at all that two or more tasks
            share, which costs a backward pass for each task. By default at the features
            of models whose losses all go through one cut, as under hard and soft
            sharing, and at the parameters of all others: those that share experts or
            layers beyond the fusion, or where a task reads an encoder. There GradNorm
            is as slow as a gradient balancer.

    Raises:
        ValueError: in training, for a level that there is not; at level `"features"`,
            for tasks whose losses go around the cut (named), and for models without
            one.
        FloatingPointError: in training, when a gradient is not finite (named: the
            task).
    """

    alpha: float = 1.5
    lr: float = 0.025
    level: Level | None = None
    weights: dict[str, float] = state()
    first: dict[str, float] = state()
    moments: dict[str, list[float]] = state()
    #: A loss went around the cut. From then on gradients are measured at the
    #: parameters, also in batches without a label for it.
    around: bool = state(bool)

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        """See `Balancer`. Penalties, and the losses of tasks that are not `balanced`,
        are added unweighted."""
        balanced, unweighted = divide(losses, output, model.tasks)
        weights = {}
        if balanced:
            parameters = [p for p in model.parameters() if p.requires_grad]
            level = self._measured_at(balanced, output.shared, parameters)
            gradients = TaskGradients(
                balanced, output.shared, level, parameters, keep_graph=True
            )
            lengths = np.sqrt(np.diagonal(gradients.gramian())).tolist()
            weights = self.weigh(
                numbers(balanced),
                model.tasks,
                dict(zip(balanced, lengths, strict=True)),
            )
        add_gradients(weights, balanced, unweighted)
        return {name: weights.get(name, 1.0) for name in losses}

    def _measured_at(
        self,
        losses: Mapping[str, Tensor],
        z: Tensor | None,
        parameters: Sequence[Tensor],
    ) -> Level:
        if self.level is not None:
            return self.level
        if not self.around:
            found = torch.tensor(float(bool(go_around(losses, z, parameters))))
            if processes() > 1:  # a task may have labels in some processes only
                device = next(iter(losses.values())).device
                found = sum_over_processes(found.to(device))
            self.around = found.item() > 0
        return "parameters" if self.around else "features"

    def weigh(
        self,
        losses: Mapping[str, float],
        tasks: Mapping[str, Task],
        lengths: Mapping[str, float],
    ) -> dict[str, float]:
        """The present weights; those of the next step are learned from the lengths of
        the gradients."""
        for name, task in tasks.items():
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
        adam(self.weights, slopes, self.moments, self.lr)
        self.weights = {
            name: max(weight, 1e-6) for name, weight in self.weights.items()
        }
        total = sum(self.weights.values())
        self.weights = {
            name: len(self.weights) * weight / total
            for name, weight in self.weights.items()
        }
        return now
