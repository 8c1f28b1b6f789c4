"""Exercises of the lesson "Hard parameter sharing"."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real, whole

lines(
    "whose-gradient",
    {
        "the trunk": "both",
        "the head of rate": "rate",
        "the trunk, in a batch without any digit label": "rate",
        "the head of digit, in a batch without any digit label": "none",
        "the trunk, with the weight of rate at zero": "digit",
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


lines(
    "which-control",
    {
        "it only brought labels on more clips": "same clips",
        "it only changed what stands in the batches": "same batches",
        "it would have helped just as much with slips in common": "same slips",
        "the harm only came from too little room": "wide",
    },
    words=("same batches", "same clips", "same slips", "wide"),
    mistakes={
        "“{line}”: with the second loss at zero the batches are the same, and the "
        "trunk hears nothing of the second task.": lambda line, given, right: (
            "batches" in line or given == "same batches"
        ),
        "“{line}”: take away the labels that only the second task has.": (
            lambda line, given, right: "labels" in line
        ),
        "“{line}”: then it should help when the slips are no longer independent.": (
            lambda line, given, right: "slips" in line
        ),
        "“{line}”: then more room should cure it.": lambda line, given, right: (
            "room" in line
        ),
    },
)


def _slopes(
    x: Tensor, theta: Tensor, heads: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The feature, and each task's weighted slope there."""
    h = (theta * x).sum()
    return h, weights * (heads * h - targets) * heads


def _net(inputs: int, tasks: int) -> tuple[Tensor, ...]:
    sizes = (inputs, inputs, tasks, tasks, tasks)
    x, theta, heads, targets, weights = (torch.randn(size) for size in sizes)
    return x, theta, heads, targets, weights.abs() + 0.2


@function(
    "trunk-slopes",
    inputs=lambda: (
        [
            (torch.tensor([2.0]), *(torch.tensor(row) for row in rows))
            for rows in (([0.5], [2.0, -1.0], [3.0, 1.0], [1.0, 0.5]),)
        ]
        + [_net(inputs, tasks) for inputs, tasks in ((3, 2), (5, 4), (2, 1), (4, 3))]
    ),
    mistakes={
        "The last link is missing: each weight of the trunk has read its own input.": (
            lambda *given: _slopes(*given)[1].sum() * torch.ones_like(given[0])
        ),
        "At the feature the slope is the error times the head. Where are the heads?": (
            lambda x, theta, heads, targets, weights: (
                (weights * (heads * (theta * x).sum() - targets)).sum() * x
            )
        ),
        "Each loss has its weight in the sum: where are the weights?": (
            lambda x, theta, heads, targets, weights: trunk_slopes(
                x, theta, heads, targets, torch.ones_like(weights)
            )
        ),
        "That is the mean over the tasks. Hard sharing adds up.": lambda *given: (
            _slopes(*given)[1].mean() * given[0]
        ),
        "The slope of ½ (error)² is the error itself: there is no 2.": lambda *given: (
            2 * trunk_slopes(*given)
        ),
        "The sign: the error is the prediction minus the right answer.": (
            lambda *given: -trunk_slopes(*given)
        ),
    },
)
def trunk_slopes(
    x: Tensor, theta: Tensor, heads: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    return _slopes(x, theta, heads, targets, weights)[1].sum() * x


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
        "You forgot that k² of the numbers do not count: what the trunk stretches and "
        "mixes, the heads can undo.": lambda D, k, r: _tasks(
            D, k, r, trunk=lambda D, k: k * D
        ),
        "Everybody also pays for their own k numbers, however many tasks there are.": (
            lambda D, k, r: _tasks(D, k, r, own=0)
        ),
        "Where k is no less than rD no number of tasks is enough, since everybody pays "
        "for k numbers of their own: return math.inf there.": (
            lambda D, k, r: ceil(k * (D - k) / (r * D - k)),
            lambda D, k, r: inf if r * D == k else ceil(k * (D - k) / (r * D - k)),
            lambda D, k, r: _tasks(D, k, r) if r * D > k else 0,
        ),
    },
)
def tasks_needed(D: int, k: int, r: float) -> float:
    return _tasks(D, k, r)


@function(
    "trunk-floor",
    inputs=lambda: [
        (torch.randn(rows, tasks), k)
        for rows, tasks, k in ((5, 8, 2), (6, 4, 3), (3, 7, 1), (4, 3, 3), (6, 10, 4))
    ],
    mistakes={
        "That is the strength that the trunk keeps. The floor is what it drops.": (
            lambda W, k: torch.linalg.svdvals(W)[:k].square().sum() / W.shape[1]
        ),
        "Errors are squared: square the singular values that are dropped.": (
            lambda W, k: torch.linalg.svdvals(W)[k:].sum() / W.shape[1]
        ),
        "That is the floor of all tasks together. A task is a column of W: divide by "
        "how many there are.": lambda W, k: torch.linalg.svdvals(W)[k:].square().sum(),
        "Divide by the number of tasks, the columns of W, not by its rows.": (
            lambda W, k: torch.linalg.svdvals(W)[k:].square().sum() / W.shape[0]
        ),
        "That is the mean over all numbers of the rules; asked for is the error a "
        "task, the sum over its numbers.": lambda W, k: (
            torch.linalg.svdvals(W)[k:].square().sum() / W.numel()
        ),
        "Only the next feature is counted; the trunk drops all from the k-th on.": (
            lambda W, k: torch.linalg.svdvals(W)[k : k + 1].square().sum() / W.shape[1]
        ),
    },
)
def floor(W: Tensor, k: int) -> Tensor:
    return torch.linalg.svdvals(W)[k:].square().sum() / W.shape[1]


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
