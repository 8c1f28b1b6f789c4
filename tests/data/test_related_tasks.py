"""The relatedness dial: cosines, noise, labels and closed-form consequences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmm_lib.data import related_tasks
from mtmm_lib.data.files import data_file


@given(tasks=st.integers(2, 6), place=st.floats(0, 1), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_all_pairs_have_the_cosine_asked_for(tasks, place, seed):
    lowest = -1 / (tasks - 1)
    cosine = lowest + place * (1 - lowest)
    weights = related_tasks(
        cosine, tasks=tasks, samples=1, held_out=1, dim=8, seed=seed
    ).weights
    gram = (weights @ weights.T).numpy()
    np.testing.assert_allclose(gram, np.where(np.eye(tasks), 1.0, cosine), atol=1e-12)


@pytest.mark.parametrize(
    ("tasks", "cosine"), [(2, 1.0), (2, -1.0), (5, 1.0), (5, -0.25)]
)
def test_the_ends_of_the_dial(tasks, cosine):
    weights = related_tasks(cosine, tasks=tasks, samples=1, held_out=1).weights
    if cosine == 1:
        torch.testing.assert_close(weights, weights[:1].expand_as(weights))
    else:
        # Vectors as contrary as they can be cancel.
        torch.testing.assert_close(weights.sum(0), torch.zeros(20, dtype=torch.float64))


def test_two_tasks_are_ma_and_colleagues_construction():
    whole, half = (related_tasks(p, seed=5).weights for p in (0.0, 0.6))
    torch.testing.assert_close(half[0], whole[0])
    torch.testing.assert_close(half[1], 0.6 * whole[0] + 0.8 * whole[1])


def test_noise_has_the_variance_asked_for_and_inputs_are_white():
    truth = related_tasks(0.3, tasks=3, samples=20_000, noise=0.7, dim=5)
    for t, name in enumerate(truth.names):
        x, y = truth.samples(name)
        residual = y - x @ truth.weights[t]
        # Five standard errors of a variance and of a mean over n Gaussian numbers.
        assert abs(residual.var() / 0.49 - 1) < 5 * (2 / len(y)) ** 0.5
        assert abs(residual.mean()) < 5 * 0.7 / len(y) ** 0.5
        covariance = x.T @ x / len(x)
        assert (covariance - torch.eye(5)).abs().max() < 5 * (2 / len(x)) ** 0.5


def test_every_sample_has_the_label_of_one_task():
    truth = related_tasks(0.5, tasks=3, samples=(10, 20, 30), held_out=7)
    assert truth.names == ("task1", "task2", "task3")
    for batch, sizes in zip(
        truth.splits, ([10, 20, 30], [7] * 3, [7] * 3), strict=True
    ):
        labelled = torch.stack([~y.isnan() for y in batch.targets.values()])
        assert (labelled.sum(0) == 1).all()
        assert labelled.sum(1).tolist() == sizes
        assert batch.inputs["x"].isfinite().all()
    x, y = truth.samples("task2")
    assert x.shape == (20, 20) and y.shape == (20,) and y.isfinite().all()


def test_a_seed_gives_the_same_data_and_another_one_others():
    a, b, c = (related_tasks(0.5, seed=s) for s in (3, 3, 4))
    assert a.weights.equal(b.weights) and not a.weights.equal(c.weights)
    for one, same, other in zip(a.splits, b.splits, c.splits, strict=True):
        assert one.inputs["x"].equal(same.inputs["x"]) and not one.inputs["x"].equal(
            other.inputs["x"]
        )
        assert (
            one.targets["task1"].nan_to_num().equal(same.targets["task1"].nan_to_num())
        )


def test_the_dial_and_the_other_tasks_samples_leave_the_first_task_as_it_is():
    first = [
        related_tasks(p, samples=n, seed=1).samples("task1")
        for p, n in ((0.9, 50), (-0.9, 50), (0.9, (50, 7)))
    ]
    for x, y in first[1:]:
        assert x.equal(first[0][0]) and y.equal(first[0][1])


def test_splits_share_no_input():
    inputs = [
        {row.numpy().tobytes() for row in b.inputs["x"]}
        for b in related_tasks(0.0).splits
    ]
    assert sum(map(len, inputs)) == len(set.union(*inputs)) == 2 * (50 + 500 + 500)


@pytest.mark.parametrize("cosine", [1.0, 0.5, 0.0, -1.0])
def test_one_set_of_weights_for_both_tasks_is_off_by_half_of_one_minus_the_cosine(
    cosine,
):
    """With ever more data the pooled fit tends to the mean of the weights, whose error
    is (1 − ρ) / 2."""
    truth = related_tasks(cosine, samples=50_000, noise=0.1, dim=5)
    (x1, y1), (x2, y2) = (truth.samples(name) for name in truth.names)
    pooled = torch.linalg.lstsq(
        torch.cat([x1, x2]), torch.cat([y1, y2]).unsqueeze(1)
    ).solution[:, 0]
    error = (pooled - truth.weights[0]).square().sum().item()
    assert error == pytest.approx((1 - cosine) / 2, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(cosine=1.1), "pairwise cosine from -1 to 1, got 1.1"),
        (
            dict(cosine=-0.6, tasks=3),
            "3 tasks can have a pairwise cosine from -0.5 to 1",
        ),
        (dict(cosine=float("nan")), "pairwise cosine"),
        (dict(cosine=0.5, tasks=1), "at least two"),
        (dict(cosine=0.5, dim=1), "dimension of at least 2"),
        (dict(cosine=0.5, noise=-1.0), "noise needs to be >= 0"),
        (dict(cosine=0.5, samples=(1, 2, 3)), "each of 2 tasks"),
        (dict(cosine=0.5, samples=0), "each of 2 tasks"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        related_tasks(**arguments)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="unknown task 'task3'; the tasks are"):
        related_tasks(0.5).samples("task3")


def test_the_cards_table_is_what_its_code_prints(capsys):
    card = data_file("related_tasks", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in card.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(printed) == 7
    for row, line in zip(rows, printed, strict=True):
        stated, found = (
            np.array(text.strip("| ").split("|"), float) for text in (row, line)
        )
        # a last digit may round otherwise elsewhere
        np.testing.assert_allclose(stated, found, atol=0.011)
    # Alone, least squares has the error σ² D / (n − D − 1); its mean over 200 seeds is
    # known to 3 %.
    assert found[1] == pytest.approx(20 / 29, rel=0.09)
