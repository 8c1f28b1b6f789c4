"""The solvers against SciPy, the conditions of optimality, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from gramians import independent, jacobians, sizes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls, root

from mtmm_lib.balancing.solvers import inverse_power, nonnegative_least_squares

quick = settings(max_examples=60, deadline=None, derandomize=True)


@quick
@given(jacobians(), st.integers(0, 10**6))
def test_nonnegative_least_squares_meets_the_conditions_of_optimality(jacobian, seed):
    target = np.random.default_rng(seed).standard_normal(jacobian.shape[1])
    gramian, b, n = jacobian @ jacobian.T, jacobian @ target, sizes(jacobian)
    v = nonnegative_least_squares(gramian, b)
    # In units of each gradient's length, in which the trace is the number of gradients.
    slack, v = (gramian @ v - b) / n, v * n
    assert (v >= 0).all()
    assert slack.min() >= -1e-9 * len(v)
    assert np.abs(slack * v).max() <= 1e-9 * len(v) * max(1, v.max())
    # And it is as good as what SciPy finds.
    unit = (jacobian / n[:, None]).T
    assert np.square(unit @ v - target).sum() <= nnls(unit, target)[1] ** 2 + 1e-9


@quick
@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(0, 12))
def test_nonnegative_least_squares_with_matrices_that_are_nearly_singular(
    size, seed, decades
):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    matrix = basis * 10 ** -np.linspace(0, decades, size) @ basis.T
    b = matrix @ rng.standard_normal(size)
    v = nonnegative_least_squares(matrix, b)
    slack = matrix @ v - b
    trace = np.trace(matrix)
    assert (
        (v >= 0).all()
        and slack.min() >= -1e-9 * trace
        and np.abs(slack * v).max() <= 1e-9 * trace * max(1, v.max())
    )


def test_nonnegative_least_squares_by_hand():
    identity = np.eye(3)
    assert nonnegative_least_squares(identity, np.array([2.0, -1, 0])) == pytest.approx(
        [2, 0, 0]
    )
    assert nonnegative_least_squares(identity, -np.ones(3)) == pytest.approx([0, 0, 0])
    # Two equal columns: any split of the weight is a solution.
    assert nonnegative_least_squares(
        np.ones((2, 2)), np.ones(2)
    ).sum() == pytest.approx(1)


@quick
@given(
    jacobians(awkward=False, dims=st.just(16)),
    st.sampled_from([0.2, 0.5, 1.0, 2.0, 5.0]),
)
def test_inverse_power_solves_its_equation(jacobian, power):
    gramian = jacobian @ jacobian.T
    w = inverse_power(gramian, power)
    assert (w > 0).all()
    # To rounding: relative to the terms that are added up on the left.
    assert (np.abs(gramian @ w - w**-power) <= 1e-9 * (np.abs(gramian) @ w)).all()


@quick
@given(
    jacobians(awkward=False, tasks=st.integers(1, 5), dims=st.just(16)),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_inverse_power_against_scipy(jacobian, power):
    jacobian = jacobian / sizes(jacobian)[:, None]
    assume(independent(jacobian, 0.2))
    gramian = jacobian @ jacobian.T
    # In logarithms, so that SciPy stays where the weights are positive.
    found = root(
        lambda u: gramian @ np.exp(u) - np.exp(-power * u),
        np.zeros(len(gramian)),
        tol=1e-13,
    )
    assume(found.success)
    assert inverse_power(gramian, power) == pytest.approx(np.exp(found.x), rel=1e-6)


@quick
@given(st.floats(-12, 12), st.floats(0.2, 5))
def test_inverse_power_of_one_task(decades, power):
    square = 10**decades
    assert inverse_power(np.array([[square]]), power) == pytest.approx(
        [square ** (-1 / (1 + power))]
    )


def test_where_there_is_no_solution_the_weights_are_large_and_the_combination_small():
    jacobian = np.array([[1.0, 0], [-1.0, 0], [0, 1]])
    w = inverse_power(jacobian @ jacobian.T, 1.0)
    assert np.isfinite(w).all() and w[:2].min() > 1e4
    assert w @ jacobian == pytest.approx([0, 1], abs=1e-4)
