"""Checks of the chapter, Concepts and connections."""

from __future__ import annotations

from itertools import combinations
from math import ceil, isclose, sqrt
from statistics import fmean, stdev

import torch

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

IDEAS = (
    "multi-modal",
    "multi-task",
    "transfer",
    "continual",
    "domain adaptation",
    "meta",
    "self-supervised",
)
PLANS = {
    "digit, size and ink from one picture, all of them wanted": "multi-task",
    "first speaking rate, then from there the digit, all that is wanted": "transfer",
    "digits 0 to 4, then without their data 5 to 9, examined on all ten": "continual",
    "labelled British voices, Scottish ones without labels, examined on Scottish": (
        "domain adaptation"
    ),
    "many voices in turn, so that two clips of a new one suffice": "meta",
    "fill in the hidden half of a picture, keep the features": "self-supervised",
}
CONFUSED = {
    frozenset(
        ("transfer", "continual")
    ): "Both learn one thing after the other. Which of the two examines "
    "the first thing again at the end?",
    frozenset(
        ("multi-task", "multi-modal")
    ): "Count the kinds of input, then count the questions: which of "
    "them is more than one?",
    frozenset(
        ("multi-task", "continual")
    ): "All tasks count in both. But are they learned at the same time?",
    frozenset(
        ("transfer", "domain adaptation")
    ): "Does the question change between the two stages, or do "
    "only the inputs come from elsewhere?",
    frozenset(
        ("meta", "domain adaptation")
    ): "Is there one new domain, known beforehand, or practice on "
    "many, so as to be quick at any new one?",
    frozenset(
        ("transfer", "self-supervised")
    ): "Who made the labels of the first stage: somebody, or nobody?",
}


@exercise("which-idea")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, PLANS, IDEAS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    pair = frozenset((answer[wrong[0]], PLANS[wrong[0]]))
    raise Hint(
        look
        + CONFUSED.get(pair, "What varies here: inputs, tasks, their order, or labels?")
    )


@exercise("break-even")
def _(break_even) -> None:
    for _ in range(5):
        n1, n2 = torch.randint(20, 500, (2,)).tolist()
        dim, noise = int(torch.randint(2, 19, ())), 0.5 + float(torch.rand(()))
        right = 1 - noise**2 * dim * (1 / n1 + 1 / n2) / 2
        got = float(break_even(n1, n2, dim, noise))
        if isclose(got, right, rel_tol=1e-9, abs_tol=1e-9):
            continue
        n = n1 + n2
        if isclose(got, 1 - noise * dim * (1 / n1 + 1 / n2) / 2, rel_tol=1e-9):
            raise Hint(
                "`noise` is a standard deviation σ. Which power of it is a variance?"
            )
        if isclose(got, 1 - 2 * noise**2 * dim * (1 / n1 - 1 / n), rel_tol=1e-9):
            raise Hint(
                "The variance is right, but the bias is not half the difference of "
                "the weights any more: the "
                "second task now has the share n₂ / (n₁ + n₂)."
            )
        if isclose(got, 1 - noise**2 * dim / n1, rel_tol=1e-9):
            raise Hint(
                "That is the answer for equal numbers of samples; n₂ has to matter too."
            )
        if isclose(got, 1 - noise**2 * dim / n, rel_tol=1e-9):
            raise Hint(
                "That compares with the variance of all samples. Set bias² plus "
                "pooled variance equal to the "
                "error that the first task has alone."
            )
        raise Hint(
            f"For n₁ = {n1}, n₂ = {n2}, D = {dim} and σ = {noise:.2f}, both ways "
            "have the same error at "
            f"ρ = {right:.4f}, but yours is {got:.4f}. With n₁ = n₂ it has to be 1 − "
            "σ²D/n."
        )


