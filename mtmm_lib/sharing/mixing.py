r"""Sharing features: cross-stitch networks mix the features of several trunks, task
attention selects from those of one trunk.

Shapes: B batch, L tokens, D width, T tasks (in alphabetical order), S stages of the
trunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Shared
from mtmm_lib.sharing.base import Sharing, Trunk, build_trunk


class CrossStitch(Sharing):
    r"""Cross-stitch networks: a trunk for each task, and after each stage a learned
    mixture of their features (Misra et al., 2016).

    With $x_s$ what the stage of task s returns, the next stage of task t reads
    $\tilde x_t = \sum_s \alpha_{ts}\,x_s$; each stage has its own matrix α `[T, T]`,
    one number for all channels. It starts with `own` on the diagonal and the rest of
    one shared among the others, and is not constrained later. The identity gives
    separate trunks. The trunks start apart; the paper also starts from networks that
    were trained on each task alone, for which `trunks[task]` can be loaded before.

    Args:
        own: the weight in [0, 1] of a task's own features at the start (one for a
            single task).

    Raises:
        ValueError: for `own` outside of [0, 1].

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; `weights["stitches"]`
    `[S, T, T]`, row t what task t reads.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        dim: int,
        trunk: Trunk | None = None,
        *,
        own: float = 0.9,
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        if not 0 <= own <= 1:
            raise ValueError(f"own is a weight in [0, 1], got {own}")
        trunks = {task: build_trunk(trunk, in_dim, dim) for task in self.tasks}
        self.trunks = nn.ModuleDict(trunks)
        count, stages = len(self.tasks), len(trunks[self.tasks[0]])
        start = torch.full((count, count), (1 - own) / max(count - 1, 1))
        start.fill_diagonal_(own if count > 1 else 1.0)
        self.stitches = nn.Parameter(start.repeat(stages, 1, 1))

    def forward(self, z: Tensor) -> Shared:
        read = [z] * len(self.tasks)
        for stages, stitch in zip(
            zip(*self.trunks.values(), strict=True), self.stitches, strict=True
        ):
            # [T, B, L, D]
            x = torch.stack([stage(x) for stage, x in zip(stages, read, strict=True)])
            read = (stitch @ x.flatten(1)).view_as(x).unbind()
        return Shared(
            dict(zip(self.tasks, read, strict=True)), {"stitches": self.stitches}
        )


def stage_widths(trunk: nn.Sequential, in_dim: int) -> list[int]:
    """The width that each stage returns, found by sending one token through."""
    widths, x = [], torch.zeros(1, 1, in_dim)
    with torch.no_grad():
        for stage in trunk.eval():
            x = stage(x)
            widths.append(x.shape[-1])
    trunk.train()
    return widths


class TaskAttention(Sharing):
    r"""Task attention: one trunk, and for each task a soft mask over the features of
    each stage (MTAN; Liu, Johns & Davison, 2019).

    With $p_j$ what stage j of the trunk returns, a task's mask reads it and, from the
    second stage on, what the task selected one stage before:

    \[ a_{t,j} = \sigma\bigl(W'_{t,j}\,
       \mathrm{relu}(W_{t,j}[p_j; f_j(\hat a_{t,j-1})])\bigr), \qquad
       f_j(v) = \mathrm{relu}(V_j v), \qquad \hat a_{t,j} = a_{t,j} \odot p_j, \]

    each linear map with its bias, and $h_t = \hat a_{t,S}$. As in the paper, the maps
    $f_j$ belong to all tasks and $W, W'$ to one.

    The paper's maps are convolutions inside an image network; three things differ, so
    that any trunk will do. All maps act on each token alone ($f_j$ is a 3×3 convolution
    and a pooling there). The mask reads the output $p_j$ of the stage that it masks,
    where the paper reads the feature after the first of the block's convolutions. And
    there is no batch normalisation.

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; for each stage j from 1 on
    `weights["attention<j>"]` `[B, L, T, D_j]` in (0, 1), with $D_j$ the width of the
    stage.
    """

    def __init__(
        self, tasks: Sequence[str], in_dim: int, dim: int, trunk: Trunk | None = None
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        self.trunk = build_trunk(trunk, in_dim, dim)
        widths = stage_widths(self.trunk, in_dim)
        self.pass_on = nn.ModuleList(
            nn.Sequential(nn.Linear(before, width), nn.ReLU())
            for before, width in pairwise(widths)
        )

        def mask(width: int, first: bool) -> nn.Sequential:
            reads = width if first else 2 * width
            return nn.Sequential(
                nn.Linear(reads, width),
                nn.ReLU(),
                nn.Linear(width, width),
                nn.Sigmoid(),
            )

        self.masks = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    mask(width, j == 0) for j, width in enumerate(widths)
                )
                for task in self.tasks
            }
        )

    def forward(self, z: Tensor) -> Shared:
        p, weights = z, {}
        selected: dict[str, Tensor] = {}
        for j, stage in enumerate(self.trunk):
            p = stage(p)
            attention = {}
            for task, masks in self.masks.items():
                read = (
                    torch.cat([p, self.pass_on[j - 1](selected[task])], -1) if j else p
                )
                attention[task] = cast(nn.ModuleList, masks)[j](read)
                selected[task] = attention[task] * p
            weights[f"attention{j + 1}"] = torch.stack(list(attention.values()), -2)
        return Shared(selected, weights)

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """What computes the task's masks, except the maps $f_j$."""
        return list(self.masks[name].parameters())
