"""Exercises of the lesson "Concepts and connections"."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import confused, function, lines, real, whole


@function(
    "tie-days",
    mistakes={
        "The spread and the distance come in as squares: a squared error is compared "
        "with a squared bias.": lambda: 4,
        "That is 2σ² without the distance, or with a distance of 0.5 somewhere: the "
        "means lie 1 apart, and pooling is off by half of that.": lambda: 16,
        "You compare σ²/n with the squared distance. Pooling saves half of the "
        "variance, and its bias is half of the distance.": lambda: 32,
    },
)
def _() -> float:
    return 8


lines(
    "which-idea",
    {
        "digit, size and ink from one picture, all of them wanted": "multi-task",
        "first speaking rate, then the digit, which is all that counts": "transfer",
        "digits 0 to 4, then without their data 5 to 9, asked for all ten": "continual",
        "labelled British voices, unlabelled Scottish ones that count": (
            "domain adaptation"
        ),
        "practise on many voices, so that two clips of a new one suffice": "meta",
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
        "Look again at “{line}”. Is what comes first a preparation for one known task, "
        "or practice for any next one?": confused("meta", "transfer"),
        "Look again at “{line}”. Do the earlier tasks count in the end, or are they "
        "practice for any next one?": confused("meta", "continual"),
        "Look again at “{line}”. Who made the labels of the first stage: somebody, or "
        "nobody?": confused("transfer", "self-supervised"),
        "Look again at “{line}”. What varies here: inputs, tasks, their order, or "
        "labels?": lambda line, given, right: True,
    },
)


@function(
    "break-even",
    inputs=lambda: [
        (whole(30, 100), whole(150, 500), real(0.5, 0.9)),
        (whole(150, 500), whole(30, 100), real(1.2, 2.5)),
        (whole(2, 9), whole(20, 50), 1.0),
        (n := whole(4, 90), n, real(0.5, 2.5)),
    ],
    differs="With {arguments}, both ways have the same error at a distance of "
    "{expected}, but yours is {yours}. Write down both squared errors, put them equal.",
    mistakes={
        "That is the squared distance. Take its root.": (
            lambda n1, n2, sigma: break_even(n1, n2, sigma) ** 2
        ),
        "Under the root stands the variance σ², so that σ itself is a factor in front "
        "of it.": (
            lambda n1, n2, sigma: break_even(n1, n2, sigma) * sigma,
            lambda n1, n2, sigma: break_even(n1, n2, sigma) / sqrt(sigma),
        ),
        "You have the pooled mean settle halfway. It settles at the share n₂ / (n₁ + "
        "n₂) of the way, which is half only where both have as many samples.": (
            lambda n1, n2, sigma: 2 * sigma * sqrt(1 / n1 - 1 / (n1 + n2))
        ),
        "That is for the mean of the two means. Pooled is the mean of all n₁ + n₂ "
        "numbers, in which the line with more of them weighs more.": (
            lambda n1, n2, sigma: sigma * sqrt(3 / n1 - 1 / n2)
        ),
        "That is the text's formula with n₁ for n, which holds where both have as many "
        "samples.": lambda n1, n2, sigma: sigma * sqrt(2 / n1),
        "That is the text's formula with n₁ + n₂ for n, which holds for n samples of "
        "each task.": lambda n1, n2, sigma: sigma * sqrt(2 / (n1 + n2)),
        "Twice too much under the root: with n₁ = n₂ = n the text has 2σ²/n there.": (
            lambda n1, n2, sigma: sqrt(2) * break_even(n1, n2, sigma)
        ),
    },
)
def break_even(n1: int, n2: int, sigma: float) -> float:
    return sigma * sqrt(1 / n1 + 1 / n2)


@function(
    "best-share",
    inputs=lambda: [
        (whole(2, 9), whole(20, 60), real(0.3, 0.9), real(0.6, 0.9)),
        (whole(20, 60), whole(2, 9), -real(0.3, 0.9), real(1.3, 2.5)),
        (n := whole(3, 30), n, real(1.2, 2.5), real(1.3, 2.5)),
        (whole(2, 9), whole(10, 20), 0.0, real(0.5, 2)),
    ],
    mistakes={
        "That is the share of the own mean. Asked for is that of the other.": (
            lambda n1, n2, apart, sigma: 1 - best_share(n1, n2, apart, sigma)
        ),
        "The other line has its own variance, σ²/n₂.": (
            lambda n1, n2, apart, sigma: (
                (sigma**2 / n1) / (2 * sigma**2 / n1 + apart**2)
            )
        ),
        "The variances have changed places: the worse the *own* mean is known, the "
        "larger the share of the other.": (
            lambda n1, n2, apart, sigma: (
                (sigma**2 / n2) / (sigma**2 / n1 + sigma**2 / n2 + apart**2)
            )
        ),
        "The distance counts as a square, like the variances beside it.": (
            lambda n1, n2, apart, sigma: (
                (sigma**2 / n1) / (sigma**2 / n1 + sigma**2 / n2 + abs(apart))
            ),
            lambda n1, n2, apart, sigma: (
                (sigma**2 / n1) / (sigma**2 / n1 + sigma**2 / n2 + apart)
            ),
        ),
        "A variance is σ² divided by the days, with the square.": (
            lambda n1, n2, apart, sigma: (
                (sigma / n1) / (sigma / n1 + sigma / n2 + apart**2)
            )
        ),
        "Half of the distance is the bias of pooling, where the share is a half. Here "
        "the bias is α times the whole distance.": (
            lambda n1, n2, apart, sigma: (
                (sigma**2 / n1) / (sigma**2 / n1 + sigma**2 / n2 + apart**2 / 4)
            )
        ),
        "With the distance left out it is pooling by numbers of days, as if both lines "
        "had the same mean.": lambda n1, n2, apart, sigma: n2 / (n1 + n2),
    },
)
def best_share(n1: int, n2: int, apart: float, sigma: float) -> float:
    own, other = sigma**2 / n1, sigma**2 / n2
    return own / (own + other + apart**2)


def _shared(v: float, apart: float) -> float:
    return v * (v + apart**2) / (2 * v + apart**2)


@function(
    "over-shrinking",
    inputs=lambda: [
        (real(0.8, 1.5), real(1.6, 2.4), whole(2, 6), real(0.7, 1.4)),
        (real(0.8, 1.5), 0.0, whole(2, 6), real(0.7, 1.4)),
        (-real(0.8, 1.5), real(0.8, 1.5), whole(3, 9), real(1.5, 2.5)),
        (real(2, 3), real(2, 3), whole(3, 9), real(1.5, 2.5)),
    ],
    tolerance=1e-3,
    mistakes={
        "The sign is turned: positive is where sharing leaves the smaller error.": (
            lambda own, other, n, sigma: -over_shrinking(own, other, n, sigma)
        ),
        "That is the gain over the mean alone, σ²/n. Compare with the best shrinking "
        "of it.": lambda own, other, n, sigma: (
            sigma**2 / n - _shared(sigma**2 / n, other - own)
        ),
        "You take a half of the other line. The best share of it is asked for.": (
            lambda own, other, n, sigma: (
                over_shrinking(own, other, n, sigma)
                + _shared(sigma**2 / n, other - own)
                - (sigma**2 / n / 2 + (other - own) ** 2 / 4)
            )
        ),
        "Right where the own mean is 1. The factor 0.8 was best for that; in general "
        "it is μ² / (μ² + σ²/n).": lambda own, other, n, sigma: (
            (v := sigma**2 / n) / (1 + v) ** 2
            + own**2 * (v / (1 + v)) ** 2
            - _shared(v, other - own)
        ),
        "Shrinking settles below the truth by (1 − s) times the own mean; its square "
        "belongs to the error.": lambda own, other, n, sigma: (
            (own**2 / (own**2 + sigma**2 / n)) ** 2 * sigma**2 / n
            - _shared(sigma**2 / n, other - own)
        ),
    },
)
def over_shrinking(own: float, other: float, n: int, sigma: float) -> float:
    v = sigma**2 / n
    return v * own**2 / (own**2 + v) - _shared(v, other - own)


def _counts() -> list[tuple[dict[str, dict[str, int]]]]:
    """Kinds of different size, balanced and not, one with a single answer."""
    return [
        (
            {
                "colour": {"red": whole(30, 60), "blue": whole(5, 20)},
                "count": {word: whole(1, 90) for word in ("zero", "one", "two")},
                "presence": {"yes": whole(200, 300)},
            },
        ),
        (
            {
                "place": {"left": whole(1, 9), "right": whole(10, 30), "top": 2},
                "count": {"two": whole(40, 80), "one": whole(40, 80)},
            },
        ),
        ({"size": {"large": whole(20, 40), "small": whole(3, 9)}},),
    ]


@function(
    "best-guess",
    inputs=_counts,
    mistakes={
        "You average over the kinds as if all were equally frequent. Count the "
        "questions: a kind that is asked more often weighs more.": (
            lambda counts: (
                sum(max(a.values()) / sum(a.values()) for a in counts.values())
                / len(counts)
            )
        ),
        "That is one answer for all questions. Who knows the kind gives each kind its "
        "own most frequent one.": (
            lambda counts: (
                max(n for a in counts.values() for n in a.values())
                / sum(n for a in counts.values() for n in a.values())
            )
        ),
        "One over the number of answers is right where all are equally frequent. Who "
        "has seen the counts names the most frequent one.": (
            lambda counts: (
                sum(sum(a.values()) / len(a) for a in counts.values())
                / sum(n for a in counts.values() for n in a.values())
            )
        ),
        "That is a number of questions; a share of all of them is asked for.": (
            lambda counts: sum(max(a.values()) for a in counts.values())
        ),
    },
)
def best_guess(counts: dict[str, dict[str, int]]) -> float:
    right = sum(max(answers.values()) for answers in counts.values())
    return right / sum(n for answers in counts.values() for n in answers.values())


def _estimate(
    own: Tensor, other: Tensor, sigma: float, noise: float, least: float = 0.0
) -> Tensor:
    v = sigma**2 / len(own)
    difference = other.mean() - own.mean()
    apart2 = (difference**2 - noise * v).clamp(min=least)
    return own.mean() + v / (2 * v + apart2) * difference


@function(
    "share-from-data",
    inputs=lambda: [
        (torch.randn(n), apart + torch.randn(n), sigma)
        for n, apart, sigma in (
            (4, 3.0, real(0.6, 0.9)),
            (9, -2.0, real(1.2, 1.6)),
            (25, 1.5, real(1.2, 1.6)),
            (16, 0.0, real(2.5, 3.5)),  # closer than the wobble: pool
            (3, 8.0, real(0.6, 0.9)),
        )
    ],
    tolerance=1e-3,
    mistakes={
        "Both means wobble, so the squared difference is too large by 2σ²/n, not by "
        "σ²/n.": lambda own, other, sigma: _estimate(own, other, sigma, 1),
        "You take the squared difference of the means for δ². It holds the wobble of "
        "both means as well: take 2σ²/n away.": (
            lambda own, other, sigma: _estimate(own, other, sigma, 0)
        ),
        "Where the means are closer than they wobble, your δ² is negative. Set it to "
        "zero there.": lambda own, other, sigma: _estimate(
            own, other, sigma, 2, -float("inf")
        ),
        "That is the pooled mean, whatever the samples say.": (
            lambda own, other, sigma: (own.mean() + other.mean()) / 2
        ),
        "The shares have changed places: α belongs to the other mean.": (
            lambda own, other, sigma: (
                own.mean() + other.mean() - _estimate(own, other, sigma, 2)
            )
        ),
    },
)
def estimate(own: Tensor, other: Tensor, sigma: float) -> Tensor:
    return _estimate(own, other, sigma, 2)
