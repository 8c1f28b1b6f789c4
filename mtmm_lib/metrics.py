"""Metrics that compare tasks and models of them, and what modalities know; others are
in torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def delta_m(
    results: Mapping[str, float],
    baseline: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
) -> float:
    r"""The mean relative gain of a multi-task model over single-task models, in
    percent.

    $\Delta_m = \frac{100}{T}\sum_t s_t\,\frac{M_t - B_t}{|B_t|}$, with $s_t = +1$ where
    a higher metric is better and −1 where a lower one is (Maninis et al., 2019;
    Vandenhende et al., 2022). Higher is better: +2 means that the average task gained
    two percent of its baseline.

    Papers differ, so compare figures of one definition only. Some drop to the opposite
    sign, where lower is better; some average over all metrics, so that a task with five
    metrics counts five times, where here it counts once; some take as reference not
    trained single-task models but an earlier epoch of the same run.

    Args:
        results: task → metric of the multi-task model.
        baseline: task → the same metric of the model trained on this task alone.
        higher_is_better: task → direction; these are the tasks that are averaged over.

    Raises:
        ValueError: when there is no task, a task has no result or no baseline, a number
            is not finite, or a baseline is zero (no gain is relative to nothing: choose
            another metric).
    """
    if not higher_is_better:
        raise ValueError("delta_m needs at least one task, got none")
    gains = []
    for name, higher in higher_is_better.items():
        for kind, numbers in (("results", results), ("baseline", baseline)):
            if name not in numbers:
                raise ValueError(
                    f"task {name!r} is missing in {kind}, which has {sorted(numbers)}"
                )
            if not math.isfinite(numbers[name]):
                raise ValueError(
                    f"{kind}[{name!r}] is {numbers[name]}, expected a finite number"
                )
        if baseline[name] == 0:
            raise ValueError(
                f"the baseline of task {name!r} is zero, so no gain is relative to it"
            )
        gain = (results[name] - baseline[name]) / abs(baseline[name])
        gains.append(gain if higher else -gain)
    return 100 * math.fsum(gains) / len(gains)


def gradient_cosines(
    losses: Mapping[str, Tensor], at: Tensor | Iterable[Tensor]
) -> np.ndarray:
    r"""How far the tasks' gradients agree:
    $\frac{g_s^\top g_t}{\lVert g_s\rVert \lVert g_t\rVert}$.

    One: they pull the same way; zero: they do not touch each other; below zero they are
        in conflict, and a small step along one makes the other's loss grow. The graph
        stays, so that training can go on from it.

    Args:
        losses: task → scalar, with gradients.
        at: where the gradients are taken: features, or parameters such as
            `model.shared_parameters()`. A loss that does not reach one of them has a
            zero gradient there.

    Returns:
        float64 `[T, T]`, in the order of the losses; NaN for a gradient that is zero
        everywhere.
    """
    places = [at] if isinstance(at, Tensor) else list(at)
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True)
        parts = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(places, found, strict=True)
        ]
        rows.append(torch.cat([part.flatten() for part in parts]).cpu().double())
    directions = torch.stack([row / row.norm() for row in rows])
    return (directions @ directions.T).numpy()


class Information(NamedTuple):
    """Where the information that two sources have about a target lies, in bits.

    Args:
        redundant: R, what either of them alone gives.
        unique1, unique2: U₁ and U₂, what only the one gives.
        synergy: S, what shows only where both are known.
    """

    redundant: float
    unique1: float
    unique2: float
    synergy: float


def mutual_information(p: ArrayLike) -> float:
    r"""Mutual information of two discrete variables, in bits.

    $I(X; Y) = \sum_{x,y} p(x, y)\,\log_2 \frac{p(x, y)}{p(x)\,p(y)}$.

    Args:
        p: their joint probabilities `[X, Y]`.

    Raises:
        ValueError: when p is no table of probabilities that sum to one.
    """
    p = _probabilities(p, axes=2)
    apart = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return float(np.sum(p[seen] * np.log2(p[seen] / apart[seen])))


def partial_information(p: ArrayLike) -> Information:
    r"""Splits what two sources tell about a target into redundant, unique and
    synergistic information.

    The decomposition of Bertschinger et al. (2014), known as BROJA. A source's unique
    information must not depend on how the two sources occur together, only on how each
    occurs with the target; so it is what is left in the least favourable case,

    \[ U_1 = \min_{q \in \Delta} I_q(Y; X_1 \mid X_2), \qquad
       \Delta = \{q : q(x_1, y) = p(x_1, y),\ q(x_2, y) = p(x_2, y)\}, \]

    and the rest follows from $I(Y; X_1) = R + U_1$, $I(Y; X_2) = R + U_2$ and
    $I(Y; X_1, X_2) = R + U_1 + U_2 + S$. The minimum is found to about $10^{-10}$ bits;
    it takes milliseconds for tables of 4 × 4 × 4, seconds for 10 × 10 × 10.

    Args:
        p: joint probabilities `[X1, X2, Y]` of the sources and the target; relative
            frequencies are fine, but where samples are few against cells, they
            overstate every kind of information.

    Raises:
        ValueError: when p is no table of probabilities that sum to one.
    """
    p = _probabilities(p, axes=3)
    first, second = mutual_information(p.sum(1)), mutual_information(p.sum(0))
    both = mutual_information(p.reshape(-1, p.shape[2]))
    least = mutual_information(_least_informative(p).reshape(-1, p.shape[2]))
    parts = (first + second - least, least - second, least - first, both - least)
    # rounding may leave -1e-16
    return Information(*(max(float(part), 0.0) for part in parts))


def _probabilities(p: ArrayLike, axes: int) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != axes:
        raise ValueError(
            f"expected a table with {axes} axes, got shape {list(p.shape)}"
        )
    if not (p >= 0).all() or abs(p.sum() - 1) > 1e-6:
        raise ValueError(
            f"probabilities are non-negative and sum to one; these sum to {p.sum():.6g}"
        )
    normalised: np.ndarray = p / p.sum()
    return normalised


def _least_informative(p: np.ndarray) -> np.ndarray:
    r"""The q with the same marginals $(X_1, Y)$ and $(X_2, Y)$ as p for which
    $I_q(Y; X_1, X_2)$ is least.

    With $H(Y)$ fixed, that is the least $f(q) = \sum q \log q(y \mid x_1, x_2)$, which
    is convex. Newton's method follows the minimum of $f(q) - \mu \sum \log q$ to
    $\mu = 10^{-11}$; at each, f is above its own minimum by at most μ times the number
    of cells. Steps are relative, $q \leftarrow q\,(1 + s)$, which keeps the equations
    well conditioned when cells differ by many orders of magnitude.
    """
    # The steps, each with its numbers for XOR: y = x1 ⊕ x2, four outcomes of 1/4 each.
    #
    # 1. The unknowns: a q for each cell (x1, x2, y) whose marginals allow one. For XOR
    #    every x1 and every x2 occurs with every y, so all 8 cells take part, also the 4
    #    in which p is zero.
    p = np.where(p < 1e-15, 0, p)  # these bits no double could show
    with1, with2 = p.sum(1), p.sum(0)  # [X1, Y] and [X2, Y]; XOR: 1/4 everywhere
    cells = np.nonzero(with1[:, None] * with2[None])
    x1, x2, y = cells
    # 2. The start has the right marginals and is positive in every cell: the sources
    #    made independent given the target. XOR: (1/4 · 1/4) / (1/2) = 1/8. There y is a
    #    coin whatever both sources say, so this is the minimum already, of 0 bits.
    q = (with1[x1, y] * with2[x2, y]) / p.sum((0, 1))[y]
    # 3. The constraints: a row for each marginal, true for the cells that it adds up.
    #    Those of (x1, y) and of (x2, y) both add up to p(y), so for each y one row
    #    follows from the others and is left out, that of the heaviest x2. XOR: 4 + 2
    #    rows for 8 cells leave 2 directions to move in, one for each y: mass from two
    #    opposite cells (x1, x2) into the two others.
    of1, of2 = x1 * p.shape[2] + y, x2 * p.shape[2] + y
    free = x2 != with2.argmax(0)[y]
    marginals = np.concatenate(
        [of1 == np.unique(of1)[:, None], of2 == np.unique(of2[free])[:, None]]
    )
    none = np.zeros((len(marginals), len(marginals)))
    pair = x1 * p.shape[1] + x2
    together = (pair[:, None] == pair).astype(float)  # cells of the same x1 and x2

    # 4. What is minimised, f and a barrier that keeps every q positive. XOR, at the
    #    start: `together @ q` is 2/8 in each cell, f = 8 · 1/8 · log(1/2).
    def barrier(q: np.ndarray, mu: float) -> float:
        return float(np.sum(q * np.log(q / (together @ q))) - mu * np.log(q).sum())

    # 5. For ever lower barriers, Newton's steps from the last minimum to the next one.
    for mu in 10.0 ** -np.arange(1, 12):
        for _ in range(50):
            # Derivatives after the relative step s, q(1 + s), at s = 0. XOR: every
            # entry of the gradient is 1/8 · log(1/2) − μ.
            of_pair = together @ q
            gradient = q * np.log(q / of_pair) - mu
            hessian = np.diag(q + mu) - together * q * (q / of_pair)[:, None]
            # The step solves the quadratic model subject to "no marginal changes",
            # Σ q s = 0 in each row, with a multiplier for each of them.
            kept = marginals * q
            kept /= kept.max(1, keepdims=True)
            system = np.block([[hessian, kept.T], [kept, none]])
            solved = np.linalg.solve(system, np.concatenate([-gradient, none[:, 0]]))
            step = solved[: len(q)]
            # How much the model hopes to gain, twice. XOR: nothing, since moving mass
            # between cells of equal gradients changes nothing; so no step is taken.
            decrease = -gradient @ step
            if decrease < 1e-3 * mu:
                break
            # Not beyond 99 % of the way to the first cell that would be empty; and half
            # as far until a tenth of the hoped-for gain is there.
            length = min(1.0, 0.99 / max(-step.min(), 1e-300))
            while (
                barrier(q * (1 + length * step), mu)
                > barrier(q, mu) - 0.1 * length * decrease
            ):
                length /= 2
                if length < 1e-12:
                    break
            q = q * (1 + length * step)
    table = np.zeros_like(p)
    table[cells] = q
    return table
