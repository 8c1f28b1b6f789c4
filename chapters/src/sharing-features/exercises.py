"""Checks of the chapter, Sharing features."""

from __future__ import annotations

import torch

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

WORDS = ("hard", "soft", "cross-stitch", "MMoE", "PLE", "task attention")
SHARINGS = {
    "parameters differ by task, and a penalty keeps them close": "soft",
    "every task reads the very same feature": "hard",
    "a mixture of all tasks' trunks, the same for every input": "cross-stitch",
    "a mixture of common experts, chosen anew for every input": "MMoE",
    "some experts are closed to the other tasks' gates": "PLE",
    "one trunk, of which each task turns features down": "task attention",
}


@exercise("which-sharing")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, SHARINGS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if SHARINGS[wrong[0]] in ("hard", "soft"):
        raise Hint(
            look + "Ask first what is shared: the parameters, or what they compute?"
        )
    if SHARINGS[wrong[0]] in ("cross-stitch", "MMoE"):
        raise Hint(look + "A stitch is a plain number; a gate reads the input.")
    raise Hint(
        look
        + (
            "One of these has walls between experts, the other one masks and no "
            "experts at all."
        )
    )


@exercise("narrow-feature")
def _(least_error) -> None:
    for samples, tasks, width in (
        (30, 2, 1),
        (40, 5, 2),
        (50, 4, 3),
        (20, 3, 3),
        (20, 3, 5),
    ):
        y = torch.randn(samples, tasks, dtype=torch.float64) @ torch.randn(
            tasks, tasks, dtype=torch.float64
        )
        y = y + 3 * torch.randn(tasks, dtype=torch.float64)
        centred = y - y.mean(0)
        squares = torch.linalg.svdvals(centred).square()  # descending
        right = float(squares[width:].sum()) / samples / tasks
        got = float(least_error(y.clone(), width))
        if abs(got - right) < 1e-8 * max(1.0, right):
            continue
        uncentred = torch.linalg.svdvals(y).square()[width:].sum() / samples / tasks
        for value, hint in (
            (right * tasks, "The floor is a mean over tasks; you added them up."),
            (
                right * samples / (samples - 1),
                "Divide by N, as the exercise asks, not by N − 1.",
            ),
            (
                float(uncentred),
                "The heads have a bias, so take the labels' means away first.",
            ),
            (
                float(squares[:width].sum()) / samples / tasks,
                "That is what the feature holds. The floor is what it does not.",
            ),
            (
                float(squares[: tasks - width].sum()) / samples / tasks,
                "Which eigenvalues are left over, the large ones or the small ones?",
            ),
        ):
            if abs(got - value) < 1e-8 * max(1.0, abs(value)):
                raise Hint(hint)
        raise Hint(
            f"For {tasks} tasks and width {width} this gives {got:.4g}, expected "
            f"{right:.4g}: the sum of the "
            "T − H smallest eigenvalues of the covariance, divided by T."
        )


@exercise("stitch-gradient")
def _(stitch_step) -> None:
    for tasks, samples, dim in ((2, 5, 3), (3, 4, 6)):
        alpha, lr = (
            torch.randn(tasks, tasks, dtype=torch.float64),
            0.1 + float(torch.rand(())),
        )
        x, slopes = (
            torch.randn(tasks, samples, dim, dtype=torch.float64) for _ in range(2)
        )
        gradient = torch.einsum("tnd,snd->ts", slopes, x)
        got = torch.as_tensor(stitch_step(alpha.clone(), x.clone(), slopes.clone(), lr))
        if got.shape != alpha.shape:
            raise Hint(
                f"Expected the new stitches as [T, T] = {list(alpha.shape)}, got "
                f"{list(got.shape)}."
            )
        for mistaken, hint in (
            (
                alpha + lr * gradient,
                "That step climbs: gradient descent goes against the slope.",
            ),
            (
                alpha - lr * gradient.T,
                "Rows are the tasks that read, columns the trunks that are read.",
            ),
            (
                alpha - lr * gradient / samples,
                "The slopes hold the mean over samples already, if there is one: add "
                "up.",
            ),
            (gradient, "That is the gradient. Now take the step."),
        ):
            if torch.allclose(got, mistaken):
                raise Hint(hint)
        if not torch.allclose(got, alpha - lr * gradient):
            raise Hint(
                "The gradient at α_ts multiplies the slope of task t with what trunk "
                "s returned, and adds up "
                "over samples and channels."
            )


