"""Exercises of the lesson "Concepts and connections"."""

from __future__ import annotations

from itertools import combinations
from math import ceil
from statistics import fmean, pstdev, stdev

from mtmm_lib.lesson.exercises import confused, function, lines, real, whole

lines(
    "which-idea",
    {
        "digit, size and ink from one picture, all of them wanted": "multi-task",
        "first speaking rate, then from there the digit, all that is wanted": (
            "transfer"
        ),
        "digits 0 to 4, then without their data 5 to 9, examined on all ten": (
            "continual"
        ),
        "labelled British voices, Scottish ones without labels, examined on Scottish": (
            "domain adaptation"
        ),
        "many voices in turn, so that two clips of a new one suffice": "meta",
        "fill in the hidden half of a picture, keep the features": "self-supervised",
    },
    words=(
        "multi-modal",
        "multi-task",
        "transfer",
        "continual",
        "domain adaptation",
        "meta",
        "self-supervised",
    ),
    mistakes={
        "Look again at “{line}”. Transfer and continual learning both learn one thing "
        "after the other. Which of the two examines the first thing again at the "
        "end?": confused("transfer", "continual"),
        "Look again at “{line}”. Count the kinds of input, then count the questions: "
        "which of them is more than one?": confused("multi-task", "multi-modal"),
        "Look again at “{line}”. All tasks count in both, multi-task and continual "
        "learning. But are they learned at the same time?": (
            confused("multi-task", "continual")
        ),
        "Look again at “{line}”. Does the question change between the two stages, or "
        "do only the inputs come from elsewhere?": (
            confused("transfer", "domain adaptation")
        ),
        "Look again at “{line}”. Is there one new domain, known beforehand, or "
        "practice on many, so as to be quick at any new one?": (
            confused("meta", "domain adaptation")
        ),
        "Look again at “{line}”. Who made the labels of the first stage: somebody, or "
        "nobody?": confused("transfer", "self-supervised"),
        "Look again at “{line}”. What varies here: inputs, tasks, their order, or "
        "labels?": lambda line, given, right: True,
    },
)


@function(
    "break-even",
    inputs=lambda: [
        (whole(30, 100), whole(150, 500), whole(2, 9), real(0.5, 0.9)),
        (whole(150, 500), whole(30, 100), whole(2, 9), real(1.2, 1.5)),
        (whole(30, 500), whole(30, 500), whole(10, 15), 1.0),
        (n := whole(40, 90), n, whole(2, 9), real(0.5, 0.9)),
    ],
    differs="With {arguments}, both ways have the same error at ρ = {expected}, but "
    "yours is {yours}. With n₁ = n₂ = n it has to be 1 − σ²D/n.",
    mistakes={
        "`noise` is a standard deviation σ. Which power of it is a variance?": (
            lambda n1, n2, dim, noise: break_even(n1, n2, dim, noise**0.5)
        ),
        "The variance is right, but the bias is not half the difference of the "
        "weights any more: the second task now has the share n₂ / (n₁ + n₂).": (
            lambda n1, n2, dim, noise: 1 - 2 * noise**2 * dim * (1 / n1 - 1 / (n1 + n2))
        ),
        "That is the chapter's formula, which holds for equal numbers of samples; n₂ "
        "has to matter too.": lambda n1, n2, dim, noise: 1 - noise**2 * dim / n1,
        "That is the chapter's formula with n₁ + n₂ for n. It holds for n samples of "
        "each task. Set bias² plus pooled variance equal to the error that the first "
        "task has alone, and solve for ρ.": (
            lambda n1, n2, dim, noise: 1 - noise**2 * dim / (n1 + n2)
        ),
    },
)
def break_even(n1: int, n2: int, dim: int, noise: float) -> float:
    return 1 - noise**2 * dim * (1 / n1 + 1 / n2) / 2


def _metrics() -> list[tuple[dict[str, float], dict[str, float], dict[str, bool]]]:
    """Some metrics of the same tasks, not in the same order, and a log-likelihood."""
    cases = []
    for higher in (
        {"digit": True, "rate": False},
        {"rate": True, "digit": False, "ink": False},
        {"ink": True, "rate": False, "digit": True, "size": True},
        {"digit": True},
    ):
        baseline = {task: real(0.2, 0.9) for task in sorted(higher)}
        results = {task: real(0.2, 0.9) for task in reversed(higher)}
        if len(higher) > 2:
            baseline["digit"], results["digit"] = -real(1, 2), -real(0.5, 3)
        cases.append((results, baseline, higher))
    return cases


