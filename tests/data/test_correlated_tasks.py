"""The dial of MMoE's tasks: cosines, labels, noise, and what follows in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtmm_lib.data import correlated_tasks
from mtmm_lib.data.files import data_file


@given(p=st.floats(-1, 1), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_weights_have_the_cosine_and_length_asked_for(p, scale, seed):
    weights = correlated_tasks(
        p, samples=1, held_out=1, dim=7, scale=scale, seed=seed
    ).weights
    gram = (weights @ weights.T / scale**2).numpy()
    np.testing.assert_allclose(gram, [[1, p], [p, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "beta"), [((), ()), ((2.0,), (0.0,)), ((0.5, 3.0), (1.0, -2.0))]
)
def test_labels_follow_the_formula(alpha, beta):
    truth = correlated_tasks(
        0.3, samples=50, noise=0, alpha=alpha, beta=beta, scale=1.5
    )
    for batch in truth.splits:
        for w, y in zip(truth.weights, batch.targets.values(), strict=True):
            s = batch.inputs["x"].double() @ w
            expected = s + sum(
                torch.sin(a * s + b) for a, b in zip(alpha, beta, strict=True)
            )
            torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)


def test_noise_is_of_the_size_asked_for_and_each_tasks_own():
    n = 20_000
    noisy, clean = (
        correlated_tasks(1.0, samples=n, noise=sigma).splits.train
        for sigma in (0.7, 0.0)
    )
    assert noisy.inputs["x"].equal(clean.inputs["x"])
    e1, e2 = (noisy.targets[k] - clean.targets[k] for k in ("task1", "task2"))
    # Five standard errors of a variance, a mean and a correlation of n Gaussian
    # numbers.
    for e in (e1, e2):
        assert abs(e.var() / 0.49 - 1) < 5 * (2 / n) ** 0.5
        assert abs(e.mean()) < 5 * 0.7 / n**0.5
    assert abs(torch.corrcoef(torch.stack([e1, e2]))[0, 1]) < 5 / n**0.5
    covariance = noisy.inputs["x"].T @ noisy.inputs["x"] / n
    assert (covariance - torch.eye(20)).abs().max() < 5 * (2 / n) ** 0.5


def test_the_best_linear_model_is_as_bad_as_the_card_says():
    batch = correlated_tasks(0.5, samples=100_000).splits.train
    x, y = batch.inputs["x"].double(), batch.targets["task2"].double().unsqueeze(1)
    error = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean().item()
    assert error == pytest.approx(
        (1 - math.exp(-8)) / 2 - 4 * math.exp(-4) + 0.01, rel=0.02
    )
    assert y.var().item() == pytest.approx(2.05, rel=0.02)


def test_the_opposite_task_is_the_first_with_its_sign_turned():
    labels = correlated_tasks(-1.0, noise=0).splits.test.targets
    torch.testing.assert_close(labels["task2"], -labels["task1"])


def test_the_dial_moves_the_second_task_alone():
    one, other = (correlated_tasks(p, seed=4).splits for p in (0.9, 0.1))
    for a, b in zip(one, other, strict=True):
        assert a.inputs["x"].equal(b.inputs["x"]) and a.targets["task1"].equal(
            b.targets["task1"]
        )
        assert not a.targets["task2"].equal(b.targets["task2"])


def test_a_seed_gives_the_same_data_and_another_one_others():
    a, b, c = (correlated_tasks(0.5, seed=seed) for seed in (3, 3, 4))
    assert a.weights.equal(b.weights) and not a.weights.equal(c.weights)
    for one, same, other in zip(a.splits, b.splits, c.splits, strict=True):
        assert all(one.targets[k].equal(same.targets[k]) for k in one.targets)
        assert not one.inputs["x"].equal(other.inputs["x"])


def test_sizes_and_that_splits_share_no_input():
    splits = correlated_tasks(0.0, samples=30, held_out=20, dim=3).splits
    assert [len(batch) for batch in splits] == [30, 20, 20]
    assert all(
        y.shape == (len(b),) and y.isfinite().all()
        for b in splits
        for y in b.targets.values()
    )
    rows = {row.numpy().tobytes() for batch in splits for row in batch.inputs["x"]}
    assert len(rows) == 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(p=1.1), "cosine from -1 to 1, got 1.1"),
        (dict(p=math.nan), "cosine from -1 to 1"),
        (dict(p=0.5, dim=1), "dim >= 2"),
        (dict(p=0.5, samples=0), "samples >= 1"),
        (dict(p=0.5, held_out=0), "held_out >= 1"),
        (dict(p=0.5, noise=-1.0), "noise needs to be >= 0"),
        (dict(p=0.5, alpha=(1.0, 2.0)), "a frequency and a phase"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        correlated_tasks(**arguments)


def test_the_cards_table_is_what_its_code_prints(capsys):
    card = data_file("correlated_tasks", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in card.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(printed) == 5
    for row, line in zip(rows, printed, strict=True):
        stated, found = (
            np.array(text.strip("| ").split("|"), float) for text in (row, line)
        )
        # a last digit may round otherwise elsewhere
        np.testing.assert_allclose(stated, found, atol=0.0011)
        assert found[2] == pytest.approx(found[1], abs=5 / math.sqrt(100_000))
