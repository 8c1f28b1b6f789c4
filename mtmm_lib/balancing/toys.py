r"""Two tasks that fit on a page: losses of a point, with all best compromises known;
and tasks in unlike units.

A point is Pareto optimal if no other is better for one task without being worse for
another. Their losses make up the Pareto front. Where to on the front a balancer goes,
and whether it gets there at all, depends on the start. Shapes: S starts, n coordinates,
T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.balancing.base import LossBalancer
from mtmm_lib.balancing.weightings import Weighting
from mtmm_lib.tasks import Task


@dataclass(frozen=True, eq=False)
class Toy:
    """Losses of a point.

    Args:
        losses: points `[..., n]` → losses `[..., T]`.
        starts: `[S, n]`, the points that its authors start from.
        optima: `[P, n]`, points all along the Pareto optimal set, in order.
        names: the tasks' names.
    """

    losses: Callable[[Tensor], Tensor]
    starts: Tensor
    optima: Tensor
    names: tuple[str, ...] = ("first", "second")

    @property
    def tasks(self) -> dict[str, Task]:
        """Name → a plain task, for balancers of losses."""
        return {name: Task(name) for name in self.names}

    @property
    def front(self) -> Tensor:
        """`[P, T]`, the Pareto front: the losses of the optima."""
        return self.losses(self.optima)


def valleys(scale: float = 1.0) -> Toy:
    r"""Two valleys with steep walls, whose floors lead to a shared bowl (Liu et al.,
    2021, CAGrad).

    Above, for $x_2 > 0$, each loss is a logarithm that falls off a cliff along a curve;
    where one task is nearly solved, its gradient is huge. Below, for $x_2 < 0$, the
    losses are bowls around $x_1 = 7$ and $x_1 = -7$, and all points between, at
    $x_2 \approx -8.36$, are Pareto optimal. With $x_2^\pm = \max(\pm\tanh(x_2/2), 0)$,

    $\ell_1 = s\,(x_2^+ f_1 + x_2^- q_1), \qquad \ell_2 = x_2^+ f_2 + x_2^- q_2,$

    $f_1 = \log\max(|\tfrac12(-x_1 - 7) + \tanh x_2|, \epsilon) + 6, \qquad
    f_2 = \log\max(|\tfrac12(-x_1 + 3) - \tanh x_2 + 2|, \epsilon) + 6,$

    $q_{1,2} = \tfrac1{10}\big((x_1 \mp 7)^2 + \tfrac1{10}(x_2 + 8)^2\big) - 20, \qquad
    \epsilon = 5\cdot10^{-6}.$

    Args:
        scale: s, the unit of the first loss. CAGrad's authors use 1; with 0.1, as Navon
            et al. (2022) use it, the second task is ten times as loud.

    Returns:
        a toy with the starts of Navon et al., of which the first and the third are
        CAGrad's, with (−8.5, −5) for the second.
    """

    def losses(x: Tensor) -> Tensor:
        x1, x2 = x[..., 0], x[..., 1]
        tanh, blend = x2.tanh(), (x2 / 2).tanh()
        f1 = (0.5 * (-x1 - 7) + tanh).abs().clamp(min=5e-6).log() + 6
        f2 = (0.5 * (-x1 + 3) - tanh + 2).abs().clamp(min=5e-6).log() + 6
        depth = 0.1 * (x2 + 8).square()
        q1, q2 = (
            ((x1 - 7).square() + depth) / 10 - 20,
            ((x1 + 7).square() + depth) / 10 - 20,
        )
        up, down = blend.clamp(min=0), (-blend).clamp(min=0)
        return torch.stack([scale * (up * f1 + down * q1), up * f2 + down * q2], -1)

    # Where both gradients lie on one line: a fixed point of x₂, since they hardly
    # depend on it.
    x1 = torch.linspace(-7, 7, 201, dtype=torch.float64)
    x2 = torch.full_like(x1, -8.0)
    for _ in range(50):
        blend = (-x2 / 2).tanh()
        slope = -(1 - blend.square()) / 2
        x2 = -8 + slope * (
            1.4 * (x1.square() - 49) - 14 * (0.01 * (x2 + 8).square() - 20)
        ) / (0.28 * blend)
    starts = [[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]]
    return Toy(
        losses, torch.tensor(starts, dtype=torch.float64), torch.stack([x1, x2], 1)
    )


def fonseca_fleming(dim: int = 20) -> Toy:
    r"""Two hills with a front that is bent inwards (Fonseca & Fleming, 1995).

    $\ell_{1,2} = 1 - \exp(-\sum_i (x_i \mp \tfrac1{\sqrt n})^2)$. The optima are the
    points with equal coordinates between the two summits. Between its ends the front
    bulges away from where both losses are low, and so each weighted sum is lowest next
    to one of the ends.

    Args:
        dim: n.

    Returns:
        a toy with five starts around the origin.
    """
    summit = dim**-0.5

    def losses(x: Tensor) -> Tensor:
        squares = [(x - centre).square().sum(-1) for centre in (summit, -summit)]
        return 1 - (-torch.stack(squares, -1)).exp()

    # Off the optimal set in a direction that both losses feel alike, then towards one
    # summit or the other.
    aside = torch.tensor([0.1, -0.1], dtype=torch.float64).repeat(dim)[:dim]
    along = torch.tensor([-0.6, -0.2, 0.1, 0.3, 0.7], dtype=torch.float64)
    starts = aside + along.unsqueeze(1) * torch.full(
        (dim,), summit, dtype=torch.float64
    )
    optima = (
        torch.linspace(-summit, summit, 201, dtype=torch.float64)
        .unsqueeze(1)
        .expand(-1, dim)
    )
    return Toy(losses, starts, optima)


def descend(
    toy: Toy,
    ways: Mapping[str, Weighting | LossBalancer],
    *,
    starts: Tensor | None = None,
    steps: int,
    lr: float,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
) -> dict[str, Tensor]:
    r"""The ways down from several starts:
    $x \leftarrow x - \eta \sum_t w_t \nabla \ell_t(x)$, or what an optimizer makes of
    this direction. All points move at once, which takes hardly longer than one of them
    would.

    Args:
        toy: the losses.
        ways: name → where the weights come from: a weighting, called with the Gramian
            `[T, T]` of the gradients (see `mtmm_lib.balancing.weightings`); or a
            balancer of losses such as `FAMO()`, one like which, with a state of its
            own, goes along with each point.
        starts: `[S, n]`; those of the toy by default.
        steps, lr: how many, and η.
        optimizer: called as `optimizer([x], lr=lr)`; it has to treat each coordinate
            for itself.

    Returns:
        name → all points on the way, float64 `[steps + 1, S, n]`.
    """
    starts = (toy.starts if starts is None else starts).double()
    weigh = [_weigher(toy, way) for way in ways.values() for _ in starts]
    # all starts for the first way, all for the second, …
    x = starts.repeat(len(ways), 1).requires_grad_()
    descent = optimizer([x], lr=lr)
    path = [x.detach().clone()]
    for _ in range(steps):
        # A copy of the points for each task, so that one backward pass gives all
        # gradients: [T, S, n].
        copies = x.detach().expand(len(toy.names), *x.shape).clone().requires_grad_()
        losses = toy.losses(copies).diagonal(dim1=0, dim2=2)  # [S, T]
        # [S, T, n]
        jacobians = torch.autograd.grad(losses.sum(), copies)[0].transpose(0, 1)
        seen = zip(
            weigh,
            losses.detach().numpy(),
            (jacobians @ jacobians.mT).numpy(),
            strict=True,
        )
        weights = torch.tensor(
            np.array([way(values, gramian) for way, values, gramian in seen])
        )
        x.grad = torch.einsum("st,stn->sn", weights, jacobians)
        descent.step()
        path.append(x.detach().clone())
    return dict(zip(ways, torch.stack(path).split(len(starts), 1), strict=True))


def _weigher(
    toy: Toy, way: Weighting | LossBalancer
) -> Callable[[np.ndarray, np.ndarray], np.ndarray | list[float]]:
    """A function from the losses `[T]` and their Gramian to weights."""
    if not isinstance(way, LossBalancer):
        return lambda losses, gramian: way(gramian)
    balancer, tasks, moved = replace(way), toy.tasks, False

    def weigh(losses: np.ndarray, gramian: np.ndarray) -> list[float]:
        nonlocal moved
        values = dict(zip(toy.names, losses.tolist(), strict=True))
        if moved:  # losses depend on the point alone: those of now will do
            balancer.after_step(
                lambda: {name: torch.tensor(value) for name, value in values.items()}
            )
        moved = True
        return list(balancer.weigh(values, tasks).values())

    return weigh
