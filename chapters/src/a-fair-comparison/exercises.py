"""Exercises of the lesson "A fair comparison"."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import ceil, sqrt
from statistics import fmean, pstdev, stdev

from mtmm_lib.lesson.exercises import function, lines, real


@function(
    "error-by-hand",
    tolerance=5e-3,
    mistakes={
        "That divides by the standard deviation of the differences. Their mean "
        "scatters less: divide that by √4 first.": lambda: 5 / sqrt(2 / 3),
        "Estimate the standard deviation with n − 1 = 3 below the line.": (
            lambda: 5 / sqrt(2 / 4) * 2
        ),
        "Take the root of the variance before you divide by √4.": (
            lambda: 5 / (2 / 3) * 2
        ),
        "0.41 is the standard error. How often does it go into the mean?": (
            lambda: sqrt(2 / 3) / 2
        ),
    },
)
def _() -> float:
    return 5 / sqrt(2 / 3) * 2


lines(
    "which-suspect",
    {
        "the probe reads what any random network passes on": "untrained",
        "only the clips in the batches have changed": "same batches",
        "the baseline runs at a default learning rate": "equal tuning",
        "the epoch was chosen where the result was measured": "other data",
    },
    words=("same batches", "untrained", "equal tuning", "other data"),
    mistakes={
        "“{line}”: more or other tuning leaves the suspect where it is. What has to be "
        "taken away, and nothing else?": (
            lambda line, given, right: given == "equal tuning"
        ),
        "“{line}”: a fresh test part tells whether a number is inflated. Here the "
        "number may be right and its explanation wrong.": (
            lambda line, given, right: (
                given == "other data" and right in ("same batches", "untrained")
            )
        ),
        "“{line}”: fresh data would measure the unequal contest once more.": (
            lambda line, given, right: given == "other data"
        ),
        "“{line}”: what does the network before training have to do with it? Only a "
        "question of what was *learned* is settled there.": (
            lambda line, given, right: given == "untrained"
        ),
        "“{line}”: both sides may see the same batches already. What else differs?": (
            lambda line, given, right: given == "same batches"
        ),
    },
)


def _scores() -> list[tuple[list[float], list[float]]]:
    """Two columns whose rows are easy or hard for both."""
    cases = []
    for n, gain in ((4, 2.0), (7, -1.0), (12, 0.5), (5, 3.0)):
        old = [real(60, 95) for _ in range(n)]
        new = [round(each + gain + real(-1.5, 1.5), 3) for each in old]
        cases.append((new, old))
    return cases


def _paired(deviation: Callable[[list[float]], float], root: bool = True) -> object:
    def answer(new: list[float], old: list[float]) -> float:
        d = [a - b for a, b in zip(new, old, strict=True)]
        return fmean(d) / deviation(d) * (sqrt(len(d)) if root else 1)

    return answer


@function(
    "paired-error",
    inputs=_scores,
    tolerance=1e-3,
    mistakes={
        "You compare two columns that have nothing to do with each other. Take the "
        "difference split by split first.": lambda new, old: (
            (fmean(new) - fmean(old))
            / sqrt((stdev(new) ** 2 + stdev(old) ** 2) / len(new))
        ),
        "Estimate the standard deviation with n − 1 below the line.": _paired(pstdev),
        "That divides by the standard deviation. The mean of n differences scatters "
        "less than one of them, by √n.": _paired(stdev, root=False),
        "The sign is turned: positive where `new` has more.": (
            lambda new, old: paired_error(old, new)
        ),
        "That is the standard error itself. How often does it go into the mean?": (
            lambda new, old: (
                stdev([a - b for a, b in zip(new, old, strict=True)]) / sqrt(len(new))
            )
        ),
    },
)
def paired_error(new: list[float], old: list[float]) -> float:
    d = [a - b for a, b in zip(new, old, strict=True)]
    return fmean(d) / stdev(d) * sqrt(len(d))


def _differences(n: int, size: float) -> list[float]:
    """Whose mean is so many plain standard errors above zero."""
    raw = [real(-1, 1) for _ in range(n)]
    middle, unit = fmean(raw), stdev(raw) / sqrt(n)
    return [each - middle + size * unit for each in raw]


def _ruled(correction: Callable[[int, int, int], float], errors: float = 2) -> object:
    def answer(differences: list[float], n_train: int, n_test: int) -> str:
        mean, s, n = fmean(differences), stdev(differences), len(differences)
        if mean > errors * s * sqrt(correction(n, n_train, n_test)):
            return "new data"
        return "this pool" if mean > errors * s / sqrt(n) else "open"

    return answer


def _either_sign(differences: list[float], n_train: int, n_test: int) -> str:
    sign = 1 if fmean(differences) > 0 else -1
    return verdict([sign * each for each in differences], n_train, n_test)


@function(
    "split-error",
    # plain errors above zero, and what the corrected error is in plain ones
    inputs=lambda: [
        (_differences(10, 8.0), 200, 100),  # 2.4: new data
        (_differences(10, 3.5), 200, 100),  # 2.4: this pool
        (_differences(10, 1.5), 200, 100),  # 2.4: open
        (_differences(10, 3.5), 900, 100),  # 1.5: new data
        (_differences(10, 3.5), 900, 600),  # 2.8: this pool
        (_differences(10, -9.0), 200, 100),  # open: the old one is better
        (_differences(40, 8.0), 200, 100),  # 4.6: this pool
        (_differences(5, 2.4), 1000, 10),  # 1.02: new data
        (_differences(5, 2.4), 300, 150),  # 1.9: this pool
        (_differences(20, 6.2), 300, 200),  # 3.8: this pool, wrongly divided 2.4
    ],
    mistakes={
        "You divide the training samples by the test samples. It is the other way "
        "round: a large test part makes splits alike.": _ruled(
            lambda n, n_train, n_test: 1 / n + n_train / n_test
        ),
        "Below the line stand the training samples, not all of them.": _ruled(
            lambda n, n_train, n_test: 1 / n + n_test / (n_train + n_test)
        ),
        "That is one standard error. Two are asked for.": _ruled(
            lambda n, n_train, n_test: 1 / n + n_test / n_train, errors=1
        ),
        "A mean below zero is not above it, however far: asked is whether the gain is "
        "above zero.": _either_sign,
        "n_test / n_train stands beside 1/n under the root, and it is not divided by n "
        "itself.": _ruled(lambda n, n_train, n_test: (1 + n_test / n_train) / n),
        "That looks at the plain error alone, which says nothing of new data.": _ruled(
            lambda n, n_train, n_test: 1 / n
        ),
    },
)
def verdict(differences: list[float], n_train: int, n_test: int) -> str:
    mean, s, n = fmean(differences), stdev(differences), len(differences)
    if mean > 2 * s * sqrt(1 / n + n_test / n_train):
        return "new data"
    return "this pool" if mean > 2 * s / sqrt(n) else "open"


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
