from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmm_lib.metrics import (
    delta_m,
    gradient_cosines,
    mutual_information,
    partial_information,
)

positive = st.floats(0.01, 100)


def test_by_hand():
    # Accuracy up by a tenth of its baseline, error down by a fifth: (10 + 20) / 2.
    gain = delta_m(
        {"digit": 0.88, "ink": 0.4},
        {"digit": 0.8, "ink": 0.5},
        {"digit": True, "ink": False},
    )
    assert gain == pytest.approx(15.0)


@given(
    st.lists(st.tuples(positive, positive, st.booleans()), min_size=1, max_size=6),
    positive,
)
def test_units_do_not_matter_and_directions_flip_the_sign(rows, unit):
    results, baseline, higher = (
        {str(i): row[k] for i, row in enumerate(rows)} for k in range(3)
    )
    gain = delta_m(results, baseline, higher)
    scaled = (
        {name: unit * value for name, value in numbers.items()}
        for numbers in (results, baseline)
    )
    assert delta_m(*scaled, higher) == pytest.approx(gain)
    flipped = {name: not direction for name, direction in higher.items()}
    assert delta_m(results, baseline, flipped) == pytest.approx(-gain)
    assert delta_m(baseline, baseline, higher) == 0


def test_better_is_positive_for_negative_baselines_too():
    assert delta_m({"r2": -0.5}, {"r2": -1.0}, {"r2": True}) == pytest.approx(50)


def test_the_named_tasks_are_averaged():
    assert delta_m(
        {"a": 2.0, "b": 9.0}, {"a": 1.0, "b": 1.0}, {"a": True}
    ) == pytest.approx(100)


@pytest.mark.parametrize(
    ("results", "baseline", "higher", "message"),
    [
        ({"a": 1.0}, {"a": 1.0}, {}, "at least one task"),
        ({}, {"a": 1.0}, {"a": True}, "'a' is missing in results"),
        (
            {"a": 1.0},
            {"b": 1.0},
            {"a": True},
            r"'a' is missing in baseline, which has \['b'\]",
        ),
        ({"a": 1.0}, {"a": 0.0}, {"a": True}, "baseline of task 'a' is zero"),
        ({"a": math.nan}, {"a": 1.0}, {"a": True}, r"results\['a'\] is nan"),
        ({"a": 1.0}, {"a": math.inf}, {"a": True}, r"baseline\['a'\] is inf"),
    ],
)
def test_bad_input_is_refused(results, baseline, higher, message):
    with pytest.raises(ValueError, match=message):
        delta_m(results, baseline, higher)


# Partial information


def gate(function, targets: int = 2) -> np.ndarray:
    """The table of a deterministic gate with two independent fair bits."""
    p = np.zeros((2, 2, targets))
    for a in range(2):
        for b in range(2):
            p[a, b, function(a, b)] = 1 / 4
    return p


