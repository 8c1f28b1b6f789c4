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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

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
)
from mtmm_lib.balancing.weightings import Weighting
from mtmm_lib.batch import Output
from mtmm_lib.model import TaskModel
from mtmm_lib.tasks import Task

Level = Literal["parameters", "features"]

#: Columns of the Jacobian that are multiplied at once: as many as a CPU's caches hold,
#: or as keep a GPU busy.
COLUMNS, COLUMNS_ON_GPU = 24_000, 250_000


class TaskGradients:
    r"""The gradients of several losses, where they meet and where they do not.

    At level `"parameters"` they meet in the parameters that two or more losses reach; a
    loss that does not reach one of them has a zero gradient there. At level
    `"features"` they meet in z, `[B, ...]`, through which all of them go. Everything
    else belongs to one loss.

    In several processes each has a share of every gradient, of which the whole one is
    the sum. The Gramian is that of the whole gradients; `apply` leaves each process
    with a share of the result.

    Args:
        losses: task → scalar.
        z: the cut; not used at level `"parameters"`.
        level: where the gradients meet.
        parameters: those that are trained; by default whatever the losses reach.
        keep_graph: leave the graph as it is, for another backward pass.

    Raises:
        ValueError: at level `"features"`, when there is no cut, or when losses reach
            what others reach, too, but not through it.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        z: Tensor | None,
        level: Level,
        parameters: Sequence[Tensor] | None = None,
        keep_graph: bool = False,
    ) -> None:
        self.names = list(losses)
        self.z = z if level == "features" else None
        #: The parameters that one loss alone reaches, with its gradient.
        self.own: list[tuple[Tensor, Tensor]] = []
        #: Where gradients meet, and for each place the gradient of every loss; `None`:
        #: it does not get there.
        self.places: list[Tensor] = []
        self.rows: list[list[Tensor | None]] = []
        if level == "features":
            self._at_features(losses, parameters)
        elif level == "parameters":
            self._at_parameters(list(losses.values()), parameters, keep_graph)
        else:
            raise ValueError(f"level is 'parameters' or 'features', got {level!r}")

    def _at_parameters(
        self,
        losses: list[Tensor],
        parameters: Sequence[Tensor] | None,
        keep_graph: bool,
    ) -> None:
        parameters = (
            list(_leaves(losses).values()) if parameters is None else list(parameters)
        )
        gradients = [
            torch.autograd.grad(
                loss,
                parameters,
                retain_graph=keep_graph or i < len(losses) - 1,
                allow_unused=True,
            )
            for i, loss in enumerate(losses)
        ]
        reached = [[g is not None for g in row] for row in gradients]
        if processes() > 1:  # a task may have labels in some processes only
            reached = (
                sum_over_processes(
                    torch.tensor(reached, dtype=torch.float32, device=losses[0].device)
                )
                > 0
            ).tolist()
        for p, row, reach in zip(
            parameters,
            zip(*gradients, strict=True),
            zip(*reached, strict=True),
            strict=True,
        ):
            if sum(reach) > 1:
                if processes() > 1:
                    whole = sum_over_processes(
                        torch.stack(
                            [torch.zeros_like(p) if g is None else g for g in row]
                        )
                    )
                    row = [
                        g if there else None
                        for g, there in zip(whole, reach, strict=True)
                    ]
                self.places.append(p)
                self.rows.append(list(row))
            else:
                self.own += [(p, g) for g in row if g is not None]

    def _at_features(
        self, losses: Mapping[str, Tensor], parameters: Sequence[Tensor] | None
    ) -> None:
        if self.z is None:
            raise ValueError(
                "the model has no cut that all tasks go through, so that there are no "
                "features to compare gradients at; use level='parameters'"
            )
        below = _leaves([self.z])
        own = {name: _leaves([loss], self.z) for name, loss in losses.items()}
        trained = None if parameters is None else {id(p) for p in parameters}
        if trained is not None:  # what else the losses reach is nobody's parameter
            own = {
                name: {i: p for i, p in leaves.items() if i in trained}
                for name, leaves in own.items()
            }
        others = [
            set(below).union(*(own[other] for other in own if other != name))
            for name in own
        ]
        around = [
            name
            for name, taken in zip(own, others, strict=True)
            if own[name].keys() & taken
        ]
        if around:
            raise ValueError(
                f"the losses of tasks {around} reach shared parameters around the cut, "
                "where their gradients at the features would not show it; use "
                "level='parameters' (the cut is the output of the trunk under hard "
                "sharing and of the fusion otherwise; a compiled forward pass has none)"
            )
        row: list[Tensor | None] = []
        for name, loss in losses.items():
            mine = list(own[name].values())
            wanted = [self.z, *mine] if self.z.requires_grad else mine
            gradients = list(
                torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
            )
            row.append(gradients.pop(0) if self.z.requires_grad else None)
            self.own += [
                (p, g) for p, g in zip(mine, gradients, strict=True) if g is not None
            ]
        if any(g is not None for g in row) or processes() > 1:
            self.places, self.rows = [self.z], [row]

    def gramian(self) -> np.ndarray:
        r"""$G_{st} = g_s^\top g_t$, float64 `[T, T]`.

        Raises:
            FloatingPointError: when a gradient is not finite (named: the task).
        """
        device = self.places[0].device if self.places else torch.device("cpu")
        # In double precision, also because squares of small gradients would vanish.
        wide = torch.float32 if device.type == "mps" else torch.float64
        size = len(self.names)
        total = torch.zeros(size, size, dtype=wide, device=device)
        width = min(
            COLUMNS if device.type == "cpu" else COLUMNS_ON_GPU,
            max((p.numel() for p in self.places), default=0),
        )
        buffer = torch.empty(size, width, dtype=wide, device=device)
        for row in self.rows:
            there = [t for t, g in enumerate(row) if g is not None]
            flat = [row[t].reshape(-1) for t in there]
            for parts in zip(*(g.split(width) for g in flat), strict=True):
                block = buffer[: len(there), : len(parts[0])]
                torch._foreach_copy_(list(block.unbind()), list(parts))
                if len(there) == size:
                    total.addmm_(block, block.T)
                else:
                    index = torch.tensor(there, device=device)
                    total[index.unsqueeze(1), index] += block @ block.T
        if self.z is not None and processes() > 1:
            total = sum_over_processes(total)
        gramian = total.cpu().double().numpy()
        wrong = [
            name
            for name, square in zip(self.names, np.diagonal(gramian), strict=True)
            if not np.isfinite(square)
        ]
        if wrong:
            raise FloatingPointError(f"the gradients of tasks {wrong} are not finite")
        return gramian

    def meeting(self) -> list[bool]:
        """Which of the losses meet others, that is, get to one of the places where
        gradients meet."""
        found = [
            any(row[t] is not None for row in self.rows) for t in range(len(self.names))
        ]
        if self.z is not None and processes() > 1:
            found = (
                sum_over_processes(
                    torch.tensor(found, dtype=torch.float32, device=self.z.device)
                )
                > 0
            ).tolist()
        return found

    def apply(self, weights: Iterable[float], unweighted: Tensor | None = None) -> None:
        r"""Adds the result to `.grad`: $\sum_t w_t\,g_t$ where gradients meet, each
        loss's own elsewhere. It works once: the gradients are then gone.

        Args:
            weights: one for each loss.
            unweighted: at level `"features"`, a scalar whose gradient goes back in the
                same pass.
        """
        _add([p for p, _ in self.own], [g for _, g in self.own], 1.0)
        weights = list(weights)
        if self.z is None:
            for t, weight in enumerate(weights):
                here = [
                    (p, row[t])
                    for p, row in zip(self.places, self.rows, strict=True)
                    if row[t] is not None
                ]
                # Every process has the whole of it, and the shares will be added up.
                _add([p for p, _ in here], [g for _, g in here], weight / processes())
                for row in self.rows:
                    row[t] = None  # its memory is free from here on
            return
        roots = []
        for row in self.rows:
            total = torch.zeros_like(
                self.z, dtype=torch.promote_types(self.z.dtype, torch.float32)
            )
            for t, weight in enumerate(weights):
                if row[t] is not None:
                    total.add_(row[t], alpha=weight)
                    row[t] = None  # its memory is free from here on
            roots.append((self.z, total.to(self.z.dtype)))
        roots += [(unweighted, None)] if unweighted is not None else []
        if roots:
            torch.autograd.backward(*map(list, zip(*roots, strict=True)))


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
    is backpropagated as it is.

    Args:
        losses: task → scalar.
        z: the features, `[B, ...]`, that all losses are computed from; `None` will do
            at level `"parameters"`.
        weighting: of `mtmm_lib.balancing.weightings`, or any function from a Gramian to
            weights.
        level: `"parameters"`: gradients of all parameters that two or more losses
            reach, at the price of a backward pass through the trunk for each loss.
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
    return _balance(TaskGradients(losses, z, level), weighting, None)


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
        ValueError: for an unknown level, or a momentum that is outside [0, 1) or at
            level `"features"`.
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
        partial = isinstance(self.weighting, functools.partial)
        name = getattr(
            self.weighting.func if partial else self.weighting, "__name__", "weighting"
        )
        options = self.weighting.keywords if partial else {}
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
            together.backward(retain_graph=bool(balanced))
            together = None
        if balanced:
            names = {p: n for n, p in model.named_parameters() if p.requires_grad}
            gradients = TaskGradients(balanced, output.shared, self.level, list(names))
            if self.momentum:
                self._average(gradients, names)
            weighting = (
                functools.partial(self.weighting, rng=self.rng)
                if self._draws
                else self.weighting
            )
            found = _balance(gradients, weighting, together)
            weights |= {name: weight / values[name] for name, weight in found.items()}
        return weights

    def _average(self, gradients: TaskGradients, names: Mapping[Tensor, str]) -> None:
        """Running means take the place of the gradients."""
        for p, row in zip(gradients.places, gradients.rows, strict=True):
            for t, task in enumerate(gradients.names):
                gradient = row[t]
                if gradient is not None:
                    means = self.means.setdefault(task, {})
                    mean = means.get(names[p], torch.zeros_like(p)).to(p.device)
                    row[t] = means[names[p]] = mean.mul_(self.momentum).add_(
                        gradient, alpha=1 - self.momentum
                    )

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
        level: where gradients are measured: `"features"`, where they leave the trunk,
            or `"parameters"`, all that two or more tasks share, which costs a backward
            pass for each task. The paper takes some layer of parameters, mostly the
            last shared one, the gradients of which are those at the features times its
            input.
    """

    alpha: float = 1.5
    lr: float = 0.025
    level: Level = "features"
    weights: dict[str, float] = state()
    first: dict[str, float] = state()
    moments: dict[str, list[float]] = state()

    def backward(
        self, losses: dict[str, Tensor], output: Output, model: TaskModel
    ) -> dict[str, float]:
        """See `Balancer`. Penalties, and the losses of tasks that are not `balanced`,
        are added unweighted."""
        balanced, unweighted = divide(losses, output, model.tasks)
        weights = {}
        if balanced:
            parameters = [p for p in model.parameters() if p.requires_grad]
            gradients = TaskGradients(
                balanced, output.shared, self.level, parameters, keep_graph=True
            )
            lengths = np.sqrt(np.diagonal(gradients.gramian())).tolist()
            weights = self.weigh(
                numbers(balanced),
                model.tasks,
                dict(zip(balanced, lengths, strict=True)),
            )
        add_gradients(weights, balanced, unweighted)
        return {name: weights.get(name, 1.0) for name in losses}

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


def _add(parameters: list[Tensor], gradients: list[Tensor], weight: float) -> None:
    for p in parameters:
        if p.grad is None:  # in the layout of the parameter, which optimizers count on
            p.grad = torch.zeros_like(p)
    if parameters:
        torch._foreach_add_([p.grad for p in parameters], gradients, alpha=weight)


def _leaves(roots: Iterable[Tensor], cut: Tensor | None = None) -> dict[int, Tensor]:
    """What the roots depend on, other than through the cut: id → tensor that collects a
    gradient."""
    barrier = (
        get_gradient_edge(cut)[:2] if cut is not None and cut.requires_grad else None
    )
    edges = [get_gradient_edge(root)[:2] for root in roots if root.requires_grad]
    found, seen = {}, set()
    while edges:
        edge = edges.pop()
        if edge == barrier or edge[0] is None or edge[0] in seen:
            continue
        seen.add(edge[0])
        if hasattr(edge[0], "variable"):
            found[id(edge[0].variable)] = edge[0].variable
        edges += edge[0].next_functions
    return found
