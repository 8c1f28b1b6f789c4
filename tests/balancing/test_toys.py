"""Toy problems: their formulas, their optima, and what is published about who gets to
the front."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mtmm_lib.balancing import (
    FAMO,
    GeometricMean,
    GradNorm,
    SmoothTchebycheff,
    StaticWeights,
    Toy,
    descend,
    fonseca_fleming,
    valleys,
)
from mtmm_lib.balancing.weightings import (
    cagrad,
    imtl_g,
    mean,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)
from mtmm_lib.data import unlike_units
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Regression
from mtmm_lib.training import fit

toys = pytest.mark.parametrize(
    "toy", [valleys(), valleys(0.1), fonseca_fleming(), fonseca_fleming(3)]
)


def weighted(first: float):
    return lambda gramian: np.array([first, 1 - first])


def bowl(*centres: tuple[float, ...]) -> Toy:
    """Half the squared distances from some centres."""
    at = torch.tensor(centres, dtype=torch.float64)
    names = ("first", "second", "third")[: len(centres)]
    return Toy(
        lambda x: (x.unsqueeze(-2) - at).square().sum(-1) / 2,
        torch.tensor([[3.0, 4.0], [-1, 2]]),
        at,
        names,
    )


# --- what the problems are ------------------------------------------------------------


def test_valleys_by_hand():
    at = torch.tensor(
        [[0, -8.355], [7, -8.4345], [-8.5, 7.5], [9.0, 9.0]], dtype=torch.float64
    )
    found = valleys().losses(at)
    assert found[0].tolist() == pytest.approx([-15.0916, -15.0916], abs=1e-4)
    assert found[1].tolist() == pytest.approx([-19.99, -0.398], abs=1e-2)
    x1, x2 = -8.5, 7.5
    up = math.tanh(x2 / 2)
    expected = [
        up * (math.log(abs((-x1 - 7) / 2 - math.tanh(-x2))) + 6),
        up * (math.log(abs((-x1 + 3) / 2 + math.tanh(-x2) + 2)) + 6),
    ]
    assert found[2].tolist() == pytest.approx(expected)
    assert torch.allclose(valleys(0.1).losses(at), found * torch.tensor([0.1, 1]))
    # On the floor of the first valley the loss is finite.
    floor = torch.tensor([[-7 + 2 * math.tanh(2.0), 2.0]], dtype=torch.float64)
    assert valleys().losses(floor)[0, 0] == pytest.approx(
        math.tanh(1.0) * (math.log(5e-6) + 6)
    )


def test_fonseca_and_fleming_by_hand():
    toy = fonseca_fleming(4)
    points = torch.tensor([[0.5] * 4, [-0.5] * 4, [0.0] * 4, [0.5, -0.5, 0.5, -0.5]])
    far, half = 1 - math.exp(-4), 1 - math.exp(-1)
    expected = [[0, far], [far, 0], [half, half], [1 - math.exp(-2)] * 2]
    np.testing.assert_allclose(toy.losses(points), expected, rtol=1e-6, atol=1e-7)


@toys
def test_no_direction_improves_both_tasks_at_an_optimum(toy):
    x = toy.optima.clone().requires_grad_()
    losses = toy.losses(x)
    rows = [
        torch.autograd.grad(losses[:, t].sum(), x, retain_graph=True)[0]
        for t in range(2)
    ]
    jacobians = torch.stack(rows, 1).numpy()
    for jacobian in jacobians:
        shortest = mgda(jacobian @ jacobian.T) @ jacobian
        assert np.linalg.norm(shortest) < 1e-6
    # Along the front what one loses the other gains.
    change = toy.front.diff(dim=0)
    assert (change[:, 0] * change[:, 1] < 0).all()


@toys
def test_no_point_nearby_is_better_than_an_optimum(toy):
    draw = torch.Generator().manual_seed(0)
    shifts = 10.0 ** -torch.arange(4) * torch.randn(
        500, *toy.optima[:1].shape[1:], 1, generator=draw
    )
    for optimum, losses in zip(toy.optima[::20], toy.front[::20], strict=True):
        around = toy.losses(optimum + shifts.transpose(1, 2).flatten(0, 1).double())
        assert not (around < losses - 1e-9).all(1).any()


def test_the_front_of_fonseca_and_fleming_is_bent_inwards():
    first, second = fonseca_fleming().front.numpy().T
    assert second == pytest.approx(
        1 - np.exp(-((2 - np.sqrt(-np.log(1 - first))) ** 2)), abs=1e-6
    )
    # Between its ends it lies beyond the straight line that joins them: weighted sums
    # are lowest at the ends.
    assert ((first + second)[10:-10] > first[0] + second[0]).all()
    for w in (0.1, 0.3, 0.5, 0.7, 0.9):
        lowest = int((w * first + (1 - w) * second).argmin())
        assert min(lowest, 200 - lowest) < 10


# --- the descent ----------------------------------------------------------------------


def test_a_descent_is_the_loop_one_would_write():
    toy, lr = bowl((0.0, 0.0), (2.0, 0.0)), 0.1
    found = descend(
        toy,
        {"sum": weighted(0.3), "mgda": mgda},
        steps=20,
        lr=lr,
        optimizer=torch.optim.SGD,
    )
    assert list(found) == ["sum", "mgda"]
    assert found["sum"].shape == found["mgda"].shape == (21, 2, 2)
    for s, start in enumerate(toy.starts.double().numpy()):
        for name, weighting in (("sum", weighted(0.3)), ("mgda", mgda)):
            x = start.copy()
            for _ in range(20):
                jacobian = np.stack([x, x - [2, 0]])
                x = x - lr * weighting(jacobian @ jacobian.T) @ jacobian
            assert found[name][-1, s].numpy() == pytest.approx(x)
    # Weights 0.3 and 0.7 on equal bowls: to 1.4 on the line between.
    settled = descend(
        toy, {"sum": weighted(0.3)}, steps=500, lr=lr, optimizer=torch.optim.SGD
    )["sum"][-1]
    assert settled.numpy() == pytest.approx(np.array([[1.4, 0]] * 2), abs=1e-6)


def test_balancers_of_losses_learn_for_each_start_and_leave_the_callers_one_alone():
    toy, famo = bowl((0.0, 0.0), (2.0, 0.0)), FAMO()
    found = descend(toy, {"together": famo}, steps=30, lr=0.05)["together"]
    assert famo.scores == {}
    for s in range(2):
        alone = descend(
            toy, {"alone": FAMO()}, starts=toy.starts[s : s + 1], steps=30, lr=0.05
        )["alone"]
        assert torch.allclose(found[:, s], alone[:, 0])
    # By hand, with the losses after each step.
    balancer, x = FAMO(), toy.starts[:1].double().clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(30):
        values = toy.losses(x)[0]
        weights = balancer.weigh(
            dict(zip(toy.names, values.tolist(), strict=True)), toy.tasks
        )
        optimizer.zero_grad()
        sum(
            weight * value
            for weight, value in zip(weights.values(), values, strict=True)
        ).backward()
        optimizer.step()
        balancer.after_step(
            lambda: dict(zip(toy.names, toy.losses(x.detach())[0], strict=True))
        )
    assert torch.allclose(found[-1, 0], x[0])


def test_three_tasks():
    toy = bowl((0.0, 0.0), (2.0, 0.0), (0.0, 2.0))
    ways = {"mean": mean, "upgrad": upgrad, "geometric mean": GeometricMean()}
    found = descend(toy, ways, steps=400, lr=0.1, optimizer=torch.optim.SGD)
    assert found["mean"][-1].numpy() == pytest.approx(np.full((2, 2), 2 / 3), abs=1e-6)
    for path in found.values():  # the optimal set is the triangle
        assert (path[-1] > -1e-3).all() and (path[-1].sum(1) < 2 + 1e-3).all()


# --- who gets to the front ------------------------------------------------------------


def test_with_unlike_units_the_sum_gets_stuck_at_the_loud_task_while_nash_compromises():
    """The setting of Navon et al. (2022), with ten times the learning rate and a ninth
    of the steps."""
    toy = valleys(0.1)
    found = descend(toy, {"sum": mean, "nash": nash_mtl}, steps=4000, lr=1e-2)
    ends = {name: path[-1].numpy() for name, path in found.items()}
    # stuck from (9, 9), all others at the loud task's end
    assert (ends["sum"][:, 1] > 0).nonzero()[0].tolist() == [2]
    assert (ends["sum"][[0, 1, 3, 4], 0] < -5.5).all()
    # Nash is on the front from everywhere, and nowhere near its ends.
    assert (np.abs(ends["nash"][:, 1] + 8.37) < 0.06).all()
    assert (np.abs(ends["nash"][:, 0]) < 6).all()


def test_cagrad_stays_close_to_the_mean_and_mgda_goes_to_whichever_point_is_near():
    """From CAGrad's second start, in its own setting: to the lowest mean, or just down
    to the front."""
    toy, start = valleys(), torch.tensor([[-8.5, -5.0]])
    ways = {
        "mean": mean,
        "cagrad": functools.partial(cagrad, c=0.4),
        "mgda": mgda,
        "pcgrad": pcgrad,
    }
    ends = {
        n: p[-1, 0].tolist()
        for n, p in descend(toy, ways, starts=start, steps=2500, lr=1e-2).items()
    }
    assert ends["mean"] == pytest.approx([0, -8.355], abs=0.02)
    assert ends["cagrad"] == pytest.approx([0, -8.355], abs=0.2)
    assert ends["mgda"][0] < -6.9 and ends["mgda"][1] == pytest.approx(-8.43, abs=0.02)
    assert -6.9 < ends["pcgrad"][0] < -6 and ends["pcgrad"][1] == pytest.approx(
        -8.42, abs=0.02
    )


def test_weighted_sums_lead_to_the_ends_of_a_front_bent_inwards_tchebycheff_inside():
    toy, shares = fonseca_fleming(), (0.3, 0.5, 0.7)
    ways = {f"sum {w}": weighted(w) for w in shares}
    ways |= {
        f"max {w}": SmoothTchebycheff({"first": w, "second": 1 - w}, mu=0.01)
        for w in shares
    }
    found = descend(toy, ways, steps=300, lr=0.02)
    losses = {name: toy.losses(path[-1]).numpy() for name, path in found.items()}
    for w in shares:
        best, worst = losses[f"sum {w}"].min(1), losses[f"sum {w}"].max(1)
        assert (best < 0.03).all() and (worst > 0.96).all()
        # Everybody meets at the point where both weighted losses are equal.
        first, second = losses[f"max {w}"].T
        assert w * first == pytest.approx((1 - w) * second, abs=0.02)
        assert np.ptp(first) < 0.01 and 0.3 < first[0] < 0.9
    # With equal weights the end depends on the start; with others, mostly on the
    # weights.
    assert losses["sum 0.5"][:, 0].round().tolist() == [1, 1, 0, 0, 0]


def test_gradient_balancers_stop_where_they_meet_that_front():
    toy = fonseca_fleming()
    found = descend(
        toy, {"mgda": mgda, "upgrad": upgrad, "imtl": imtl_g}, steps=300, lr=0.02
    )
    for path in found.values():
        first, second = toy.losses(path[-1]).numpy().T
        on_front = 1 - np.exp(-((2 - np.sqrt(-np.log(1 - first))) ** 2))
        assert second == pytest.approx(on_front, abs=0.01)
        assert (first > 0.02).all() and (second > 0.02).all()
        assert (np.diff(first) < 0).all()  # in the order of the starts


# --- unlike units ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sum_starves_the_quiet_task_and_gradnorm_raises_its_weight(seed):
    data = unlike_units(samples=400, held_out=10, dim=60, outputs=20, seed=seed)

    def trained(balancer):
        torch.manual_seed(seed)
        tasks = [Regression("task1", 20), Regression("task2", 20)]

        def trunk(in_dim: int, dim: int) -> nn.Sequential:
            stages = [nn.Sequential(nn.Linear(dim, dim), nn.ReLU()) for _ in range(3)]
            return nn.Sequential(*stages)

        sharing = HardSharing(["task1", "task2"], 50, 50, trunk)
        model = Model(
            {"x": MLPEncoder(60, 50, hidden=())},
            ConcatFusion({"x": 50}, 50),
            sharing,
            tasks,
        )
        history = fit(
            model,
            data.train,
            epochs=40,
            batch_size=50,
            lr=2e-3,
            balancer=balancer,
            progress=False,
        )
        # Relative to the variance of the targets, that is, to knowing nothing.
        variance = {name: y.var().item() for name, y in data.train.targets.items()}
        return {
            n: loss / variance[n] for n, loss in history.train_loss[-1].items()
        }, history.weights[-1]

    plain, _ = trained(StaticWeights())
    balanced, weights = trained(GradNorm(alpha=0.12))
    tuned, _ = trained(StaticWeights({"task1": 1.0, "task2": 1e-4}))
    assert weights["task1"] > 1.9 and weights["task1"] + weights[
        "task2"
    ] == pytest.approx(2)
    assert (
        balanced["task1"] < plain["task1"] - 0.05
        and balanced["task2"] < plain["task2"] + 0.1
    )
    # And yet: whoever knows the units needs no method.
    assert tuned["task1"] < balanced["task1"]
