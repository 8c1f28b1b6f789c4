"""The balanced backward pass in a loop of one's own, against gradients taken one by
one."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from mtmm_lib.balancing import backward, weightings
from mtmm_lib.balancing.meetings import COLUMNS
from mtmm_lib.balancing.weightings import mgda, nash_mtl, upgrad

levels = pytest.mark.parametrize("level", ["parameters", "features"])
NAMES = ("first", "second", "third")


class Net(nn.Module):
    """A trunk, three heads, and a parameter that nobody uses."""

    def __init__(self, seed: int = 0, width: int = 7) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(
            nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in NAMES})
        self.unused = nn.Parameter(torch.ones(2))
        self.double()

    def losses(
        self, scale: float = 1.0
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = torch.randn(
            11, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        z = self.trunk(x)
        targets = (x[:, :1], -x[:, :1] + x[:, 1:2], scale * x[:, 2:3])
        return z, {
            name: (head(z) - y).square().mean() * (scale if name == "third" else 1.0)
            for (name, head), y in zip(self.heads.items(), targets, strict=True)
        }


def jacobian(net: Net, scale: float = 1.0) -> np.ndarray:
    """One row per loss: its gradient of the trunk."""
    rows = []
    for name in NAMES:
        _, losses = net.losses(scale)
        gradients = torch.autograd.grad(losses[name], list(net.trunk.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows).numpy()


def of_the_trunk(net: Net) -> np.ndarray:
    return torch.cat([p.grad.flatten() for p in net.trunk.parameters()]).numpy()


@pytest.mark.parametrize("weighting", weightings.ALL.values(), ids=weightings.ALL)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_shared_parameters_get_the_weighted_sum_of_the_gradients(weighting, scale):
    net = Net()
    rows = jacobian(net, scale)
    expected = weighting(rows @ rows.T)
    z, losses = net.losses(scale)
    weights = backward(losses, z, weighting)
    assert list(weights.values()) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    tolerance = 1e-6 * np.abs(expected) @ np.linalg.norm(rows, axis=1)
    assert np.abs(of_the_trunk(net) - expected @ rows).max() <= tolerance


@pytest.mark.parametrize("weighting", weightings.ALL.values(), ids=weightings.ALL)
def test_at_the_features_the_gramian_is_that_of_the_gradients_there(weighting):
    net = Net()
    rows = jacobian(net)
    z, losses = net.losses()
    at_z = [
        torch.autograd.grad(loss, z, retain_graph=True)[0].flatten().numpy()
        for loss in losses.values()
    ]
    expected = weighting(np.stack(at_z) @ np.stack(at_z).T)
    weights = backward(losses, z, weighting, "features")
    assert list(weights.values()) == pytest.approx(expected, rel=1e-6)
    assert of_the_trunk(net) == pytest.approx(expected @ rows, rel=1e-6, abs=1e-9)


@levels
def test_heads_get_the_gradient_of_their_own_loss_and_the_unused_none(level):
    net = Net()
    z, losses = net.losses()
    backward(losses, z, nash_mtl, level)
    for name in NAMES:
        _, again = net.losses()
        for p, expected in zip(
            net.heads[name].parameters(),
            torch.autograd.grad(again[name], list(net.heads[name].parameters())),
            strict=True,
        ):
            assert torch.allclose(p.grad, expected)
    assert net.unused.grad is None


@levels
def test_gradients_are_added_to_what_is_there(level):
    net, twice = Net(), Net()
    z, losses = net.losses()
    backward(losses, z, upgrad, level)
    for _ in range(2):
        z, losses = twice.losses()
        backward(losses, z, upgrad, level)
    for p, q in zip(net.parameters(), twice.parameters(), strict=True):
        assert p.grad is None or torch.allclose(2 * p.grad, q.grad)


@levels
def test_the_mean_is_the_mean(level):
    net, plain = Net(), Net()
    z, losses = net.losses()
    backward(losses, z, weightings.mean, level)
    (sum(plain.losses()[1].values()) / 3).backward()
    assert of_the_trunk(net) == pytest.approx(of_the_trunk(plain))


@levels
@pytest.mark.parametrize("weighting", weightings.ALL.values(), ids=weightings.ALL)
def test_one_loss_alone_is_backpropagated_as_it_is(level, weighting):
    net, plain = Net(), Net()
    z, losses = net.losses()
    assert backward({"second": losses["second"]}, z, weighting, level) == {
        "second": 1.0
    }
    plain.losses()[1]["second"].backward()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.allclose(p.grad, q.grad)


@levels
def test_a_subset_of_the_losses(level):
    net = Net()
    rows = jacobian(net)[[0, 2]]
    z, losses = net.losses()
    weights = backward(
        {"third": losses["third"], "first": losses["first"]}, z, upgrad, level
    )
    assert of_the_trunk(net) == pytest.approx(
        np.array([weights["first"], weights["third"]]) @ rows
    )
    assert net.heads["second"].weight.grad is None


def test_a_parameter_that_some_losses_do_not_reach_counts_as_zero_for_them():
    a, b, c = (
        torch.tensor([v], dtype=torch.float64, requires_grad=True)
        for v in (1.0, 2.0, 3.0)
    )
    # a is shared by all, b by the first two, c is the third's own.
    losses = {"first": a * b, "second": -2 * a + b**2, "third": a * c}
    rows = np.array([[2.0, 1], [-2, 4], [3, 0]])  # at a and b
    expected = upgrad(rows @ rows.T)
    weights = backward(losses, None, upgrad)
    assert list(weights.values()) == pytest.approx(expected)
    assert [a.grad.item(), b.grad.item()] == pytest.approx(expected @ rows)
    assert c.grad.item() == 1.0


@levels
def test_losses_that_share_nothing_are_left_alone(level):
    a, b = (torch.tensor([v], requires_grad=True) for v in (1.0, 2.0))
    z = torch.ones(1)  # no trained trunk before the cut
    assert backward({"first": z * a**2, "second": z * b**2}, z, mgda, level) == {
        "first": 1.0,
        "second": 1.0,
    }
    assert (a.grad.item(), b.grad.item()) == (2.0, 4.0)


def test_a_task_that_shares_nothing_has_no_part_in_the_weights():
    net = Net()
    z, losses = net.losses()
    alone = torch.ones(1, dtype=torch.float64, requires_grad=True)
    weights = backward({**losses, "alone": alone**2}, z, mgda)
    z, losses = Net().losses()
    assert weights == pytest.approx({**backward(losses, z, mgda), "alone": 1.0})
    assert alone.grad.item() == 2.0


def test_the_features_may_be_what_is_trained():
    """In a toy problem there is no trunk: the losses are functions of a point."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {"first": 3 * x[0] - x[1], "second": x[0] + x[1]}
    weights = backward(losses, x, mgda, "features")
    rows = np.array([[3.0, -1], [1, 1]])
    assert list(weights.values()) == pytest.approx(mgda(rows @ rows.T))
    assert x.grad.numpy() == pytest.approx(np.array(list(weights.values())) @ rows)


