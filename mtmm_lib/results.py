r"""Measured results that say what they claim: a paired `Gain`, or a number with the
`Bound` it must keep.

Both are what a lesson's `claim` accepts. Each knows its relation, whether it `holds`,
and its own text, so that a number never stands in a claim without the rule that judges
it. The rule for everything measured over seeds is two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

STANDARD_ERRORS = 2.0

Relation = Literal["above", "below", "within", "undecided"]
Scope = Literal["draws", "population", "pool"]

#: What an error stands for where the draws were splits of one pool.
_ERRORS = {"population": "error for new data", "pool": "error for this pool"}


def number(value: float, *, sign: bool = False) -> str:
    """A number with three significant digits, thousands separated, and a true minus
    sign."""
    size = abs(value)
    if not math.isfinite(size) or size >= 1e7 or 0 < size < 1e-4:
        text = f"{value:+.3g}" if sign else f"{value:.3g}"
    else:
        digits = max(0, 2 - math.floor(math.log10(size))) if size else 0
        text = f"{round(value, digits):{'+' if sign else ''},.{digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−").replace("inf", "∞")


def _join(value: str, unit: str) -> str:
    return f"{value} {unit}" if unit and unit != "%" else value + unit


@dataclass(frozen=True)
class Gain:
    r"""The mean of n paired differences with its standard error, and what it is claimed
    to be.

    With $d_i = a_i - b_i$ for the i-th seed: mean $\bar d$ and standard error
    $s_d/\sqrt n$, which counts the $d_i$ as independent. As it comes it claims to be
    above zero; `above`, `below`, `within` and `undecided` return it with another claim.

    Draws that split one pool of data share samples, so that their mean is less certain
    than $s_d/\sqrt n$ says. The corrected error of Nadeau & Bengio (2003),

    \[ s_d \sqrt{\frac1n + \frac{n_\text{test}}{n_\text{train}}} , \]

    speaks of new data from the same population. The plain one speaks of this pool
    alone: of what further splits of it would give. The text says which of them it is.

    Args:
        mean: the mean difference, in `unit`.
        se: its standard error, in `unit`.
        n: the number of pairs, at least 2.
        unit: as in "points" or "%".
        relation, bound: the claim; set by the methods.
        pool: (n_train, n_test), the samples that each split of one pool set aside for
            training and for the test; `None` for independent draws.
        speaks_of: what the error is for: more of such independent `"draws"`, the
            `"population"` that a pool comes from, or the `"pool"` itself.

    Raises:
        ValueError: when a number is not finite, `se` is negative or n is below 2; for a
            pool without two positive sizes.
    """

    mean: float
    se: float
    n: int
    unit: str = ""
    relation: Relation = "above"
    bound: float = 0.0
    pool: tuple[int, int] | None = None
    speaks_of: Scope = "draws"

    def __post_init__(self) -> None:
        for name in ("mean", "se", "bound"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not all(map(math.isfinite, (self.mean, self.se, self.bound))) or self.se < 0:
            raise ValueError(
                "a Gain needs a finite mean and a standard error ≥ 0, got "
                f"{self.mean} and {self.se}"
            )
        if self.n < 2:
            raise ValueError(
                "a Gain needs at least 2 pairs to have a standard error, got "
                f"n={self.n}"
            )
        if self.relation in ("within", "undecided") and self.bound < 0:
            raise ValueError(f"a margin has to be ≥ 0, got {self.bound}")
        if (self.pool is None) != (self.speaks_of == "draws"):
            raise ValueError(
                f"an error that speaks of {self.speaks_of!r} does not go with "
                f"pool={self.pool}"
            )
        if self.pool is not None:
            _overlap(self.pool)
            train, test = self.pool
            object.__setattr__(self, "pool", (int(train), int(test)))

    @classmethod
    def of(
        cls,
        differences: Iterable[float],
        unit: str = "",
        *,
        pool: tuple[int, int] | None = None,
    ) -> Gain:
        """From paired differences, one per seed: an array, a tensor or a list of n
        numbers. With `pool`, the (n_train, n_test) of splits of one pool, with the
        corrected error, which speaks of new data."""
        values = [float(value) for value in differences]
        n = len(values)
        if n < 2:
            raise ValueError(f"Gain.of needs at least 2 paired differences, got {n}")
        mean = math.fsum(values) / n
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        if pool is None:
            return cls(mean, math.sqrt(variance / n), n, unit)
        se = math.sqrt(variance * (1 / n + _overlap(pool)))
        return cls(mean, se, n, unit, pool=pool, speaks_of="population")

    def of_this_pool(self) -> Gain:
        r"""Claimed of this pool of data alone, with the plain error $s_d/\sqrt n$.

        Raises:
            ValueError: when it is not known to come from splits of one pool.
        """
        if self.pool is None:
            raise ValueError(
                "only a gain over splits of one pool can speak of that pool; say "
                "pool=(n_train, n_test) where it is computed"
            )
        if self.speaks_of == "pool":
            return self
        se = self.se / math.sqrt(1 + self.n * _overlap(self.pool))
        return replace(self, se=se, speaks_of="pool")

    def above(self, bound: float = 0.0) -> Gain:
        """Claimed to exceed `bound` by two standard errors."""
        return replace(self, relation="above", bound=bound)

    def below(self, bound: float = 0.0) -> Gain:
        """Claimed to fall short of `bound` by two standard errors."""
        return replace(self, relation="below", bound=bound)

    def within(self, margin: float) -> Gain:
        """Claimed to be equivalent to zero: mean ± two standard errors lies inside ±
        `margin`."""
        return replace(self, relation="within", bound=margin)

    def undecided(self, margin: float = 0.0) -> Gain:
        """Claimed to be open: not beyond `margin` by two standard errors in either
        direction."""
        return replace(self, relation="undecided", bound=margin)

    @property
    def holds(self) -> bool:
        """Whether the measurement bears the claim out."""
        reach = STANDARD_ERRORS * self.se
        if self.relation == "above":
            return self.mean - self.bound > reach
        if self.relation == "below":
            return self.bound - self.mean > reach
        if self.relation == "within":
            return abs(self.mean) + reach < self.bound
        return abs(self.mean) - reach <= self.bound

    @property
    def size(self) -> str:
        """The mean without its sign, as exact as its error allows: "5.0 points"."""
        digits = max(0, -math.floor(math.log10(self.se))) if self.se else 3
        return _join(f"{abs(self.mean):,.{digits}f}", self.unit)

    @property
    def text(self) -> str:
        """As in "+5.03 ± 0.41 points (10 pairs): above 0 by 12.3 standard errors"."""
        digits = max(0, 1 - math.floor(math.log10(self.se))) if self.se else 3
        measured = f"{self.mean:+,.{digits}f} ± {self.se:,.{digits}f}".replace("-", "−")
        measured = _join(measured, self.unit)
        margin = _join(f"±{number(self.bound)}", self.unit)
        if self.relation in ("above", "below"):
            gap = (self.mean - self.bound) * (1 if self.relation == "above" else -1)
            bound = _join(number(self.bound), self.unit) if self.bound else "0"
            size = (
                f"by {gap / self.se:.1f} standard errors"
                if self.se
                else "without any spread"
            )
            rule = (
                f"{self.relation} {bound} {size}"
                if gap > 0
                else f"not {self.relation} {bound}"
            )
            rule += ", two are needed" if gap > 0 and not self.holds else ""
        elif self.relation == "within":
            rule = (
                f"{'' if self.holds else 'not '}within {margin} by two standard errors"
            )
        else:
            open_ = f"no difference beyond {margin}" if self.bound else "no difference"
            rule = (
                f"{open_} shown either way"
                if self.holds
                else f"beyond {margin} by two standard errors"
            )
        pairs = f"{self.n} pairs"
        if self.pool is not None:
            pairs = f"{self.n} splits of one pool, {_ERRORS[self.speaks_of]}"
        return f"{measured} ({pairs}): {rule}"


def _overlap(pool: tuple[int, int]) -> float:
    """n_test / n_train: what the samples that splits of one pool have in common add to
    the variance of their mean, in units of the variance of one."""
    if (
        not isinstance(pool, Sequence)
        or len(pool) != 2
        or not all(isinstance(size, Integral) and size >= 1 for size in pool)
    ):
        raise ValueError(
            "pool is (n_train, n_test), the numbers of samples that each split sets "
            f"aside for training and for the test, got {pool!r}"
        )
    return pool[1] / pool[0]


@dataclass(frozen=True)
class Bound:
    """A computed number and the interval it must keep, ends included: `at_least`,
    `at_most`, `between`.

    Raises:
        ValueError: when the value is NaN, no finite end is given, or the ends are
            crossed.
    """

    value: float
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if math.isnan(self.value) or not self.low <= self.high:
            raise ValueError(
                f"a Bound needs a number and low ≤ high, got {self.value} in "
                f"[{self.low}, {self.high}]"
            )
        if math.isinf(self.low) and math.isinf(self.high):
            raise ValueError(
                "a Bound needs a finite low or high: without one it cannot fail"
            )

    @property
    def holds(self) -> bool:
        """Whether the value lies in the interval."""
        return self.low <= self.value <= self.high

    @property
    def size(self) -> str:
        """The value without its sign, as in "0.12 s"."""
        return _join(number(abs(self.value)), self.unit)

    @property
    def text(self) -> str:
        """As in "0.12 s: at most 0.5 s"."""
        low, high = (_join(number(end), self.unit) for end in (self.low, self.high))
        if math.isinf(self.high):
            rule = f"at least {low}"
        elif math.isinf(self.low):
            rule = f"at most {high}"
        else:
            rule = f"between {low} and {high}"
        return (
            f"{_join(number(self.value), self.unit)}: "
            f"{'' if self.holds else 'not '}{rule}"
        )


def at_least(value: float, bound: float, unit: str = "") -> Bound:
    """The value is claimed to be `bound` or more."""
    return Bound(value, low=bound, unit=unit)


def at_most(value: float, bound: float, unit: str = "") -> Bound:
    """The value is claimed to be `bound` or less."""
    return Bound(value, high=bound, unit=unit)


def between(value: float, low: float, high: float, unit: str = "") -> Bound:
    """The value is claimed to lie in [`low`, `high`]."""
    return Bound(value, low, high, unit)
