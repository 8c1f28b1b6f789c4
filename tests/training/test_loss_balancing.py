"""Loss balancers against their formulas, differentiated by autograd, and optimised by
PyTorch's own Adam."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from training_problem import (
    TetheredSharing,
    build,
    largest_difference,
    same,
    samples,
    weights,
)

from mtmm_lib.balancing import (
    FAMO,
    LOSS_BALANCERS,
    DynamicWeightAverage,
    GeometricMean,
    GradNorm,
    RandomWeights,
    SmoothTchebycheff,
    StaticWeights,
    UncertaintyWeights,
)
from mtmm_lib.tasks import Classification, Regression, Task
from mtmm_lib.training import evaluate, fit

every = pytest.mark.parametrize("make", LOSS_BALANCERS.values(), ids=LOSS_BALANCERS)
quiet = functools.partial(fit, progress=False, device="cpu")


def three() -> list:
    return [Classification("kind", 3), Regression("size"), Regression("loud")]


def labelled(n: int = 48, seed: int = 0, **how):
    data = samples(n, seed, **how)
    data.targets["loud"] = data.inputs["sound"].mean(1)
    return data


def gradients(model) -> dict[str, torch.Tensor]:
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }


def tasks(**gaussian: bool) -> dict[str, Task]:
    """Tasks as far as the weights depend on them."""
    found = {name: Task(name) for name in gaussian}
    for name, task in found.items():
        task.gaussian = gaussian[name]
    return found


def weights_by_autograd(objective, losses: dict[str, float]) -> dict[str, float]:
    """What each loss counts in the gradient of a function of the losses."""
    values = torch.tensor(
        list(losses.values()), dtype=torch.float64, requires_grad=True
    )
    (slope,) = torch.autograd.grad(objective(values), values)
    return dict(zip(losses, slope.tolist(), strict=True))


# --- all of them ----------------------------------------------------------------------


@every
def test_the_update_is_the_weighted_sum_heads_included_and_the_penalties(make):
    model, data, balancer = (
        build(tasks=three(), sharing=TetheredSharing),
        labelled(),
        make(),
    )
    for _ in range(3):  # what is learned changes nothing about that
        model.zero_grad()
        output = model(data)
        used = balancer.backward(model.losses(output, data), output, model)
        found = gradients(model)
        model.zero_grad()
        output = model(data)
        losses = model.losses(output, data)
        sum(
            [used[name] * losses[name] for name in losses]
            + [*output.penalties.values()]
        ).backward()
        for name, expected in gradients(model).items():
            assert torch.allclose(found[name], expected, atol=1e-6), name
        after = {name: 0.9 * loss.detach() for name, loss in losses.items()}
        balancer.after_step(lambda after=after: after)


@every
def test_trains_with_missing_labels_and_tasks_that_come_and_go(make):
    data = labelled()
    data.targets["kind"][:20] = -1
    data.targets["loud"][10:] = torch.nan
    history = quiet(build(tasks=three()), data, epochs=4, batch_size=3, balancer=make())
    assert all(
        np.isfinite(list(losses.values())).all()
        for losses in history.train_loss + history.weights
    )


@every
@pytest.mark.parametrize("number", [1, 2])
def test_learns_what_can_be_learned(make, number):
    signals = [Classification("kind", 3), Regression("size")][-number:]
    model, data, fresh = (
        build(tasks=signals),
        samples(512, 1),
        samples(512, 2, missing=False),
    )
    before = evaluate(model, fresh)["size"]
    history = quiet(model, data, epochs=40, lr=0.01, balancer=make())
    assert evaluate(model, fresh)["size"] < before / 2
    assert set(history.weights[-1]) == {task.name for task in signals}


@every
def test_what_is_learned_is_in_the_checkpoint(tmp_path, make):
    data, file, settings = (
        labelled(),
        tmp_path / "run.pt",
        {"epochs": 5, "batch_size": 8, "lr": 0.01},
    )
    whole, broken, resumed = (build(tasks=three()) for _ in range(3))
    quiet(whole, data, balancer=make(), **settings)

    class Interrupted(Exception):
        pass

    balancer, steps = make(), iter(range(20))
    backward = balancer.backward

    def until_it_stops(*arguments):
        if next(steps, None) is None:
            raise Interrupted
        return backward(*arguments)

    balancer.backward = until_it_stops
    with pytest.raises(Interrupted):
        quiet(broken, data, balancer=balancer, checkpoint=file, **settings)
    quiet(resumed, data, balancer=make(), checkpoint=file, **settings)
    assert same(weights(whole), weights(resumed))


@every
def test_tasks_that_want_no_part_are_added_as_they_are(make):
    if make is StaticWeights:
        return  # its weights are what somebody wrote down
    outsider = Regression("loud")
    outsider.balanced = False
    model, data = build(tasks=[*three()[:2], outsider]), labelled()
    output = model(data)
    used = make().backward(model.losses(output, data), output, model)
    without = build(tasks=three()[:2])
    output = without(data)
    expected = make().backward(without.losses(output, data), output, without)
    assert used["loud"] == 1.0
    if make is not SmoothTchebycheff:  # whose 1/T counts all tasks
        assert {name: used[name] for name in expected} == pytest.approx(
            expected, rel=1e-5
        )


@every
def test_shows_its_settings_and_nothing_that_it_learned(make):
    balancer = make()
    before = repr(balancer)
    quiet(build(), samples(), epochs=2, balancer=balancer)
    assert repr(balancer) == before and type(balancer).__name__ in before


@pytest.mark.parametrize("make", [GeometricMean, FAMO])
def test_losses_for_logarithms_may_be_zero_but_not_negative(make):
    model, data = build(), samples()
    output = model(data)
    losses = model.losses(output, data)
    with pytest.raises(
        ValueError, match="takes logarithms, and the loss of task 'size' is -3"
    ):
        make().backward({**losses, "size": 0 * losses["size"] - 3}, output, model)
    used = make().backward({**losses, "size": 0 * losses["size"]}, output, model)
    assert all(math.isfinite(weight) for weight in used.values())


def test_weights_for_tasks_that_there_are_not():
    for balancer, kind in (
        (SmoothTchebycheff({"speed": 1.0}), "weights"),
        (SmoothTchebycheff(ideal={"speed": 1.0}), "ideals"),
        (FAMO(minima={"speed": 1.0}), "minima"),
    ):
        with pytest.raises(
            ValueError, match=rf"has {kind} for \['speed'\], but the model's tasks are"
        ):
            quiet(build(), samples(), epochs=1, balancer=balancer)
    with pytest.raises(ValueError, match="mu needs to be positive, got 0"):
        SmoothTchebycheff(mu=0)


# --- uncertainty ----------------------------------------------------------------------


def test_uncertainty_weights_are_what_training_the_noise_along_gives():
    """One optimizer for the model and the log-variances, all differentiated by
    autograd."""
    data, lr = labelled(missing=False), 0.02
    ours, theirs = build(tasks=three()), build(tasks=three())
    noise = {
        name: torch.zeros((), dtype=torch.float64, requires_grad=True)
        for name in ours.tasks
    }
    optimizer = torch.optim.Adam([*theirs.parameters(), *noise.values()], lr=lr)
    factors = {"kind": 1.0, "size": 0.5, "loud": 0.5}
    for _ in range(30):
        optimizer.zero_grad()
        losses = theirs.losses(theirs(data), data)
        sum(
            factors[n] * (-noise[n]).exp() * losses[n] + noise[n] / 2 for n in losses
        ).backward()
        optimizer.step()
    balancer = UncertaintyWeights(lr=lr)
    quiet(
        ours,
        data,
        epochs=30,
        batch_size=48,
        lr=lr,
        optimizer=torch.optim.Adam,
        balancer=balancer,
    )
    assert largest_difference(weights(ours), weights(theirs)) < 1e-4
    learned = {name: s.item() for name, s in noise.items()}
    assert balancer.log_variances == pytest.approx(learned, rel=1e-3, abs=1e-5)


def test_the_uncertainty_objective_may_be_negative_and_nothing_is_clipped():
    balancer, told, losses = (
        UncertaintyWeights(lr=0.05),
        tasks(exact=True, vague=False),
        {},
    )
    for step in range(4000):
        losses = {"exact": 1e-6, "vague": 3.0}
        used = balancer.weigh(losses, told)
        if step == 0:
            assert used == {"exact": 0.5, "vague": 1.0}
    s = balancer.log_variances
    assert s == pytest.approx({"exact": math.log(1e-6), "vague": math.log(6)}, abs=0.05)
    assert used == pytest.approx({"exact": 0.5 / 1e-6, "vague": 0.5 / 3}, rel=0.1)
    assert sum(used[name] * losses[name] + s[name] / 2 for name in losses) < -4


# --- random, DWA ----------------------------------------------------------------------


def test_random_weights_sum_to_one_and_average_to_equal_ones():
    balancer, losses = RandomWeights(seed=3), {"a": 1.0, "b": 5.0, "c": 0.1}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws = [balancer.weigh(losses, {}) for _ in range(3000)]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert all(
        sum(draw.values()) == pytest.approx(1) and min(draw.values()) > 0
        for draw in draws
    )
    means = {name: np.mean([draw[name] for draw in draws]) for name in losses}
    assert means == pytest.approx(dict.fromkeys(losses, 1 / 3), abs=0.02)
    again = RandomWeights(seed=3)
    assert [again.weigh(losses, {}) for _ in range(5)] == draws[:5]


def test_dynamic_weight_average_by_hand():
    balancer, told = DynamicWeightAverage(temperature=2.0), tasks(a=True, b=True)
    losses = {"a": 1.0, "b": 1.0}
    balancer.after_epoch({"a": 4.0, "b": 2.0})
    assert balancer.weigh(losses, told) == {"a": 1.0, "b": 1.0}
    balancer.after_epoch({"a": 2.0, "b": 2.0})  # a halved, b stood still
    high, low = math.exp(1 / 2), math.exp(0.5 / 2)
    expected = {"a": 2 * low / (low + high), "b": 2 * high / (low + high)}
    assert balancer.weigh(losses, told) == pytest.approx(expected)
    assert balancer.weigh({"b": 1.0}, told) == pytest.approx({"b": expected["b"]})
    # b had no label in a whole epoch: a stood still, and so, as far as known, did b
    balancer.after_epoch({"a": 2.0})
    assert balancer.weigh(losses, told) == pytest.approx(losses)
    balancer.after_epoch({"a": 1e9, "b": 1.0})
    assert all(math.isfinite(w) for w in balancer.weigh(losses, told).values())


# --- functions of the losses ----------------------------------------------------------


@pytest.mark.parametrize(
    "losses", [{"a": 0.2, "b": 3.0}, {"a": 1e-5, "b": 1e5, "c": 1.0}, {"a": 2.0}]
)
def test_the_geometric_mean_has_the_gradient_of_its_formula(losses):
    expected = weights_by_autograd(
        lambda values: values.prod() ** (1 / len(values)), losses
    )
    found = GeometricMean().weigh(losses, {})
    assert found == pytest.approx(expected, rel=2e-3)
    assert sum(found[name] * losses[name] for name in losses) == pytest.approx(
        np.prod(list(losses.values())) ** (1 / len(losses)), rel=2e-3
    )


@pytest.mark.parametrize("mu", [0.05, 1.0, 20.0])
def test_smooth_tchebycheff_has_the_gradient_of_its_formula(mu):
    losses, share, ideal = (
        {"a": 0.7, "b": 0.9, "c": 0.4},
        {"a": 0.5, "b": 0.3, "c": 0.2},
        {"a": 0.1},
    )

    def objective(values):
        height = values - torch.tensor([0.1, 0, 0])
        return mu * torch.logsumexp(torch.tensor([0.5, 0.3, 0.2]) * height / mu, 0)

    told = tasks(a=True, b=True, c=True)
    found = SmoothTchebycheff(share, mu, ideal).weigh(losses, told)
    assert found == pytest.approx(weights_by_autograd(objective, losses), rel=1e-5)


def test_smooth_tchebycheff_goes_from_the_largest_loss_to_a_weighted_sum():
    losses, told = {"a": 1.0, "b": 0.8}, tasks(a=True, b=True)
    assert SmoothTchebycheff(mu=1e-3).weigh(losses, told) == pytest.approx(
        {"a": 0.5, "b": 0}, abs=1e-9
    )
    found = SmoothTchebycheff({"a": 0.9, "b": 0.1}, mu=1e6).weigh(losses, told)
    assert found == pytest.approx({"a": 0.45, "b": 0.05}, rel=1e-3)
    assert SmoothTchebycheff().weigh({"b": 0.8}, told) == {"b": 0.5}


# --- FAMO -----------------------------------------------------------------------------


def test_famo_is_its_algorithm_differentiated_by_autograd():
    told, lr, decay, lowest = tasks(a=True, b=True, c=True), 0.03, 0.01, {"b": -2.0}
    balancer = FAMO(lr=lr, weight_decay=decay, minima=lowest)
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=lr, weight_decay=decay)
    rng, floor = (
        np.random.default_rng(0),
        torch.tensor([0, -2.0, 0], dtype=torch.float64),
    )
    before = torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64)
    for _ in range(40):
        after = before * torch.from_numpy(rng.uniform(0.9, 1.0, 3))
        found = balancer.weigh(dict(zip("abc", before.tolist(), strict=True)), told)
        shares = scores.softmax(0)
        expected = (shares / (before - floor)) / (shares / (before - floor)).sum()
        assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-5)
        balancer.after_step(lambda: dict(zip("abc", after, strict=True)))  # noqa: B023
        change = (before - floor + 1e-8).log() - (after - floor + 1e-8).log()
        (scores.grad,) = torch.autograd.grad(shares, scores, change)
        optimizer.step()
        before = after
    assert list(balancer.scores.values()) == pytest.approx(
        scores.tolist(), rel=1e-5, abs=1e-9
    )


def test_famo_gives_less_to_what_falls_faster():
    balancer, told = FAMO(weight_decay=0.0), tasks(fast=True, slow=True)
    fast, slow = 1.0, 1.0
    for _ in range(50):
        used = balancer.weigh({"fast": fast, "slow": slow}, told)
        fast, slow = fast * 0.9, slow * 0.99
        after = {"fast": torch.tensor(fast), "slow": torch.tensor(slow)}
        balancer.after_step(lambda after=after: after)
    assert sum(used.values()) == pytest.approx(1)
    assert balancer.scores["fast"] < -0.5 < 0.5 < balancer.scores["slow"]


def test_famo_in_a_batch_without_some_task():
    balancer, told = FAMO(), tasks(a=True, b=True)
    balancer.weigh({"a": 1.0, "b": 1.0}, told)
    balancer.after_step(lambda: {"a": torch.tensor(0.5), "b": torch.tensor(1.0)})
    kept = balancer.scores["b"]
    assert balancer.weigh({"a": 1.0}, told) == {"a": 1.0}
    balancer.after_step(lambda: {"a": torch.tensor(0.5)})
    assert balancer.scores["b"] == kept


# --- GradNorm -------------------------------------------------------------------------


def norms(model, data, level) -> torch.Tensor:
    output = model(data)
    at = output.shared if level == "features" else model.shared_parameters()
    found = []
    for loss in model.losses(output, data).values():
        parts = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True)
        found.append(torch.cat([g.flatten() for g in parts if g is not None]).norm())
    return torch.stack(found).double()


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_gradnorm_is_its_algorithm_differentiated_by_autograd(level):
    model, data, alpha, lr = build(tasks=three()), labelled(), 1.2, 0.02
    balancer = GradNorm(alpha=alpha, lr=lr, level=level)
    ours = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([ours], lr=lr)
    step = torch.optim.SGD(model.parameters(), lr=0.05)
    first = None
    for _ in range(25):
        lengths = norms(model, data, level)
        output = model(data)
        losses = model.losses(output, data)
        values = torch.stack([loss.detach() for loss in losses.values()]).double()
        first = values if first is None else first
        step.zero_grad()
        used = balancer.backward(losses, output, model)
        assert list(used.values()) == pytest.approx(ours.tolist(), rel=1e-4)
        scaled = ours * lengths
        rate = (values / first) / (values / first).mean()
        target = (scaled.mean() * rate**alpha).detach()
        (ours.grad,) = torch.autograd.grad((scaled - target).abs().sum(), ours)
        optimizer.step()
        with torch.no_grad():
            ours *= 3 / ours.sum()
        step.step()
    assert sum(balancer.weights.values()) == pytest.approx(3)
    assert len(set(balancer.weights.values())) == 3


def test_the_gradient_of_gradnorms_weights_reaches_nothing_else():
    """The model's gradient is that of the weighted losses, and no second derivative of
    anything is in it."""
    model, data = build(tasks=three()), labelled()
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)  # what is there is added to
    output = model(data)
    used = GradNorm().backward(model.losses(output, data), output, model)
    assert used == dict.fromkeys(used, 1.0)
    found = gradients(model)
    model.zero_grad()
    sum(model.losses(model(data), data).values()).backward()
    for name, expected in gradients(model).items():
        assert torch.allclose(found[name], expected + 2.0, atol=1e-5)


def test_gradnorm_makes_gradients_equally_long():
    """With α = 0, whatever the losses' units: here 1, 4 and 20."""
    model, data, balancer = (
        build(tasks=three()),
        labelled(),
        GradNorm(alpha=0.0, lr=0.01),
    )
    units = dict(zip(model.tasks, (1.0, 4.0, 20.0), strict=True))
    for _ in range(800):
        output = model(data)
        losses = {
            name: units[name] * loss
            for name, loss in model.losses(output, data).items()
        }
        used = balancer.backward(losses, output, model)
    scaled = norms(model, data, "features").numpy() * np.array(
        [used[n] * units[n] for n in units]
    )
    assert scaled.max() / scaled.min() < 1.6 and min(used.values()) > 0
    bare = norms(model, data, "features").numpy() * np.array(list(units.values()))
    assert bare.max() / bare.min() > 4


