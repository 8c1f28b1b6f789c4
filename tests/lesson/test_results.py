"""Measured results: the rules that judge them, and their text."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtmm_lib.results import Bound, Gain, at_least, at_most, between, number

finite = st.floats(-1e6, 1e6)
gains = st.builds(Gain, mean=finite, se=st.floats(0, 1e6), n=st.integers(2, 100))


@given(st.lists(finite, min_size=2, max_size=30))
def test_gain_of_is_the_mean_and_its_standard_error(differences: list[float]) -> None:
    gain = Gain.of(differences, "points")
    assert math.isclose(gain.mean, np.mean(differences), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(
        gain.se,
        np.std(differences, ddof=1) / len(differences) ** 0.5,
        rel_tol=1e-6,
        abs_tol=1e-6,
    )
    assert (gain.n, gain.unit) == (len(differences), "points")


@given(
    st.lists(finite, min_size=2, max_size=30),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_splits_of_one_pool_have_the_error_of_nadeau_and_bengio(
    differences: list[float], n_train: int, n_test: int
) -> None:
    n = len(differences)
    plain = Gain.of(differences)
    gain = Gain.of(differences, "points", pool=(n_train, n_test))
    s = plain.se * n**0.5
    assert math.isclose(gain.se, s * (1 / n + n_test / n_train) ** 0.5)
    assert (gain.mean, gain.n, gain.unit) == (plain.mean, n, "points")
    assert gain.speaks_of == "population" and plain.speaks_of == "draws"
    here = gain.above(1.0).of_this_pool()
    assert math.isclose(here.se, plain.se) and here.speaks_of == "pool"
    assert (here.bound, here.pool) == (1.0, (n_train, n_test))
    assert here.of_this_pool() == here


def test_the_text_says_which_error_it_is() -> None:
    gain = Gain.of([1.0, 2.0, 3.0, 2.0], "points", pool=(1000, 500))
    assert gain.text == (
        "+2.00 ± 0.71 points (4 splits of one pool, error for new data): above 0 by "
        "2.8 standard errors"
    )
    assert gain.of_this_pool().text == (
        "+2.00 ± 0.41 points (4 splits of one pool, error for this pool): above 0 by "
        "4.9 standard errors"
    )


@pytest.mark.parametrize("pool", [(1000,), (0, 5), (5, -1), (0.7, 0.3), 1000, "ab"])
def test_a_pool_is_two_numbers_of_samples(pool: object) -> None:
    with pytest.raises(ValueError, match=r"pool is \(n_train, n_test\)"):
        Gain.of([1.0, 2.0], pool=pool)
    with pytest.raises(ValueError, match="pool is"):
        Gain(1.0, 1.0, 2, pool=pool, speaks_of="population")


def test_only_splits_of_a_pool_speak_of_it() -> None:
    with pytest.raises(ValueError, match="only a gain over splits of one pool"):
        Gain.of([1.0, 2.0]).of_this_pool()
    with pytest.raises(ValueError, match="'draws' does not go with pool"):
        Gain(1.0, 1.0, 2, pool=(10, 5))


def test_gain_of_takes_tensors_and_arrays() -> None:
    assert (
        Gain.of(torch.tensor([1.0, 2.0, 4.0]))
        == Gain.of(np.array([1.0, 2.0, 4.0]))
        == Gain.of([1, 2, 4])
    )


@given(gains, finite)
def test_below_mirrors_above(gain: Gain, bound: float) -> None:
    mirrored = Gain(-gain.mean, gain.se, gain.n)
    assert gain.above(bound).holds == mirrored.below(-bound).holds
    assert not (gain.above(bound).holds and gain.below(bound).holds)


@given(gains, st.floats(0, 1e6))
def test_undecided_is_what_is_neither_clearly_above_nor_below(
    gain: Gain, margin: float
) -> None:
    clearly = gain.above(margin).holds or gain.below(-margin).holds
    assert gain.undecided(margin).holds == (not clearly)
    if gain.within(margin).holds:
        assert gain.undecided(margin).holds
        assert gain.above(-margin).holds and gain.below(margin).holds


@given(gains)
def test_more_spread_never_makes_a_claim_hold(gain: Gain) -> None:
    wider = Gain(gain.mean, gain.se + 1, gain.n)
    for claimed, weaker in (
        (gain.above(), wider.above()),
        (gain.within(5), wider.within(5)),
    ):
        assert claimed.holds or not weaker.holds


def test_two_standard_errors_seldom_hold_without_an_effect() -> None:
    """Of ten pairs, t with nine degrees of freedom exceeds 2 in 3.8 % of the cases."""
    noise = np.random.default_rng(0).normal(size=(4000, 10))
    assert 0.03 < np.mean([Gain.of(row).holds for row in noise]) < 0.047


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (
            Gain(5.034, 0.411, 10, "points"),
            "+5.03 ± 0.41 points (10 pairs): above 0 by 12.2 standard errors",
        ),
        (
            Gain(-3.9, 0.5, 20, "%").below(-1),
            "−3.90 ± 0.50% (20 pairs): below −1% by 5.8 standard errors",
        ),
        (Gain(-3.9, 0.5, 20, "%"), "−3.90 ± 0.50% (20 pairs): not above 0"),
        (
            Gain(0.1, 0.2, 12).within(1),
            "+0.10 ± 0.20 (12 pairs): within ±1 by two standard errors",
        ),
        (
            Gain(0.1, 2, 12).within(1),
            "+0.1 ± 2.0 (12 pairs): not within ±1 by two standard errors",
        ),
        (
            Gain(0.1, 2, 12).undecided(),
            "+0.1 ± 2.0 (12 pairs): no difference shown either way",
        ),
        (
            Gain(9, 2, 12).undecided(1),
            "+9.0 ± 2.0 (12 pairs): beyond ±1 by two standard errors",
        ),
        (Gain(2, 0, 10), "+2.000 ± 0.000 (10 pairs): above 0 without any spread"),
        (
            Gain(1500, 120, 10),
            "+1,500 ± 120 (10 pairs): above 0 by 12.5 standard errors",
        ),
    ],
)
def test_the_text_of_a_gain_says_what_was_measured_and_claimed(
    gain: Gain, text: str
) -> None:
    assert gain.text == text


def test_above_that_is_significant_the_wrong_way_says_so() -> None:
    assert Gain(0.5, 0.4, 10).text.endswith(
        "above 0 by 1.2 standard errors, two are needed"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (math.nan, 1, 10),
        (1, math.nan, 10),
        (1, -1, 10),
        (math.inf, 1, 10),
        (1, 1, 1),
        (1, 1, 0),
    ],
)
def test_a_gain_that_measures_nothing_is_refused(arguments) -> None:
    with pytest.raises(ValueError, match="a Gain needs"):
        Gain(*arguments)
    with pytest.raises(ValueError, match="at least 2"):
        Gain.of([1.0])
    with pytest.raises(ValueError, match="margin"):
        Gain(1, 1, 10).within(-1)


@given(finite, finite, finite)
def test_bounds_include_their_ends(value: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert at_least(value, low).holds == (value >= low)
    assert at_most(value, high).holds == (value <= high)
    assert between(value, low, high).holds == (
        at_least(value, low).holds and at_most(value, high).holds
    )
    assert at_least(low, low).holds and at_most(high, high).holds


def test_the_text_of_a_bound() -> None:
    assert at_most(0.1234, 0.5, "s").text == "0.123 s: at most 0.5 s"
    assert at_least(0.1, 0.5, "s").text == "0.1 s: not at least 0.5 s"
    assert between(12, 10, 20, "%").text == "12%: between 10% and 20%"


def test_a_bound_that_cannot_fail_is_refused() -> None:
    for arguments in ((1.0,), (math.nan, 0, 1), (1, 2, 0), (1, math.nan, 2)):
        with pytest.raises(ValueError, match="a Bound needs"):
            Bound(*arguments)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (-2.5, "−2.5"),
        (99.96, "100"),
        (1e9, "1e+09"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
