"""Exercises of the lesson "Sharing features"."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real

lines(
    "which-sharing",
    {
        "parameters differ by task, and a penalty keeps them close": "soft",
        "every task reads the very same feature": "hard",
        "a mixture of all tasks' trunks, the same for every input": "cross-stitch",
        "a mixture of common experts, chosen anew for every input": "MMoE",
        "some experts are closed to the other tasks' gates": "PLE",
        "one trunk, of which each task turns features down": "task attention",
    },
    words=("hard", "soft", "cross-stitch", "MMoE", "PLE", "task attention"),
    mistakes={
        "Look again at “{line}”. Ask first what is shared: the parameters, or what "
        "they compute?": lambda line, given, right: right in ("hard", "soft"),
        "Look again at “{line}”. A stitch is a plain number; a gate reads the input.": (
            lambda line, given, right: right in ("cross-stitch", "MMoE")
        ),
        "Look again at “{line}”. One of the last two has walls between experts, the "
        "other one masks and no experts at all.": lambda line, given, right: True,
    },
)


def _labels() -> list[tuple[Tensor, int]]:
    """Labels of tasks that are alike, with means; features narrower than the tasks
    are many, as wide, and wider."""
    return [
        (torch.randn(n, tasks) @ torch.randn(tasks, tasks) + torch.randn(tasks), width)
        for n, tasks, width in (
            (30, 2, 1),
            (40, 5, 2),
            (50, 4, 3),
            (9, 5, 1),
            (20, 3, 3),
            (20, 3, 5),
        )
    ]


def _eigenvalues(y: Tensor) -> Tensor:
    return torch.linalg.svdvals(y - y.mean(0)).square() / len(y)  # descending


@function(
    "narrow-feature",
    inputs=_labels,
    differs="For labels of shape {y.shape} and width {width} the floor is {expected}, "
    "but yours is {yours}: the sum of the T − H smallest eigenvalues of the "
    "covariance, divided by T.",
    mistakes={
        "The floor is a mean over tasks; you added them up.": (
            lambda y, width: least_error(y, width) * y.shape[1]
        ),
        "Divide by N, as the exercise asks, not by N − 1.": (
            lambda y, width: least_error(y, width) * len(y) / (len(y) - 1)
        ),
        "The heads have a bias, so take the labels' means away first.": (
            lambda y, width: torch.linalg.svdvals(y).square()[width:].sum() / y.numel()
        ),
        "That is what the feature holds. The floor is what it does not.": (
            lambda y, width: _eigenvalues(y)[:width].sum() / y.shape[1]
        ),
        "The right number of eigenvalues, but the largest. What is left over are the "
        "smallest.": lambda y, width: (
            _eigenvalues(y)[: max(y.shape[1] - width, 0)].sum() / y.shape[1]
        ),
        "Right, unless the feature is wider than there are tasks: then nothing is left "
        "over.": lambda y, width: (
            _eigenvalues(y).flip(0)[: y.shape[1] - width].sum() / y.shape[1]
        ),
    },
)
def least_error(y: Tensor, width: int) -> Tensor:
    return _eigenvalues(y)[width:].sum() / y.shape[1]


@function(
    "stitch-gradient",
    inputs=lambda: [
        (
            torch.randn(tasks, tasks),
            torch.randn(tasks, samples, dim),
            torch.randn(tasks, samples, dim),
            real(0.1, 1),
        )
        for tasks, samples, dim in ((2, 5, 3), (3, 4, 6), (4, 1, 2))
    ],
    differs="The gradient at α_ts multiplies the slope of task t with what trunk s "
    "returned, and adds up over samples and channels.",
    mistakes={
        "That step climbs: gradient descent goes against the slope.": (
            lambda alpha, x, slopes, lr: stitch_step(alpha, x, slopes, -lr)
        ),
        "Rows are the tasks that read, columns the trunks that are read.": (
            lambda alpha, x, slopes, lr: stitch_step(alpha, slopes, x, lr)
        ),
        "The slopes hold the mean over samples already, if there is one: add up.": (
            lambda alpha, x, slopes, lr: stitch_step(alpha, x, slopes, lr / x.shape[1])
        ),
        "A stitch is one number for all channels: add up over them, too.": (
            lambda alpha, x, slopes, lr: stitch_step(
                alpha, x, slopes, lr / x.shape[1] / x.shape[2]
            )
        ),
        "That is the gradient. Now take the step.": (
            lambda alpha, x, slopes, lr: -stitch_step(0 * alpha, x, slopes, 1.0)
        ),
        "That is how far the stitches move. Where from?": (
            lambda alpha, x, slopes, lr: stitch_step(0 * alpha, x, slopes, lr)
        ),
    },
)
def stitch_step(alpha: Tensor, x: Tensor, slopes: Tensor, lr: float) -> Tensor:
    return alpha - lr * slopes.flatten(1) @ x.flatten(1).T


def _gates() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each task may see the last expert and some of the others."""
    cases = []
    for experts, samples, dim, tasks in ((3, 5, 4, 2), (4, 2, 3, 3), (2, 3, 2, 2)):
        allowed = torch.rand(tasks, experts) < 0.5
        allowed[:, -1], allowed[0, 0] = True, False
        f = torch.randn(experts, samples, dim)
        cases.append((f, torch.randn(tasks, samples, experts), allowed))
    return cases


