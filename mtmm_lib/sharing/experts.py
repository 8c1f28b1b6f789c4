r"""Sharing through experts: several trunks, and gates that mix what they return, for
each task its own way.

Shapes: B batch, L tokens, D width, T tasks (in alphabetical order), E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import Shared
from mtmm_lib.sharing.base import Sharing, Trunk, build_trunk


def mix(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    r"""The weighted sum $\sum_e w_e f_e$: `[B, L, E]` and E times `[B, L, D]` →
    `[B, L, D]`."""
    return (weights.unsqueeze(-2) @ torch.stack(list(experts), -2)).squeeze(-2)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} needs to be at least 1, got {count}")


class MMoE(Sharing):
    r"""Multi-gate mixture of experts: all tasks use the same experts, each through a
    gate of its own (Ma et al., 2018).

    $h_t = \sum_e g_{t,e}(z)\,f_e(z)$ with $g_t(z) = \mathrm{softmax}(W_t z)$; each
    expert $f_e$ is a trunk. One expert is hard sharing; one task is a plain mixture of
    experts.

    Args:
        experts: E ≥ 1.

    Raises:
        ValueError: for less than one expert.

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; `weights["gates"]`
        `[B, L, T, E]`, sums to one over E.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        dim: int,
        trunk: Trunk | None = None,
        *,
        experts: int = 4,
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        _check_counts(experts=experts)
        self.experts = nn.ModuleList(
            build_trunk(trunk, in_dim, dim) for _ in range(experts)
        )
        self.gates = nn.ModuleDict(
            {task: nn.Linear(in_dim, experts, bias=False) for task in self.tasks}
        )

    def forward(self, z: Tensor) -> Shared:
        returned = [expert(z) for expert in self.experts]
        # a task → [B, L, E]
        gates = {task: gate(z).softmax(-1) for task, gate in self.gates.items()}
        features = {task: mix(weights, returned) for task, weights in gates.items()}
        return Shared(features, {"gates": torch.stack(list(gates.values()), -2)})

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The task's gate."""
        return list(self.gates[name].parameters())


class _Extraction(nn.Module):
    """One level of PLE: experts of the tasks and shared ones, and the gates over them.

    Args:
        width: of what the level reads.
        counts: experts of each task, and shared experts.
        shared_gate: whether there is one (the last level has none).
    """

    def __init__(
        self,
        tasks: Sequence[str],
        width: int,
        dim: int,
        trunk: Trunk | None,
        counts: tuple[int, int],
        shared_gate: bool,
    ) -> None:
        super().__init__()
        own, common = self.counts = counts

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(build_trunk(trunk, width, dim) for _ in range(count))

        self.experts = nn.ModuleDict({task: experts(own) for task in tasks})
        self.shared_experts = experts(common)
        self.gates = nn.ModuleDict(
            {task: nn.Linear(width, own + common, bias=False) for task in tasks}
        )
        self.shared_gate = (
            nn.Linear(width, len(tasks) * own + common, bias=False)
            if shared_gate
            else None
        )

    def forward(
        self, read: dict[str, Tensor], read_shared: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What the tasks and the shared experts read → the same for the next level, and
        the gates."""
        # For tasks a and b, with one expert each (A, B) and one shared (S), the columns
        # of the gates are A, B, S:
        #
        #   a's gate       w_A   0    w_S    reads what task a read
        #   b's gate       0     w_B  w_S    reads what task b read
        #   shared gate    w_A   w_B  w_S    reads what the shared experts read; not in
        #                                    the last level, where no one would use it
        own, rest = self.counts[0], len(read) - 1
        returned = {
            task: [expert(read[task]) for expert in cast(nn.ModuleList, group)]
            for task, group in self.experts.items()
        }
        common = [expert(read_shared) for expert in self.shared_experts]
        features, gates = {}, []
        for t, (task, gate) in enumerate(self.gates.items()):
            weights = gate(read[task]).softmax(-1)
            # Only over the experts that the task sees: weights of zero would still
            # carry gradients to others.
            features[task] = mix(weights, returned[task] + common)
            # For the reader of the gates: zeros before and after, where other tasks'
            # experts stand.
            padded = F.pad(weights[..., :own], (t * own, (rest - t) * own))
            gates.append(torch.cat([padded, weights[..., own:]], -1))
        if self.shared_gate is None:
            return features, read_shared, torch.stack(gates, -2)
        gates.append(self.shared_gate(read_shared).softmax(-1))
        everyone = [x for group in returned.values() for x in group]
        return features, mix(gates[-1], everyone + common), torch.stack(gates, -2)


class PLE(Sharing):
    r"""Progressive layered extraction: experts of each task's own beside shared ones,
    level upon level (Tang et al., 2020). One level is their customised gate control
    (CGC).

    In level l, task t has its experts' outputs $F_t^l$ on $x_t^{l-1}$, and all have the
    shared experts' $F_s^l$ on $x_s^{l-1}$, where $x_t^0 = x_s^0 = z$. A task's gate
    chooses among its own and the shared ones, the shared gate among all of them:

    \[ x_t^l = \mathrm{softmax}(W_t^l x_t^{l-1})\,[F_t^l; F_s^l], \qquad
       x_s^l = \mathrm{softmax}(W_s^l x_s^{l-1})\,[F_1^l; \dots; F_T^l; F_s^l]. \]

    The last level needs no shared gate, and $h_t = x_t$ there. Each expert is a trunk.

    Args:
        levels: number of levels.
        task_experts: experts of each task in a level.
        shared_experts: shared experts in a level.

    Raises:
        ValueError: when one of these numbers is less than one.

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; for each level l from 1 on
    `weights["gates<l>"]` `[B, L, T + 1, E]`, the last row of which is the shared
    gate's, and `[B, L, T, E]` in the last level. The E experts are those of the first
    task, of the second, …, and the shared ones; what a gate does not see has weight
    zero.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        dim: int,
        trunk: Trunk | None = None,
        *,
        levels: int = 2,
        task_experts: int = 1,
        shared_experts: int = 1,
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        _check_counts(
            levels=levels, task_experts=task_experts, shared_experts=shared_experts
        )
        counts = task_experts, shared_experts
        self.levels = nn.ModuleList(
            _Extraction(
                self.tasks,
                in_dim if i == 0 else dim,
                dim,
                trunk,
                counts,
                i < levels - 1,
            )
            for i in range(levels)
        )

    def forward(self, z: Tensor) -> Shared:
        features, common, weights = dict.fromkeys(self.tasks, z), z, {}
        for i, level in enumerate(self.levels, 1):
            features, common, weights[f"gates{i}"] = level(features, common)
        return Shared(features, weights)

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The task's experts in the last level, and its gates in the last two.

        All that comes earlier enters other tasks through the shared gate.
        """
        levels = [cast(_Extraction, level) for level in self.levels[-2:]]
        own = [levels[-1].experts[name], *(level.gates[name] for level in levels)]
        return [p for part in own for p in part.parameters()]
