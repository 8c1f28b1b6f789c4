"""Weightings against closed forms, identities between methods, conditions of
optimality, and properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gramians import independent, jacobians, sizes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mtmm_lib.balancing import weightings
from mtmm_lib.balancing.weightings import (
    aligned_mtl,
    cagrad,
    equal_norms,
    fair_grad,
    imtl_g,
    mean,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)
every = pytest.mark.parametrize(
    "weighting", weightings.ALL.values(), ids=weightings.ALL
)
two, many = st.just(2), st.integers(1, 8)


def direction(weighting, jacobian, **options):
    return weighting(jacobian @ jacobian.T, **options) @ jacobian


def close(a, b, jacobian, tolerance=1e-7):
    """Equal to rounding, as far as the lengths of what was added up allow."""
    return np.abs(a - b).max() <= tolerance * max(
        np.linalg.norm(a), np.linalg.norm(b), sizes(jacobian).min()
    )


# --- all of them ----------------------------------------------------------------------


def test_all_lists_every_weighting_under_its_name():
    assert list(weightings.ALL) == (
        (
            "mean mgda pcgrad cagrad imtl_g nash_mtl fair_grad aligned_mtl upgrad "
            "equal_norms"
        ).split()
    )
    assert all(name == function.__name__ for name, function in weightings.ALL.items())


@every
@quick
@given(jacobians())
def test_weights_are_finite_whatever_the_gradients(weighting, jacobian):
    weights = weighting(jacobian @ jacobian.T)
    assert weights.shape == (len(jacobian),) and weights.dtype == np.float64
    assert np.isfinite(weights).all()


@every
def test_gradients_that_are_all_zero(weighting):
    assert np.isfinite(weighting(np.zeros((3, 3)))).all()


@every
@pytest.mark.parametrize(
    "bad", [np.ones((2, 3)), np.ones(2), np.zeros((0, 0)), np.array([[np.nan]])]
)
def test_what_is_no_gramian_is_refused(weighting, bad):
    with pytest.raises(ValueError, match="Gramian"):
        weighting(bad)


@every
@quick
@given(jacobians(awkward=False, dims=st.just(16)), st.randoms())
def test_the_order_of_the_tasks_does_not_matter(weighting, jacobian, random):
    assume(
        independent(jacobian, 0.05) and (weighting is not pcgrad or len(jacobian) < 3)
    )
    order = list(range(len(jacobian)))
    random.shuffle(order)
    weights, permuted = (weighting(j @ j.T) for j in (jacobian, jacobian[order]))
    if weighting is aligned_mtl:
        # which directions it keeps is a matter of rounding when they are that short
        assume(sizes(jacobian).max() / sizes(jacobian).min() < 1e6)
    assert close(weights @ jacobian, permuted @ jacobian[order], jacobian, 1e-5)


@every
@quick
@given(st.floats(-6, 6))
def test_multiplying_all_gradients_scales_the_direction_as_documented(
    weighting, decades
):
    jacobian, scale = np.array([[-4.0, 1, 1], [6, 1, 1]]), 10**decades
    # (1 - α) / (1 + α), α = 2
    growth = {nash_mtl: 0.0, fair_grad: -1 / 3}.get(weighting, 1.0)
    scaled = direction(weighting, scale * jacobian)
    expected = scale**growth * direction(weighting, jacobian)
    assert scaled == pytest.approx(
        expected, rel=1e-6, abs=1e-9 * np.abs(expected).max()
    )


@quick
@given(jacobians(awkward=False, dims=st.just(16)), st.integers(0, 10**6))
def test_the_direction_of_nash_and_imtl_does_not_depend_on_the_units_of_any_loss(
    jacobian, seed
):
    assume(independent(jacobian, 0.05))
    units = 10 ** np.random.default_rng(seed).uniform(-6, 6, (len(jacobian), 1))
    a, b = direction(nash_mtl, jacobian), direction(nash_mtl, units * jacobian)
    assert a == pytest.approx(b, rel=1e-6, abs=1e-8)
    a, b = direction(imtl_g, jacobian), direction(imtl_g, units * jacobian)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert abs(cosine) == pytest.approx(1, abs=1e-6)


@every
@quick
@given(st.integers(1, 6), st.floats(-6, 6))
def test_tasks_that_agree_exactly_give_the_direction_that_is_documented(
    weighting, tasks, decades
):
    g = 10**decades * np.array([3.0, 4])
    length = np.linalg.norm(g)
    expected = {
        pcgrad: tasks * g,
        equal_norms: tasks * g,
        cagrad: 1.5 * g,
        nash_mtl: np.sqrt(tasks) * g / length,
    }
    found = direction(weighting, np.tile(g, (tasks, 1)))
    if weighting is fair_grad:  # T equal weights w with T |g|² w = w^(-1/2)
        expected[fair_grad] = tasks * (tasks * length**2) ** (-2 / 3) * g
    assert found == pytest.approx(expected.get(weighting, g), rel=1e-6)


@every
def test_a_zero_gradient_stops_mgda_and_is_ignored_by_the_others(weighting):
    jacobian = np.array([[3.0, 4], [0, 0], [4, 3]])
    found = direction(weighting, jacobian)
    if weighting is mgda:
        assert found == pytest.approx([0, 0])
        return
    # The others look where they would without it; those that average count it among the
    # tasks.
    alone = direction(weighting, jacobian[[0, 2]])
    share = 2 / 3 if weighting in (mean, aligned_mtl, upgrad) else 1.0
    if weighting is cagrad:
        # no progress of the third can be gained: the mean, as it is
        assert found == pytest.approx(jacobian.mean(0))
    else:
        assert found == pytest.approx(share * alone)


# --- golden values, by hand or by an identity -----------------------------------------

# d for g₁ = (−4, 1, 1), g₂ = (6, 1, 1): G = [[18, −22], [−22, 38]], cosine −22/√684.
EXPECTED = {
    mean: [1, 1, 1],
    mgda: [0, 1, 1],  # the point of the segment that is nearest to zero
    # g₁ + 22/38 g₂ + g₂ + 22/18 g₁
    pcgrad: [
        -4 * (1 + 11 / 9) + 6 * (1 + 11 / 19),
        3 + 11 / 9 + 11 / 19 - 1,
        3 + 11 / 9 + 11 / 19 - 1,
    ],
    upgrad: [
        (-4 * (1 + 11 / 9) + 6 * (1 + 11 / 19)) / 2,
        (2 + 11 / 9 + 11 / 19) / 2,
        (2 + 11 / 9 + 11 / 19) / 2,
    ],
    # (√38 g₁ + √18 g₂) / (√38 + √18)
    imtl_g: [(6 * 18**0.5 - 4 * 38**0.5) / (18**0.5 + 38**0.5), 1, 1],
    # (g₁/√18 + g₂/√38) / √(1 + cosine)
    nash_mtl: list(
        (np.array([-4, 1, 1]) / 18**0.5 + np.array([6, 1, 1]) / 38**0.5)
        / (1 - 22 / 684**0.5) ** 0.5
    ),
    equal_norms: list(np.array([-4, 1, 1]) * (38 / 18) ** 0.5 + np.array([6, 1, 1])),
}


@pytest.mark.parametrize("weighting", EXPECTED, ids=lambda f: f.__name__)
def test_two_gradients_by_hand(weighting):
    found = direction(weighting, np.array([[-4.0, 1, 1], [6, 1, 1]]))
    assert found == pytest.approx(EXPECTED[weighting], abs=1e-12)


def test_published_figures_for_the_same_two_gradients():
    """As other implementations print them, to four digits."""
    jacobian = np.array([[-4.0, 1, 1], [6, 1, 1]])
    for weighting, figures in {
        pcgrad: [0.5848, 3.8012, 3.8012],
        imtl_g: [0.0767, 1, 1],
        aligned_mtl: [0.2133, 0.9673, 0.9673],
        cagrad: [0.1835, 1.2041, 1.2041],
        nash_mtl: [0.0766, 0.9985, 0.9985],
    }.items():
        assert direction(weighting, jacobian) == pytest.approx(figures, abs=5e-5)


# --- MGDA -----------------------------------------------------------------------------


@quick
@given(jacobians(tasks=two))
def test_mgda_has_a_closed_form_for_two_tasks(jacobian):
    (a, c), (_, b) = gramian = jacobian @ jacobian.T
    between = a + b - 2 * c > 0
    both = (
        np.clip(np.array([b - c, a - c]) / (a + b - 2 * c), 0, 1)
        if between
        else np.array([0.5, 0.5])
    )
    assert close(mgda(gramian) @ jacobian, both @ jacobian, jacobian)


@quick
@given(jacobians())
def test_mgda_meets_the_conditions_of_optimality(jacobian):
    gramian = jacobian @ jacobian.T
    w = mgda(gramian)
    square = w @ gramian @ w
    # Of the first order: no gradient has a smaller projection on d than d itself; those
    # with weight have the same.
    slack = gramian @ w - square
    assert (w >= 0).all() and w.sum() == pytest.approx(1)
    assert slack.min() >= -1e-9 * np.trace(gramian)
    assert np.abs(w * slack).max() <= 1e-9 * np.trace(gramian)
    # Also at the scale of the shortest gradient, next to which the longest may be 10¹²
    # times as long.
    assert square <= np.diagonal(gramian).min() * (1 + 1e-9)
    assert (slack / sizes(jacobian)).min() >= -1e-9 * (w * sizes(jacobian)).max()


# --- PCGrad ---------------------------------------------------------------------------


def by_the_loop(jacobian, orders):
    total = np.zeros(jacobian.shape[1])
    for t, order in enumerate(orders):
        g = jacobian[t].copy()
        for s in order:
            if g @ jacobian[s] < 0:
                g -= g @ jacobian[s] / (jacobian[s] @ jacobian[s]) * jacobian[s]
        total += g
    return total


@quick
@given(jacobians())
def test_pcgrad_is_the_loop_of_the_paper(jacobian):
    orders = [[s for s in range(len(jacobian)) if s != t] for t in range(len(jacobian))]
    tolerance = (
        1e-6 * np.abs(pcgrad(jacobian @ jacobian.T)) @ np.linalg.norm(jacobian, axis=1)
    )
    assert (
        np.abs(direction(pcgrad, jacobian) - by_the_loop(jacobian, orders)).max()
        <= tolerance
    )


def test_pcgrad_draws_its_orders():
    jacobian = np.random.default_rng(0).standard_normal((3, 4)) - 0.7
    jacobian[1] *= -1
    choices = [
        list(itertools.permutations([s for s in range(3) if s != t])) for t in range(3)
    ]
    possible = [by_the_loop(jacobian, orders) for orders in itertools.product(*choices)]
    rng = np.random.default_rng(1)
    drawn = [direction(pcgrad, jacobian, rng=rng) for _ in range(60)]
    nearest = [int(np.argmin([np.abs(d - p).max() for p in possible])) for d in drawn]
    assert all(
        np.abs(d - possible[i]).max() < 1e-12
        for d, i in zip(drawn, nearest, strict=True)
    )
    assert len({tuple(np.round(possible[i], 9)) for i in nearest}) > 1


# --- UPGrad ---------------------------------------------------------------------------


@quick
@given(jacobians(tasks=two))
def test_upgrad_is_half_of_pcgrad_for_two_tasks(jacobian):
    gramian = jacobian @ jacobian.T
    assert upgrad(gramian) == pytest.approx(pcgrad(gramian) / 2, rel=1e-6)


@quick
@given(jacobians())
def test_upgrad_harms_no_task_and_projects(jacobian):
    gramian, n = jacobian @ jacobian.T, sizes(jacobian)
    w = upgrad(gramian)
    largest = (w * n).max()
    assert ((gramian @ w) / n >= -1e-9 * largest).all()
    if (gramian >= 0).all():
        assert w == pytest.approx(np.full(len(w), 1 / len(w)))


def test_upgrad_projects_each_gradient_on_the_cone():
    rng = np.random.default_rng(4)
    for _ in range(5):
        jacobian = rng.standard_normal((3, 5)) - 0.4
        cone = [{"type": "ineq", "fun": lambda d, g=g: d @ g} for g in jacobian]
        projected = [
            minimize(
                lambda d, g=g: np.square(d - g).sum(),
                np.zeros(5),
                constraints=cone,
                tol=1e-14,
            ).x
            for g in jacobian
        ]
        assert direction(upgrad, jacobian) == pytest.approx(
            np.mean(projected, 0), abs=1e-5
        )


# --- CAGrad ---------------------------------------------------------------------------


@quick
@given(jacobians(), st.sampled_from([0.1, 0.4, 0.9]))
def test_cagrad_is_optimal(jacobian, c):
    """Weak duality: any convex combination bounds the worst progress from above. Here
    the gap is closed."""
    gramian = jacobian @ jacobian.T
    w, g0 = cagrad(gramian, c=c), jacobian.mean(0)
    d, radius = w @ jacobian, c * np.linalg.norm(g0)
    longest = (w * np.linalg.norm(jacobian, axis=1)).max()
    assert np.linalg.norm(d - g0) <= radius + 1e-6 * longest
    v = w - 1 / len(w)
    combination = (
        v / v.sum()
        if v.sum() > 1e-9 / len(w) and (v >= -1e-12).all()
        else mgda(gramian)
    )
    bound = combination @ jacobian @ g0 + radius * np.linalg.norm(
        combination @ jacobian
    )
    if np.linalg.norm(mgda(gramian) @ jacobian) < 1e-6 * sizes(jacobian).min():
        # something is stationary: nothing improves all
        bound = min(bound, 0 + 1e-9 * np.trace(gramian))
    assert (jacobian @ d).min() >= bound - 1e-8 * np.trace(gramian)


def test_cagrad_goes_from_the_mean_to_mgda():
    jacobian = np.random.default_rng(2).standard_normal((3, 8))
    assert cagrad(jacobian @ jacobian.T, c=0) == pytest.approx(np.full(3, 1 / 3))
    far, nearest = direction(cagrad, jacobian, c=1e6), direction(mgda, jacobian)
    cosine = far @ nearest / np.linalg.norm(far) / np.linalg.norm(nearest)
    assert cosine == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="c needs to be >= 0, got -1"):
        cagrad(np.eye(2), c=-1)


# --- IMTL-G, Nash, FairGrad -----------------------------------------------------------


@quick
@given(jacobians(awkward=False, dims=st.just(16)))
def test_imtl_has_equal_projections_and_weights_that_sum_to_one(jacobian):
    assume(independent(jacobian, 0.05))
    gramian, n = jacobian @ jacobian.T, sizes(jacobian)
    w = imtl_g(gramian)
    projections = jacobian @ (w @ jacobian) / n
    assert w.sum() == pytest.approx(1, rel=1e-6)
    assert np.ptp(projections) <= 1e-8 * (np.abs(w) * n).max()


def test_imtl_may_turn_round():
    """Three gradients for which equal projections need weights with a negative sum: all
    losses grow."""
    unit = np.array([[1.0, 0, 0], [0.9, (1 - 0.81) ** 0.5, 0], [0.8, 0.55, 0]])
    unit[2, 2] = (1 - unit[2] @ unit[2]) ** 0.5
    jacobian = unit * np.array([[1.0], [0.01], [1.0]])
    d = direction(imtl_g, jacobian)
    assert imtl_g(jacobian @ jacobian.T).sum() == pytest.approx(1)
    assert (jacobian @ d < 0).all()
    assert (jacobian @ direction(nash_mtl, jacobian) > 0).all()


@quick
@given(jacobians(awkward=False, dims=st.just(16)))
def test_nash_has_the_length_of_the_root_of_the_number_of_tasks(jacobian):
    assume(independent(jacobian))
    gramian = jacobian @ jacobian.T
    w = nash_mtl(gramian)
    assert (w > 0).all()
    assert w * (gramian @ w) == pytest.approx(np.ones(len(w)), rel=1e-6)
    assert w @ gramian @ w == pytest.approx(len(w), rel=1e-7)


@quick
@given(jacobians(tasks=two, awkward=False, dims=st.just(16)))
def test_for_two_tasks_fair_grad_of_one_nash_and_imtl_bisect_the_angle(jacobian):
    assume(independent(jacobian, 0.05))
    gramian = jacobian @ jacobian.T
    assert fair_grad(gramian, alpha=1.0) == pytest.approx(nash_mtl(gramian), rel=1e-12)
    bisector = (jacobian / sizes(jacobian)[:, None]).sum(0)
    for weighting in (nash_mtl, imtl_g):
        d = direction(weighting, jacobian)
        assert d / np.linalg.norm(d) == pytest.approx(
            bisector / np.linalg.norm(bisector), abs=1e-6
        )


@quick
@given(
    jacobians(awkward=False, dims=st.just(16)), st.sampled_from([0.3, 0.5, 2.0, 4.0])
)
def test_fair_grad_solves_its_equation(jacobian, alpha):
    gramian = jacobian @ jacobian.T
    w = fair_grad(gramian, alpha=alpha)
    assert (
        np.abs(gramian @ w - w ** (-1 / alpha)) <= 1e-9 * (np.abs(gramian) @ w)
    ).all()


def test_fair_grad_cares_more_for_the_worst_off_the_larger_alpha():
    jacobian = np.array([[1.0, 0, 0], [0.3, 2, 0], [-0.2, 0, 4]])
    shares = []
    for alpha in (0.5, 1, 2, 5, 10):
        progress = jacobian @ direction(fair_grad, jacobian, alpha=alpha)
        shares.append(progress.min() / progress.max())
    assert shares == sorted(shares) and shares[-1] > 0.7
    with pytest.raises(ValueError, match="alpha needs to be positive, got 0"):
        fair_grad(np.eye(2), alpha=0)


# --- Aligned-MTL, DB-MTL --------------------------------------------------------------


@quick
@given(jacobians(awkward=False, dims=st.just(16)))
def test_aligned_gradients_are_orthogonal_and_equally_long(jacobian):
    """The weights are the mean of rows of B; B itself comes from asking for the mean of
    one task alone."""
    assume(
        independent(jacobian, 0.05)
        and sizes(jacobian).max() / sizes(jacobian).min() < 1e3
    )
    gramian = jacobian @ jacobian.T
    singular = np.linalg.svd(jacobian, compute_uv=False)
    # d of the mean of orthonormal axes times the least singular value, from the polar
    # factor of the gradients.
    left, _, right = np.linalg.svd(jacobian, full_matrices=False)
    aligned = singular.min() * left @ right
    assert np.linalg.cond(aligned) == pytest.approx(1)
    assert direction(aligned_mtl, jacobian) == pytest.approx(
        aligned.mean(0), abs=1e-5 * singular.min()
    )
    assert gramian.shape == (len(jacobian),) * 2


@quick
@given(jacobians())
def test_db_mtl_stretches_every_gradient_to_the_longest(jacobian):
    norms = np.linalg.norm(jacobian, axis=1)
    stretched = equal_norms(jacobian @ jacobian.T) * norms
    assert stretched[norms > 0] == pytest.approx(
        np.full((norms > 0).sum(), norms.max())
    )
