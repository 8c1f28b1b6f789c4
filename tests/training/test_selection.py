"""Which epoch is best: for `fit` and `fit_many` by the same rule."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from training_problem import build, largest_difference, samples, weights

from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import TrainingError, evaluate, fit, fit_many, mean_loss
from mtmm_lib.training.selection import score

quiet = functools.partial(fit, progress=False, device="cpu")
TASKS = {task.name: task for task in (Classification("kind", 3), Regression("size"))}


def best(losses, select=None):
    """The epoch with the lowest score."""
    scores = [score(TASKS, losses[: i + 1], {}, select) for i in range(len(losses))]
    return scores.index(min(scores))


def course(kind, size):
    return [{"kind": k, "size": s} for k, s in zip(kind, size, strict=True)]


def test_the_geometric_mean_by_hand():
    # products 6, 4, 5, 4.2; sums 5, 4, 6, 5
    assert best(course([3, 2, 1, 0.7], [2, 2, 5, 6])) == 1
    # products 6, 4.5, 4.2; sums 5, 5.5, 6.7: the last against the first
    losses = course([3, 1, 0.7], [2, 4.5, 6])
    assert best(losses) == 2 and best(losses, mean_loss) == 0
    value = score(TASKS, losses, {}, None)
    assert value == pytest.approx((math.log(0.7 / 3) + math.log(6 / 2)) / 2, abs=1e-5)
    assert score(TASKS, losses, {}, mean_loss) == pytest.approx(6.7 / 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e3, 1e30])
def test_the_units_of_a_loss_do_not_matter(scale):
    draw = torch.Generator().manual_seed(0)
    moved = 0
    for _ in range(50):
        kind, size = torch.rand(2, 12, generator=draw).tolist()
        losses, scaled = course(kind, size), course(kind, [scale * s for s in size])
        assert best(losses) == best(scaled)
        moved += best(losses, mean_loss) != best(scaled, mean_loss)
    assert moved > 10  # under the arithmetic mean they do


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_one_task_is_best_where_its_loss_is_lowest(scale):
    draw = torch.Generator().manual_seed(1)
    for _ in range(20):
        size = (scale * torch.rand(9, generator=draw, dtype=torch.double)).tolist()
        assert best([{"size": s} for s in size]) == size.index(min(size))


def test_a_loss_of_zero_does_no_harm():
    assert best(course([0, 0, 0], [3, 1, 2])) == 1
    assert best(course([0, 0.5, 0], [3, 1, 2])) == 2
    # A task at zero has won all it can; the other one still counts.
    assert best(course([1, 0, 0], [2, 1, 0.5])) == 2
    assert best(course([1, 1e-12, 0], [2, 1, 1.1])) == 1


def test_a_negative_loss_asks_for_another_choice():
    losses = course([0.5, -0.25], [1, 1])
    assert score(TASKS, losses[:1], {}, None) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="loss of task 'kind' is -0.25, .* `select`"):
        score(TASKS, losses, {}, None)
    assert score(TASKS, losses, {}, mean_loss) == 0.375


def test_what_has_no_labels_or_is_not_supervised_does_not_count():
    signal = Regression("signal")
    signal.supervised = False
    tasks = {**TASKS, "signal": signal}
    seen = []

    def select(losses, metrics):
        seen.append((losses, metrics))
        return losses["size"]

    now = {"size": 2.0, "signal": -5.0}
    metrics = {"kind": math.nan, "size": 1.5, "signal": 0.0}
    assert score(tasks, [now], metrics, select) == 2
    assert seen == [({"size": 2.0}, metrics)]
    assert score(tasks, [now], metrics, None) == pytest.approx(0, abs=1e-5)
    assert score(tasks, [{"signal": 1.0}], metrics, select) is None


def test_fit_chooses_the_same_epoch_in_other_units():
    # A squared error of a target times 1,000 is a million times as large, and so that
    # the weights stay the same the balancer's part is undone: the loss alone is scaled.
    class Scaled(Regression):
        def loss(self, output, batch):
            loss = super().loss(output, batch)
            return loss if output.predictions["size"].requires_grad else 1000 * loss

    data, valid = samples(24), samples(200, 1)
    settings = {"valid": valid, "epochs": 30, "batch_size": 8, "lr": 0.03}
    plain, scaled = build(), build(tasks=[Classification("kind", 3), Scaled("size")])
    one = quiet(plain, data, **settings)
    other = quiet(scaled, data, **settings)
    assert one.valid_loss[3]["size"] == pytest.approx(other.valid_loss[3]["size"] / 1e3)
    assert one.best_epoch == other.best_epoch
    assert largest_difference(weights(plain), weights(scaled)) == 0
    means = [mean_loss(losses, {}) for losses in one.valid_loss]
    by_mean = quiet(build(), data, select=mean_loss, **settings)
    assert by_mean.best_epoch == means.index(min(means)) != one.best_epoch


def test_a_choice_by_a_metric():
    data, valid = samples(24), samples(200, 1)
    settings = {"valid": valid, "epochs": 15, "batch_size": 8, "lr": 0.05}

    def accuracy(losses, metrics):
        return -metrics["kind"]

    model = build()
    history = quiet(model, data, select=accuracy, **settings)
    reached = [metrics["kind"] for metrics in history.valid]
    assert history.best_epoch == reached.index(max(reached))
    assert evaluate(model, valid)["kind"] == max(reached)
    with pytest.raises(TrainingError, match="select returned NaN after epoch 0"):
        quiet(build(), data, select=lambda losses, metrics: math.nan, **settings)


@pytest.mark.parametrize(
    "select", [None, mean_loss, lambda losses, metrics: -metrics["kind"]]
)
def test_fit_many_chooses_as_fit_does(select):
    seeds = [3, 4, 5]
    train = [samples(23, seed) for seed in seeds]
    valid = [samples(60, seed + 10) for seed in seeds]
    for data in valid[1:]:
        data.targets["size"] *= 100
    settings = {"epochs": 25, "batch_size": 5, "lr": 0.05, "select": select}
    last = dict(settings, select=lambda losses, metrics: -1.0)
    models = fit_many(
        lambda: build(int(torch.initial_seed())),
        train,
        seeds=seeds,
        valid=valid,
        **settings,
    )
    chosen = []
    for seed, data, held_out, model in zip(seeds, train, valid, models, strict=True):
        alone, first = build(seed), build(seed)
        history = quiet(alone, data, valid=held_out, seed=seed, **settings)
        chosen.append(history.best_epoch)
        assert largest_difference(weights(alone), weights(model)) < 1e-3
        # another epoch's weights are further away than rounding
        quiet(first, data, valid=held_out, seed=seed, **last)
        if history.best_epoch:
            assert largest_difference(weights(first), weights(model)) > 1e-2
        assert all(module.training for module in model.modules())
    assert any(chosen)
