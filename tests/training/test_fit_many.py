"""Many models at once: each becomes what `fit` makes of it alone.

In double precision, where the two differ by rounding only, however often a step of Adam
divides small numbers by each other.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
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
    GradientBalancer,
    GradNorm,
    StaticWeights,
    UncertaintyWeights,
    weightings,
)
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.sharing import HardSharing, MMoE, SoftSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import TrainingError, cosine, fit, fit_many, mean_loss

SEEDS = [3, 4, 5]
settings = {"epochs": 4, "batch_size": 5, "lr": 0.01, "weight_decay": 0.2}
at_features = partial(GradientBalancer, level="features")


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sparse(seed):
    """Most batches have no label of the one or the other task, some of none."""
    data = samples(23, seed)
    data.targets["kind"][4:] = -1
    data.targets["size"][:-5] = math.nan
    return data


def plenty(seed):
    return samples(23, seed, missing=False)


def some(seed):
    return samples(23, seed)


def assert_as_fit_does(make, draw, balancer=None, valid=some, **options):
    train = [draw(seed) for seed in SEEDS]
    valid = [valid(seed + 10) for seed in SEEDS]
    budget = {"balancer": balancer, **settings, **options}
    models = fit_many(
        lambda: make(torch.initial_seed()), train, seeds=SEEDS, valid=valid, **budget
    )
    moved = 0.0
    for seed, data, held_out, model in zip(SEEDS, train, valid, models, strict=True):
        alone = make(seed)
        before = weights(alone)
        fit(alone, data, valid=held_out, seed=seed, progress=False, **budget)
        assert largest_difference(weights(alone), weights(model)) < 1e-8
        moved = max(moved, largest_difference(weights(alone), before))
    assert moved > 0.01


@pytest.mark.parametrize("draw", [plenty, some, sparse])
@pytest.mark.parametrize("sharing", [HardSharing, TetheredSharing])
def test_fixed_weights(draw, sharing):
    balancer = StaticWeights({"size": 0.3})
    assert_as_fit_does(partial(build, sharing=sharing), draw, balancer)


@pytest.mark.parametrize(
    "name", [name for name in LOSS_BALANCERS if name != "GradNorm"]
)
def test_loss_balancers(name):
    make = partial(build, sharing=TetheredSharing)
    assert_as_fit_does(make, sparse, LOSS_BALANCERS[name]())


@pytest.mark.parametrize("draw", [some, sparse])
@pytest.mark.parametrize(
    "balancer",
    [
        GradNorm(),
        at_features(weightings.upgrad),
        at_features(weightings.pcgrad, seed=7),
        at_features(partial(weightings.cagrad, c=0.3)),
        at_features(weightings.equal_norms, log_losses=True),
    ],
    ids=["GradNorm", "upgrad", "pcgrad", "cagrad", "equal norms of logarithms"],
)
def test_balancers_at_the_features(draw, balancer):
    make = partial(build, sharing=TetheredSharing)
    assert_as_fit_does(make, draw, balancer)


def test_the_cut_is_where_fit_has_it():
    """Between fusion and sharing, where each task has a trunk of its own, tethered."""
    make = partial(build, sharing=partial(SoftSharing, strength=0.1))
    assert_as_fit_does(make, some, at_features(weightings.mgda))


class Aside(Regression):
    """A task that wants no part in balancing."""

    balanced = False


@pytest.mark.parametrize(
    "balancer", [at_features(weightings.upgrad), GradNorm(level="features"), FAMO()]
)
def test_tasks_outside_of_balancing(balancer):
    def make(seed):
        tasks = [Aside("more"), Classification("kind", 3), Regression("size")]
        return build(seed, tasks=tasks, sharing=TetheredSharing)

    def draw(seed):
        data = sparse(seed)
        more = data.inputs["image"][:, 0].clone()
        more[torch.arange(len(more)) % 3 > 0] = torch.nan
        return Batch(data.inputs, data.targets | {"more": more}, data.present)

    assert_as_fit_does(make, draw, balancer, valid=draw)


@pytest.mark.parametrize("frozen", ["encoders.sound", "sharing", "heads.kind"])
@pytest.mark.parametrize("balancer", [None, at_features(weightings.mgda), FAMO()])
def test_frozen_parts(frozen, balancer):
    def make(seed):
        model = build(seed, sharing=HardSharing)
        model.get_submodule(frozen).requires_grad_(False)
        return model

    assert_as_fit_does(make, some, balancer)


def test_everything_before_the_heads_frozen():
    def make(seed):
        model = build(seed)
        for part in (model.encoders, model.fusion, model.sharing):
            part.requires_grad_(False)
        return model

    assert_as_fit_does(make, some, at_features(weightings.mgda))


@pytest.mark.parametrize(
    "select", [mean_loss, lambda losses, metrics: -metrics["kind"]]
)
def test_the_choice_of_the_epoch(select):
    assert_as_fit_does(build, some, select=select)


class Signal(Regression):
    """A task that no epoch is chosen by."""

    supervised = False


def test_where_nothing_can_be_chosen_by_the_last_weights_stay():
    def make(seed):
        return build(seed, tasks=[Signal("size")])

    assert_as_fit_does(make, some)


def test_a_metric_of_one_s_own_may_choose_the_epoch():
    def make(seed):
        mean = {"off": lambda said, target: (said - target).mean().abs()}
        return build(
            seed, tasks=[Classification("kind", 3), Regression("size", metrics=mean)]
        )

    assert_as_fit_does(make, some, select=lambda losses, metrics: metrics["size/off"])


@pytest.mark.parametrize("draw", [some, sparse])
@pytest.mark.parametrize("balancer", [None, at_features(weightings.upgrad)])
def test_schedules_and_clipping(draw, balancer):
    schedule = cosine(warmup=0.3)
    make = partial(build, sharing=TetheredSharing)
    assert_as_fit_does(make, draw, balancer, schedule=schedule, clip=0.5)


@pytest.mark.parametrize("draw", [some, sparse])
def test_another_optimizer(draw):
    momentum = partial(torch.optim.SGD, momentum=0.9)
    assert_as_fit_does(build, draw, optimizer=momentum, weight_decay=0.01)


def test_a_frozen_part_in_evaluation_mode_stays_so():
    """Its dropout draws nothing, and its batch normalisation stays as it is."""

    def make(seed):
        model = build(seed)
        model.encoders["image"] = Normed().requires_grad_(False).eval()
        return model

    assert_as_fit_does(make, some)


class Normed(MLPEncoder):
    def __init__(self):
        super().__init__(6, 8, hidden=(12,), dropout=0.5)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x, lengths=None):
        return super().forward(self.norm(x), lengths)


def test_a_task_without_any_label():
    def draw(seed):
        data = some(seed)
        data.targets["size"][:] = math.nan
        return data

    with pytest.warns(UserWarning, match="no label for task 'size'"):
        assert_as_fit_does(build, draw, UncertaintyWeights())


def test_the_balancer_that_is_given_keeps_no_state():
    balancer = UncertaintyWeights()
    fit_many(build, [some(0)], seeds=[0], balancer=balancer, **settings)
    assert balancer.state_dict() == UncertaintyWeights().state_dict()


@pytest.mark.parametrize(
    "balancer",
    [GradientBalancer(weightings.mgda), GradNorm(level="parameters")],
)
def test_other_balancers_are_refused(balancer):
    with pytest.raises(ValueError, match="call fit for each seed instead"):
        fit_many(build, [some(0)], seeds=[0], balancer=balancer, **settings)


def test_what_goes_around_the_cut_is_refused_as_by_fit():
    make, balancer = partial(build, sharing=MMoE), at_features(weightings.mgda)
    with pytest.raises(ValueError, match="around the cut.*; fit_many compares"):
        fit_many(make, [some(0)], seeds=[0], balancer=GradNorm(), **settings)
    with pytest.raises(ValueError, match="reach shared parameters around the cut"):
        fit(make(), some(0), balancer=balancer, progress=False, **settings)
    with pytest.raises(ValueError, match="reach shared parameters around the cut"):
        fit_many(make, [some(0)], seeds=[0], balancer=balancer, **settings)


def test_batch_normalisation_is_refused_unless_it_only_evaluates():
    def make(training):
        model = build(1)
        model.encoders["image"].norm = nn.BatchNorm1d(8).train(training)
        return model

    with pytest.raises(ValueError, match="encoders.image.norm is a BatchNorm1d"):
        fit_many(partial(make, True), [some(0)], seeds=[0], **settings)


def test_seeds_may_be_integers_of_numpy():
    data = [some(0), some(1)]
    one = fit_many(build, data, seeds=np.arange(2), **settings)
    other = fit_many(build, data, seeds=[0, 1], **settings)
    assert all(same(weights(a), weights(b)) for a, b in zip(one, other, strict=True))
    with pytest.raises(TypeError, match="a seed is a whole number, got 1.5"):
        fit_many(build, data, seeds=[0, 1.5], **settings)


def test_errors_name_the_seed():
    data = some(0)
    data.targets["kind"][5] = 7
    with pytest.raises(ValueError, match="for seed 9: .*'kind'.*sample 5 is 7"):
        fit_many(build, [some(1), data], seeds=[8, 9], **settings)


def test_without_validation_the_last_weights_stay():
    train = [samples(20, seed) for seed in (0, 1)]
    models = fit_many(lambda: build(7), train, seeds=[0, 1], **settings)
    for seed, model in enumerate(models):
        alone = build(7)
        fit(alone, train[seed], seed=seed, progress=False, **settings)
        assert largest_difference(weights(alone), weights(model)) < 1e-4


def test_frozen_parameters_stay_and_the_random_state_is_left_alone():
    def make():
        model = build(2)
        model.encoders["sound"].requires_grad_(False)
        return model

    before = weights(make())
    state = torch.get_rng_state()
    (model,) = fit_many(make, [samples()], seeds=[0], **settings)
    assert torch.equal(state, torch.get_rng_state())
    after = weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("encoders.sound") for name in moved)


def test_shared_parameters_and_buffers():
    def make():
        model = build(tasks=[Regression("size"), Regression("other")])
        model.heads["other"].weight = model.heads["size"].weight
        model.register_buffer("scale", torch.rand(3))
        return model

    data = samples()
    data.targets["other"] = data.inputs["image"][:, 0]
    (model,) = fit_many(make, [data], seeds=[0], **settings)
    alone = make()
    fit(alone, data, progress=False, **settings)
    assert model.heads["other"].weight is model.heads["size"].weight
    assert largest_difference(weights(alone), weights(model)) < 1e-4


def test_models_come_back_in_training_mode_as_they_were_built():
    train = [samples(seed=seed) for seed in (0, 1)]
    models = fit_many(build, train, seeds=[0, 1], valid=train, **settings)
    assert all(module.training for model in models for module in model.modules())


def test_dropout_differs_between_models():
    # Twenty times one sample, so that the models' orders cannot make a difference.
    train = [samples(1, missing=False)[torch.zeros(20, dtype=torch.long)]] * 2
    one, other = fit_many(
        lambda: build(1), train, seeds=[0, 1], epochs=1, batch_size=20
    )
    assert largest_difference(weights(one), weights(other)) < 1e-6
    one, other = fit_many(
        lambda: build(1, dropout=0.5), train, seeds=[0, 1], epochs=1, batch_size=20
    )
    assert largest_difference(weights(one), weights(other)) > 1e-4


def test_bad_input_is_refused():
    data = samples(8)
    with pytest.raises(ValueError, match="at least one seed"):
        fit_many(build, [], seeds=[], epochs=1)
    with pytest.raises(ValueError, match="a sequence of 2 Batches"):
        fit_many(build, [data], seeds=[0, 1], epochs=1)
    with pytest.raises(ValueError, match="a sequence of 1 Batches"):
        fit_many(build, data, seeds=[0], epochs=1)
    with pytest.raises(ValueError, match="same shapes"):
        fit_many(build, [data, data[:5]], seeds=[0, 1], epochs=1)
    with pytest.raises(ValueError, match=r"weights for \['speed'\]"):
        fit_many(
            build,
            [data],
            seeds=[0],
            balancer=StaticWeights({"speed": 1.0}),
            epochs=1,
        )
    widths = iter(
        [[Regression("size")], [Regression("size"), Classification("kind", 3)]]
    )
    with pytest.raises(ValueError, match="one architecture"):
        fit_many(
            lambda: build(tasks=next(widths)), [data, data], seeds=[0, 1], epochs=1
        )
    data.inputs["image"][2] = math.nan
    where = "task 'kind' is nan for seed 9 at step 1 .epoch 0."
    with pytest.raises(TrainingError, match=where):
        fit_many(build, [data], seeds=[9], epochs=1)
