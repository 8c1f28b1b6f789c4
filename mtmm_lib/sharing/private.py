r"""Shared and private spaces: what all tasks read beside what only one of them
reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Shared
from mtmm_lib.sharing.base import Sharing, Trunk, build_trunk, check_strength


def difference(shared: Tensor, private: Tensor) -> Tensor:
    r"""How much two representations overlap:
    $\bigl\lVert\frac{1}{n} H_c^\top H_p\bigr\rVert_F^2$.

    The rows of $H_c$, $H_p$ are the n tokens' shared and private features. It is zero
    where every shared feature is orthogonal to every private one over the batch. The
    difference loss of Bousmalis et al. (2016), divided by n², so that its size does not
    depend on the batch. It can be made small by small features, too.

    Shapes: `[..., D]` and `[..., D']` → scalar.
    """
    c, p = shared.flatten(0, -2), private.flatten(0, -2)
    return (c.T @ p / c.shape[0]).float().square().sum()


class SharedPrivate(Sharing):
    r"""A shared trunk and a private one for each task, $h_t = [f_c(z); f_t(z)]$ (Liu et
    al., 2017), with the penalty
    $\lambda\sum_t\bigl\lVert\frac{1}{n}H_c^\top H_t\bigr\rVert_F^2$ that keeps them
    apart (`difference`; Bousmalis et al., 2016).

    The penalty is over all n tokens of the batch, labelled or not, padding included. It
    is not a mean over samples, so that two processes, each with its part of a batch, do
    not give quite what one gives.

    Args:
        strength: λ ≥ 0.

    Raises:
        ValueError: for a negative strength.

    Shapes: `[B, L, in_dim]` → `[B, L, 2·dim]` per task, first the shared half, then the
    private one; the attribute `dim` is this width.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        dim: int,
        trunk: Trunk | None = None,
        *,
        strength: float = 0.01,
    ) -> None:
        super().__init__(tasks, in_dim, 2 * dim)
        check_strength(strength)
        self.strength = strength
        self.shared = build_trunk(trunk, in_dim, dim)
        self.private = nn.ModuleDict(
            {task: build_trunk(trunk, in_dim, dim) for task in self.tasks}
        )

    def forward(self, z: Tensor) -> Shared:
        common, own = (
            self.shared(z),
            {task: trunk(z) for task, trunk in self.private.items()},
        )
        features = {task: torch.cat([common, h], -1) for task, h in own.items()}
        if not self.strength:
            return Shared(features)
        return Shared(
            features,
            penalty=self.strength * sum(difference(common, h) for h in own.values()),
        )

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The task's private trunk."""
        return list(self.private[name].parameters())