@function(
    "relative-gain",
    inputs=_metrics,
    tolerance=1e-5,
    differs="With {arguments}, it should be {expected} %, but yours is {yours}.",
    mistakes={
        "That is a fraction; percent were asked for.": (
            lambda results, baseline, higher_is_better: (
                relative_gain(results, baseline, higher_is_better) / 100
            )
        ),
        "You add the tasks' gains up. Divide by the number of tasks.": (
            lambda results, baseline, higher_is_better: (
                relative_gain(results, baseline, higher_is_better) * len(results)
            )
        ),
        "Where a lower metric is better, a fall is a gain: its sign has to turn.": (
            lambda results, baseline, higher_is_better: relative_gain(
                results, baseline, dict.fromkeys(results, True)
            )
        ),
        "Divide by the baseline, not by the result: the gain is relative to where you "
        "began.": lambda results, baseline, higher_is_better: (
            -relative_gain(baseline, results, higher_is_better)
        ),
        "Right while all baselines are positive. For a negative one, such as a "
        "log-likelihood, the gain turns its sign unless you divide by the absolute "
        "value.": lambda results, baseline, higher_is_better: fmean(
            (100 if higher else -100) * (results[t] / baseline[t] - 1)
            for t, higher in higher_is_better.items()
        ),
        "You pair the values by their order, but the three need not list the tasks in "
        "the same one. Look each task up by its name.": (
            lambda results, baseline, higher_is_better: relative_gain(
                *(
                    dict(enumerate(each.values()))
                    for each in (results, baseline, higher_is_better)
                )
            )
        ),
    },
)
def relative_gain(
    results: dict[str, float],
    baseline: dict[str, float],
    higher_is_better: dict[str, bool],
) -> float:
    return 100 * fmean(
        (1 if higher else -1) * (results[t] - baseline[t]) / abs(baseline[t])
        for t, higher in higher_is_better.items()
    )


def _drawn_again(scores: list[float], k: int) -> float:
    """The mean best of k where the same run may be picked twice."""
    n = len(scores)
    shares = [(i / n) ** k - ((i - 1) / n) ** k for i in range(1, n + 1)]
    return sum(p * s for p, s in zip(shares, sorted(scores), strict=True))


@function(
    "best-of-k",
    inputs=lambda: [
        ([real(50, 90) for _ in range(n)], k)
        for n, k in ((5, 2), (8, 3), (6, 1), (4, 4), (7, 5))
    ],
    tolerance=1e-5,
    mistakes={
        "That is the best of all n runs. With k = 1 the mean has to come out.": (
            lambda scores, k: max(scores)
        ),
        "That is the mean of the k best runs. Asked for is the best of k runs that "
        "nobody has ranked before they were picked.": (
            lambda scores, k: fmean(sorted(scores)[-k:])
        ),
        "That is the best of the first k runs. Any k of them may be picked.": (
            lambda scores, k: max(scores[:k])
        ),
        "You let the same run be picked twice. Dodge and colleagues do that too; here "
        "the k runs are different, so that k = n gives the maximum.": _drawn_again,
    },
)
def expected_best(scores: list[float], k: int) -> float:
    return fmean(max(chosen) for chosen in combinations(scores, k))


def _pairs(pilot: list[float], effect: float, errors: int = 6) -> float:
    return (errors * stdev(pilot) / effect) ** 2


@function(
    "how-many-seeds",
    inputs=lambda: [
        *(
            ([real(-4, 9) for _ in range(n)], effect, errors)
            for n, effect, errors in (
                (5, real(0.5, 2), 4),
                (11, -real(0.5, 2), 7),
                (7, real(0.5, 2), 5),
                (9, -real(0.5, 2), 3),
            )
        ),
        ([real(-4, 9) for _ in range(6)], real(0.5, 2)),
        ([0.0, 2.0, 4.0], 4.0, 6),  # 9 pairs, and nothing to round
    ],
    mistakes={
        "Nearly. A number of pairs is whole, and it has to be enough: round up "
        "whatever remains.": (
            lambda pilot, effect, errors=6: int(_pairs(pilot, effect, errors)),
            lambda pilot, effect, errors=6: round(_pairs(pilot, effect, errors)),
            _pairs,
        ),
        "Right, unless it comes out whole: then no further pair is needed.": (
            lambda pilot, effect, errors=6: int(_pairs(pilot, effect, errors)) + 1
        ),
        "The standard error falls with the square root of n, so n grows with the "
        "square.": lambda pilot, effect, errors=6: ceil(
            errors * stdev(pilot) / abs(effect)
        ),
        "You start from the standard error of the pilot. That is s / √n of the "
        "pilot's own n; you need the standard deviation s of the differences.": (
            lambda pilot, effect, errors=6: ceil(
                _pairs(pilot, effect, errors) / len(pilot)
            )
        ),
        "Estimate the standard deviation with n − 1 below the line; few seeds make it "
        "matter.": lambda pilot, effect, errors=6: ceil(
            (errors * pstdev(pilot) / effect) ** 2
        ),
        "Without a third argument, six standard errors are asked for.": (
            lambda pilot, effect, errors=2: ceil(_pairs(pilot, effect, errors))
        ),
    },
)
def seeds_needed(pilot: list[float], effect: float, errors: int = 6) -> int:
    return ceil(_pairs(pilot, effect, errors))
