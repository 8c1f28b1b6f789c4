"""Typical mistakes in the exercises of chapter 02: a part of the hint each must get,
and its code."""

_PLANS = """
answer = {{
    "digit, size and ink from one picture, all of them wanted": "{0}",
    "first speaking rate, then from there the digit, all that is wanted": "{1}",
    "digits 0 to 4, then without their data 5 to 9, examined on all ten": "{2}",
    "labelled British voices, Scottish ones without labels, examined on "
    "Scottish": "{3}",
    "many voices in turn, so that two clips of a new one suffice": "{4}",
    "fill in the hidden half of a picture, keep the features": "self-supervised",
}}
"""

MISTAKES = {
    "which-idea": {
        "examines the first thing again": _PLANS.format(
            "multi-task", "continual", "transfer", "domain adaptation", "meta"
        ),
        "Count the kinds of input": _PLANS.format(
            "multi-modal", "transfer", "continual", "domain adaptation", "meta"
        ),
        "Does the question change": _PLANS.format(
            "multi-task", "transfer", "continual", "transfer", "meta"
        ),
        "is not one of the answers": _PLANS.format(
            "multi-task", "transfer", "continual", "domain adaptation", "meta-learning"
        ),
    },
    "break-even": {
        "is a standard deviation": """
def break_even(n1, n2, dim, noise):
    return 1 - noise * dim * (1 / n1 + 1 / n2) / 2
""",
        "the bias is not half the difference": """
def break_even(n1, n2, dim, noise):
    return 1 - 2 * noise**2 * dim * (1 / n1 - 1 / (n1 + n2))
""",
        "for equal numbers of samples": """
def break_even(n1, n2, dim, noise):
    return 1 - noise**2 * dim / n1
""",
        "compares with the variance of all samples": """
def break_even(n1, n2, dim, noise):
    return 1 - noise**2 * dim / (n1 + n2)
""",
    },
    "relative-gain": {
        "percent were asked for": """
def relative_gain(results, baseline, higher_is_better):
    gains = [
        (1 if higher else -1) * (results[t] - baseline[t]) / abs(baseline[t])
        for t, higher in higher_is_better.items()
    ]
    return sum(gains) / len(gains)
""",
        "Divide by the number of tasks": """
def relative_gain(results, baseline, higher_is_better):
    gains = [
        (1 if higher else -1) * (results[t] - baseline[t]) / abs(baseline[t])
        for t, higher in higher_is_better.items()
    ]
    return 100 * sum(gains)
""",
        "its sign has to turn": """
def relative_gain(results, baseline, higher_is_better):
    gains = [(results[t] - baseline[t]) / abs(baseline[t]) for t in higher_is_better]
    return 100 * sum(gains) / len(gains)
""",
        "Divide by the baseline": """
def relative_gain(results, baseline, higher_is_better):
    gains = [
        (1 if higher else -1) * (results[t] - baseline[t]) / abs(results[t])
        for t, higher in higher_is_better.items()
    ]
    return 100 * sum(gains) / len(gains)
""",
        "unless you divide by the absolute value": """
def relative_gain(results, baseline, higher_is_better):
    gains = [
        (1 if higher else -1) * (results[t] - baseline[t]) / baseline[t]
        for t, higher in higher_is_better.items()
    ]
    return 100 * sum(gains) / len(gains)
""",
    },
    "best-of-k": {
        "the mean of the k best runs": """
def expected_best(scores, k):
    return sum(sorted(scores)[-k:]) / k
""",
        "the same run be picked twice": """
def expected_best(scores, k):
    n = len(scores)
    ranked = enumerate(sorted(scores), 1)
    return sum(s * ((i / n) ** k - ((i - 1) / n) ** k) for i, s in ranked)
""",
        "the best of all n runs": """
def expected_best(scores, k):
    return max(scores)
""",
    },
    "how-many-seeds": {
        "round up": """
from statistics import stdev


def seeds_needed(pilot, effect, errors=6):
    return int((errors * stdev(pilot) / effect) ** 2)
""",
        "n grows with the square": """
from math import ceil
from statistics import stdev


def seeds_needed(pilot, effect, errors=6):
    return ceil(errors * stdev(pilot) / abs(effect))
""",
        "standard error of the pilot": """
from math import ceil
from statistics import stdev


def seeds_needed(pilot, effect, errors=6):
    return ceil((errors * stdev(pilot) / len(pilot) ** 0.5 / effect) ** 2)
""",
        "n − 1 below the line": """
from math import ceil
from statistics import pstdev


def seeds_needed(pilot, effect, errors=6):
    return ceil((errors * pstdev(pilot) / effect) ** 2)
""",
        "six standard errors are asked for": """
from math import ceil
from statistics import stdev


def seeds_needed(pilot, effect, errors=2):
    return ceil((errors * stdev(pilot) / effect) ** 2)
""",
    },
}
