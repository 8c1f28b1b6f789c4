"""Checks of the chapter, Hard parameter sharing."""

from __future__ import annotations

from math import ceil, inf, isclose, log

import torch

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

WORDS = ("digit", "rate", "both", "none")
SITUATIONS = {
    "the first layer": "both",
    "the digit's own second layer": "digit",
    "the head of rate": "rate",
    "the first layer, in a batch without any digit label": "rate",
    "the head of digit, in a batch without any digit label": "none",
    "the first layer, with the weight of rate at zero": "digit",
}


@exercise("whose-gradient")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, SITUATIONS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if "batch" in wrong[0]:
        raise Hint(
            look
            + (
                "A loss that has no label in the batch moves nothing; the other one is "
                "still there."
            )
        )
    if "weight" in wrong[0]:
        raise Hint(
            look + "At the trunk the gradients are added up, each times its weight."
        )
    raise Hint(look + "Which predictions change when you change this parameter?")


@exercise("examples-needed")
def _(examples_needed) -> None:
    for _ in range(6):
        trunks, middles, heads = (30 * torch.rand(3, dtype=torch.float64)).tolist()
        size = int(torch.randint(2, 5, ()))
        tasks = size * int(torch.randint(2, 5, ()))
        epsilon, delta = (
            0.05 + 0.2 * float(torch.rand(())),
            0.01 + 0.1 * float(torch.rand(())),
        )

        chance, scale = log(2 / delta), 2 * epsilon**2
        exact = (heads + middles / size + (trunks + chance) / tasks) / scale
        got = float(
            examples_needed(trunks, middles, heads, tasks, size, epsilon, delta)
        )
        if got == ceil(exact):
            continue
        if got in (exact, int(exact), round(exact)):
            raise Hint(
                "Nearly. A number of examples is whole and has to be enough: round "
                "up what remains."
            )
        common = (trunks + chance) / tasks
        mistakes = {
            "Every task pays for a whole middle part. How many share one?": heads
            + middles
            + common,
            "You let all tasks share one middle part. There are T / S of them.": heads
            + middles / tasks
            + common,
            "S tasks share a middle part, so there are T / S of them, not S.": heads
            + middles * size / tasks
            + common,
            (
                "The chance δ is one for all tasks together: log(2/δ) is divided by T, "
                "too."
            ): heads + middles / size + trunks / tasks + chance,
            "Hoeffding's exponent is 2nTε²: where is the 2?": 2 * exact * scale,
            "That is the number of examples of all tasks together. Divide by T.": tasks
            * exact
            * scale,
        }
        for hint, paid in mistakes.items():
            if isclose(got, paid / scale) or got == ceil(paid / scale):
                raise Hint(hint)
        raise Hint(
            f"With log|F| = {trunks:.2f}, log|P| = {middles:.2f}, log|H| = "
            f"{heads:.2f}, T = {tasks}, "
            f"S = {size}, ε = {epsilon:.3f} and δ = {delta:.3f} it takes "
            f"{ceil(exact)}, but yours is {got:g}."
        )


@exercise("tasks-needed")
def _(tasks_needed) -> None:
    for dim, width, fraction in (
        (20, 3, 0.5),
        (20, 3, 0.21),
        (50, 4, 0.11),
        (30, 7, 0.9),
        (12, 5, 0.95),
    ):
        exact = width * (dim - width) / (fraction * dim - width)
        got = float(tasks_needed(dim, width, fraction))
        right = ceil(exact)
        if got == right:
            continue
        if got in (exact, int(exact), round(exact)):
            raise Hint("Nearly: the smallest *whole* number that is enough. Round up.")
        if got == ceil(width * dim / (fraction * dim - width)):
            raise Hint(
                "You forgot that k² of the numbers do not count: Φ Q with Q⁻¹ a is "
                "the same matrix."
            )
        if got == ceil(width * (dim - width) / (fraction * dim)):
            raise Hint(
                "Everybody also pays for their own k numbers, however many tasks "
                "there are."
            )
        raise Hint(
            f"With D = {dim}, k = {width} and r = {fraction} it takes {right} tasks, "
            f"but yours is {got:g}."
        )
    for dim, width, fraction in ((20, 5, 0.25), (20, 5, 0.1)):
        got = float(tasks_needed(dim, width, fraction))
        if got != inf:
            raise Hint(
                f"With D = {dim}, k = {width} and r = {fraction} no number of tasks "
                "is enough, since k alone "
                "is no less than rD."
            )
    if float(tasks_needed(40, 8, 1.0)) != 8:
        raise Hint(
            "With r = 1 the trunk has to do no harm, which it does from T = k on."
        )


@exercise("branch-cost")
def _(fork_cost) -> None:
    for _ in range(5):
        layers = torch.randint(10, 1000, (4,)).tolist()
        heads = torch.randint(2, 50, (int(torch.randint(2, 6, ())),)).tolist()
        for shared in (2, 1, 3, 4, 0):
            common, own = sum(layers[:shared]), sum(layers[shared:])
            right = common + len(heads) * own + sum(heads)
            got = float(fork_cost(list(layers), list(heads), shared))
            if got == right:
                continue
            if got == common + own + sum(heads):
                raise Hint(
                    "Behind the fork there is a copy of every layer for each task."
                )
            if got == common + len(heads) * own:
                raise Hint("The heads have parameters, too.")
            if got == len(heads) * (common + own) + sum(heads):
                raise Hint(
                    "That is what separate models cost: the first layers exist only "
                    "once."
                )
            if got == len(heads) * common + own + sum(heads):
                raise Hint(
                    "The other way round: the *first* layers are shared, the later "
                    "ones are copied."
                )
            raise Hint(
                f"With layers {layers}, heads {heads} and {shared} shared it is "
                f"{right}, but yours is "
                f"{got:g}."
            )


@exercise("lookahead")
def _(lookahead) -> None:
    for _ in range(4):
        goal = torch.randn(5, dtype=torch.float64)

        def loss(theta: torch.Tensor, goal: torch.Tensor = goal) -> torch.Tensor:
            return (theta - goal).square().sum() + 0.5

        theta = torch.randn(5, dtype=torch.float64)
        kept, gradient, lr = theta.clone(), torch.randn(5, dtype=torch.float64), 0.05
        before, after = float(loss(theta)), float(loss(theta - lr * gradient))
        got = float(lookahead(loss, theta, gradient, lr))
        if not torch.equal(theta, kept):
            raise Hint(
                "The step is only a trial: θ has to be afterwards what it was before."
            )
        if isclose(got, 1 - after / before, rel_tol=1e-9):
            continue
        if isclose(got, 1 - float(loss(theta + lr * gradient)) / before, rel_tol=1e-9):
            raise Hint("Descent goes against the gradient: θ − η g.")
        if isclose(got, before - after, rel_tol=1e-9):
            raise Hint(
                "That is the fall of the loss; asked for is which share of the loss "
                "it is."
            )
        if isclose(got, after / before, rel_tol=1e-9):
            raise Hint(
                "That is what is left of the loss. Subtract it from 1, so that a "
                "fall counts as positive."
            )
        if isclose(got, after / before - 1, rel_tol=1e-9):
            raise Hint(
                "The sign: a step that lowers the loss has to come out positive."
            )
        raise Hint(
            f"The loss goes from {before:.4f} to {after:.4f}, so it is "
            f"{1 - after / before:.4f}."
        )