@exercise("relative-gain")
def _(relative_gain) -> None:
    for trial in range(6):
        count = int(torch.randint(2, 6, ()))
        names = [f"task{t}" for t in range(count)]
        results = dict(zip(names, (0.2 + torch.rand(count)).tolist(), strict=True))
        baseline = dict(zip(names, (0.2 + torch.rand(count)).tolist(), strict=True))
        higher = {name: t % 2 == 0 for t, name in enumerate(names)}
        if trial > 3:  # a metric such as a log-likelihood
            baseline[names[0]] *= -1
            results[names[0]] *= -1
        signed = {
            t: (results[t] - baseline[t]) * (1 if higher[t] else -1) for t in names
        }
        right = 100 * fmean(signed[t] / abs(baseline[t]) for t in names)
        got = float(relative_gain(dict(results), dict(baseline), dict(higher)))
        if isclose(got, right, rel_tol=1e-9, abs_tol=1e-9):
            continue
        if isclose(got, right / 100, rel_tol=1e-9):
            raise Hint("That is a fraction; percent were asked for.")
        if isclose(got, right * count, rel_tol=1e-9):
            raise Hint("You add the tasks' gains up. Divide by the number of tasks.")
        if isclose(
            got,
            100 * fmean((results[t] - baseline[t]) / abs(baseline[t]) for t in names),
        ):
            raise Hint(
                "Where a lower metric is better, a fall is a gain: its sign has to "
                "turn."
            )
        if isclose(got, 100 * fmean(signed[t] / abs(results[t]) for t in names)):
            raise Hint(
                "Divide by the baseline, not by the result: the gain is relative to "
                "where you began."
            )
        if isclose(got, 100 * fmean(signed[t] / baseline[t] for t in names)):
            raise Hint(
                "Right while all baselines are positive. For a negative one, such as "
                "a log-likelihood, the "
                "gain turns its sign unless you divide by the absolute value."
            )
        raise Hint(
            f"With results {_short(results)}, baselines {_short(baseline)} and "
            f"higher better {higher}, it is "
            f"{right:.2f} %, but yours is {got:.2f}."
        )


def _short(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}


@exercise("best-of-k")
def _(expected_best) -> None:
    for _ in range(5):
        n = int(torch.randint(4, 9, ()))
        scores = (70 + 10 * torch.randn(n)).tolist()
        for k in (2, 1, n - 1, n):
            right = fmean(max(chosen) for chosen in combinations(scores, k))
            got = float(expected_best(list(scores), k))
            if isclose(got, right, rel_tol=1e-9):
                continue
            ranked = sorted(scores)
            if isclose(got, ranked[-1]):
                raise Hint(
                    "That is the best of all n runs. With k = 1 the mean has to come "
                    "out."
                )
            if isclose(got, fmean(ranked[-k:])):
                raise Hint(
                    "That is the mean of the k best runs. Asked for is the best of k "
                    "runs that nobody has "
                    "ranked before they were picked."
                )
            again = sum(
                s * ((i / n) ** k - ((i - 1) / n) ** k) for i, s in enumerate(ranked, 1)
            )
            if isclose(got, again):
                raise Hint(
                    "You let the same run be picked twice. Dodge and colleagues do "
                    "that too; here the k runs "
                    "are different, so that k = n gives the maximum."
                )
            raise Hint(
                f"For the scores {[round(s, 1) for s in scores]} and k = {k} it is "
                f"{right:.3f}, the mean "
                f"over all choices of k of them, but yours is {got:.3f}."
            )


@exercise("how-many-seeds")
def _(seeds_needed) -> None:
    for _ in range(8):
        n = int(torch.randint(5, 21, ()))
        pilot = (2 + 3 * torch.randn(n)).tolist()
        effect, errors = 0.5 + 2 * float(torch.rand(())), int(torch.randint(3, 8, ()))
        exact = (errors * stdev(pilot) / effect) ** 2
        right, got = ceil(exact), float(seeds_needed(list(pilot), effect, errors))
        negative = float(seeds_needed(list(pilot), -effect, errors))
        if got == right:
            if negative != right:
                raise Hint(
                    "An effect can be a harm: for −2 you need as many pairs as for 2."
                )
            continue
        if got in (exact, int(exact), round(exact)):
            raise Hint(
                "Nearly. A number of pairs is whole, and it has to be enough: round "
                "up whatever remains."
            )
        if got in (ceil(sqrt(exact)), sqrt(exact)):
            raise Hint(
                "The standard error falls with the square root of n, so n grows with "
                "the square."
            )
        if got == ceil(exact / n):
            raise Hint(
                "You start from the standard error of the pilot. That is s / √n of "
                "the pilot's own n; you "
                "need the standard deviation s of the differences."
            )
        if got == ceil(exact * (n - 1) / n):
            raise Hint(
                "Estimate the standard deviation with n − 1 below the line; few "
                "seeds make it matter."
            )
        raise Hint(
            f"With a standard deviation of {stdev(pilot):.3f}, an effect of "
            f"{effect:.3f} is {errors} "
            f"standard errors at {right} pairs, but yours is {got:g}."
        )
    if float(seeds_needed([0.0, 2.0, 4.0], 5.0)) != 6:
        raise Hint("Without a third argument, six standard errors are asked for.")
