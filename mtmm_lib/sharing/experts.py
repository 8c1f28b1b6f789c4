r"""Sharing through experts: several trunks, and gates that mix what they return, for each task its own way.

Shapes: B batch, L tokens, D width, T tasks (in alphabetical order), E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtmm_lib.sharing.base import Shared, Sharing, Trunk, build_trunk


def mix(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    r"""The weighted sum $\sum_e w_e f_e$: `[B, L, E]` and E times `[B, L, D]` → `[B, L, D]`."""
    return (weights.unsqueeze(-2) @ torch.stack(list(experts), -2)).squeeze(-2)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} needs to be at least 1, got {count}")


class MMoE(Sharing):
    r"""Multi-gate mixture of experts: all tasks use the same experts, each through a gate of its own
    (Ma et al., 2018).

    $h_t = \sum_e g_{t,e}(z)\,f_e(z)$ with $g_t(z) = \mathrm{softmax}(W_t z)$; each expert $f_e$ is a trunk.
    One expert is hard sharing; one task is a plain mixture of experts.

    Args:
        experts: E ≥ 1.

    Raises:
        ValueError: for less than one expert.

    Shapes: `[B, L, in_dim]` → `[B, L, dim]` per task; `weights["gates"]` `[B, L, T, E]`, sums to one over E.
    """

    def __init__(
        self, tasks: Sequence[str], in_dim: int, dim: int, trunk: Trunk | None = None, *, experts: int = 4
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        _check_counts(experts=experts)
        self.experts = nn.ModuleList(build_trunk(trunk, in_dim, dim) for _ in range(experts))
        self.gates = nn.ModuleDict({task: nn.Linear(in_dim, experts, bias=False) for task in self.tasks})

    def forward(self, z: Tensor) -> Shared:
        returned = [expert(z) for expert in self.experts]
        gates = {task: gate(z).softmax(-1) for task, gate in self.gates.items()}  # each [B, L, E]
        features = {task: mix(weights, returned) for task, weights in gates.items()}
        return Shared(features, {"gates": torch.stack(list(gates.values()), -2)})

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The task's gate."""
        return list(self.gates[name].parameters())
