"""Regression tasks in unlike units."""

import math

import numpy as np
import pytest
import torch

from mtmm_lib.data import unlike_units


def test_unlike_units_are_what_the_formula_says():
    data = unlike_units(
        (1.0, 100.0), samples=400, held_out=50, dim=30, outputs=20, seed=1
    )
    assert [len(part) for part in data] == [400, 50, 50]
    x, first, second = (
        data.train.inputs["x"],
        data.train.targets["task1"],
        data.train.targets["task2"],
    )
    assert x.shape == (400, 30) and first.shape == second.shape == (400, 20)
    assert x.norm(dim=1).numpy() == pytest.approx(np.ones(400), rel=1e-5)
    assert first.abs().max() <= 1 and 50 < second.abs().max() <= 100
    # (B + E)x is normal with variance 13.5 and, between tasks, covariance 10; what tanh
    # does to it is known.
    small = (first.abs() < math.tanh(1)).float().mean().item()
    assert small == pytest.approx(math.erf(1 / (2 * 13.5) ** 0.5), abs=0.03)
    agree = (first.sign() == second.sign()).float().mean().item()
    assert agree == pytest.approx(0.5 + math.asin(10 / 13.5) / math.pi, abs=0.03)
    again, other = (
        unlike_units(samples=5, held_out=2, seed=s).train.targets["task1"]
        for s in (0, 1)
    )
    assert torch.equal(
        again, unlike_units(samples=5, held_out=2, seed=0).train.targets["task1"]
    )
    assert not torch.equal(again, other)