def _mixed(weights: Tensor, f: Tensor) -> Tensor:
    return torch.einsum("tne,enh->tnh", weights, f)


@function(
    "gates-and-experts",
    inputs=_gates,
    differs="Each task's feature is Σ_e g_e f_e, with g a softmax over the experts it "
    "may see.",
    mistakes={
        "All experts take part. Which may the task see?": (
            lambda f, logits, allowed: _mixed(logits.softmax(-1), f)
        ),
        "The weights of what is left no longer sum to one: mask before the softmax.": (
            lambda f, logits, allowed: _mixed(logits.softmax(-1) * allowed[:, None], f)
        ),
        "A logit of zero is not a weight of zero: exp(0) is one.": (
            lambda f, logits, allowed: _mixed(
                (logits * allowed[:, None]).softmax(-1), f
            )
        ),
        "The experts that the task may see count the same in yours: the logits say how "
        "much.": lambda f, logits, allowed: gated(f, 0 * logits, allowed),
        "The other way round: `allowed` is true where a task may look.": (
            lambda f, logits, allowed: gated(f, logits, ~allowed)
        ),
    },
)
def gated(f: Tensor, logits: Tensor, allowed: Tensor) -> Tensor:
    shown = logits.masked_fill(~allowed[:, None], -torch.inf)
    return _mixed(shown.softmax(-1), f)


def _levels() -> list[tuple[Tensor, Tensor, int]]:
    """Gates of two levels, each on the task's own experts and the shared ones."""
    cases = []
    for tasks, own, common in ((2, 1, 1), (3, 2, 1), (2, 2, 3), (2, 3, 1)):
        sees = torch.block_diag(*[torch.ones(1, own)] * tasks).bool()
        sees = torch.cat([sees, torch.ones(tasks, common).bool()], 1)
        logits = torch.randn(2, *sees.shape).masked_fill(~sees, -torch.inf)
        private, second = logits.softmax(-1)
        gate = torch.randn(1, sees.shape[1]).softmax(-1)
        cases.append((torch.cat([private, gate]), second, own))
    return cases


def _paths(
    first: Tensor, second: Tensor, own: int, *, private: bool, common: bool
) -> Tensor:
    """The paths through the experts of its own, through the shared ones, or both."""
    tasks = len(second)
    shared = second[:, tasks * own :].sum(1, keepdim=True)
    return private * (1 - shared) * first[:tasks] + common * shared * first[tasks:]


@function(
    "follow-the-paths",
    inputs=_levels,
    differs="Add up a task's second-level weights on its own experts and on the shared "
    "ones. The first sum multiplies the task's row of the first level, the second one "
    "the shared gate's row.",
    mistakes={
        "The paths through the shared experts of the second level are missing.": (
            lambda first, second, own: _paths(
                first, second, own, private=True, common=False
            )
        ),
        "The paths through the task's own experts of the second level are missing.": (
            lambda first, second, own: _paths(
                first, second, own, private=False, common=True
            )
        ),
        "All paths run through the task's own gate here. What do the shared experts "
        "read?": lambda first, second, own: first[:-1],
        "Weigh the two kinds of path by what the second level's gate gives them.": (
            lambda first, second, own: first[:-1] + first[-1:],
            lambda first, second, own: (first[:-1] + first[-1:]) / 2,
        ),
        "Exchanged: it is the shared ones that read the shared gate's mixture.": (
            lambda first, second, own: (
                first[:-1] + first[-1:] - paths(first, second, own)
            )
        ),
        "You take one expert for each task. `own` says how many it has.": (
            lambda first, second, own: paths(first, second, 1)
        ),
    },
)
def paths(first: Tensor, second: Tensor, own: int) -> Tensor:
    return _paths(first, second, own, private=True, common=True)
