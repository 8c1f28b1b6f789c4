import math

import numpy as np
import pytest
import torch
from torch import nn

from mtmm_lib.balancing import (
    OGMGE,
    StaticWeights,
    additive_parts,
    gradient_blend_weights,
    unimodal_phase_ratio,
)
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import (
    ConcatFusion,
    FiLMFusion,
    GatedFusion,
    ModalityDropout,
    SumFusion,
)
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression, unimodal_tasks
from mtmm_lib.training import evaluate, evaluate_losses, fit


@pytest.fixture(autouse=True)
def same_numbers():
    """What the tests draw does not depend on which of them run."""
    torch.manual_seed(0)


WIDTHS = {"image": 6, "sound": 4, "text": 3}
NAN = torch.nan


def identity(in_dim: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Identity())


def build(
    tasks=None,
    fusion=SumFusion,
    trunk=identity,
    names=("image", "sound"),
    wrap=lambda f: f,
):
    tasks = tasks or [Classification("kind", 3)]
    encoders = {name: MLPEncoder(WIDTHS[name], 5, hidden=(7,)) for name in names}
    joint = [task.name for task in tasks if task.reads == ("shared",)]
    fused = wrap(fusion(dict.fromkeys(names, 5), 8))
    return Model(encoders, fused, HardSharing(joint, 8, 8, trunk), tasks)


def data(n: int = 40, names=("image", "sound")) -> Batch:
    inputs = {name: torch.randn(n, WIDTHS[name]) for name in names}
    kind = (2 * inputs["image"][:, :3] + inputs["sound"][:, :3]).argmax(1)
    return Batch(inputs, {"kind": kind, "size": inputs["image"].sum(1)})


