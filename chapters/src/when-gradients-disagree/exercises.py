"""Exercises of the lesson "When gradients disagree"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.balancing import weightings
from mtmm_lib.lesson.exercises import function, lines

lines(
    "which-weighting",
    {
        "the task that is worst off shall gain as much as possible": "MGDA",
        "the same, but not far from the mean gradient": "CAGrad",
        "what works against another gradient is cut off": "PCGrad",
        "the product of all gains shall be as large as possible": "Nash-MTL",
        "the projections on all gradients shall be equal": "IMTL-G",
        "gradients shall be orthogonal and equally long first": "Aligned-MTL",
    },
    words=("MGDA", "CAGrad", "PCGrad", "Nash-MTL", "IMTL-G", "Aligned-MTL"),
    mistakes={
        "Look again at “{line}”. Two methods care for the worst-off. One of them stays "
        "in a ball.": lambda line, given, right: right in ("MGDA", "CAGrad"),
        "Look again at “{line}”. A bargain maximises something; equal projections are "
        "a system of equations.": (
            lambda line, given, right: right in ("Nash-MTL", "IMTL-G")
        ),
        "Look again at “{line}”. One method changes pairs of gradients, another one "
        "all singular values.": lambda line, given, right: True,
    },
)


def _gramians(*tasks: int) -> list[tuple[np.ndarray]]:
    """Of random gradients in few dimensions, of different lengths; about half of the
    pairs conflict, but none is turned round entirely."""
    cases: list[tuple[np.ndarray]] = []
    while len(cases) < len(tasks):
        n = tasks[len(cases)]
        g = torch.randn(n, n + 1).double() * 10 ** (torch.rand(n, 1) - 0.5)
        if torch.cosine_similarity(g[:, None], g, dim=-1).min() > -0.9:
            cases.append(((g @ g.T).numpy(),))
    return cases


def _surgery(
    G: np.ndarray,
    *,
    others: bool = False,
    always: bool = False,
    tested: bool = False,
    own: bool = False,
    axis: int = 0,
) -> np.ndarray:
    """PCGrad with the mistakes that people make: others are what is left of them;
    gradients that agree are projected, too; always the original gradient is tested;
    its own length divides; the wrong sum."""
    each = np.eye(len(G))
    kept = np.eye(len(G))
    for t in range(len(G)):
        for s in range(len(G)):
            other = (kept if others else each)[s].copy()
            along = (each if tested else kept)[t] @ G @ other
            if s != t and (along < 0 or always):
                square = G[t, t] if own else other @ G @ other
                kept[t] -= along / square * other
    return kept.sum(axis)


@function(
    "surgery-from-gramian",
    inputs=lambda: _gramians(3, 2, 5, 4, 1, 3, 4, 2),
    differs="Keep each projected gradient as T numbers v. Its product with g_s is v "
    "times column s of G; if that is negative, subtract it from v[s], divided by "
    "G[s, s].",
    mistakes={
        "The result is the sum of what is left of the gradients, not their mean.": (
            lambda G: surgery_weights(G) / len(G)
        ),
        "Gradients that agree are left alone: project conflicts only.": (
            lambda G: _surgery(G, always=True)
        ),
        "A gradient visits the others as they were, not what is left of them.": (
            lambda G: _surgery(G, others=True)
        ),
        "Divide by the squared length of the gradient that is visited.": (
            lambda G: _surgery(G, own=True)
        ),
        "What is left after one visit pays the next one: test and project that.": (
            lambda G: _surgery(G, tested=True)
        ),
        "The sum is over the gradients that were projected. The weight of g_s adds up "
        "what each of them has of g_s.": lambda G: _surgery(G, axis=1),
    },
)
def surgery_weights(G: np.ndarray) -> np.ndarray:
    return weightings.pcgrad(G)


def _bargain(G: np.ndarray, sign: int = 1) -> tuple[np.ndarray, float]:
    """The lengths, and one plus (or minus) the cosine."""
    n = np.sqrt(np.diag(G))
    return n, 1 + sign * float(G[0, 1] / n.prod())


@function(
    "nash-for-two",
    inputs=lambda: _gramians(*[2] * 8),
    differs="For G = {G} the weight {place} does not solve G w = 1/w.",
    mistakes={
        "The ratio is right. Do not normalise: the equation itself fixes the size.": (
            lambda G: nash_for_two(G) / nash_for_two(G).sum(),
            lambda G: nash_for_two(G) / np.linalg.norm(nash_for_two(G)),
        ),
        "The angle matters, too: what is missing is a factor that both weights "
        "share.": lambda G: 1 / _bargain(G)[0],
        "Both weights are equal here. What did their ratio come to?": (
            lambda G: np.full(2, _bargain(G)[1] ** -0.5)
        ),
        "In a conflict the weights are large, not small: check a sign.": (
            lambda G: 1 / (_bargain(G)[0] * _bargain(G, -1)[1] ** 0.5)
        ),
        "That would solve it with w² in the place of w. Take a root.": (
            lambda G: 1 / (_bargain(G)[0] ** 2 * _bargain(G)[1])
        ),
        "That solves the equation as well, but with it both tasks lose. Of the two "
        "roots take the positive one.": lambda G: -nash_for_two(G),
        "The weights are exchanged: the longer gradient gets the smaller one.": (
            lambda G: nash_for_two(G)[::-1].copy()
        ),
    },
)
def nash_for_two(G: np.ndarray) -> np.ndarray:
    n, angle = _bargain(G)
    return 1 / (n * angle**0.5)


def _pairs(x: Tensor, slopes: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Products of slopes over all pairs of samples, each times what `change` makes of
    the products of their inputs."""
    return torch.einsum("ij,sih,tjh->st", change(x @ x.T), slopes, slopes)


