r"""Two regression tasks on the same inputs, with a dial for how correlated they are.

\[ y_k = g(w_k^\top x) + \sigma\,\varepsilon_k, \qquad
   g(s) = s + \sum_{i=1}^m \sin(\alpha_i s + \beta_i), \qquad
   w_1 = c\,u_1, \quad w_2 = c\,\bigl(p\,u_1 + \sqrt{1 - p^2}\,u_2\bigr), \]

with orthonormal $u_1, u_2$, $x \sim N(0, I_D)$ and $\varepsilon_k \sim N(0, 1)$: the
construction on which Ma et al. (2018) tested the multi-gate mixture of experts. The
cosine of the weights is p exactly. Both tasks put their projection of x through the
same function, which no linear model can learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits


@dataclass(frozen=True, eq=False)
class CorrelatedTasks:
    r"""Samples of two correlated tasks, and the truth behind them.

    Args:
        splits: input `x` float `[B, D]`; targets `task1`, `task2` float `[B]`, for
            every sample both.
        weights: $w_1, w_2$, float64 `[2, D]`.
        alpha, beta: the sines' frequencies and phases.
        noise: σ; on new samples no model's expected squared error is below σ².
    """

    splits: Splits
    weights: Tensor
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    noise: float


def correlated_tasks(
    p: float,
    *,
    samples: int = 2000,
    held_out: int = 1000,
    dim: int = 20,
    alpha: Sequence[float] = (2.0,),
    beta: Sequence[float] = (0.0,),
    scale: float = 1.0,
    noise: float = 0.1,
    seed: int = 0,
) -> CorrelatedTasks:
    r"""Two nonlinear regression tasks, whose weights have the cosine `p`.

    With the same seed, the dial moves the weights of the second task alone: inputs,
    noise, and all of the first task stay as they are.

    Args:
        p: from 1 (one function, two noises) over 0 to −1.
        samples: of the training set.
        held_out: samples of `valid`, and of `test`.
        dim: D ≥ 2; 100 in the paper.
        alpha, beta: of the m sines, which the paper leaves open; none makes the tasks
            linear.
        scale: c, the length of both weights.
        noise: σ; 0.1 as in the paper, whose noise has the variance 0.01.
        seed: a number ≥ 0.

    Raises:
        ValueError: for a cosine outside of [−1, 1], a dimension below two, a set
            without samples, a negative noise, or numbers of frequencies and phases that
            differ.
    """
    if not -1 <= p <= 1:
        raise ValueError(f"p is a cosine from -1 to 1, got {p}")
    if dim < 2 or samples < 1 or held_out < 1:
        raise ValueError(
            f"expected dim >= 2, samples >= 1 and held_out >= 1, got {dim}, "
            f"{samples} and {held_out}"
        )
    if not noise >= 0:
        raise ValueError(f"noise needs to be >= 0, got {noise}")
    if len(alpha) != len(beta):
        raise ValueError(
            f"each sine needs a frequency and a phase, got alpha={alpha} and "
            f"beta={beta}"
        )

    directions, _ = np.linalg.qr(
        np.random.default_rng([seed, 0]).standard_normal((dim, 2))
    )
    weights = scale * np.array([[1.0, 0.0], [p, np.sqrt(1 - p * p)]]) @ directions.T
    batches = []
    for split, size in enumerate((samples, held_out, held_out), 1):
        rng = np.random.default_rng([seed, split])
        x = rng.standard_normal((size, dim))
        targets = {}
        for k, w in enumerate(weights, 1):
            s = x @ w
            y = s + np.sin(np.multiply.outer(s, alpha) + beta).sum(-1)
            y += noise * rng.standard_normal(size)
            targets[f"task{k}"] = torch.from_numpy(y).float()
        batches.append(Batch({"x": torch.from_numpy(x).float()}, targets))
    return CorrelatedTasks(
        Splits(*batches), torch.from_numpy(weights), tuple(alpha), tuple(beta), noise
    )
