"""Gradient balancers in `fit` and on whole models: what is balanced, what is not, and
what a checkpoint holds."""

from __future__ import annotations

import functools

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

from mtmm_lib.balancing import GradientBalancer, backward, weightings
from mtmm_lib.balancing.weightings import (
    cagrad,
    equal_norms,
    mean,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.sharing import MMoE, SoftSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import TrainingError, fit, fit_many

levels = pytest.mark.parametrize("level", ["parameters", "features"])
quiet = functools.partial(fit, progress=False, device="cpu")


def three() -> list:
    return [Classification("kind", 3), Regression("size"), Regression("loud")]


def labelled(n: int = 48) -> Batch:
    data = samples(n)
    data.targets["loud"] = data.inputs["sound"].mean(1)
    return data


def gradient(model, data, choose) -> dict[str, torch.Tensor]:
    """Parameter → gradient of one scalar."""
    output = model(data)
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(
        choose(model.losses(output, data), output),
        list(model.parameters()),
        allow_unused=True,
    )
    zeros = (torch.zeros_like(p) for p in model.parameters())
    return {
        name: z if g is None else g
        for name, g, z in zip(names, found, zeros, strict=True)
    }


@levels
@pytest.mark.parametrize("weighting", [mean, upgrad, nash_mtl])
def test_weights_for_what_is_shared_own_gradients_for_heads_penalties_as_they_are(
    level, weighting
):
    model, data = build(tasks=three(), sharing=TetheredSharing), labelled()
    balancer = GradientBalancer(weighting, level)
    output = model(data)
    used = balancer.backward(model.losses(output, data), output, model)
    own = {
        name: gradient(model, data, lambda losses, _, n=name: losses[n])
        for name in used
    }
    penalty = gradient(model, data, lambda _, output: output.penalties["sharing"])
    assert any(g.abs().max() > 0 for g in penalty.values())
    heads = {f"heads.{task}.{part}" for task in used for part in ("weight", "bias")}
    for name, p in model.named_parameters():
        weight = dict.fromkeys(used, 1.0) if name in heads else used
        expected = sum(weight[task] * own[task][name] for task in used) + penalty[name]
        assert torch.allclose(p.grad, expected, atol=1e-5)


@levels
def test_tasks_that_want_no_part_are_added_as_they_are(level):
    adversary = Regression("loud")
    adversary.balanced = False
    model, data = build(tasks=[*three()[:2], adversary]), labelled()
    output = model(data)
    used = GradientBalancer(mgda, level).backward(
        model.losses(output, data), output, model
    )
    assert used["loud"] == 1.0 and used["kind"] + used["size"] == pytest.approx(1)
    own = {
        name: gradient(model, data, lambda losses, _, n=name: losses[n])
        for name in used
    }
    first = "sharing.trunk.0.0.weight"
    expected = sum(used[task] * own[task][first] for task in used)
    assert torch.allclose(
        dict(model.named_parameters())[first].grad, expected, atol=1e-6
    )
    alone = build(tasks=[*three()[:2], adversary])
    output = alone(data)
    losses = {"loud": alone.losses(output, data)["loud"]}
    assert GradientBalancer(mgda, level).backward(losses, output, alone) == {
        "loud": 1.0
    }
    assert torch.allclose(
        alone.heads["loud"].weight.grad, own["loud"]["heads.loud.weight"]
    )


@levels
@pytest.mark.parametrize("weighting", weightings.ALL.values(), ids=weightings.ALL)
def test_trains_with_missing_labels_and_tasks_that_come_and_go(level, weighting):
    data = labelled()
    data.targets["kind"][:20] = -1
    data.targets["loud"][10:] = torch.nan
    history = quiet(
        build(tasks=three()),
        data,
        epochs=4,
        batch_size=3,
        lr=1e-3,
        balancer=GradientBalancer(weighting, level),
    )
    assert all(
        np.isfinite(list(losses.values())).all()
        for losses in history.train_loss + history.weights
    )


def test_a_model_of_one_task_trains_as_without_a_balancer():
    plain, balanced = (
        build(tasks=[Regression("size")]),
        build(tasks=[Regression("size")]),
    )
    quiet(plain, samples(), epochs=2, batch_size=8)
    for level in ("parameters", "features"):
        quiet(
            balanced,
            samples(),
            epochs=2,
            batch_size=8,
            balancer=GradientBalancer(nash_mtl, level),
        )
        assert largest_difference(weights(plain), weights(balanced)) < 1e-6
        balanced = build(tasks=[Regression("size")])


@levels
def test_weights_of_one_train_as_the_sum_of_the_losses(level):
    plain, balanced = build(sharing=TetheredSharing), build(sharing=TetheredSharing)
    settings = {"epochs": 3, "batch_size": 12, "lr": 0.01, "optimizer": torch.optim.SGD}
    quiet(plain, samples(), **settings)
    balancer = GradientBalancer(lambda gramian: np.ones(len(gramian)), level)
    quiet(balanced, samples(), balancer=balancer, **settings)
    assert largest_difference(weights(plain), weights(balanced)) < 1e-6


def test_tasks_around_the_cut_are_named():
    tasks = [
        Classification("kind", 3),
        Regression("size"),
        Regression("loud", reads="sound"),
    ]
    encoders = {"image": MLPEncoder(6, 8), "sound": MLPEncoder(4, 5)}
    fusion = ConcatFusion({"image": 8, "sound": 5}, 8)

    def model(sharing, tasks=tasks):
        readers = [task.name for task in tasks if task.reads == ("shared",)]
        return Model(encoders, fusion, sharing(readers, 8, 8), tasks)

    balancer = GradientBalancer(upgrad, "features")
    with pytest.raises(
        ValueError, match=r"tasks \['loud'\] reach shared parameters around the cut"
    ):
        quiet(model(type(build().sharing)), labelled(), epochs=1, balancer=balancer)
    # Experts lie after the cut, and all tasks use them.
    with pytest.raises(
        ValueError,
        match=r"tasks \['kind', 'size'\] reach shared parameters around the cut",
    ):
        quiet(model(MMoE, tasks[:2]), samples(), epochs=1, balancer=balancer)
    # Trunks of their own do, too, but each belongs to one task.
    quiet(model(SoftSharing, tasks[:2]), samples(), epochs=1, balancer=balancer)
    for sharing in (MMoE, SoftSharing):
        quiet(model(sharing), labelled(), epochs=1, balancer=GradientBalancer(upgrad))


def test_decision_fusion_has_no_cut_but_shared_parameters():
    def late():
        parts = {}
        for name, width in (("image", 6), ("sound", 4)):
            fusion = ConcatFusion({name: 8}, 8)
            sharing = type(build().sharing)(["kind", "size"], 8, 8)
            parts[name] = Model(
                {name: MLPEncoder(width, 8)}, fusion, sharing, three()[:2]
            )
        return DecisionFusion(parts)

    data = samples(missing=False)
    with pytest.raises(ValueError, match="no cut that all tasks go through"):
        quiet(late(), data, epochs=1, balancer=GradientBalancer(upgrad, "features"))
    history = quiet(late(), data, epochs=1, balancer=GradientBalancer(upgrad))
    assert history.weights[0]["kind"] >= 0.5


@levels
def test_logarithms_of_losses(level):
    model, data = build(tasks=three()), labelled()
    balancer = GradientBalancer(equal_norms, level, log_losses=True)
    output = model(data)
    losses = model.losses(output, data)
    values = {name: loss.item() for name, loss in losses.items()}
    used = balancer.backward(losses, output, model)
    own = {
        name: gradient(model, data, lambda losses, _, n=name: losses[n])
        for name in used
    }
    for name, p in model.named_parameters():
        if name.startswith("heads"):
            expected = sum(own[task][name] / values[task] for task in used)
        else:
            expected = sum(used[task] * own[task][name] for task in used)
        assert torch.allclose(p.grad, expected, atol=1e-5, rtol=1e-3)
    # In what unit a loss is measured makes no difference any more, up to what keeps the
    # logarithm finite.
    other = build(tasks=three())
    output = other(data)
    scaled = {name: 1e3 * loss for name, loss in other.losses(output, data).items()}
    GradientBalancer(equal_norms, level, log_losses=True).backward(
        scaled, output, other
    )
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-5, rtol=1e-3)