def gradients(model):
    return {
        name: p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def step(balancer, model, batch):
    model.zero_grad()
    output = model(batch)
    used = balancer.backward(model.losses(output, batch), output, model)
    return output, used, gradients(model)


# A prediction taken apart


@pytest.mark.parametrize("fusion", [SumFusion, ConcatFusion])
@pytest.mark.parametrize("names", [("image", "sound"), ("image", "sound", "text")])
def test_the_parts_of_an_additive_prediction(fusion, names):
    model, batch = build(fusion=fusion, names=names), data(names=names)
    output = model(batch)
    parts = additive_parts(output, model, "kind")
    torch.testing.assert_close(sum(parts.values()), output.predictions["kind"])
    # By hand, as the paper has it: the modality's part of the weights, and its share of
    # the constant.
    head = model.heads["kind"]
    if fusion is SumFusion:
        weights = {name: model.fusion.project[name].weight for name in names}
        constant = sum(model.fusion.project[name].bias for name in names)
    else:
        weights = dict(zip(names, model.fusion.mix.weight.split(5, 1), strict=True))
        constant = model.fusion.mix.bias
    constant = head.weight @ constant + head.bias
    for name in names:
        z = output.features[name].pooled
        expected = z @ (head.weight @ weights[name]).T + constant / len(names)
        torch.testing.assert_close(parts[name], expected)


@pytest.mark.parametrize(
    "options",
    [{"fusion": GatedFusion}, {"fusion": FiLMFusion}, {"trunk": None}],
    ids=str,
)
def test_what_is_not_additive_has_no_parts(options):
    model, batch = build(**options), data()
    with pytest.raises(
        ValueError,
        match="is no sum over the modalities .* has to be additive.*HardSharing",
    ):
        step(OGMGE("kind", 0.5), model, batch)
    assert all(p.grad is None for p in model.parameters()), (
        "refused before anything happened"
    )


def test_parts_ignore_what_is_drawn_at_random_and_leave_modes_alone():
    def trunk(in_dim, dim):
        return nn.Sequential(nn.Dropout(0.5))

    model = build(trunk=trunk, wrap=lambda fusion: ModalityDropout(fusion, 0.5))
    output = model(data())
    model.sharing.eval()
    one, other = (additive_parts(output, model, "kind") for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert model.fusion.training and not model.sharing.trunk[0].training


# On-the-fly gradient modulation


def by_hand(output, model, batch, alpha: float) -> dict[str, float]:
    """The factors of the paper, sample by sample."""
    parts = additive_parts(output, model, "kind")
    right = {
        name: sum(
            s.double().softmax(0)[y].item()
            for s, y in zip(part, batch.targets["kind"], strict=True)
            if y >= 0
        )
        for name, part in parts.items()
    }
    factors = {}
    for name, other in (("image", "sound"), ("sound", "image")):
        ratio = right[name] / right[other]
        factors[name] = 1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0
    return factors


@pytest.mark.parametrize("alpha", [0.1, 0.8])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_leader_is_slowed_by_the_factor_of_the_paper(alpha, scale):
    model, batch = build([Classification("kind", 3), Regression("size")]), data()
    with torch.no_grad():
        model.heads["kind"].weight *= scale
    batch.targets["kind"][:5] = -1
    balancer = OGMGE("kind", alpha, noise=False, weights={"size": 0.5})
    output, used, modulated = step(balancer, model, batch)
    *_, plain = step(StaticWeights({"size": 0.5}), model, batch)
    assert used == {"kind": 1.0, "size": 0.5}
    assert balancer.factors == pytest.approx(
        by_hand(output, model, batch, alpha), rel=1e-5
    )
    assert sorted(factor == 1 for factor in balancer.factors.values()) == [False, True]
    for name, gradient in plain.items():
        group, _, rest = name.partition(".")
        factor = balancer.factors[rest.split(".")[0]] if group == "encoders" else 1.0
        torch.testing.assert_close(modulated[name], factor * gradient)


def test_the_noise_has_the_spread_of_the_gradient():
    torch.manual_seed(1)
    model, batch = build(), data()
    model.encoders["image"] = MLPEncoder(6, 5, hidden=(4000,))
    balancer = OGMGE("kind", 0.3)
    *_, noisy = step(balancer, model, batch)
    *_, plain = step(StaticWeights(), model, batch)
    for name in ("encoders.image.layers.0.weight", "encoders.image.layers.2.weight"):
        noise = noisy[name] - balancer.factors["image"] * plain[name]
        # five standard errors of a standard deviation, relatively
        error = 5 / math.sqrt(2 * noise.numel())
        assert noise.std().item() == pytest.approx(plain[name].std().item(), rel=error)
    assert all(
        torch.equal(noisy[n], plain[n]) for n in plain if not n.startswith("encoders")
    )


def test_only_samples_with_a_label_and_both_modalities_are_compared():
    model, batch = build(), data()
    present = {"sound": torch.arange(40) < 30}
    spoiled = {"image": batch.inputs["image"], "sound": batch.inputs["sound"].clone()}
    spoiled["sound"][30:] = NAN
    few, balancer = (
        Batch(spoiled, batch.targets, present),
        OGMGE("kind", 0.5, noise=False),
    )
    step(balancer, model, few)
    assert balancer.factors == pytest.approx(
        by_hand(model(batch[:30]), model, batch[:30], 0.5), rel=1e-5
    )
    step(balancer, model, batch.without("sound"))
    assert balancer.factors == {"image": 1.0, "sound": 1.0}
    one = data(1)
    step(OGMGE("kind", 0.5), model, one)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_ogm_ge_trains_and_slows_the_leading_encoder():
    train = data(200)
    train.targets["kind"][:] = train.inputs["image"][:, :3].argmax(1)
    train.inputs["sound"].zero_()  # nothing to hear: the image leads
    moved = {}
    for alpha in (1e-9, 1.0):
        torch.manual_seed(0)
        model = build()
        before = [p.clone() for p in model.encoders["image"].parameters()]
        balancer = OGMGE("kind", alpha, noise=False)
        fit(
            model,
            train,
            epochs=5,
            balancer=balancer,
            optimizer=torch.optim.SGD,
            lr=0.3,
            precision="bf16",
            progress=False,
        )
        pairs = zip(before, model.encoders["image"].parameters(), strict=True)
        moved[alpha] = sum((a - b).square().sum().item() for a, b in pairs)
    assert moved[1.0] < 0.5 * moved[1e-9]
    history = fit(model, train, epochs=1, balancer=OGMGE("kind", 0.5), progress=False)
    assert math.isfinite(history.train_loss[0]["kind"])


def test_ogm_ge_refuses_what_it_is_not_defined_for():
    names = ("image", "sound", "text")
    with pytest.raises(
        ValueError, match=r"two modalities, the model has \['image', 'sound', 'text'\]"
    ):
        step(OGMGE("kind", 0.5), build(names=names), data(names=names))
    with pytest.raises(
        ValueError, match=r"classification task, but 'size' is Regression\('size'\)"
    ):
        step(OGMGE("size", 0.5), build([Regression("size")]), data())
    with pytest.raises(
        ValueError,
        match=r"'speed' is None \(the model has \[Classification\('kind'\)\]\)",
    ):
        step(OGMGE("speed", 0.5), build(), data())
    with pytest.raises(ValueError, match="alpha needs to be > 0, got 0"):
        OGMGE("kind", 0)


# Unimodal tasks


def with_unimodal(*tasks):
    return [
        *tasks,
        *(
            alone
            for task in tasks
            for alone in unimodal_tasks(task, ("image", "sound"))
        ),
    ]


def test_each_modality_answers_alone():
    model, batch = (
        build(with_unimodal(Classification("kind", 3), Regression("size"))),
        data(),
    )
    assert list(model.tasks) == [
        "kind",
        "size",
        "kind/image",
        "kind/sound",
        "size/image",
        "size/sound",
    ]
    output = model(batch)
    losses = model.losses(output, batch)
    z = output.features["sound"].pooled
    expected = nn.functional.cross_entropy(
        model.heads["kind/sound"](z), batch.targets["kind"]
    )
    torch.testing.assert_close(losses["kind/sound"], expected)
    expected = (
        model.heads["size/image"](output.features["image"].pooled)[:, 0]
        - batch.targets["size"]
    ) ** 2
    torch.testing.assert_close(losses["size/image"], expected.mean())
    # A modality's own question reaches its encoder and its head, nothing else.
    losses["kind/sound"].backward()
    reached = {".".join(name.split(".")[:2]) for name in gradients(model)}
    assert reached == {"encoders.sound", "heads.kind/sound"}
    accuracy = (
        (model.heads["kind/sound"](z).argmax(1) == batch.targets["kind"]).float().mean()
    )
    assert evaluate(model, batch)["kind/sound"] == pytest.approx(accuracy.item())


def test_where_a_modality_is_absent_it_is_not_asked():
    model, batch = (
        build(with_unimodal(Classification("kind", 3), Regression("size"))),
        data(),
    )
    batch.inputs["sound"][10:] = NAN
    absent = Batch(batch.inputs, batch.targets, {"sound": torch.arange(40) < 10})
    losses = model.losses(model(absent), absent)
    alone = model.losses(model(batch[:10]), batch[:10])
    for name in ("kind/sound", "size/sound"):
        torch.testing.assert_close(losses[name], alone[name])
        assert model.tasks[name].labelled(absent).sum() == 10
    few = evaluate(model, batch[:10])
    assert evaluate(model, absent)["kind/sound"] == pytest.approx(few["kind/sound"])
    assert evaluate(model, absent)["size/sound"] == pytest.approx(few["size/sound"])
    sum(losses.values()).backward()
    assert all(g.isfinite().all() for g in gradients(model).values())
    assert set(model.losses(model(absent[10:]), absent[10:])) == {
        "kind",
        "size",
        "kind/image",
        "size/image",
    }


def test_unimodal_tasks_choose_no_epoch_and_go_through_fit():
    model, batch = build(with_unimodal(Classification("kind", 3))), data(120)
    history = fit(
        model, batch[:80], valid=batch[80:], epochs=3, lr=0.02, progress=False
    )
    chosen = [losses["kind"] for losses in history.valid_loss]
    assert history.best_epoch == chosen.index(min(chosen))
    assert set(history.valid[0]) == {"kind", "kind/image", "kind/sound"}


def test_only_a_supervised_task_can_be_asked_of_one_modality():
    task = Classification("kind", 3)
    task.supervised = False
    with pytest.raises(ValueError, match="not supervised"):
        unimodal_tasks(task, ["image"])


# Gradient-Blend


def test_the_blend_overfits_least_for_what_it_generalises():
    rng = np.random.default_rng(0)
    names = ["joint", "image", "sound"]
    before = dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.2)
    after = (
        {name: 0.3 * rng.random() for name in names},
        {name: 0.5 + 0.5 * rng.random() for name in names},
    )
    weights = gradient_blend_weights(before, after)
    assert sum(weights.values()) == pytest.approx(1)
    gain = np.array([1.2 - after[1][n] for n in names])
    gap = np.array([after[1][n] - after[0][n] - 0.2 for n in names])
    assert list(weights.values()) == pytest.approx(
        gain / gap**2 / np.sum(gain / gap**2)
    )

    def ratio(w):
        return np.sum(w**2 * gap**2) / np.sum(w * gain) ** 2

    best = ratio(np.array([weights[n] for n in names]))
    others = rng.dirichlet(np.ones(3), size=2000)
    assert (
        all(ratio(w) >= best - 1e-12 for w in others)
        and min(map(ratio, others)) < 1.01 * best
    )


def test_who_did_not_generalise_gets_no_weight():
    first, train = {"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.2}
    assert gradient_blend_weights((first, first), (train, {"a": 0.7, "b": 1.1})) == {
        "a": 1,
        "b": 0,
    }
    with pytest.raises(ValueError, match="no validation loss fell"):
        gradient_blend_weights((first, first), (train, {"a": 1.5, "b": 1.1}))
    with pytest.raises(ValueError, match="'a' has not overfitted between"):
        gradient_blend_weights((first, first), (train, {"a": 0.5, "b": 0.5}))
    with pytest.raises(
        ValueError, match="'b' needs .* before and after, got 1.0 and 1.0, 0.2 and nan"
    ):
        gradient_blend_weights((first, first), (train, {"a": 0.6}))


def test_the_blend_of_one_run_is_that_of_its_checkpoints_and_not_of_its_history():
    """With dropout, the mean loss of an epoch is larger than the loss of its weights
    at the end, and seems to be less overfitted."""
    torch.manual_seed(0)
    tasks = with_unimodal(Classification("kind", 3))
    model, batch = build(tasks, wrap=lambda f: ModalityDropout(f, 0.3)), data(90)
    train, valid = batch[:60], batch[60:]

    def both():
        return evaluate_losses(model, train), evaluate_losses(model, valid)

    before = both()
    history = fit(model, train, epochs=10, lr=0.02, progress=False)
    after = both()
    model.eval()
    with torch.no_grad():  # by hand: everything at once, nothing dropped
        by_hand = [model.losses(model(part), part) for part in (train, valid)]
    for losses, expected in zip(after, by_hand, strict=True):
        assert losses == pytest.approx({n: x.item() for n, x in expected.items()})
    weights = gradient_blend_weights(before, after)
    assert set(weights) == {"kind", "kind/image", "kind/sound"}
    raw = {}
    for name in weights:
        gap = [valid[name] - train[name] for train, valid in (before, after)]
        fall = max(before[1][name] - after[1][name], 0)
        raw[name] = fall / (gap[1] - gap[0]) ** 2
    total = sum(raw.values())
    assert weights == pytest.approx({name: w / total for name, w in raw.items()})
    assert history.train_loss[-1]["kind"] > after[0]["kind"]
    fit(model, batch, epochs=1, balancer=StaticWeights(weights), progress=False)


# The unimodal phase


def times_learned(
    covariance, correlation, size: int, steps: float = 0.004, start: float = 1e-16
):
    """When each modality's map reaches half of what it first settles at, in gradient
    descent on

    E (y - v_A W_A x_A - v_B W_B x_B)²/2 from weights of the size `start`.
    """
    rng = np.random.default_rng(0)
    parts = [slice(None, size), slice(size, None)]
    # Balanced: both layers start equally large, as they stay.
    v = [np.abs(rng.normal(size=4)) for _ in parts]
    v = [start * x / np.linalg.norm(x) for x in v]
    w = [
        np.outer(x / np.linalg.norm(x), correlation[p])
        for x, p in zip(v, parts, strict=True)
    ]
    w = [start * x / np.linalg.norm(x) for x in w]
    first = np.linalg.solve(covariance[parts[0], parts[0]], correlation[parts[0]])
    second = np.linalg.solve(covariance, correlation)[parts[1]]
    half = [np.linalg.norm(x) / 2 for x in (first, second)]
    found: dict[int, float] = {}
    t = 0.0
    while len(found) < 2:
        whole = np.concatenate([a @ b for a, b in zip(v, w, strict=True)])
        error = correlation - covariance @ whole
        for i, p in enumerate(parts):
            if i not in found and np.linalg.norm(whole[p]) >= half[i]:
                found[i] = t
            v[i], w[i] = (
                v[i] + steps * w[i] @ error[p],
                w[i] + steps * np.outer(v[i], error[p]),
            )
        t += steps
    return found[0], found[1]


def correlated(rho: float, spread: float):
    """One input per modality, y = x_A + x_B."""
    covariance = np.array([[spread**2, rho * spread], [rho * spread, 1.0]])
    return covariance, covariance.sum(1), 1


def several_inputs():
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(5, 5)) / 3 + np.diag([1.6, 1.4, 1.2, 1.0, 0.8])
    covariance = mix @ mix.T
    return covariance, covariance @ np.array([1.0, 1.0, 1.0, 0.7, 0.7]), 3


@pytest.mark.parametrize(
    "problem",
    [
        correlated(0.0, 2.0),
        correlated(0.4, 2.0),
        correlated(0.6, 1.5),
        several_inputs(),
    ],
)
def test_the_unimodal_phase_lasts_as_long_as_theory_says(problem):
    covariance, correlation, size = problem
    first, second = times_learned(covariance, correlation, size)
    tensors = torch.from_numpy(covariance), torch.from_numpy(correlation)
    assert second / first == pytest.approx(
        unimodal_phase_ratio(*tensors, size), rel=0.03
    )


def test_the_unimodal_phase_in_closed_form():
    def ratio(rho, spread):
        return unimodal_phase_ratio(
            *map(torch.from_numpy, correlated(rho, spread)[:2]), 1
        )

    assert ratio(0.0, 2.0) == pytest.approx(4)
    assert ratio(0.4, 2.0) == pytest.approx(4.571, abs=5e-4)
    assert ratio(0.0, 1.0) == pytest.approx(1), "alike, they are learned together"
    assert ratio(0.3, 0.5) == pytest.approx(
        unimodal_phase_ratio(
            torch.tensor([[1.0, 0.15], [0.15, 0.25]]), torch.tensor([1.15, 0.4]), 1
        )
    ), "whichever is named first"
    # A copy of the first modality is never learned.
    assert (
        unimodal_phase_ratio(
            torch.tensor([[4.0, 2.0], [2.0, 1.0]]), torch.tensor([4.0, 2.0]), 1
        )
        == math.inf
    )