@function(
    "linear-gramian",
    inputs=lambda: [
        (torch.randn(samples, dim), torch.randn(tasks, samples, width))
        for tasks, samples, dim, width in ((2, 4, 3, 5), (3, 6, 2, 2), (4, 1, 3, 2))
    ],
    differs="Add up (x_i · x_j) (δ_si · δ_tj) over all pairs of samples.",
    mistakes={
        "That is the Gramian at the features: the inputs are not in it.": (
            lambda x, slopes: _pairs(x, slopes, lambda xx: torch.eye(len(xx)))
        ),
        "Each sample is compared with itself alone. At the parameters all pairs "
        "count.": lambda x, slopes: _pairs(x, slopes, lambda xx: xx.diag().diag()),
        "The slopes hold a mean over samples already, if there is one: add up.": (
            lambda x, slopes: linear_gramian(x, slopes) / len(x),
            lambda x, slopes: linear_gramian(x, slopes) / len(x) ** 2,
        ),
        "The inner product of two inputs counts once, not squared.": (
            lambda x, slopes: _pairs(x, slopes, torch.square)
        ),
    },
)
def linear_gramian(x: Tensor, slopes: Tensor) -> Tensor:
    gradients = (x.T @ slopes).flatten(1)  # [T, D·H]
    return gradients @ gradients.T


def _one_by_one(unit_sum: Callable[[np.ndarray], Any], G: np.ndarray) -> Any:
    """The weights as separate numbers, each of which has to be right to some digits."""
    return tuple(np.asarray(unit_sum(G), np.float64).ravel().tolist())


def _lengths() -> list[tuple[np.ndarray]]:
    """Gradients of all lengths, tiny ones too, and of none."""
    cases = _gramians(2, 4, 3)
    for sizes in ([2.0, 0.0], [1e-4, 3.0, 0.0], [1e-5, 1e-3]):
        cases.append((np.diag(np.square(sizes)),))
    return cases


def _careless(G: np.ndarray, weight: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Weights by the lengths; zero for a gradient of zero."""
    n = np.sqrt(np.diag(G))
    with np.errstate(all="ignore"):
        return np.where(n > 0, weight(n), 0)


@function(
    "own-balancer",
    inputs=_lengths,
    call=_one_by_one,
    differs="With these weights the lengths of the gradients are not all one: for "
    "G = {G} the weight {place} is {yours}.",
    mistakes={
        "The diagonal holds squared lengths.": (
            lambda G: _careless(G, lambda n: 1 / n**2)
        ),
        "Do not normalise the weights: each gradient shall have length one.": (
            lambda G: unit_sum(G) / unit_sum(G).sum()
        ),
        "That makes the long ones longer.": lambda G: _careless(G, lambda n: n),
        "A zero gradient gets the weight zero.": (
            lambda G: np.where(np.diag(G) > 0, unit_sum(G), np.inf),
            lambda G: np.where(np.diag(G) > 0, unit_sum(G), 1.0),
        ),
        "A short gradient is not a zero one: it gets a large weight.": (
            lambda G: _careless(G, lambda n: np.where(n < 1e-2, 0, 1 / n)),
            lambda G: _careless(G, lambda n: 1 / (n + 1e-3)),
        ),
    },
)
def unit_sum(G: np.ndarray) -> np.ndarray:
    return _careless(G, lambda n: 1 / n)