def test_logarithms_of_losses_that_are_zero_or_negative():
    model, data = build(), samples()
    output = model(data)
    losses = model.losses(output, data)
    balancer = GradientBalancer(upgrad, log_losses=True)
    with pytest.raises(
        ValueError, match="takes logarithms, and the loss of task 'size' is -2"
    ):
        balancer.backward({**losses, "size": losses["size"] * 0 - 2}, output, model)
    balancer.backward({**losses, "size": losses["size"] * 0}, output, model)
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_momentum_is_a_running_mean_of_each_tasks_gradient():
    """With equal weights and plain gradient descent, it is what one would write down
    for the sum."""
    model, beta = build(), 0.6
    balancer = GradientBalancer(mean, momentum=beta)
    first = model.get_parameter("sharing.trunk.0.0.weight")
    running = torch.zeros_like(first)
    for step in range(4):
        data = samples(16, seed=step)
        output = model(data)
        losses = model.losses(output, data)
        plain = torch.autograd.grad(sum(losses.values()) / 2, first, retain_graph=True)[
            0
        ]
        running = beta * running + (1 - beta) * plain
        first.grad = None
        balancer.backward(losses, output, model)
        assert torch.allclose(first.grad, running, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradientBalancer(pcgrad),
        lambda: GradientBalancer(equal_norms, log_losses=True, momentum=0.9),
    ],
    ids=["orders", "running means"],
)
def test_what_a_balancer_carries_along_is_in_the_checkpoint(tmp_path, make):
    data, file, settings = (
        labelled(),
        tmp_path / "run.pt",
        {"epochs": 4, "batch_size": 8, "lr": 0.01},
    )
    whole, broken, resumed = (build(tasks=three()) for _ in range(3))
    quiet(whole, data, balancer=make(), **settings)

    class Interrupted(Exception):
        pass

    balancer = make()
    backward, steps = balancer.backward, iter(range(14))

    def until_it_stops(*arguments):
        if next(steps, None) is None:
            raise Interrupted
        return backward(*arguments)

    balancer.backward = until_it_stops
    with pytest.raises(Interrupted):
        quiet(broken, data, balancer=balancer, checkpoint=file, **settings)
    quiet(resumed, data, balancer=make(), checkpoint=file, **settings)
    assert same(weights(whole), weights(resumed))


