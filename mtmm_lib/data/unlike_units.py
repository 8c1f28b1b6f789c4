r"""Related tasks whose targets come in different units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits


def unlike_units(
    scales: Sequence[float] = (1.0, 100.0),
    *,
    samples: int = 1000,
    held_out: int = 500,
    dim: int = 250,
    outputs: int = 100,
    seed: int = 0,
) -> Splits:
    r"""Related regression tasks whose targets come in different units (Chen et al.,
    2018, GradNorm).

    $y_t = \sigma_t \tanh((B + E_t)\,x)$, with $B_{ij} \sim N(0, 10)$ common to all
    tasks, $(E_t)_{ij} \sim N(0, 3.5)$ their own (the second number is the variance),
    and x uniform on the unit sphere. Squared errors differ by $\sigma_t^2$ at the
    start, though all tasks are equally hard.

    Args:
        scales: $\sigma_t$.
        samples, held_out: samples in `train`, and in each of `valid` and `test`.
        dim, outputs: the length of x and of each $y_t$.
        seed: a number ≥ 0.

    Returns:
        Splits of batches. Input `x` float `[B, dim]`; targets `task1`, `task2`, … float
        `[B, outputs]`.
    """
    rng = np.random.default_rng(seed)
    common = 10**0.5 * rng.standard_normal((dim, outputs))
    own = 3.5**0.5 * rng.standard_normal((len(scales), dim, outputs))
    batches = []
    for size in (samples, held_out, held_out):
        x = rng.standard_normal((size, dim))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        targets = {
            f"task{t + 1}": torch.from_numpy(
                scale * np.tanh(x @ (common + own[t]))
            ).float()
            for t, scale in enumerate(scales)
        }
        batches.append(Batch({"x": torch.from_numpy(x).float()}, targets))
    return Splits(*batches)