@exercise("gates-and-experts")
def _(gated) -> None:
    for experts, samples, dim, tasks in ((3, 5, 4, 2), (4, 2, 3, 3)):
        f = torch.randn(experts, samples, dim, dtype=torch.float64)
        logits = torch.randn(tasks, samples, experts, dtype=torch.float64)
        allowed = torch.rand(tasks, experts) < 0.5
        allowed[:, -1], allowed[0, 0] = True, False

        def mixed(g, f=f):
            return torch.einsum("tne,enh->tnh", g, f)

        right = mixed(logits.masked_fill(~allowed.unsqueeze(1), -torch.inf).softmax(-1))
        got = torch.as_tensor(gated(f.clone(), logits.clone(), allowed.clone()))
        if got.shape != right.shape:
            raise Hint(
                f"Expected features [T, N, H] = {list(right.shape)}, got "
                f"{list(got.shape)}."
            )
        for mistaken, hint in (
            (
                mixed(logits.softmax(-1)),
                "All experts take part. Which may the task see?",
            ),
            (
                mixed(logits.softmax(-1) * allowed.unsqueeze(1)),
                "The weights of what is left no longer sum to one: mask before the "
                "softmax.",
            ),
            (
                mixed((logits * allowed.unsqueeze(1)).softmax(-1)),
                "A logit of zero is not a weight of zero: exp(0) is one.",
            ),
        ):
            if torch.allclose(got, mistaken) and not torch.allclose(mistaken, right):
                raise Hint(hint)
        if not torch.allclose(got, right):
            raise Hint(
                "Each task's feature is Σ_e g_e f_e, with g a softmax over the "
                "experts it may see."
            )


@exercise("follow-the-paths")
def _(paths) -> None:
    for tasks, own, common in ((2, 1, 1), (3, 2, 1), (2, 2, 3)):
        experts = tasks * own + common
        sees = torch.zeros(tasks, experts, dtype=torch.bool)
        sees[:, tasks * own :] = True
        for t in range(tasks):
            sees[t, t * own : (t + 1) * own] = True
        logits = torch.randn(2, tasks, experts, dtype=torch.float64)
        private, second = logits.masked_fill(~sees, -torch.inf).softmax(-1)
        gate = torch.randn(1, experts, dtype=torch.float64).softmax(-1)
        first = torch.cat([private, gate])
        shared = second[:, tasks * own :].sum(1, keepdim=True)
        right = (1 - shared) * private + shared * gate
        got = torch.as_tensor(paths(first.clone(), second.clone(), own))
        if got.shape != right.shape:
            raise Hint(f"Expected [T, E] = {list(right.shape)}, got {list(got.shape)}.")
        for mistaken, hint in (
            (
                (1 - shared) * private,
                "The paths through the shared experts of the second level are missing.",
            ),
            (
                private,
                "All paths run through the task's own gate here. What do the shared "
                "experts read?",
            ),
            (
                private + gate,
                "Weigh the two kinds of path by what the second level's gate gives "
                "them.",
            ),
            (
                shared * private + (1 - shared) * gate,
                "Exchanged: it is the shared ones that read the shared gate's mixture.",
            ),
        ):
            if torch.allclose(got, mistaken):
                raise Hint(hint)
        if not torch.allclose(got, right):
            raise Hint(
                "Add up a task's second-level weights on its own experts and on the "
                "shared ones. The first "
                "sum multiplies the task's row of the first level, the second one "
                "the shared gate's row."
            )