def test_gradnorm_pulls_back_what_lags_behind():
    told, lengths = tasks(fast=True, slow=True), {"fast": 1.0, "slow": 1.0}
    balancer = GradNorm(alpha=1.0)
    balancer.weigh({"fast": 1.0, "slow": 1.0}, told, lengths)
    for _ in range(200):
        used = balancer.weigh({"fast": 0.1, "slow": 0.3}, told, lengths)
    assert used == pytest.approx({"fast": 0.5, "slow": 1.5}, abs=0.06)


def test_gradnorm_in_batches_without_some_task_and_with_gradients_of_zero():
    told, balancer = tasks(a=True, b=True), GradNorm()
    assert balancer.weigh({"a": 1.0}, told, {"a": 2.0}) == {"a": 1.0}
    assert balancer.weights == {"a": 1.0, "b": 1.0}
    balancer.weigh({"a": 0.0, "b": 0.0}, told, {"a": 0.0, "b": 0.0})
    assert balancer.weights == {"a": 1.0, "b": 1.0}
    for _ in range(500):
        balancer.weigh({"a": 1.0, "b": 1.0}, told, {"a": 1e8, "b": 1e-8})
    assert min(balancer.weights.values()) > 0 and sum(
        balancer.weights.values()
    ) == pytest.approx(2)
