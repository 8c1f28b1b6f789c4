"""All balancers, with all sharings, where something is missing or stands still."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from training_problem import samples

from mtmm_lib.balancing import LOSS_BALANCERS, GradientBalancer, GradNorm, weightings
from mtmm_lib.batch import Batch, Output
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import ALL as SHARINGS
from mtmm_lib.tasks import Classification, Regression

#: Name → a new balancer; those at the features, for models with one cut.
BALANCERS = {
    **LOSS_BALANCERS,
    "GradNorm, parameters": lambda: GradNorm(level="parameters"),
    **{n: lambda w=w: GradientBalancer(w) for n, w in weightings.ALL.items()},
    "DB-MTL": lambda: GradientBalancer(
        weightings.equal_norms, log_losses=True, momentum=0.9
    ),
}
AT_FEATURES = {
    "GradNorm, features": lambda: GradNorm(level="features"),
    **{
        f"{n}, features": lambda w=w: GradientBalancer(w, "features")
        for n, w in weightings.ALL.items()
    },
    "DB-MTL, features": lambda: GradientBalancer(
        weightings.equal_norms, "features", log_losses=True
    ),
}
#: Every balancer with every sharing that it is for.
PAIRS = [(s, b) for s in SHARINGS for b in BALANCERS]
PAIRS += [(s, b) for s in ("HardSharing", "SoftSharing") for b in AT_FEATURES]


def problem(sharing: str) -> tuple[Model, Batch]:
    """Tasks `kind` and `size` share; `aside` does too, but is not balanced; `still`
    reads an encoder that is frozen, as is its head, so that it needs no gradient."""
    torch.manual_seed(0)
    aside, still = Regression("aside"), Regression("still", reads="sound")
    aside.balanced = False
    tasks = [Classification("kind", 3), Regression("size"), aside, still]
    dims = {"image": 8, "sound": 5}
    model = Model(
        {"image": MLPEncoder(6, 8, hidden=()), "sound": MLPEncoder(4, 5, hidden=())},
        ConcatFusion(dims, 8),
        SHARINGS[sharing](["kind", "size", "aside"], 8, 8),
        tasks,
    )
    data = samples(12)
    data.targets["aside"] = data.inputs["sound"].mean(1)
    data.targets["still"] = data.inputs["sound"].sum(1)
    freeze(model.encoders["sound"], model.heads["still"])
    return model, data


def freeze(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(False)


def drop(data: Batch, *names: str) -> None:
    for name in names:
        target = data.targets[name]
        target.fill_(torch.nan if target.is_floating_point() else -1)


SITUATIONS = {
    "a loss that needs no gradient": lambda model, data: None,
    "a frozen head": lambda model, data: freeze(model.heads["kind"]),
    "frozen encoders": lambda model, data: freeze(model.encoders),
    "frozen encoders and fusion": lambda model, data: freeze(
        model.encoders, model.fusion
    ),
    "a frozen trunk": lambda model, data: freeze(model.sharing),
    "everything frozen but one head": lambda model, data: freeze(
        model.encoders, model.fusion, model.sharing, model.heads["kind"]
    ),
    "labels of an unbalanced task alone": lambda model, data: drop(
        data, "kind", "size", "still"
    ),
    "labels of a task that stands still alone": lambda model, data: drop(
        data, "kind", "size", "aside"
    ),
    "no label of one task": lambda model, data: drop(data, "kind"),
    "labels of one task alone": lambda model, data: drop(
        data, "size", "aside", "still"
    ),
}


def constant_penalty(output: Output) -> None:
    output.penalties["constant"] = torch.tensor(2.0)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize(("sharing", "balancer"), PAIRS)
def test_what_needs_no_gradient_is_skipped(sharing, balancer, situation):
    model, data = problem(sharing)
    SITUATIONS[situation](model, data)
    made = {**BALANCERS, **AT_FEATURES}[balancer]()
    made.start(model)
    for _ in range(2):  # what was learned in the first step meets the second
        model.zero_grad()
        output = model(data)
        constant_penalty(output)
        losses = model.losses(output, data)
        used = made.backward(losses, output, model)
        assert used.keys() == losses.keys()
        assert all(math.isfinite(weight) for weight in used.values())
        for name in losses:  # but fixed weights are what somebody wrote down
            if not losses[name].requires_grad or not model.tasks[name].balanced:
                assert used[name] == 1.0
        alive = [loss for loss in losses.values() if loss.requires_grad]
        alive += [p for p in output.penalties.values() if p.requires_grad]
        for name, p in model.named_parameters():
            assert p.grad is None or (p.requires_grad and p.grad.isfinite().all()), name
        if alive:
            assert any(p.grad is not None for p in model.parameters())
        with torch.no_grad():
            made.after_step(lambda: model.losses(model(data), data))
    made.after_epoch({name: loss.item() for name, loss in losses.items()})


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_loss_that_needs_no_gradient_changes_nothing_for_the_others(balancer):
    """As if the task were not there."""
    found = []
    for with_it in (True, False):
        model, data = problem("HardSharing")
        if not with_it:
            drop(data, "still")
        made = BALANCERS[balancer]()
        made.start(model)
        output = model(data)
        used = made.backward(model.losses(output, data), output, model)
        used.pop("still", None)
        found.append((used, {n: p.grad for n, p in model.named_parameters()}))
    (used, gradients), (expected, alone) = found
    assert used == pytest.approx(expected)
    for name, gradient in alone.items():
        assert (gradient is None) == (gradients[name] is None)
        assert gradient is None or torch.allclose(gradients[name], gradient)


# --- GradNorm's place -----------------------------------------------------------------


@pytest.mark.parametrize("sharing", SHARINGS)
def test_gradnorm_measures_at_the_features_where_there_is_one_cut(sharing):
    place = "features" if sharing in ("HardSharing", "SoftSharing") else "parameters"
    weights = []
    for balancer in (GradNorm(), GradNorm(level=place)):
        model, data = problem(sharing)
        balancer.start(model)
        for _ in range(3):
            output = model(data)
            balancer.backward(model.losses(output, data), output, model)
        weights.append(balancer.weights)
    assert weights[0] == weights[1] and len(set(weights[0].values())) > 1
    if place == "parameters":
        with pytest.raises(ValueError, match="around the cut"):
            output = model(data)
            GradNorm(level="features").backward(
                model.losses(output, data), output, model
            )


def test_gradnorm_stays_at_the_parameters_once_a_loss_went_around_the_cut():
    """Lengths at other places are other numbers, and its weights learn from all."""
    model, data = problem("HardSharing")
    model.requires_grad_(True)
    balancer = GradNorm()
    balancer.start(model)

    def step(data):
        output = model(data)
        balancer.backward(model.losses(output, data), output, model)
        return balancer.around

    some = Batch(data.inputs, {n: t.clone() for n, t in data.targets.items()})
    drop(some, "still")
    assert [step(some), step(data), step(some)] == [False, True, True]
    again = GradNorm()
    again.load_state_dict(balancer.state_dict())
    assert again.around
    balancer.start(model)
    assert not balancer.around