COPY = np.zeros((2, 2, 2))
COPY[0, 0, 0] = COPY[1, 1, 1] = 1 / 2
SHARED = 0.75 * math.log2(4 / 3)  # what one input tells about the AND of two
GATES = {
    "xor": (gate(lambda a, b: a ^ b), (0, 0, 0, 1)),
    "and": (gate(lambda a, b: a & b), (SHARED, 0, 0, 1 / 2)),
    "or": (gate(lambda a, b: a | b), (SHARED, 0, 0, 1 / 2)),
    "the first": (gate(lambda a, b: a), (0, 1, 0, 0)),
    "the second": (gate(lambda a, b: b), (0, 0, 1, 0)),
    "sum": (gate(lambda a, b: a + b, 3), (1 / 2, 0, 0, 1)),
    "both": (gate(lambda a, b: 2 * a + b, 4), (0, 1, 1, 0)),
    "three equal bits": (COPY, (1, 0, 0, 0)),
    "nothing": (np.full((2, 3, 2), 1 / 12), (0, 0, 0, 0)),
    "one answer": (np.full((2, 2, 1), 1 / 4), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", GATES)
def test_information_of_gates(name):
    p, expected = GATES[name]
    assert partial_information(p) == pytest.approx(expected, abs=1e-9)


tables = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def entropy(p: np.ndarray) -> float:
    return -sum(x * math.log2(x) for x in p.flatten() if x > 0)


@given(
    tables, st.tuples(*[st.integers(1, 4)] * 3), st.sampled_from([0.02, 0.1, 1.0, 10.0])
)
@settings(max_examples=60, deadline=None)
def test_the_parts_add_up_and_do_not_depend_on_names(rng, shape, evenness):
    p = rng.dirichlet(np.full(math.prod(shape), evenness)).reshape(shape)
    r, u1, u2, s = partial_information(p)
    assert min(r, u1, u2, s) >= 0
    h1, h2, hy = entropy(p.sum((1, 2))), entropy(p.sum((0, 2))), entropy(p.sum((0, 1)))
    assert r + u1 == pytest.approx(h1 + hy - entropy(p.sum(1)), abs=1e-8)
    assert r + u2 == pytest.approx(h2 + hy - entropy(p.sum(0)), abs=1e-8)
    assert r + u1 + u2 + s == pytest.approx(
        entropy(p.sum(2)) + hy - entropy(p), abs=1e-8
    )
    swapped = partial_information(p.transpose(1, 0, 2)[:, ::-1])
    assert swapped == pytest.approx((r, u2, u1, s), abs=1e-8)


@given(tables, st.sampled_from([0.2, 1.0]))
@settings(max_examples=10, deadline=None)
def test_no_point_of_a_fine_grid_is_less_informative(rng, evenness):
    """All q with the marginals of a 2 × 2 × 2 table: one number for each value of the
    target."""
    p = rng.dirichlet(np.full(8, evenness)).reshape(2, 2, 2)
    q = []
    for y in range(2):
        a, b, whole = p[0, :, y].sum(), p[:, 0, y].sum(), p[:, :, y].sum()
        corner = np.linspace(max(0, a + b - whole), min(a, b), 601)
        q.append(
            np.stack([corner, a - corner, b - corner, whole - a - b + corner]).clip(0)
        )
    # [Y, 4, grid, grid]
    joint = np.stack(np.broadcast_arrays(q[0][:, :, None], q[1][:, None, :]))
    log = np.log2(
        np.divide(joint, joint.sum(0), out=np.ones_like(joint), where=joint > 0)
    )
    least = (joint * log).sum((0, 1)).min() + entropy(p.sum((0, 1)))
    r, u1, u2, s = partial_information(p)
    assert mutual_information(p.reshape(4, 2)) - s == pytest.approx(least, abs=1e-4)
    assert mutual_information(p.reshape(4, 2)) - s <= least + 1e-9


@given(tables)
@settings(max_examples=15, deadline=None)
def test_who_only_repeats_the_other_with_errors_knows_nothing_unique(rng):
    source = rng.dirichlet(np.ones(9)).reshape(3, 3)  # p(x1, y)
    repeats = rng.dirichlet(np.ones(2), size=3)  # p(x2 | x1)
    p = np.einsum("ay,ab->aby", source, repeats)
    r, u1, u2, s = partial_information(p)
    assert u2 == pytest.approx(0, abs=1e-8) and s == pytest.approx(0, abs=1e-8)
    assert r == pytest.approx(mutual_information(p.sum(0)), abs=1e-8)


def test_mutual_information_by_hand():
    assert mutual_information(np.eye(4) / 4) == pytest.approx(2)
    assert mutual_information(np.full((3, 5), 1 / 15)) == pytest.approx(0)
    # A bit that arrives flipped one time in ten.
    flip = np.array([[0.45, 0.05], [0.05, 0.45]])
    assert mutual_information(flip) == pytest.approx(
        1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)
    )


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.full((2, 2), 1 / 4), r"a table with 3 axes, got shape \[2, 2\]"),
        (np.ones((2, 2, 2)), "sum to one; these sum to 8"),
        (np.array([[[1.5, -0.5]]]), "non-negative"),
        (np.array([[[math.nan, 1.0]]]), "non-negative"),
    ],
)
def test_no_table_of_probabilities_is_refused(p, message):
    with pytest.raises(ValueError, match=message):
        partial_information(p)


def test_gradient_cosines_by_hand():
    x, y = (
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor(3.0, requires_grad=True),
    )
    losses = {
        "right": 5 * x[0],
        "diagonal": 1e-12 * (x[0] + x[1]),
        "left": -2 * x[0],
        "elsewhere": y**2,
        "nothing": 0 * x[1],
    }
    half, nan = 0.5**0.5, math.nan
    at_both = gradient_cosines(losses, [x, y])
    expected = np.array(
        [
            [1, half, -1, 0, nan],
            [half, 1, -half, 0, nan],
            [-1, -half, 1, 0, nan],
            [0, 0, 0, 1, nan],
            [nan] * 5,
        ]
    )
    np.testing.assert_allclose(at_both, expected, atol=1e-7)
    # At x alone the fourth has no gradient; and the graph is still there.
    expected[3], expected[:, 3] = nan, nan
    np.testing.assert_allclose(gradient_cosines(losses, x), expected, atol=1e-7)
    losses["right"].backward()
    assert x.grad.tolist() == [5, 0]
