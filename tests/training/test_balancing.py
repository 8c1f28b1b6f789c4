from __future__ import annotations

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
    Balancer,
    GradientBalancer,
    SmoothTchebycheff,
    StaticWeights,
    weightings,
)
from mtmm_lib.batch import Batch
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import fit


def gradients(model):
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }


def of_one_term(choose):
    """The gradients of one term of the objective, from a fresh model."""
    model, data = build(sharing=TetheredSharing), samples()
    output = model(data)
    choose(model.losses(output, data), output).backward()
    return gradients(model)


@pytest.mark.parametrize("weights", [None, {"size": 0.25}, {"kind": 3.0, "size": 0.0}])
def test_static_weights_give_the_weighted_sum_of_the_gradients_heads_included(weights):
    model, data = build(sharing=TetheredSharing), samples()
    output = model(data)
    used = StaticWeights(weights).backward(model.losses(output, data), output, model)
    assert used == {"kind": 1.0, "size": 1.0, **(weights or {})}
    kind = of_one_term(lambda losses, output: losses["kind"])
    size = of_one_term(lambda losses, output: losses["size"])
    penalty = of_one_term(lambda losses, output: output.penalties["sharing"])
    assert any(g.abs().max() > 0 for g in penalty.values())
    for name, gradient in gradients(model).items():
        expected = used["kind"] * kind[name] + used["size"] * size[name] + penalty[name]
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_any_subset_of_the_tasks():
    model, data = build(), samples()
    output = model(data)
    losses = model.losses(output, data)
    used = StaticWeights({"kind": 2.0}).backward(
        {"size": losses["size"]}, output, model
    )
    assert used == {"size": 1.0}
    assert (
        model.heads["kind"].weight.grad is None
        and model.heads["size"].weight.grad is not None
    )


def test_a_weight_for_an_unknown_task_is_refused():
    with pytest.raises(
        ValueError,
        match=r"weights for \['speed'\], but the model's tasks are \['kind', 'size'\]",
    ):
        fit(
            build(),
            samples(),
            epochs=1,
            balancer=StaticWeights({"speed": 1.0}),
            progress=False,
        )


@pytest.mark.parametrize("weights", [[1, 2], {"size": "2"}, 3.0])
def test_weights_that_are_no_dict_of_numbers(weights):
    with pytest.raises(TypeError, match="weights is a dict from tasks to numbers"):
        StaticWeights(weights)


def test_every_balancer_is_listed_under_its_name():
    assert list(LOSS_BALANCERS) == (
        "StaticWeights UncertaintyWeights RandomWeights DynamicWeightAverage "
        "GeometricMean SmoothTchebycheff "
        "FAMO GradNorm".split()
    )
    assert LOSS_BALANCERS["StaticWeights"] is StaticWeights
    assert all(name == cls.__name__ for name, cls in LOSS_BALANCERS.items())


