r"""Sharing features: cross-stitch networks mix the features of several trunks, task attention selects from
those of one trunk.

Shapes: B batch, L tokens, D width, T tasks (in alphabetical order), S stages of the trunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtmm_lib.sharing.base import Shared, Sharing, Trunk, build_trunk


class CrossStitch(Sharing):
    r"""Cross-stitch networks: a trunk for each task, and after each stage a learned mixture of their features
    (Misra et al., 2016).

    With $x_s$ what the stage of task s returns, the next stage of task t reads
    $\tilde x_t = \sum_s \alpha_{ts}\,x_s$; each stage has its own matrix α `[T, T]`, one number for all
    channels. It starts with `own` on the diagonal and the rest of one shared among the others, and is not
    constrained later. The identity gives separate trunks. The trunks start apart; the paper also starts
    from networks that were trained on each task alone, for which `trunks[task]` can be loaded before.

    Args:
        own: the weight in [0, 1] of a task's own features at the start (one for a single task).

    Raises:
        ValueError: for `own` outside of [0, 1].

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; `weights["stitches"]` `[S, T, T]`, row t what task t
    reads.
    """

    def __init__(
        self, tasks: Sequence[str], in_dim: int, dim: int, trunk: Trunk | None = None, *, own: float = 0.9
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        if not 0 <= own <= 1:
            raise ValueError(f"own is a weight in [0, 1], got {own}")
        self.trunks = nn.ModuleDict({task: build_trunk(trunk, in_dim, dim) for task in self.tasks})
        count, stages = len(self.tasks), len(self.trunks[self.tasks[0]])
        start = torch.full((count, count), (1 - own) / max(count - 1, 1))
        start.fill_diagonal_(own if count > 1 else 1.0)
        self.stitches = nn.Parameter(start.repeat(stages, 1, 1))

    def forward(self, z: Tensor) -> Shared:
        read = [z] * len(self.tasks)
        for stages, stitch in zip(zip(*self.trunks.values(), strict=True), self.stitches, strict=True):
            x = torch.stack([stage(x) for stage, x in zip(stages, read, strict=True)])  # [T, B, L, D]
            read = (stitch @ x.flatten(1)).view_as(x).unbind()
        return Shared(dict(zip(self.tasks, read, strict=True)), {"stitches": self.stitches})
