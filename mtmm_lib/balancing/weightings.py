r"""Weightings: from the Gramian of the tasks' gradients to their weights.

A gradient balancer combines the gradients $g_t$ of T tasks to one direction
$d = \sum_t w_t\,g_t$. For all methods here the weights depend on nothing but the inner
products $G_{st} = g_s^\top g_t$: each is a function `[T, T]` → `[T]`, in NumPy and
float64. Lengths of d differ between methods, and a learning rate that suits one is too
large for another. What the published methods say is kept:

| | Weights | d when all T gradients are the same g |
|---|---|---|
| `mean` | 1/T each | g |
| `mgda` | $w \ge 0$, sum 1 | g; else shorter than each, zero if nothing helps all |
| `pcgrad` | each at least 1: a sum | T g |
| `cagrad` | each at least 1/T: a mean, and more | (1 + c) g |
| `imtl_g` | sum 1, some may be negative | g |
| `nash_mtl` | $w > 0$ | of length √T, whatever the length of g |
| `fair_grad` | $w > 0$ | its length grows as $\lVert g\rVert^{(1-\alpha)/(1+\alpha)}$ |
| `aligned_mtl` | a mean, as long as the shortest principal axis | g |
| `upgrad` | each at least 1/T: a mean | g |
| `equal_norms` | each at least 1: a sum | T g |

A gradient that is zero does not say where to go. Most methods then do as if the task
were not there; MGDA, for which a zero gradient means that its task cannot improve,
stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mtmm_lib.balancing.solvers import (
    RIDGE,
    Array,
    inverse_power,
    lengths,
    nonnegative_least_squares,
)

#: Gramian `[T, T]` → weights `[T]`.
Weighting = Callable[[Array], Array]


def _checked(gramian: Array) -> Array:
    gramian = np.asarray(gramian, np.float64)
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or not gramian.size:
        raise ValueError(
            f"a Gramian has the shape [T, T] with T >= 1, got {list(gramian.shape)}"
        )
    if not np.isfinite(gramian).all():
        raise ValueError("the Gramian has entries that are not finite")
    return gramian


def mean(gramian: Array) -> Array:
    r"""Equal weights, $w_t = 1/T$: the direction of the plain mean of the losses."""
    return np.full(len(_checked(gramian)), 1 / len(gramian))


def mgda(gramian: Array) -> Array:
    r"""The shortest convex combination, $\min_w \lVert\sum_t w_t g_t\rVert$ over
    $w \ge 0$, $\sum_t w_t = 1$.

    It makes the same progress for every task that has weight, and at least as much for
    the others; it is zero where no direction improves all tasks. Short gradients get
    much weight (Désidéri, 2012; Sener & Koltun, 2018). For two tasks
    $w_1 = (G_{22} - G_{12}) / (G_{11} + G_{22} - 2 G_{12})$, clipped to [0, 1].
    """
    gramian = _checked(gramian)
    zero = (np.diagonal(gramian) <= 0).astype(np.float64)
    if zero.any():
        return zero / float(zero.sum())
    # In units of each gradient's length, v = n w, the constraint reads a·v = 1. The
    # minimum of v·Cv + (a·v - 1)² over v ≥ 0 is a multiple of the solution.
    n = lengths(gramian)
    a = n.min() / n
    v = nonnegative_least_squares(gramian / np.outer(n, n) + np.outer(a, a), a)
    share: Array = a * v
    return share / float(share.sum())


def pcgrad(gramian: Array, rng: np.random.Generator | None = None) -> Array:
    r"""Conflicts are projected away: $d = \sum_t g_t'$ (Yu et al., 2020).

    Each gradient visits the others' in turn; where $g_t'^\top g_s < 0$, it loses its
    component along $g_s$,
    $g_t' \leftarrow g_t' - \frac{g_t'^\top g_s}{\lVert g_s\rVert^2}\,g_s$.

    Args:
        gramian: G `[T, T]`.
        rng: draws the order of the visits, for each gradient another, as in the paper.
            Without it each visits the others in the order of the tasks. For two tasks
            there is only one order.
    """
    gramian = _checked(gramian)
    size, n = len(gramian), lengths(gramian)
    cosines = gramian / np.outer(n, n)
    # [T, T - 1]
    others = np.array([np.delete(np.arange(size), t) for t in range(size)])
    if rng is not None:
        others = rng.permuted(others, axis=1)
    # row t: g_t' in units of the gradients' directions
    rows, projected = np.arange(size), np.eye(size)
    for visited in others.T:
        along = np.minimum((projected * cosines[visited]).sum(1), 0)
        projected[rows, visited] -= along
    return n @ projected / n


def cagrad(gramian: Array, c: float = 0.5) -> Array:
    r"""The best for the worst-off task not far from the mean $g_0$ (Liu et al., 2021).

    $\max_d \min_t g_t^\top d$ such that $\lVert d - g_0\rVert \le c\,\lVert g_0\rVert$.
    It is solved exactly: for a wanted progress m, the shortest $e = \sum_t v_t g_t$
    with $g_t^\top(g_0 + e) \ge m$ is a non-negative least squares problem, and m is
    raised until e has the length that is allowed.

    Args:
        gramian: G `[T, T]`.
        c: the radius; 0 gives the mean, and for 0 ≤ c < 1 the method converges to a
            minimum of the mean loss.

    Raises:
        ValueError: for a negative c.
    """
    gramian = _checked(gramian)
    if c < 0:
        raise ValueError(f"c needs to be >= 0, got {c}")
    size, b = len(gramian), gramian.mean(1)  # b_t = g_t · g_0
    radius = c * np.sqrt(max(gramian.mean(), 0))
    return (
        1 / size + _farthest(gramian, b, radius)
        if radius > 0
        else np.full(size, 1 / size)
    )


def _farthest(gramian: Array, b: Array, radius: float) -> Array:
    r"""The v ≥ 0 for which $e = \sum_t v_t g_t$, no longer than `radius`, makes the
    least $b_t + g_t^\top e$ largest."""
    # An example to follow: orthogonal gradients of length one, so that the mean is
    # (½, ½), b = (½, ½), and the radius, for c = ½, is 0.35.
    n = lengths(gramian)

    def shortest(progress: float) -> tuple[Array, float]:
        """The v of the shortest e that brings each task this progress, and its
        length: for 0.6, e = (0.1, 0.1), of length 0.14."""
        v = nonnegative_least_squares(gramian, progress - b)
        return v, math.sqrt(max(float(v @ gramian @ v), 0.0))

    # More progress takes a longer e. So the progress is looked for at which the length
    # is the radius, between one that is too low and one that is too high. The mean
    # alone, e = 0, brings min b = ½. No progress at all, by e = -g₀, has a length of at
    # most |g₀|, which is within the radius for c ≥ 1.
    low, high = float(b.min()), 0.0
    v, length = shortest(high)
    if length < radius:
        # Some progress for everybody is within reach. By how much at most? With the
        # weights w of MGDA, Σ w_t g_t·d = w·b + (Σ w_t g_t)·e is a mean of what the
        # tasks get, thus no less than the least, and no more than w·b + |Σ w_t g_t| r:
        # here ½ + 0.71 · 0.35 = 0.75. It is reached, with e = (0.25, 0.25).
        w = mgda(gramian)
        least = float(w @ gramian @ w)
        if least <= 1e-14 * (w * n).max() ** 2:  # no direction improves all tasks
            return v
        low, high = high, float(w @ b) + radius * math.sqrt(least)
        v, length = shortest(high)
    for _ in range(100):  # a safeguard; two or three rounds are needed
        if abs(length - radius) <= 1e-12 * radius:
            break
        # As long as the same tasks have v > 0, their conditions are equalities,
        # G v = m - b, so that v = m p - q is linear in the progress m, with G p = 1 and
        # G q = b. (All of it in units of each gradient's length.)
        on = v > 0
        cosines = gramian[np.ix_(on, on)] / np.outer(n[on], n[on])
        cosines += RIDGE * np.eye(int(on.sum()))
        right = np.stack([1 / n[on], b[on] / n[on]], 1)
        p, q = np.linalg.solve(cosines, right).T / n[on]
        # And |e|² = vᵀGv = m² Σp - 2 m Σq + b·q: a quadratic equation for the m where
        # it is the radius squared.
        square, cross, rest = (
            float(p.sum()),
            float(q.sum()),
            float(b[on] @ q) - radius**2,
        )
        progress = low
        if on.any():
            root = math.sqrt(max(cross**2 - square * rest, 0.0))
            progress = (cross + root) / square
        # Others may have v > 0 there; then the search goes on from it. Outside of what
        # is still possible, the middle.
        if not low < progress < high:
            progress = (low + high) / 2
        v, length = shortest(progress)
        low, high = (low, progress) if length > radius else (progress, high)
    return v


def imtl_g(gramian: Array) -> Array:
    r"""Equal projections on all gradients: $d^\top g_t / \lVert g_t\rVert$ is the same
    for every t, and $\sum_t w_t = 1$ (Liu et al., 2021, IMTL).

    With C the matrix of cosines, $w_t \propto (C^{-1} 1)_t / \lVert g_t\rVert$; for two
    tasks d bisects the angle between them. For more, weights may be negative, and where
    their sum before normalising is, the constraint turns the direction round, so that
    it makes every loss grow. The paper does not exclude it.
    """
    gramian = _checked(gramian)
    weights = np.zeros(len(gramian))
    kept = np.diagonal(gramian) > 0
    if not kept.any():
        return np.full(len(gramian), 1 / len(gramian))
    n, size = np.sqrt(np.diagonal(gramian)[kept]), int(kept.sum())
    # Two conditions, in units of each gradient's length, where v = n w: all
    # projections are a number m, C v - m 1 = 0; and the weights sum to one, a·v = 1,
    # in multiples of the shortest length. Unknown are v and m.
    a = n.min() / n
    system = np.zeros((size + 1, size + 1))
    system[:-1, :-1] = gramian[np.ix_(kept, kept)] / np.outer(n, n)
    system[:-1, -1], system[-1, :-1] = -1, a
    right = np.zeros(size + 1)
    right[-1] = 1
    # Least squares, since C is singular where gradients depend on each other.
    v = np.linalg.lstsq(system, right, rcond=None)[0][:-1]
    weights[kept] = a * v
    return weights


def nash_mtl(gramian: Array) -> Array:
    r"""The bargaining solution of Nash: $G w = 1/w$, entry by entry (Navon et al.,
    2022).

    It maximises $\sum_t \log(g_t^\top d)$ over directions of a given length, so that
    multiplying a loss by a number changes nothing, and its own length is
    $\lVert d\rVert = \sqrt T$. The authors' code, unlike their equation, also clips
    that length to one, computes the weights only now and then, and approximately.
    """
    return fair_grad(gramian, alpha=1.0)


def fair_grad(gramian: Array, alpha: float = 2.0) -> Array:
    r"""α-fair progress: $G w = w^{-1/\alpha}$, entry by entry (Ban & Ji, 2024).

    It shares out the progress $g_t^\top d$: α = 1 is proportional fairness, that of
    Nash; larger values care more for the task with the least progress.

    Args:
        gramian: G `[T, T]`.
        alpha: α > 0.

    Raises:
        ValueError: for another α.
    """
    gramian = _checked(gramian)
    if alpha <= 0:
        raise ValueError(f"alpha needs to be positive, got {alpha}")
    weights = np.zeros(len(gramian))
    kept = np.diagonal(gramian) > 0
    if kept.any():
        weights[kept] = inverse_power(gramian[np.ix_(kept, kept)], 1 / alpha)
    return weights


def aligned_mtl(gramian: Array) -> Array:
    r"""The mean of gradients made orthogonal and equally long (Senushkin et al., 2023).

    With $G = V \Lambda V^\top$, the gradients become $\hat g_s = \sum_t B_{st}\,g_t$,
    $B = \sqrt{\lambda_{\min}}\; V \Lambda^{-1/2} V^\top$: of all orthogonal systems of
    length $\sqrt{\lambda_{\min}}$ the closest one, and $w = B\,1/T$. Directions in
    which the gradients do not extend (less than $10^{-8}$ of the longest, which a
    Gramian cannot tell from zero) are left out.
    """
    gramian = _checked(gramian)
    size = len(gramian)
    values, vectors = np.linalg.eigh(gramian)
    kept = values > values[-1] * size * np.finfo(np.float64).eps
    if not kept.any():
        return np.full(size, 1 / size)
    values, vectors = values[kept], vectors[:, kept]
    shrunk: Array = np.sqrt(values.min() / values) * vectors.mean(0)
    return vectors @ shrunk


def upgrad(gramian: Array) -> Array:
    r"""The mean of the gradients, each projected on the directions that harm no task
    (Quinton & Rey, 2024).

    $d = \frac1T\sum_t \pi(g_t)$ with $\pi(g)$ the point of the cone
    $\{d : g_s^\top d \ge 0\ \forall s\}$ that is closest to g:
    $\pi(g_t) = g_t + \sum_s v_s g_s$ with the $v \ge 0$ that makes it shortest. For two
    tasks it is half of PCGrad.
    """
    gramian = _checked(gramian)
    size = len(gramian)
    added = [
        nonnegative_least_squares(gramian, -row) if (row < 0).any() else 0
        for row in gramian
    ]
    return (1 + sum(added)) / size * np.ones(size)


def equal_norms(gramian: Array) -> Array:
    r"""The sum of the gradients, each stretched to the length of the longest: the
    second half of DB-MTL (Lin et al., 2023),
    $w_t = \max_s\lVert g_s\rVert / \lVert g_t\rVert$."""
    n = np.sqrt(np.diagonal(_checked(gramian)))
    return np.where(n > 0, n.max() / np.where(n > 0, n, 1), 0)


ALL: dict[str, Weighting] = {
    function.__name__: function
    for function in (
        mean,
        mgda,
        pcgrad,
        cagrad,
        imtl_g,
        nash_mtl,
        fair_grad,
        aligned_mtl,
        upgrad,
        equal_norms,
    )
}