class Recorder(StaticWeights):
    """Writes down what `fit` tells a balancer."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs = [], []

    def backward(self, losses, output, model):
        self.before = {name: loss.item() for name, loss in losses.items()}
        return super().backward(losses, output, model)

    def after_step(self, losses):
        after = losses()
        assert not any(loss.requires_grad for loss in after.values())
        self.steps.append(
            (self.before, {name: loss.item() for name, loss in after.items()})
        )

    def after_epoch(self, losses):
        self.epochs.append(losses)


def test_balancers_hear_of_steps_and_epochs():
    recorder = Recorder()
    history = fit(
        build(),
        samples(40),
        epochs=2,
        batch_size=20,
        lr=1e-3,
        balancer=recorder,
        progress=False,
    )
    assert recorder.epochs == history.train_loss
    assert len(recorder.steps) == 4
    # A small step along the gradient of the sum makes the sum smaller on the batch it
    # was computed from.
    assert all(
        sum(after.values()) < sum(before.values()) for before, after in recorder.steps
    )
    first = {
        name: sum(before[name] for before, _ in recorder.steps[:2]) / 2
        for name in ("kind", "size")
    }
    assert history.train_loss[0] == pytest.approx(first)


def test_backward_alone_makes_a_balancer():
    class Alternating(Balancer):
        def __init__(self):
            self.turn = 0

        def backward(self, losses, output, model):
            self.turn += 1
            name = ("kind", "size")[self.turn % 2]
            losses[name].backward()
            return {other: float(other == name) for other in losses}

    history = fit(
        build(),
        samples(40),
        epochs=1,
        batch_size=10,
        balancer=Alternating(),
        progress=False,
    )
    assert history.weights[0] == {"kind": 0.5, "size": 0.5}


@pytest.mark.parametrize(
    "name, hook",
    [
        ("after_epochs", "after_epoch"),
        ("after_setp", "after_step"),
        ("afterepoch", "after_epoch"),
        ("backwards", "backward"),
        ("statedict", "state_dict"),
    ],
)
def test_a_misspelt_hook_is_found_when_the_class_is_defined(name, hook):
    with pytest.raises(
        TypeError, match=f"Mine has a method '{name}'.* is the hook '{hook}' meant"
    ):
        type("Mine", (StaticWeights,), {name: lambda self, losses: None})


def test_other_words_are_no_misspelt_hooks():
    class Mine(StaticWeights):
        after_epochs_shown = 3
        starts = 0  # no method: nobody expects that it is called

        def restart(self):
            pass

        def after_batch(self):
            pass

        def _after_epochs(self):
            pass

    assert Mine().backward is not None


# --- where a state begins, and whose it is --------------------------------------------

#: All that remember something.
REMEMBER = {
    **LOSS_BALANCERS,
    "an order of visits": lambda: GradientBalancer(weightings.pcgrad),
    "DB-MTL": lambda: GradientBalancer(
        weightings.equal_norms, log_losses=True, momentum=0.9
    ),
}


@pytest.mark.parametrize("make", REMEMBER.values(), ids=REMEMBER)
def test_each_run_starts_anew(make):
    tasks = [Classification("kind", 3), Regression("size"), Regression("loud")]
    data, used, found = samples(40), make(), []
    data.targets["loud"] = data.inputs["sound"].mean(1)
    for balancer in (used, used, make()):
        model = build(tasks=tasks)
        fit(
            model,
            data,
            epochs=4,
            batch_size=10,
            lr=0.02,
            balancer=balancer,
            progress=False,
        )
        found.append(weights(model))
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize(
    ("balancer", "kind"),
    [
        (StaticWeights({"speed": 1.0}), "weights"),
        (SmoothTchebycheff({"speed": 1.0}), "weights"),
        (SmoothTchebycheff(ideal={"speed": 1.0}), "ideals"),
        (FAMO(minima={"speed": 1.0}), "minima"),
    ],
)
def test_what_is_told_of_unknown_tasks_is_refused_at_the_start(balancer, kind):
    with pytest.raises(
        ValueError, match=rf"has {kind} for \['speed'\], but the model's tasks are"
    ):
        balancer.start(build())


def test_running_means_belong_to_the_names_of_parameters():
    """An encoder that is thawed, or another that is frozen, takes no other's means."""
    beta, data, model = 0.5, samples(missing=False), build().double()
    data = Batch({n: x.double() for n, x in data.inputs.items()}, data.targets)
    data.targets["size"] = data.targets["size"].double()
    balancer = GradientBalancer(weightings.mean, momentum=beta)
    balancer.start(model)
    image, sound = model.encoders["image"], model.encoders["sound"]
    running = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(6):
        sound.requires_grad_(step >= 2)
        image.requires_grad_(step < 4)
        model.zero_grad()
        output = model(data)
        balancer.backward(model.losses(output, data), output, model)
        found = gradients(model)
        model.zero_grad()
        losses = model.losses(model(data), data)
        (sum(losses.values()) / 2).backward()
        for name, p in model.named_parameters():
            if name.startswith("heads") or p.grad is None:
                continue
            running[name] = beta * running[name] + (1 - beta) * p.grad
            assert torch.allclose(found[name], running[name], atol=1e-12), (step, name)
    moved = {name for name, mean in running.items() if mean.abs().max() > 0}
    assert balancer.means["kind"].keys() == moved


def test_a_state_that_was_handed_on_is_a_copy():
    model, data = build(), samples()
    one, other = (GradientBalancer(weightings.mean, momentum=0.9) for _ in range(2))

    def step(balancer):
        output = model(data)
        balancer.backward(model.losses(output, data), output, model)
        return {
            f"{task}, {name}": mean.clone()
            for task, means in balancer.means.items()
            for name, mean in means.items()
        }

    before = step(one)
    other.load_state_dict(one.state_dict())
    assert largest_difference(before, step(other)) > 0
    assert (
        largest_difference(
            before,
            {
                f"{task}, {name}": mean
                for task, means in one.means.items()
                for name, mean in means.items()
            },
        )
        == 0
    )
