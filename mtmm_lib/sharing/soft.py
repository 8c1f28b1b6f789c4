r"""Soft sharing: a trunk for each task, and a penalty that holds the trunks
together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Shared
from mtmm_lib.sharing.base import Sharing, Trunk, build_trunk, check_strength


def tether(theta: Tensor) -> Tensor:
    r"""How far the tasks are from their mean:
    $\sum_t\lVert\theta_t-\bar\theta\rVert^2$.

    The part of the regulariser of Evgeniou & Pontil (2004) that couples the tasks;
    theirs charges the mean as well, which makes it a tether with a ridge. Between all
    pairs of T tasks instead of to the mean it is the same up to a constant,
    $\sum_{s<t}\lVert\theta_s-\theta_t\rVert^2 =
    T\sum_t\lVert\theta_t-\bar\theta\rVert^2$. The gradient is $2L\theta$ with $L = I -
    \frac{1}{T}11^\top$, the Laplacian of the graph in which all tasks are joined with
    weight 1/T. Duong et al. (2015) tie one way: the source's parameters stand still.

    Shapes: `[T, n]`, one row per task → scalar.
    """
    return (theta - theta.mean(0)).square().sum()


def trace_norm(theta: Tensor) -> Tensor:
    r"""The sum of the singular values, $\lVert\Theta\rVert_* = \sum_i s_i$, which
    favours a low rank.

    With $\Theta = U\Sigma V^\top$ the gradient is $UV^\top$. Where singular values are
    zero (equal or zero rows) the norm has a kink, and of its subgradients this one is
    taken that leaves these directions alone. Second derivatives are not defined.

    Shapes: `[T, n]`, one row per task → scalar.
    """
    # ⟨Θ, UVᵀ⟩ is the norm and has the right gradient, without the derivative of U and
    # V, which divides by differences of singular values.
    u, s, vt = torch.linalg.svd(theta.detach().double(), full_matrices=False)
    positive = s > s[:1] * max(theta.shape) * torch.finfo(s.dtype).eps
    direction: Tensor = ((u * positive) @ vt).to(theta.dtype)
    return (theta * direction).sum()


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": tether,
    "trace_norm": trace_norm,
}


class SoftSharing(Sharing):
    r"""Soft parameter sharing: $h_t = f_{\theta_t}(z)$, with the penalty
    $\lambda\sum_p R(\Theta_p)$.

    $\Theta_p$ `[T, n]` holds one parameter tensor p of the trunk, flattened, one row
    per task. `"l2"` tethers the tasks to their mean (`tether`); λ = 0 leaves separate
    trunks, λ → ∞ hard sharing. `"trace_norm"` makes the rows combinations of few
    (`trace_norm`); it is the flattening of the last axis of Yang & Hospedales (2017).

    The trunks start equal: hidden units have no order of their own, and tethering unit
    i of one trunk to unit i of another says something only if they begin as the same
    unit.

    Args:
        penalty: R.
        strength: λ ≥ 0.

    Raises:
        ValueError: for another penalty or a negative strength.

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        dim: int,
        trunk: Trunk | None = None,
        *,
        penalty: Literal["l2", "trace_norm"] = "l2",
        strength: float = 0.01,
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        if penalty not in PENALTIES:
            raise ValueError(f"penalty is one of {sorted(PENALTIES)}, got {penalty!r}")
        check_strength(strength)
        self.penalty, self.strength = penalty, strength
        first = build_trunk(trunk, in_dim, dim)
        self.trunks = nn.ModuleDict({task: deepcopy(first) for task in self.tasks})

    def forward(self, z: Tensor) -> Shared:
        features = {task: trunk(z) for task, trunk in self.trunks.items()}
        if not self.strength:
            return Shared(features)
        rows = zip(*(trunk.parameters() for trunk in self.trunks.values()), strict=True)
        # each [T, n]
        stacked = [torch.stack([p.flatten() for p in row]) for row in rows]
        penalty = PENALTIES[self.penalty]
        return Shared(
            features, penalty=self.strength * sum(penalty(theta) for theta in stacked)
        )

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The task's whole trunk. Nothing here is shared: what couples the trunks is
        the penalty alone."""
        return list(self.trunks[name].parameters())
