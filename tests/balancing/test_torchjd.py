"""The same figures as TorchJD, an independent implementation, for the methods that it
has and solves exactly.

Its CAGrad, Nash-MTL and UPGrad need solvers of their own, and its MGDA stops after a
hundred steps of Frank and Wolfe's method: they are tested against the mathematics in
the other modules.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torchjd import aggregation, scalarization
from torchjd.autojac import jac_to_grad, mtl_backward

from mtmm_lib.balancing import (
    FAMO,
    DynamicWeightAverage,
    GeometricMean,
    SmoothTchebycheff,
    UncertaintyWeights,
    backward,
    weightings,
)
from mtmm_lib.tasks import Regression, Task

NAMES = ("a", "b", "c")
AGGREGATORS = {
    weightings.mean: aggregation.Mean(),
    weightings.imtl_g: aggregation.IMTLG(),
    weightings.aligned_mtl: aggregation.AlignedMTL(),
    functools.partial(weightings.fair_grad, alpha=2.0): aggregation.FairGrad(alpha=2.0),
    weightings.nash_mtl: aggregation.FairGrad(alpha=1.0),
}
every = pytest.mark.parametrize(
    ("ours", "theirs"),
    AGGREGATORS.items(),
    ids=[repr(theirs) for theirs in AGGREGATORS.values()],
)


@every
@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
def test_the_same_direction(ours, theirs, tasks):
    rng = np.random.default_rng(tasks)
    for _ in range(10):
        jacobian = (
            rng.standard_normal((tasks, 20)) * rng.uniform(0.3, 3, (tasks, 1)) + 0.3
        )
        expected = theirs(torch.from_numpy(jacobian)).numpy()
        found = ours(jacobian @ jacobian.T) @ jacobian
        assert found == pytest.approx(
            expected, rel=1e-5, abs=1e-6 * np.abs(expected).max()
        )


def test_the_same_direction_of_pcgrad_for_two_tasks():
    """For more, the order in which conflicts are removed is drawn."""
    rng, theirs = np.random.default_rng(0), aggregation.PCGrad()
    for _ in range(20):
        jacobian = rng.standard_normal((2, 3))
        found = weightings.pcgrad(jacobian @ jacobian.T) @ jacobian
        assert found == pytest.approx(theirs(torch.from_numpy(jacobian)).numpy())


def test_mgda_is_at_least_as_short():
    rng, theirs = np.random.default_rng(0), aggregation.MGDA()
    for _ in range(20):
        jacobian = rng.standard_normal((8, 20)) * 10 ** rng.uniform(-1, 1, (8, 1))
        found = weightings.mgda(jacobian @ jacobian.T) @ jacobian
        approximate = theirs(torch.from_numpy(jacobian)).numpy()
        assert found @ found <= approximate @ approximate * (1 + 1e-9)


@every
def test_the_same_gradients_of_a_network(ours, theirs):
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh()
    ).double()
    heads = nn.ModuleDict({name: nn.Linear(16, 2) for name in NAMES}).double()
    x, y = (
        torch.randn(32, 6, dtype=torch.float64),
        torch.randn(3, 32, 2, dtype=torch.float64),
    )

    def losses():
        z = trunk(x)
        each = zip(heads.items(), y, (1.0, 3.0, 0.2), strict=True)
        return z, {
            name: unit * (head(z) - target).square().mean()
            for (name, head), target, unit in each
        }

    parameters = [*trunk.parameters(), *heads.parameters()]
    z, found = losses()
    backward(found, z, ours)
    ours_found = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    z, found = losses()
    mtl_backward(list(found.values()), features=z)
    jac_to_grad(trunk.parameters(), theirs)
    for p, mine in zip(parameters, ours_found, strict=True):
        assert torch.allclose(mine, p.grad, rtol=1e-5, atol=1e-6)


def tasks() -> dict[str, Task]:
    return {name: Regression(name) for name in NAMES}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GeometricMean(), scalarization.GeometricMean()),
        (SmoothTchebycheff(mu=0.3), scalarization.STCH(mu=0.3)),
        (
            SmoothTchebycheff(
                {"a": 0.2, "b": 0.5, "c": 0.3}, mu=0.05, ideal={"b": -1.0}
            ),
            scalarization.STCH(
                0.05,
                torch.tensor([0.2, 0.5, 0.3]).double(),
                torch.tensor([0, -1, 0]).double(),
            ),
        ),
    ],
    ids=["geometric mean", "smooth Tchebycheff", "weights and ideals"],
)
def test_the_same_weights_for_losses(ours, theirs):
    for values in ([1.0, 2.0, 0.5], [1e-3, 4.0, 1.0]):
        losses = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(theirs(losses), losses)
        found = ours.weigh(dict(zip(NAMES, values, strict=True)), tasks())
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_same_weights_of_uncertainty():
    theirs = scalarization.UW(3).double()
    optimizer, ours = (
        torch.optim.Adam(theirs.parameters(), lr=0.02),
        UncertaintyWeights(lr=0.02),
    )
    for step in range(50):
        losses = torch.tensor([1.0, 0.1, 5.0], dtype=torch.float64) * 0.97**step
        losses.requires_grad_()
        optimizer.zero_grad()
        theirs(losses).backward()
        found = ours.weigh(dict(zip(NAMES, losses.tolist(), strict=True)), tasks())
        assert list(found.values()) == pytest.approx(losses.grad.tolist(), rel=1e-6)
        optimizer.step()


def test_the_same_weights_of_famo():
    theirs, ours = scalarization.FAMO(3, lr=0.03).double(), FAMO(lr=0.03)
    rng, before = (
        np.random.default_rng(0),
        torch.tensor([1.0, 0.1, 5.0], dtype=torch.float64),
    )
    for _ in range(50):
        after = before * torch.from_numpy(rng.uniform(0.9, 1, 3))
        losses = before.clone().requires_grad_()
        (expected,) = torch.autograd.grad(theirs(losses), losses)
        found = ours.weigh(dict(zip(NAMES, before.tolist(), strict=True)), tasks())
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)
        theirs.update(after)
        ours.after_step(lambda: dict(zip(NAMES, after, strict=True)))  # noqa: B023
        before = after


def test_the_same_weights_of_dynamic_weight_average():
    theirs, ours = (
        scalarization.DWA(temperature=1.5),
        DynamicWeightAverage(temperature=1.5),
    )
    means = torch.tensor(
        [[3.0, 1.0, 2.0], [2.0, 1.0, 1.9], [1.0, 0.9, 1.9], [0.9, 0.2, 1.8]]
    )
    for epoch in means:
        losses = epoch.clone().requires_grad_()
        (expected,) = torch.autograd.grad(theirs(losses), losses)
        found = ours.weigh(dict(zip(NAMES, epoch.tolist(), strict=True)), tasks())
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)
        theirs.step()
        ours.after_epoch(dict(zip(NAMES, epoch.tolist(), strict=True)))
