"""Exercises of the lesson "Learned relations"."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import confused, function, lines, real

lines(
    "shrink-by-hand",
    {
        "trace norm, λ = 0.5: of the 3": 2.5,
        "trace norm, λ = 0.5: of the 1": 0.5,
        "trace norm, λ = 0.5: of the 0.4": 0,
        "ridge, μ = 1: of the 3": 1.5,
        "ridge, μ = 1: of the 0.4": 0.2,
        "how many directions the trace norm leaves": 2,
    },
    others=(-0.1, 0, 0.1, 0.2, 0.4, 0.5, 1, 1.5, 2, 2.5, 3),
    mistakes={
        "“{line}”: no singular value is negative. What has less than λ is gone.": (
            lambda line, given, right: line.endswith("norm, λ = 0.5: of the 0.4")
        ),
        "“{line}”: count the singular values that are above λ.": (
            lambda line, given, right: line.startswith("how many")
        ),
        "“{line}”: the ridge divides by 1 + μ.": (
            lambda line, given, right: line.startswith("ridge")
        ),
        "“{line}”: the trace norm takes the same λ from each, whatever its size.": (
            lambda line, given, right: True
        ),
    },
)

lines(
    "which-penalty",
    {
        "patients of all wards answer nearly alike to a drug": "tether",
        "of a thousand genes a dozen matter, for all diseases": ("joint sparsity"),
        "towns along a river: each is like its neighbours": "graph",
        "viewers are mixtures of a few kinds of taste, for or against": "trace norm",
        "the tasks were collected from unrelated projects": "ridge",
    },
    words=("ridge", "tether", "graph", "trace norm", "joint sparsity"),
    mistakes={
        "“{line}”: few directions, or few of the inputs that are measured? One of the "
        "two speaks of mixtures, the other of single inputs.": (
            confused("trace norm", "joint sparsity")
        ),
        "“{line}”: are all near one place, or is each near those that one can name?": (
            confused("tether", "graph")
        ),
        "“{line}”: that expects something in common, and there is nothing.": (
            lambda line, given, right: right == "ridge"
        ),
        "“{line}”: what would two of these tasks have in common: a place, neighbours, "
        "directions or inputs?": lambda line, given, right: True,
    },
)


def _graphs() -> list[tuple[Tensor]]:
    cases = []
    for tasks in (3, 5, 2):
        a = torch.randn(tasks, tasks)
        cases.append((a + a.T,))
    return cases


@function(
    "graph-tether",
    inputs=_graphs,
    differs="Multiply ‖θ_s − sign(a) θ_t‖² out, times |a|, and collect what belongs to "
    "each product of two rows.",
    mistakes={
        "What stands on the diagonal of a means nothing: take it away first.": (
            lambda a: graph_table(a) + a.diag().diag(),
            lambda a: graph_table(a) - a.diag().diag(),
            lambda a: a.abs().sum(1).diag() - a,
        ),
        "Each pair is counted once: s < t on the left-hand side.": (
            lambda a: 2 * graph_table(a)
        ),
        "Look at the sign: a spring rewards tasks that agree, −2 a θ·θ′.": (
            lambda a: 2 * graph_table(a).diag().diag() - graph_table(a)
        ),
        "A spring with a minus costs something, too: on the diagonal stands the sum of "
        "its strength without the sign.": (
            lambda a: _without_diagonal(a).sum(1).diag() - _without_diagonal(a)
        ),
        "Every spring at task s also adds to the square of its own row: the "
        "diagonal.": lambda a: -_without_diagonal(a),
    },
)
def graph_table(a: Tensor) -> Tensor:
    springs = _without_diagonal(a)
    return springs.abs().sum(1).diag() - springs


def _without_diagonal(a: Tensor) -> Tensor:
    return a - a.diag().diag()


def _at_right_angles() -> list[tuple[Tensor]]:
    cases = []
    for tasks, dim in ((2, 3), (3, 5), (4, 4)):
        axes = torch.linalg.qr(torch.randn(dim, tasks)).Q.T
        cases.append((axes * (0.5 + 3 * torch.rand(tasks, 1)),))
    with_nothing = cases[1][0].clone()
    with_nothing[1] = 0
    return [*cases, (with_nothing,)]


@function(
    "best-shares",
    inputs=_at_right_angles,
    differs="Shares go by the roots of the squared lengths. What do they cost?",
    mistakes={
        "That is in proportion to the squares, which costs 10 for 4 and 1. Take their "
        "roots.": lambda theta: (
            theta.square().sum(1) / theta.square().sum(),
            (theta.norm(dim=1) > 0).sum() * theta.square().sum(),
        ),
        "The shares have to add up to one.": lambda theta: (
            theta.norm(dim=1),
            theta.norm(dim=1).sum() ** 2,
        ),
        "The cost is the square of the sum of the lengths: (2 + 1)² = 9.": (
            lambda theta: (best_shares(theta)[0], theta.norm(dim=1).sum()),
            lambda theta: (best_shares(theta)[0], theta.square().sum()),
        ),
        "A task of zeros costs nothing, 0/0 is no number.": lambda theta: (
            best_shares(theta)[0],
            (theta.square().sum(1) / best_shares(theta)[0]).sum(),
        ),
    },
)
def best_shares(theta: Tensor) -> tuple[Tensor, Tensor]:
    lengths = theta.norm(dim=1)
    return lengths / lengths.sum(), lengths.sum() ** 2


def _columns() -> list[tuple[Tensor, float]]:
    """Columns of all lengths, an empty one among them, and strengths in between."""
    cases = []
    for tasks, dim in ((3, 6), (5, 4), (2, 8)):
        found = torch.randn(tasks, dim) * torch.linspace(0, 2, dim)
        cases.append((found, real(0.5, 1.2)))
    return cases


def _by_length(found: Tensor, strength: float, dim: int) -> Tensor:
    lengths = found.norm(dim=dim, keepdim=True)
    return found * (lengths - strength).clamp(min=0) / lengths.clamp(min=1e-12)


@function(
    "joint-sparsity",
    inputs=_columns,
    differs="A column of length 3 and a strength of 1 make a column of length 2 with "
    "the same direction; one of length 0.3 becomes zero.",
    mistakes={
        "An empty column has no length: do not divide by it.": lambda found, strength: (
            found * (found.norm(dim=0) - strength).clamp(min=0) / found.norm(dim=0)
        ),
        "A length cannot be negative: a column that is too short becomes zero.": (
            lambda found, strength: (
                found
                * (found.norm(dim=0) - strength)
                / found.norm(dim=0).clamp(min=1e-12)
            )
        ),
        "That asks each number by itself. All tasks vote on an input together, by the "
        "length of its column.": lambda found, strength: (
            found.sign() * (found.abs() - strength).clamp(min=0)
        ),
        "Those are the rows, the tasks. An input is a column.": (
            lambda found, strength: _by_length(found, strength, dim=1)
        ),
        "Columns that stay are shortened, too.": lambda found, strength: (
            found * (found.norm(dim=0) > strength)
        ),
        "That shortens directions, as the trace norm does. Here it is inputs.": (
            lambda found, strength: _directions(found, strength)
        ),
    },
)
def shrink_inputs(found: Tensor, strength: float) -> Tensor:
    return _by_length(found, strength, dim=0)


def _directions(found: Tensor, strength: float) -> Tensor:
    u, s, vt = torch.linalg.svd(found, full_matrices=False)
    return (u * (s - strength).clamp(min=0)) @ vt


def _grouped() -> list[tuple[Tensor, Tensor, float]]:
    cases = []
    for groups in ([0, 0, 0, 1, 1], [2, 0, 2, 0, 0, 1], [1, 1]):
        found = 3 * torch.randn(len(groups), 4)
        cases.append((found, torch.tensor(groups), real(0.3, 3)))
    return cases


@function(
    "own-group",
    inputs=_grouped,
    differs="Each task: the mean of its own group, plus what it deviates from that, "
    "divided by 1 + λ.",
    mistakes={
        "That is the mean of all tasks. Each one has a group.": (
            lambda found, groups, strength: to_own_group(found, 0 * groups, strength)
        ),
        "The mean of the group stays; its deviations are divided by 1 + λ.": (
            lambda found, groups, strength: found / (1 + strength)
        ),
        "The deviations are divided by 1 + λ, not multiplied by λ or by 1 − λ.": tuple(
            lambda found, groups, strength, how=how: (
                _means(found, groups) + (found - _means(found, groups)) * how(strength)
            )
            for how in (lambda s: s, lambda s: 1 - s)
        ),
        "Those are the means alone, as if λ were without end.": (
            lambda found, groups, strength: _means(found, groups)
        ),
    },
)
def to_own_group(found: Tensor, groups: Tensor, strength: float) -> Tensor:
    means = _means(found, groups)
    return means + (found - means) / (1 + strength)


def _means(found: Tensor, groups: Tensor) -> Tensor:
    """The mean of each task's own group, [T, D]."""
    same = (groups[:, None] == groups).to(found.dtype)
    return same @ found / same.sum(1, keepdim=True)


@function(
    "regroup",
    inputs=lambda: [
        (
            torch.randn(tasks, dim) + 1,
            torch.randn(groups, dim) * torch.linspace(0.3, 2, groups)[:, None],
        )
        for tasks, dim, groups in ((8, 3, 2), (15, 2, 4), (12, 5, 3))
    ],
    mistakes={
        "That is the farthest centre.": lambda found, centres: torch.cdist(
            found, centres
        ).argmax(1),
        "The nearest by distance, not the one with the largest inner product: a long "
        "centre would win too often.": lambda found, centres: (
            found @ centres.T
        ).argmax(1),
        "One number for each task, not for each centre.": lambda found, centres: (
            torch.cdist(found, centres).argmin(0)
        ),
    },
)
def regroup(found: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(found, centres).argmin(1)
