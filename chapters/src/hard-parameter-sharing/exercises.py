"""Exercises of the lesson "Hard parameter sharing"."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf, log
from typing import Any

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real, whole

lines(
    "whose-gradient",
    {
        "the first layer": "both",
        "the digit's own second layer": "digit",
        "the head of rate": "rate",
        "the first layer, in a batch without any digit label": "rate",
        "the head of digit, in a batch without any digit label": "none",
        "the first layer, with the weight of rate at zero": "digit",
    },
    words=("digit", "rate", "both", "none"),
    mistakes={
        "Look again at “{line}”. A loss that has no label in the batch moves nothing; "
        "the other one is still there.": lambda line, given, right: "batch" in line,
        "Look again at “{line}”. At the trunk the gradients are added up, each times "
        "its weight.": lambda line, given, right: "weight" in line,
        "Look again at “{line}”. Which predictions change when you change this "
        "parameter?": lambda line, given, right: True,
    },
)


def _bound(
    log_trunks: float,
    log_middles: float,
    log_heads: float,
    T: int,
    S: int,
    epsilon: float,
    delta: float,
    *,
    sharing: Callable[[int, int], float] = lambda T, S: S,
    rounded: Callable[[float], float] = ceil,
    two: float = 2,
    chance: Callable[[int], int] = lambda T: T,
    tasks: Callable[[int], int] = lambda T: 1,
) -> float:
    """The reference; a mistake has another of the last arguments: how many tasks share
    a middle part, how the number is rounded, the 2 of Hoeffding, how many tasks share
    the chance, how many tasks the examples are for."""
    paid = log_heads + log_middles / sharing(T, S) + log_trunks / T
    paid += log(2 / delta) / chance(T)
    return rounded(tasks(T) * paid / (two * epsilon**2))


def _but(**other: Any) -> Callable[..., float]:
    return lambda *given: _bound(*given, **other)


@function(
    "examples-needed",
    inputs=lambda: [
        (
            *(real(5, 30) for _ in range(3)),
            S * groups,
            S,
            real(0.05, 0.25),
            real(0.01, 0.1),
        )
        for S, groups in ((2, 3), (3, 2), (4, 4), (2, 2), (5, 1), (3, 4))
    ],
    mistakes={
        "Nearly. A number of examples is whole and has to be enough: round up what "
        "remains.": tuple(_but(rounded=how) for how in (int, round, float)),
        "Every task pays for a whole middle part. How many share one?": (
            _but(sharing=lambda T, S: 1)
        ),
        "You let all tasks share one middle part. There are T / S of them.": (
            _but(sharing=lambda T, S: T)
        ),
        "S tasks share a middle part, so there are T / S of them, not S.": (
            _but(sharing=lambda T, S: T / S)
        ),
        "The chance δ is one for all tasks together: log(2/δ) is divided by T, too.": (
            _but(chance=lambda T: 1)
        ),
        "Hoeffding's exponent is 2nTε²: where is the 2?": _but(two=1),
        "That is the number of examples of all tasks together. Divide by T.": (
            _but(tasks=lambda T: T)
        ),
    },
)
def examples_needed(
    log_trunks: float,
    log_middles: float,
    log_heads: float,
    T: int,
    S: int,
    epsilon: float,
    delta: float,
) -> float:
    return _bound(log_trunks, log_middles, log_heads, T, S, epsilon, delta)


def _tasks(
    D: int,
    k: int,
    r: float,
    *,
    rounded: Callable[[float], float] = ceil,
    trunk: Callable[[int, int], int] = lambda D, k: k * (D - k),
    own: int = 1,
) -> float:
    """The reference; a mistake has another of the last arguments: how the number is
    rounded, what the trunk costs, whether tasks pay for numbers of their own."""
    return rounded(trunk(D, k) / (r * D - own * k)) if r * D > k else inf


@function(
    "tasks-needed",
    inputs=lambda: [
        (whole(20, 60), whole(2, 5), real(0.3, 0.5)),
        (whole(20, 60), whole(2, 9), real(0.5, 0.9)),
        (whole(20, 60), whole(6, 9), real(0.5, 0.9)),
        (20, 3, 0.21),
        (40, 8, 1.0),  # 8 tasks, and nothing to round
        (20, 5, 0.25),  # k = rD
        (20, 5, 0.1),
        (30, 7, 0.9),
    ],
    mistakes={
        "Nearly: the smallest *whole* number that is enough. Round up.": tuple(
            lambda D, k, r, how=how: _tasks(D, k, r, rounded=how)
            for how in (int, round, lambda T: T)
        ),
        "Right, unless it comes out whole: then no further task is needed.": (
            lambda D, k, r: _tasks(D, k, r, rounded=lambda T: int(T) + 1)
        ),
        "You forgot that k² of the numbers do not count: Φ Q with Q⁻¹ a is the same "
        "matrix.": lambda D, k, r: _tasks(D, k, r, trunk=lambda D, k: k * D),
        "Everybody also pays for their own k numbers, however many tasks there are.": (
            lambda D, k, r: _tasks(D, k, r, own=0)
        ),
        "Where k is no less than rD no number of tasks is enough, since everybody pays "
        "for k numbers of their own: return math.inf there.": (
            lambda D, k, r: ceil(k * (D - k) / (r * D - k)),
            lambda D, k, r: inf if r * D == k else ceil(k * (D - k) / (r * D - k)),
            lambda D, k, r: ceil(k * (D - k) / (r * D - k)) if r * D > k else 0,
        ),
    },
)
def tasks_needed(D: int, k: int, r: float) -> float:
    return _tasks(D, k, r)


@function(
    "branch-cost",
    inputs=lambda: [
        (
            [whole(10, 1_000) for _ in range(depth)],
            [whole(2, 50) for _ in range(tasks)],
            shared,
        )
        for depth, tasks, shared in (
            (4, 2, 2),
            (3, 5, 1),
            (5, 3, 5),
            (4, 4, 0),
            (2, 1, 1),
        )
    ],
    mistakes={
        "Behind the fork there is a copy of every layer for each task.": (
            lambda layers, heads, shared: sum(layers) + sum(heads)
        ),
        "The heads have parameters, too.": (
            lambda layers, heads, shared: fork_cost(layers, [0] * len(heads), shared)
        ),
        "That is what separate models cost: the first layers exist only once.": (
            lambda layers, heads, shared: fork_cost(layers, heads, 0)
        ),
        "The other way round: the *first* layers are shared, the later ones are "
        "copied.": lambda layers, heads, shared: fork_cost(
            layers[::-1], heads, len(layers) - shared
        ),
        "Each task has one head, its own.": lambda layers, heads, shared: (
            sum(layers[:shared]) + len(heads) * (sum(layers[shared:]) + sum(heads))
        ),
    },
)
def fork_cost(layers: list[int], heads: list[int], shared: int) -> int:
    return sum(layers[:shared]) + len(heads) * sum(layers[shared:]) + sum(heads)


Loss = Callable[[Tensor], Tensor]


def _steps() -> list[tuple[Loss, Tensor, Tensor, float]]:
    cases = []
    for size, lr in ((5, 0.05), (3, 0.1), (8, 0.02), (4, 0.2)):
        goal = torch.randn(size)

        def loss(theta: Tensor, goal: Tensor = goal) -> Tensor:
            return (theta - goal).square().sum() + 0.5

        cases.append((loss, torch.randn(size), torch.randn(size), lr))
    return cases


@function(
    "lookahead",
    inputs=_steps,
    tolerance=1e-3,
    differs="For the loss Σ (θ − goal)² + ½ and a random gradient it should be "
    "{expected}, but yours is {yours}. A step that lowers the loss counts as positive.",
    unchanged="The step is only a trial: θ has to be afterwards what it was before.",
    mistakes={
        "Descent goes against the gradient: θ − η g.": (
            lambda loss, theta, gradient, lr: lookahead(loss, theta, -gradient, lr)
        ),
        "That is the fall of the loss; asked for is which share of the loss it is.": (
            lambda loss, theta, gradient, lr: loss(theta) - loss(theta - lr * gradient)
        ),
        "That is what is left of the loss. Subtract it from 1, so that a fall counts "
        "as positive.": lambda loss, theta, gradient, lr: (
            loss(theta - lr * gradient) / loss(theta)
        ),
        "The sign: a step that lowers the loss has to come out positive.": (
            lambda loss, theta, gradient, lr: -lookahead(loss, theta, gradient, lr)
        ),
        "Divide by the loss before the step: it is what a share is a share of.": (
            lambda loss, theta, gradient, lr: (
                loss(theta) / loss(theta - lr * gradient) - 1
            )
        ),
        "The step has the length of the whole gradient: where is η?": (
            lambda loss, theta, gradient, lr: lookahead(loss, theta, gradient, 1.0)
        ),
    },
)
def lookahead(loss: Loss, theta: Tensor, gradient: Tensor, lr: float) -> float:
    return float(1 - loss(theta - lr * gradient) / loss(theta))