def test_a_checkpoint_knows_the_balancer(tmp_path):
    file, data = tmp_path / "run.pt", samples()
    with_radius = [GradientBalancer(functools.partial(cagrad, c=c)) for c in (0.4, 0.5)]
    quiet(build(), data, epochs=1, checkpoint=file, balancer=with_radius[0])
    with pytest.raises(
        ValueError, match=r"GradientBalancer\(cagrad, \{'c': 0.4\}, .* then, .*'c': 0.5"
    ):
        quiet(build(), data, epochs=1, checkpoint=file, balancer=with_radius[1])


def test_the_order_of_pcgrad_follows_from_the_seed():
    runs = []
    for seed in (0, 0, 1):
        model = build(tasks=three())
        balancer = GradientBalancer(pcgrad, seed=seed)
        quiet(model, labelled(), epochs=3, batch_size=8, lr=0.05, balancer=balancer)
        runs.append(weights(model))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


@levels
def test_gradients_that_are_not_finite_end_training_and_are_named(level):
    model, data = build(), samples(missing=False)
    task = model.tasks["size"]
    loss = task.loss
    task.loss = lambda output, batch: (
        loss(output, batch) + 0 * (0 * output.predictions["size"].sum()).sqrt()
    )
    with pytest.raises(
        TrainingError, match=r"at step 1 \(epoch 0\) the gradients of tasks \['size'\]"
    ):
        quiet(model, data, epochs=1, balancer=GradientBalancer(upgrad, level))


@levels
def test_bf16(level):
    history = quiet(
        build(),
        samples(),
        epochs=2,
        precision="bf16",
        balancer=GradientBalancer(upgrad, level),
    )
    plain = quiet(
        build(), samples(), epochs=2, balancer=GradientBalancer(upgrad, level)
    )
    for a, b in zip(history.train_loss, plain.train_loss, strict=True):
        assert a == pytest.approx(b, rel=0.05)


def test_a_compiled_forward_pass(monkeypatch):
    # This backend makes one function of the forward pass and one of the backward pass,
    # without a compiler.
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="aot_eager")
    )
    one, other = build(), build()
    quiet(one, samples(), epochs=1, compile=True, balancer=GradientBalancer(upgrad))
    quiet(other, samples(), epochs=1, balancer=GradientBalancer(upgrad))
    assert largest_difference(weights(one), weights(other)) < 1e-5
    with pytest.raises(
        ValueError, match="around the cut, .* a compiled forward pass has none"
    ):
        quiet(
            build(),
            samples(),
            epochs=1,
            compile=True,
            balancer=GradientBalancer(upgrad, "features"),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "heads"}, "level is 'parameters' or 'features', got 'heads'"),
        ({"momentum": 1.0}, "momentum is in"),
        ({"momentum": 0.5, "level": "features"}, "momentum is in"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        GradientBalancer(upgrad, **settings)


def test_a_name_in_place_of_a_weighting():
    with pytest.raises(TypeError, match=r"such as weightings.upgrad, got 'upgrad'"):
        GradientBalancer("upgrad")


@pytest.mark.parametrize(
    "returned", [None, np.ones(3), 1.0, np.array([1.0, np.nan])], ids=repr
)
def test_a_weighting_of_ones_own_that_returns_no_weights(returned):
    """Nothing is moved by them, neither by `fit` nor by `fit_many`."""

    def mine(gramian):
        return returned

    said = "finite weight for each of the 2 tasks .*mine"
    model, data = build(), samples(missing=False)
    before = weights(model)
    for level in ("parameters", "features"):
        with pytest.raises(ValueError, match=said):
            quiet(model, data, epochs=1, balancer=GradientBalancer(mine, level))
    assert same(before, weights(model))
    with pytest.raises(ValueError, match=said):
        fit_many(
            build,
            [data],
            seeds=[0],
            epochs=1,
            balancer=GradientBalancer(mine, "features"),
        )
    output = model(data)
    with pytest.raises(ValueError, match=said):
        backward(model.losses(output, data), None, mine)
