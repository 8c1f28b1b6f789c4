r"""Linear tasks with a dial for how related they are.

\[ y_t = w_t^\top x + \sigma\,\varepsilon, \qquad
   x \sim N(0, I_D), \quad \varepsilon \sim N(0, 1), \quad
   \lVert w_t\rVert = 1, \quad w_s^\top w_t = \rho \ (s \ne t). \]

The construction of Ma et al. (2018, MMoE), without the sine terms that they add: with
orthonormal $u_1, u_2$, $w_1 = u_1$ and $w_2 = \rho\,u_1 + \sqrt{1 - \rho^2}\,u_2$.
Since the inputs are white, the mean squared error of an estimate $\hat w$ on noiseless
labels is $\lVert\hat w - w_t\rVert^2$ exactly: no test set is needed to compare
methods.
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
class RelatedTasks:
    r"""Samples of related linear tasks, and the truth behind them.

    Args:
        splits: input `x` float `[B, D]`; targets `task1`, `task2`, … float `[B]`. Each
            sample belongs to one task and has a NaN for all others. The samples of a
            task stand together, task by task.
        weights: the true $w_t$, float64 `[T, D]`.
        noise: σ.
    """

    splits: Splits
    weights: Tensor
    noise: float

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names, in the order of `weights`."""
        return tuple(self.splits.train.targets)

    def samples(self, task: str) -> tuple[Tensor, Tensor]:
        """The training samples of one task, for closed forms: inputs float64 `[n, D]`,
        labels `[n]`."""
        if task not in self.names:
            raise ValueError(f"unknown task {task!r}; the tasks are {list(self.names)}")
        y = self.splits.train.targets[task]
        mine = ~y.isnan()
        return self.splits.train.inputs["x"][mine].double(), y[mine].double()


def _equal_cosines(tasks: int, cosine: float) -> np.ndarray:
    """Lower triangle C `[T, T]` such that C Cᵀ has ones on its diagonal and `cosine`
    elsewhere."""
    # Cholesky's algorithm; all entries of a column below its diagonal are equal. At
    # either end of the range the matrix is singular, where library routines give up: a
    # column may then be zero.
    factor = np.zeros((tasks, tasks))
    # what is still to be explained of a diagonal and of any other entry
    left, below = 1.0, cosine
    for j in range(tasks):
        factor[j, j] = np.sqrt(max(left, 0.0))
        factor[j + 1 :, j] = below / factor[j, j] if left > 1e-12 else 0.0
        left -= factor[-1, j] ** 2
        below -= factor[-1, j] ** 2
    return factor


def related_tasks(
    cosine: float,
    *,
    tasks: int = 2,
    samples: int | Sequence[int] = 50,
    held_out: int = 500,
    dim: int = 20,
    noise: float = 1.0,
    seed: int = 0,
) -> RelatedTasks:
    r"""Linear regression tasks whose true weights have a given cosine with each other.

    With the same seed, the dial moves the weights alone: inputs, noise, the directions
    $u_t$ and all of the first task stay as they are.

    Args:
        cosine: ρ, from 1 (one and the same task) over 0 (nothing in common) to −1/(T −
            1) (as contrary as T tasks can be; −1 for two).
        tasks: T ≥ 2.
        samples: training samples of each task, one number for all or one for each.
        held_out: samples of each task in `valid`, and again in `test`.
        dim: D ≥ T.
        noise: σ, the standard deviation of the labels' noise, in units of the noiseless
            label's.
        seed: a number ≥ 0.

    Raises:
        ValueError: for a cosine that T vectors cannot have, fewer than two tasks, a
            dimension below T, a negative noise, or a list of sample numbers that does
            not fit the tasks.
    """
    if tasks < 2:
        raise ValueError(f"related tasks are at least two, got tasks={tasks}")
    lowest = -1 / (tasks - 1)
    if not lowest - 1e-12 <= cosine <= 1:
        raise ValueError(
            f"{tasks} tasks can have a pairwise cosine from {lowest:.4g} to 1, got "
            f"{cosine}"
        )
    if dim < tasks:
        raise ValueError(
            f"{tasks} tasks need a dimension of at least {tasks}, got dim={dim}"
        )
    if noise < 0:
        raise ValueError(f"noise needs to be >= 0, got {noise}")
    counts = [samples] * tasks if isinstance(samples, int) else list(samples)
    if len(counts) != tasks or min(counts) < 1:
        raise ValueError(
            f"samples: expected a positive number for each of {tasks} tasks, got "
            f"{samples}"
        )

    directions, _ = np.linalg.qr(
        np.random.default_rng([seed, 0]).standard_normal((dim, tasks))
    )
    weights = _equal_cosines(tasks, cosine) @ directions.T
    batches = []
    for split, sizes in enumerate((counts, [held_out] * tasks, [held_out] * tasks)):
        inputs, labels = [], np.full((tasks, sum(sizes)), np.nan)
        start = 0
        for t, size in enumerate(sizes):
            # A stream for each task: more samples of one change nothing in another.
            rng = np.random.default_rng([seed, 1 + split, t])
            both = rng.standard_normal((size, dim + 1))
            inputs.append(both[:, :dim])
            labels[t, start : start + size] = (
                both[:, :dim] @ weights[t] + noise * both[:, dim]
            )
            start += size
        batches.append(
            Batch(
                {"x": torch.from_numpy(np.concatenate(inputs)).float()},
                {
                    f"task{t + 1}": torch.from_numpy(labels[t]).float()
                    for t in range(tasks)
                },
            )
        )
    return RelatedTasks(Splits(*batches), torch.from_numpy(weights), noise)