def test_around_the_cut_is_refused_by_name():
    net = Net()
    z, losses = net.losses()
    # reaches the trunk, but not through z
    losses["third"] = losses["third"] + net.trunk[0].weight.sum()
    with pytest.raises(
        ValueError, match=r"tasks \['third'\] reach shared parameters around the cut"
    ):
        backward(losses, z, upgrad, "features")
    assert all(p.grad is None for p in net.parameters())
    z, losses = net.losses()
    # another task's head
    losses["second"] = losses["second"] + net.heads["first"].weight.sum()
    with pytest.raises(
        ValueError, match=r"tasks \['first', 'second'\] reach shared parameters around"
    ):
        backward(losses, z, upgrad, "features")
    backward(losses, z, upgrad)
    # Another pass through the trunk is around the cut, too, though it ends in features
    # of the same shape.
    z, losses = net.losses()
    losses["first"] = net.losses()[1]["first"]
    with pytest.raises(ValueError, match=r"tasks \['first'\]"):
        backward(losses, z, upgrad, "features")
    with pytest.raises(ValueError, match="no cut that all tasks go through"):
        backward(losses, None, upgrad, "features")
    with pytest.raises(
        ValueError, match="level is 'parameters' or 'features', got 'heads'"
    ):
        backward(losses, z, upgrad, "heads")


@levels
def test_gradients_that_are_not_finite_are_named(level):
    net = Net()
    z, losses = net.losses()
    # finite, but its gradient is not
    losses["second"] = losses["second"] + 0 * (z.sum() * 0).sqrt()
    with pytest.raises(FloatingPointError, match=r"tasks \['second'\] are not finite"):
        backward(losses, z, upgrad, level)


@levels
def test_lengths_that_differ_by_twelve_orders_of_magnitude(level):
    """In single precision, where squares of such gradients would be lost."""
    net = Net().float()
    x = torch.randn(11, 5, generator=torch.Generator().manual_seed(1))
    z = net.trunk(x)
    losses = {
        "first": 1e-18 * net.heads["first"](z).mean(),
        "second": 1e-6 * net.heads["second"](z).mean(),
        "third": net.heads["third"](z).square().mean(),
    }
    weights = backward(losses, z, nash_mtl, level)
    assert all(np.isfinite(w) and w > 0 for w in weights.values())
    assert 1e11 < weights["first"] / weights["second"] < 1e13
    if level == "parameters":
        # of length √T, as if all losses had come in the same unit
        assert np.linalg.norm(of_the_trunk(net)) == pytest.approx(3**0.5, rel=1e-4)


def test_gradients_of_more_numbers_than_are_multiplied_at_once():
    a = torch.randn(
        3, COLUMNS // 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x = torch.ones(COLUMNS // 2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
    losses = {"first": (a.T * x).sum(), "second": (b * x).sum()}
    rows = np.stack([a.T.reshape(-1).numpy(), b.reshape(-1).numpy()])
    seen = []
    backward(losses, None, lambda gramian: seen.append(gramian) or np.ones(2))
    assert seen[0] == pytest.approx(rows @ rows.T)


@levels
def test_under_autocast(level):
    exact, net = Net().float(), Net().float()
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))

    def losses(net):
        z = net.trunk(x)
        return z, {
            name: (head(z).float() - x[:, :1]).square().mean()
            for name, head in net.heads.items()
        }

    backward(*reversed(losses(exact)), upgrad, level)
    with torch.autocast("cpu", torch.bfloat16):
        z, found = losses(net)
    assert z.dtype == torch.bfloat16
    backward(found, z, upgrad, level)
    for p, q in zip(net.parameters(), exact.parameters(), strict=True):
        if q.grad is not None:
            assert p.grad.dtype == torch.float32
            assert torch.allclose(p.grad, q.grad, atol=0.03 * float(q.grad.abs().max()))


@levels
def test_gradients_have_the_layout_of_their_parameters_and_memory_of_their_own(level):
    """Fused optimizers and in-place clipping count on both."""
    net = Net()
    with torch.no_grad():
        # stored by columns
        net.trunk[2].weight.set_(net.trunk[2].weight.t().contiguous().t())
    z, losses = net.losses()
    backward(
        losses,
        z,
        functools.partial(weightings.pcgrad, rng=np.random.default_rng(0)),
        level,
    )
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(
        p.grad.stride() == p.stride() for p in net.parameters() if p.grad is not None
    )
    assert len({g.data_ptr() for g in grads}) == len(grads)
