"""Exercises of the lesson "Sharing features"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real

lines(
    "stitch-by-hand",
    {
        "the feature of task 1": 1.4,
        "the feature of task 2": 2.6,
        "α₁₂ after the step": 0.68,
        "α₂₁ after the step": 0.24,
    },
    mistakes={
        "“{line}”: row t says how much task t reads of trunk 1 and of trunk 2.": (
            lambda line, given, right: "feature" in line
        ),
        "“{line}”: the step goes against the slope. The error is negative: the entry "
        "grows.": lambda line, given, right: isinstance(given, float) and given < 0.2,
        "“{line}”: the slope is the error of the task that reads (the first index) "
        "times what the trunk that it reads returned.": lambda line, given, right: True,
    },
    others=(2.2, -0.28, 0.32),
)

lines(
    "which-sharing",
    {
        "parameters differ by task, and a penalty keeps them close": "soft",
        "every task reads the very same feature": "hard",
        "a mixture of all tasks' trunks, the same for every input": "cross-stitch",
        "a mixture of common experts, chosen anew for every input": "MMoE",
        "some experts are closed to the other tasks' gates": "PLE",
        "one trunk, in which a task scales and shifts by numbers": ("told"),
        "one trunk, turned down by what a task reads in it": "MTAN",
    },
    words=("hard", "soft", "cross-stitch", "MMoE", "PLE", "told", "MTAN"),
    mistakes={
        "Look again at “{line}”. Ask first what is shared: the parameters, or what "
        "they compute?": lambda line, given, right: right in ("hard", "soft"),
        "Look again at “{line}”. A stitch is a plain number; a gate reads the input.": (
            lambda line, given, right: right in ("cross-stitch", "MMoE")
        ),
        "Look again at “{line}”. Which of them has walls between experts?": (
            lambda line, given, right: right == "PLE"
        ),
        "Look again at “{line}”. A scale may be any number and is the same for all "
        "inputs. A mask lies between 0 and 1 and reads the input.": (
            lambda line, given, right: True
        ),
    },
)


@function(
    "stitch-gradient",
    inputs=lambda: [
        (
            torch.randn(tasks, tasks),
            torch.randn(tasks, samples, dim),
            torch.randn(tasks, samples, dim),
            real(0.1, 1),
        )
        for tasks, samples, dim in ((2, 5, 3), (3, 4, 6), (4, 1, 2), (2, 1, 1))
    ],
    differs="The slope at α_ts multiplies the slope of task t with what trunk s "
    "returned, and adds up over samples and numbers.",
    mistakes={
        "That step climbs: gradient descent goes against the slope.": (
            lambda alpha, f, slopes, lr: stitch_step(alpha, f, slopes, -lr)
        ),
        "Rows are the tasks that read, columns the trunks that are read.": (
            lambda alpha, f, slopes, lr: stitch_step(alpha, slopes, f, lr)
        ),
        "The slopes hold the mean over samples already, if there is one: add up.": (
            lambda alpha, f, slopes, lr: stitch_step(alpha, f, slopes, lr / f.shape[1])
        ),
        "A stitch is one number for the whole feature: add up over its numbers, too.": (
            lambda alpha, f, slopes, lr: stitch_step(
                alpha, f, slopes, lr / f.shape[1] / f.shape[2]
            )
        ),
        "That is the slope. Now take the step.": (
            lambda alpha, f, slopes, lr: -stitch_step(0 * alpha, f, slopes, 1.0)
        ),
        "That is how far the stitches move. Where from?": (
            lambda alpha, f, slopes, lr: stitch_step(0 * alpha, f, slopes, lr)
        ),
    },
)
def stitch_step(alpha: Tensor, f: Tensor, slopes: Tensor, lr: float) -> Tensor:
    return alpha - lr * slopes.flatten(1) @ f.flatten(1).T


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
    differs="Each task's feature is Σ_k π_k f_k, with π a softmax over the experts it "
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


def _loud(tasks: int, experts: int) -> tuple[Tensor, ...]:
    gates = torch.randn(tasks, experts).softmax(-1)
    f, targets = torch.randn(experts), torch.randn(tasks)
    return f, gates, targets, 10 ** torch.rand(tasks)


@function(
    "expert-slopes",
    inputs=lambda: [
        (
            torch.tensor([2.0, -1.0]),
            torch.tensor([[0.75, 0.25], [0.25, 0.75]]),
            torch.tensor([2.0, -1.0]),
            torch.tensor([100.0, 1.0]),
        ),
        *[_loud(tasks, experts) for tasks, experts in ((2, 3), (3, 2), (4, 5))],
    ],
    differs="For the first example of the text, at loss weights of 100 and 1, the "
    "slopes are −56.1 and −18.2. For the input with the experts {f} yours are {yours}, "
    "and should be {expected}.",
    mistakes={
        "An expert hears a task as loudly as its gate lets it in: where are the gate's "
        "weights in your sum?": lambda f, gates, targets, weights: (
            (weights * (gates @ f - targets)).sum() * torch.ones_like(f)
        ),
        "Each loss has its weight in the sum: where are the loss weights?": (
            lambda f, gates, targets, weights: expert_slopes(
                f, gates, targets, torch.ones_like(weights)
            )
        ),
        "The error of a task is its *mixture* minus its target.": (
            lambda f, gates, targets, weights: (
                gates * weights[:, None] * (f - targets[:, None])
            ).sum(0)
        ),
        "That is the mean over the tasks. The losses are added up.": (
            lambda f, gates, targets, weights: (
                expert_slopes(f, gates, targets, weights) / len(targets)
            )
        ),
        "The slope of ½ (error)² is the error itself: there is no 2.": (
            lambda f, gates, targets, weights: (
                2 * expert_slopes(f, gates, targets, weights)
            )
        ),
        "The sign: the error is the mixture minus the right answer.": (
            lambda f, gates, targets, weights: (
                -expert_slopes(f, gates, targets, weights)
            )
        ),
    },
)
def expert_slopes(f: Tensor, gates: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (weights * (gates @ f - targets)) @ gates


Slopes = tuple[Tensor, Tensor]


def _scales(*, per_task: bool = True, sign: float = 1) -> Callable[..., Slopes]:
    def answer(f: Tensor, slopes: Tensor) -> Slopes:
        scale, shift = scale_slopes(f, slopes)
        if not per_task:
            scale, shift = scale.sum(0), shift.sum(0)
        return sign * scale, sign * shift

    return answer


@function(
    "scale-slopes",
    inputs=lambda: [
        (torch.randn(samples, dim), torch.randn(tasks, samples, dim))
        for samples, dim, tasks in ((5, 3, 2), (1, 4, 3), (6, 2, 4))
    ],
    differs="At a scale the slope at what it makes is multiplied with what it scales, "
    "at a shift with one; both are added up over the samples, for each task by itself.",
    mistakes={
        "The two slopes are exchanged: the scale multiplies f, the shift does not.": (
            lambda f, slopes: scale_slopes(f, slopes)[::-1]
        ),
        "Each task has its own scale and shift: do not add up over the tasks.": (
            _scales(per_task=False)
        ),
        "The slopes hold the mean over samples already, if there is one: add up.": (
            lambda f, slopes: ((slopes * f).mean(1), slopes.mean(1))
        ),
        "Each number of the feature has its own scale: do not add up over them.": (
            lambda f, slopes: ((slopes * f).sum((1, 2)), slopes.sum((1, 2)))
        ),
        "All samples share a task's scale: add up over them.": (
            lambda f, slopes: (slopes * f, slopes)
        ),
        "Asked for are the slopes, not the steps: no minus.": _scales(sign=-1),
    },
)
def scale_slopes(f: Tensor, slopes: Tensor) -> Slopes:
    return (slopes * f).sum(1), slopes.sum(1)


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
