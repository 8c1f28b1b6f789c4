r"""Two small exact solvers, on which the weightings stand.

Both are for matrices with one row per task, positive semi-definite ones: Gramians.
Gradients of two tasks may differ in length by many orders of magnitude. So each solver
first divides by the lengths, $G_{st} / (n_s n_t)$ with $n_t = \sqrt{G_{tt}}$, which
leaves cosines, and puts the lengths back at the end.
"""

from __future__ import annotations

import numpy as np

#: What is smaller than this, relative to numbers around one, is taken for rounding.
ROUNDING = 1e-13

#: Added to the diagonal of cosines, so that matrices without full rank can be solved,
#: too.
RIDGE = 1e-14


def lengths(gramian: np.ndarray) -> np.ndarray:
    r"""The norms $n_t = \sqrt{G_{tt}}$, `[T]`; one in place of a zero, so that one can
    divide by them."""
    squares = np.diagonal(gramian)
    return np.sqrt(np.where(squares > 0, squares, 1.0))


def nonnegative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
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
    n = lengths(matrix)
    cosines, b = matrix / np.outer(n, n), target / n
    size, ridge = len(b), RIDGE * np.eye(len(b))
    v, free = np.zeros(size), np.linalg.solve(cosines + ridge, b) > 0
    # barred: what leaves as soon as it has joined, since it gains by rounding only
    joining, barred = -1, set()
    for _ in range(10 * size):  # a safeguard: the objective falls in each round
        while free.any():
            trial = np.zeros(size)
            trial[free] = np.linalg.solve(
                (cosines + ridge)[np.ix_(free, free)], b[free]
            )
            negative = free & (trial <= 0)
            if not negative.any():
                v = trial
                break
            # Towards the trial point until the first entry reaches zero.
            part = v[negative] / (v[negative] - trial[negative])
            v[free] += part.min() * (trial - v)[free]
            free[np.flatnonzero(negative)[part <= part.min()]] = False
            v[~free] = 0.0
        barred = barred | {joining} if joining >= 0 and not free[joining] else set()
        gain = np.where(free, -np.inf, b - cosines @ v)
        gain[list(barred)] = -np.inf
        joining = int(gain.argmax())
        if gain[joining] <= ROUNDING * max(np.abs(b).max(), v.max()):
            break
        free[joining] = True
    return v / n


def inverse_power(gramian: np.ndarray, power: float) -> np.ndarray:
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
    n = lengths(gramian)
    cosines = gramian / np.outer(n, n) + RIDGE * np.eye(len(n))
    c = n ** (power - 1)
    v = c ** (1 / (1 + power))
    largest, last = 1e5 * v.max(), np.inf
    v *= min(
        (c @ v ** (1 - power) / max(v @ cosines @ v, 1e-300)) ** (1 / (1 + power)), 1e5
    )

    def objective(v: np.ndarray) -> float:
        potential = np.log(v) if power == 1 else v ** (1 - power) / (1 - power)
        return 0.5 * v @ cosines @ v - c @ potential

    value = objective(v)
    for _ in range(200):  # a safeguard; about ten steps are needed
        slope = c * v**-power
        residual = cosines @ v - slope
        step = np.linalg.solve(cosines + np.diag(power * slope / v), -residual)
        change = np.abs(step / v).max()
        # Too close for the objective to compare, and close enough to converge without.
        if change < 1e-4:
            if change >= last / 2 or change < ROUNDING:
                break
            v, last = v + step, change
            continue
        size = min(1.0, 0.95 / max((-step / v).max(), 0.95))
        # to rounding: small entries hardly show in it
        allowed = value + 1e-14 * abs(value)
        while (trial := objective(v + size * step)) > allowed + 1e-4 * size * (
            residual @ step
        ) and size > 1e-9:
            size /= 2
        v, value = v + size * step, trial
        if v.max() > largest:
            break
    return v / n
