r"""Two small exact solvers, on which the weightings stand.

Both are for matrices with one row per task, positive semi-definite ones: Gramians.
Gradients of two tasks may differ in length by many orders of magnitude. So each solver
first divides by the lengths, $G_{st} / (n_s n_t)$ with $n_t = \sqrt{G_{tt}}$, which
leaves cosines, and puts the lengths back at the end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What is smaller than this, relative to numbers around one, is taken for rounding.
ROUNDING = 1e-13

#: Added to the diagonal of cosines, so that matrices without full rank can be solved,
#: too.
RIDGE = 1e-14


def lengths(gramian: Array) -> Array:
    r"""The norms $n_t = \sqrt{G_{tt}}$, `[T]`; one in place of a zero, so that one can
    divide by them."""
    squares = np.diagonal(gramian)
    return np.sqrt(np.where(squares > 0, squares, 1.0))


def nonnegative_least_squares(matrix: Array, target: Array) -> Array:
    r"""The minimiser of $\tfrac12 v^\top H v - b^\top v$ over $v \ge 0$.

    With $H = A^\top A$ and $b = A^\top y$ this is
    $\min_{v \ge 0} \lVert A v - y \rVert$. It is the active-set method of Lawson &
    Hanson (1974), started at the entries that are positive in the unconstrained
    solution: a set of entries is solved for as if there were no constraint; entries
    that would turn negative leave it, and the entry that gains most by growing joins
    it, until none gains.

    Args:
        matrix: H, positive semi-definite `[T, T]`.
        target: b `[T]`, in the range of H, so that there is a minimum.

    Returns:
        v `[T]`, which meets the conditions of Karush, Kuhn and Tucker, $v \ge 0$,
        $Hv \ge b$, and in each entry one of the two is an equality.
    """
    # An example to follow: H = (1, ½; ½, 1) and b = (1, -1). Without the constraint the
    # minimum is at v = (2, -2).
    n = lengths(matrix)
    cosines, b = matrix / np.outer(n, n), target / n
    size, ridge = len(b), RIDGE * np.eye(len(b))
    v, free = np.zeros(size), np.linalg.solve(cosines + ridge, b) > 0
    # Free is the first entry alone; the second one stays zero.
    #
    # Barred is an entry that left as soon as it had joined: it gains by rounding only,
    # and would come and go for ever.
    joining = -1
    barred: set[int] = set()
    for _ in range(10 * size):  # a safeguard: the objective falls in each round
        while free.any():
            # The minimum over the free entries, here where 1 v₁ = 1: at v = (1, 0).
            trial = np.zeros(size)
            trial[free] = np.linalg.solve(
                (cosines + ridge)[np.ix_(free, free)], b[free]
            )
            negative = free & (trial <= 0)
            if not negative.any():
                v = trial
                break
            # It may lie where entries are negative. Then towards it only as far as the
            # first entry reaches zero: from v = (1, 1) and a trial (2, -3), say, a
            # quarter of the way, to (1.25, 0), and the second entry is free no more.
            part = v[negative] / (v[negative] - trial[negative])
            v[free] += part.min() * (trial - v)[free]
            free[np.flatnonzero(negative)[part <= part.min()]] = False
            v[~free] = 0.0
        barred = barred | {joining} if joining >= 0 and not free[joining] else set()
        # By how much the objective falls, at first, as an entry grows from zero: here
        # the second one's b₂ - ½ v₁ = -1.5, and this is the end. With b₂ = 0.6 it would
        # be 0.1, and the second entry would join.
        gain = np.where(free, -np.inf, b - cosines @ v)
        gain[list(barred)] = -np.inf
        joining = int(gain.argmax())
        if gain[joining] <= ROUNDING * max(np.abs(b).max(), v.max()):
            break
        free[joining] = True
    return v / n


def inverse_power(gramian: Array, power: float) -> Array:
    r"""The positive w for which $G w = w^{-p}$, entry by entry.

    It is the minimiser of $\tfrac12 w^\top G w - \sum_t \varphi(w_t)$ with
    $\varphi'(w) = w^{-p}$, a convex function, and is found by Newton's method with a
    backtracking line search. Divided by the gradients' lengths, with $v_t = n_t w_t$,
    the equation reads $(Cv)_t = c_t v_t^{-p}$, $c_t = n_t^{p - 1}$; the search starts
    at the best multiple of the solution for orthogonal gradients.

    Args:
        gramian: G, positive semi-definite `[T, T]`, with a positive diagonal.
        power: p > 0.

    Returns:
        w `[T]`. If the gradients have a positive combination that is zero, there is no
        solution, and w grows without bound while the combination shrinks; the search
        then stops at large weights.
    """
    # The simplest example: one gradient of length 2, G = (4), and p = 1. Then C = (1),
    # c = 1, the equation is v = 1 / v, and w = v / 2 = ½: indeed 4 · ½ = 1 / ½.
    n = lengths(gramian)
    cosines = gramian / np.outer(n, n) + RIDGE * np.eye(len(n))
    c: Array = n ** (power - 1)
    # Where gradients are orthogonal, C is the identity, and v¹⁺ᵖ = c is the solution.
    v: Array = c ** (1 / (1 + power))
    largest, last = 1e5 * v.max(), np.inf
    # Of its multiples the best: k with k² vᵀCv = k¹⁻ᵖ Σ c v¹⁻ᵖ, so that the equations
    # hold on average. Gradients that nearly cancel make vᵀCv tiny and k huge; hence a
    # limit.
    above, below = float(c @ v ** (1 - power)), float(v @ cosines @ v)
    v = v * min((above / max(below, 1e-300)) ** (1 / (1 + power)), 1e5)

    def objective(v: Array) -> float:
        potential = np.log(v) if power == 1 else v ** (1 - power) / (1 - power)
        return float(0.5 * v @ cosines @ v - c @ potential)

    value = objective(v)
    for _ in range(200):  # a safeguard; about ten steps are needed
        # Newton: the objective's slope is Cv - c v⁻ᵖ, and its second derivative is
        # C + p c v⁻ᵖ⁻¹ on the diagonal, always positive.
        slope = c * v**-power
        residual = cosines @ v - slope
        step = np.linalg.solve(cosines + np.diag(power * slope / v), -residual)
        change = float(np.abs(step / v).max())
        # Near the solution each step is about the square of the last one, and the
        # objective, flat there, can no longer tell points apart: whole steps, until
        # they shrink no more, which is rounding.
        if change < 1e-4:
            if change >= last / 2 or change < ROUNDING:
                break
            v, last = v + step, change
            continue
        # Further away: no entry loses more than 95 % of itself, since logarithms and
        # powers want v > 0; and half, a quarter, … of the step, until the objective
        # falls by a little of what its slope promises. It is compared to rounding:
        # small entries hardly show in it.
        size = min(1.0, 0.95 / max(float((-step / v).max()), 0.95))
        allowed, promised = value + 1e-14 * abs(value), float(residual @ step)
        trial = objective(v + size * step)
        while trial > allowed + 1e-4 * size * promised and size > 1e-9:
            size /= 2
            trial = objective(v + size * step)
        v, value = v + size * step, trial
        if v.max() > largest:
            break
    return v / n
