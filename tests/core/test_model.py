import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mtmm_lib.batch import Batch, Features, Output
from mtmm_lib.encoders import ConvEncoder, MLPEncoder, PatchEncoder, SequenceEncoder
from mtmm_lib.fusion import (
    ALL,
    ConcatFusion,
    CrossModalFusion,
    Fusion,
    GatedFusion,
    IdentityFusion,
    ModalityDropout,
    SumFusion,
)
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.sharing import (
    PLE,
    HardSharing,
    MMoE,
    SharedPrivate,
    Sharing,
    SoftSharing,
    separate,
)
from mtmm_lib.tasks import Classification, Regression, Task

NAN = torch.nan


def tasks() -> list[Task]:
    return [Classification("digit", 10), Regression("ink")]


def encoders() -> dict[str, nn.Module]:
    return {
        "conv": ConvEncoder(1, 6),
        "mlp": MLPEncoder(5, 7),
        "patch": PatchEncoder((1, 8, 8), 4, 8),
        "sequence": SequenceEncoder(3, 4),
    }


def build(some_tasks: list[Task], fusion=ConcatFusion, dropout: float = 0.0) -> Model:
    parts = encoders()
    joined = fusion({name: encoder.dim for name, encoder in parts.items()}, 12)
    if dropout:
        joined = ModalityDropout(joined, dropout)
    return Model(
        parts,
        joined,
        HardSharing([task.name for task in some_tasks], 12, 11),
        some_tasks,
    )


def data(n: int = 8) -> Batch:
    return Batch(
        {
            "conv": torch.randn(n, 1, 8, 8),
            "mlp": torch.randn(n, 5),
            "patch": torch.randn(n, 1, 8, 8),
            "sequence": torch.randn(n, 6, 3),
        },
        {"digit": torch.randint(0, 10, (n,)), "ink": torch.randn(n)},
        lengths={"sequence": torch.randint(1, 7, (n,))},
    )


def spoil(batch: Batch, share: float = 0.4) -> tuple[Batch, Batch]:
    """The batch with some modalities and targets absent, those places zero in one copy,
    NaN in the other."""
    present = {name: torch.rand(len(batch)) > share for name in batch.inputs}
    present["mlp"] |= ~torch.stack(list(present.values())).any(0)
    versions = []
    for filler in (0.0, NAN):
        inputs = {name: x.clone() for name, x in batch.inputs.items()}
        for name, mask in present.items():
            inputs[name][~mask] = filler
        versions.append(Batch(inputs, batch.targets, present, batch.lengths))
    return versions[0], versions[1]


FOR_FOUR = {name: fusion for name, fusion in ALL.items() if name != "FiLMFusion"}


@pytest.mark.parametrize("fusion", FOR_FOUR.values(), ids=FOR_FOUR)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_absent_inputs_filled_with_nan_leak_nowhere(fusion, dropout):
    model = build(tasks(), fusion, dropout)
    results = []
    for batch in spoil(data()):
        model.zero_grad()
        torch.manual_seed(1)
        output = model(batch)
        losses = model.losses(output, batch)
        sum(losses.values()).backward()
        gradients = {
            name: p.grad.clone()
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        assert all(g.isfinite().all() for g in gradients.values())
        results.append((output.predictions, losses, gradients))
    for zeros, nans in zip(*results, strict=True):
        assert zeros.keys() == nans.keys()
        assert all(torch.equal(zeros[key], nans[key]) for key in zeros)


def test_missing_targets_give_no_loss_and_no_gradient():
    model, batch = build(tasks(), SumFusion), data()
    digit, ink = batch.targets["digit"].clone(), batch.targets["ink"].clone()
    digit[3:], ink[:5] = -1, NAN
    missing = Batch(batch.inputs, {"digit": digit, "ink": ink}, lengths=batch.lengths)
    losses = model.losses(model(missing), missing)
    sum(losses.values()).backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected = {
        "digit": model.losses(model(batch[:3]), batch[:3])["digit"],
        "ink": model.losses(model(batch[5:]), batch[5:])["ink"],
    }
    sum(expected.values()).backward()
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])
    for name, parameter in model.named_parameters():
        assert got[name].isfinite().all()
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_task_without_any_label_is_left_out():
    model, batch = build(tasks()), data()
    none = Batch(
        batch.inputs,
        {**batch.targets, "ink": torch.full((8,), NAN)},
        lengths=batch.lengths,
    )
    output = model(none)
    assert set(model.losses(output, none)) == {"digit"}
    assert (
        model.tasks["ink"].loss(output, none) == 0
        and model.tasks["ink"].metric(output, none).isnan()
    )


def test_regression_takes_a_column_and_a_vector_alike():
    task, prediction = Regression("y"), torch.randn(5, 1)
    target = torch.randn(5)
    model_output = type("O", (), {"predictions": {"y": prediction}})
    losses = [
        task.loss(model_output, Batch({}, {"y": y}))
        for y in (target, target.unsqueeze(1))
    ]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], ((prediction[:, 0] - target) ** 2).mean())
    with pytest.raises(ValueError, match=r"\[B\] or \[B, 1\]"):
        task.loss(model_output, Batch({}, {"y": torch.randn(5, 2)}))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_losses_are_the_textbook_ones_at_any_scale(scale):
    logits, target = (
        scale * torch.randn(6, 4, dtype=torch.float64),
        torch.tensor([0, 1, 2, 3, -1, 0]),
    )
    output = type("O", (), {"predictions": {"c": logits, "r": logits}})
    batch = Batch({}, {"c": target, "r": scale * torch.ones(6, 4, dtype=torch.float64)})
    by_hand = [
        -(row[y] - row.logsumexp(0))
        for row, y in zip(logits, target, strict=True)
        if y >= 0
    ]
    torch.testing.assert_close(
        Classification("c", 4).loss(output, batch), torch.stack(by_hand).mean()
    )
    squares = (logits - scale).square().mean()
    torch.testing.assert_close(Regression("r", 4).loss(output, batch), squares)
    torch.testing.assert_close(
        Regression("r", 4).metric(output, batch).double(),
        squares.sqrt(),
        rtol=1e-5,
        atol=0,
    )
    right = (logits[:4].argmax(1) == target[:4]).double().sum() + (
        logits[5].argmax() == 0
    )
    assert Classification("c", 4).metric(output, batch).item() == pytest.approx(
        right.item() / 5
    )


def test_one_task_one_modality_one_sample():
    model = Model(
        {"a": MLPEncoder(3, 4)},
        SumFusion({"a": 4}, 4),
        HardSharing(["y"], 4, 4),
        [Regression("y")],
    )
    batch = Batch({"a": torch.randn(1, 3)}, {"y": torch.tensor([2.0])})
    output = model(batch)
    model.losses(output, batch)["y"].backward()
    assert output.predictions["y"].shape == (1, 1)
    assert all(p.grad is not None for p in model.parameters())


def test_the_stages_of_the_output_and_the_split_of_the_parameters():
    model, batch = build(tasks()), data()
    output = model(batch)
    assert output.shared is output.task_features["digit"] is output.task_features["ink"]
    assert set(output.features) == set(batch.inputs)
    shared = {id(p) for p in model.shared_parameters()}
    own = {name: {id(p) for p in model.task_parameters(name)} for name in model.tasks}
    assert not own["digit"] & own["ink"] and not shared & (own["digit"] | own["ink"])
    assert shared | own["digit"] | own["ink"] == {id(p) for p in model.parameters()}
    # A task's loss reaches the shared parameters and its own head, no other head.
    model.losses(output, batch)["digit"].backward()
    assert all(p.grad is None for p in model.task_parameters("ink"))
    assert all(p.grad is not None for p in model.task_parameters("digit"))
    with pytest.raises(KeyError, match="unknown task 'size'"):
        model.task_parameters("size")


def test_what_the_stages_have_to_show_stands_under_their_names():
    """Gates of the fusion and gates of the sharing: neither hides the other."""
    model, batch = build(tasks(), GatedFusion), data()
    model.sharing = MMoE(["digit", "ink"], 12, 11)
    output = model(batch)
    fused = model.fusion(output.features)
    shared = model.sharing(fused.features.tokens)
    assert list(output.weights) == ["fusion/gates", "sharing/gates"]
    assert torch.equal(output.weights["fusion/gates"], fused.weights["gates"])
    assert torch.equal(output.weights["sharing/gates"], shared.weights["gates"])
    model = build(tasks(), CrossModalFusion)
    model.fusion.maps, model.sharing = True, PLE(["digit", "ink"], 12, 11)
    weights = model(batch).weights
    assert {"fusion/mlp_to_conv", "fusion/conv", "sharing/gates2"} <= set(weights)
    assert len(weights) == 4 * 3 + 4 + 2
    model.sharing = SoftSharing(["digit", "ink"], 12, 11, strength=1.0)
    nn.init.normal_(model.sharing.trunks["ink"][0][0].weight)
    output = model(batch)
    penalty = model.sharing(output.fused.tokens).penalty
    assert output.penalties.keys() == {"sharing"}
    torch.testing.assert_close(output.penalties["sharing"], penalty)


def test_what_a_task_may_read():
    parts = {"a": MLPEncoder(3, 4), "b": SequenceEncoder(2, 4)}
    readers = [
        Classification("own", 2),
        Classification("fused", 2, reads="fused"),
        Classification("both", 2, reads=("a", "b")),
    ]
    model = Model(
        parts, SumFusion({"a": 4, "b": 4}, 5), HardSharing(["own"], 5, 6), readers
    )
    assert [model.heads[name].in_features for name in ("own", "fused", "both")] == [
        6,
        5,
        8,
    ]
    output = model(Batch({"a": torch.randn(2, 3), "b": torch.randn(2, 7, 2)}))
    expected = model.heads["both"](
        torch.cat([output.features["a"].pooled, output.features["b"].pooled], 1)
    )
    torch.testing.assert_close(output.predictions["both"], expected)


def test_what_follows_the_encoders_can_be_run_alone():
    model, batch = build(tasks()), data().without("patch")
    output = model(batch)
    assert output.batch is batch
    again = model.from_features(output.features, batch.present)
    for name, prediction in output.predictions.items():
        assert torch.equal(again.predictions[name], prediction)


def test_a_view_has_its_own_pass():
    class Masked(Regression):
        def view(self, batch):
            return Batch(
                {name: torch.zeros_like(x) for name, x in batch.inputs.items()},
                batch.targets,
            )

    some = [Regression("plain"), Masked("masked")]
    model = Model(
        {"a": MLPEncoder(3, 4)},
        SumFusion({"a": 4}, 4),
        HardSharing(["plain", "masked"], 4, 4),
        some,
    )
    batch = Batch(
        {"a": torch.randn(5, 3)}, {"plain": torch.randn(5), "masked": torch.randn(5)}
    )
    losses = model.losses(model(batch), batch)
    blank = Batch({"a": torch.zeros(5, 3)}, batch.targets)
    torch.testing.assert_close(losses["masked"], some[1].loss(model(blank), batch))
    torch.testing.assert_close(losses["plain"], some[0].loss(model(batch), batch))


def test_parts_that_do_not_fit_are_refused():
    parts, fusion = {"a": MLPEncoder(3, 4)}, SumFusion({"a": 4}, 5)
    sharing, task = HardSharing(["y"], 5, 6), Regression("y")
    with pytest.raises(ValueError, match="the encoders give widths"):
        Model(parts, SumFusion({"a": 3}, 5), sharing, [task])
    with pytest.raises(ValueError, match="the fusion gives width 5"):
        Model(parts, fusion, HardSharing(["y"], 4, 6), [task])
    with pytest.raises(ValueError, match="no name twice"):
        Model(parts, fusion, sharing, [task, task])
    with pytest.raises(ValueError, match=r"built for tasks \['y'\]"):
        Model(parts, fusion, sharing, [Regression("z")])
    with pytest.raises(ValueError, match=r"reads \['b'\]"):
        Model(parts, fusion, sharing, [Regression("y", reads="b")])
    with pytest.raises(KeyError, match="reads modality 'a'"):
        Model(parts, fusion, sharing, [task])(Batch({"b": torch.zeros(1, 3)}))
    with pytest.raises(KeyError, match="finds no target"):
        task.labelled(Batch({"a": torch.zeros(1, 3)}))
    with pytest.raises(ValueError, match="no name twice"):
        HardSharing(["y", "y"], 5, 6)
    dense = Regression("y")
    dense.pooled = False
    with pytest.raises(ValueError, match="dense and needs tokens"):
        Model(parts, fusion, sharing, [dense])


def test_check_finds_what_the_forward_pass_would_stop_at_and_where_in_the_data():
    model, batch = build(tasks()), data()
    assert model.check(batch) is None
    mask = torch.arange(8) != 4
    nobody = Batch(batch.inputs, batch.targets, dict.fromkeys(batch.inputs, mask))
    with pytest.raises(ValueError, match=r"samples \[4\] of the data have no modality"):
        model.check(nobody)
    with pytest.raises(ValueError, match=r"samples \[104\] of the data have no modal"):
        model.check(nobody, first=100)
    with pytest.raises(
        ValueError, match=r"samples \[4\] of the batch have no modality"
    ):
        model(nobody)
    with pytest.raises(KeyError, match="reads modality 'patch', but the batch has"):
        model.check(Batch({k: x for k, x in batch.inputs.items() if k != "patch"}))
    # A modality that the model does not read is nobody's.
    other = {**nobody.inputs, "other": torch.zeros(8)}
    everyone = {**nobody.present, "other": torch.ones(8, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"samples \[4\] of the data have no modality"):
        model.check(Batch(other, batch.targets, everyone))


def test_check_asks_every_task():
    class Picky(Regression):
        def check(self, batch: Batch, first: int = 0) -> None:
            raise ValueError(f"{self.name} does not like row {first + 2}")

    some = [Regression("ink"), Picky("size")]
    with pytest.raises(ValueError, match="size does not like row 12"):
        build(some).check(data(), first=10)
    build(some).check(Batch(data().inputs), targets=False)


def test_separate_gives_each_task_a_model_of_its_own():
    models = separate(build, tasks())
    assert {name: list(model.tasks) for name, model in models.items()} == {
        "digit": ["digit"],
        "ink": ["ink"],
    }
    seen = [id(p) for model in models.values() for p in model.parameters()]
    assert len(seen) == len(set(seen))


def test_shared_trunk_may_be_any_sequential():
    def deep(in_dim: int, dim: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(in_dim, 3), nn.Tanh(), nn.Linear(3, dim))

    sharing = HardSharing(["a", "b"], 4, 5, trunk=deep)
    z = torch.randn(2, 7, 4)
    shared = sharing(z)
    assert shared.penalty == 0 and shared.features["a"] is shared.features["b"]
    torch.testing.assert_close(shared.features["a"], sharing.trunk(z))


def test_state_survives_save_and_load(tmp_path):
    model, batch = build(tasks()), data()
    torch.save(model.state_dict(), tmp_path / "state.pt")
    again = build(tasks())
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, prediction in model(batch).predictions.items():
        assert torch.equal(again(batch).predictions[name], prediction)


# Decision fusion


def late(combine: str) -> DecisionFusion:
    def one(name: str, width: int) -> Model:
        encoder = {name: MLPEncoder(width, 4)}
        return Model(
            encoder,
            SumFusion({name: 4}, 4),
            HardSharing(["c", "r"], 4, 4),
            [Classification("c", 3), Regression("r")],
        )

    return DecisionFusion({"b": one("b", 2), "a": one("a", 3)}, combine)


def late_batch(n: int = 6) -> Batch:
    return Batch(
        {"a": torch.randn(n, 3), "b": torch.randn(n, 2)},
        {"c": torch.randint(0, 3, (n,)), "r": torch.randn(n)},
    )


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_decisions_are_combined_as_defined(combine):
    model, batch = late(combine), late_batch()
    if combine == "learned":
        nn.init.normal_(model.scores)
    output = model(batch)
    single = [
        model.models[name](Batch({name: batch.inputs[name]})).predictions
        for name in ("a", "b")
    ]
    p = torch.stack([s["c"].softmax(1) for s in single])
    weights = (
        model.scores.softmax(1) if combine == "learned" else torch.full((2, 2), 0.5)
    )
    expected = p.prod(0) / p.prod(0).sum(1, keepdim=True)
    if combine != "product":
        expected = (weights[0][:, None, None] * p).sum(0)
    torch.testing.assert_close(output.predictions["c"].softmax(1), expected)
    r = torch.stack([s["r"] for s in single])
    torch.testing.assert_close(
        output.predictions["r"], (weights[1][:, None, None] * r).sum(0)
    )
    sum(model.losses(output, batch).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_a_modality_that_is_absent_has_no_say(combine):
    model, batch = late(combine), late_batch()
    batch.inputs["b"][2:] = NAN
    present = {"b": torch.arange(6) < 2}
    output = model(Batch(batch.inputs, batch.targets, present))
    alone = model.models["a"](Batch({"a": batch.inputs["a"]})).predictions
    torch.testing.assert_close(
        output.predictions["c"][2:].softmax(1), alone["c"][2:].softmax(1)
    )
    torch.testing.assert_close(output.predictions["r"][2:], alone["r"][2:])
    sum(model.losses(output, batch).values()).backward()
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )
    with pytest.raises(ValueError, match="no modality at all"):
        model(batch.without("a", "b"))


def test_decision_fusion_refuses_what_does_not_fit():
    model = late("mean").models["a"]
    with pytest.raises(ValueError, match="read it alone"):
        DecisionFusion({"b": model})
    with pytest.raises(ValueError, match="combine is"):
        DecisionFusion({"a": model}, "max")
    with pytest.raises(ValueError, match="at least one model"):
        DecisionFusion({})
    with pytest.raises(TypeError, match="modality 'a': expected a Model .* class Mod"):
        DecisionFusion({"a": Model})
    other = {
        "other kinds": ([Regression("c"), Regression("r")], "task 'c' differs between"),
        "other names": ([Regression("r")], "the models' tasks differ"),
    }
    for tasks, message in other.values():
        names = [task.name for task in tasks]
        b = {"b": MLPEncoder(2, 4)}, SumFusion({"b": 4}, 4), HardSharing(names, 4, 4)
        with pytest.raises(ValueError, match=message):
            DecisionFusion({"a": model, "b": Model(*b, tasks)})
    more = [Classification("c", 4), Regression("r")]
    b = {"b": MLPEncoder(2, 4)}, SumFusion({"b": 4}, 4), HardSharing(["c", "r"], 4, 4)
    with pytest.raises(ValueError, match=r"task 'c': .* shapes \[\[6, 3\], \[6, 4\]\]"):
        DecisionFusion({"a": model, "b": Model(*b, more)})(late_batch())


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_every_parameter_of_a_decision_is_shared_or_one_tasks_own(combine):
    model = late(combine)
    parts = [model.shared_parameters(), *map(model.task_parameters, model.tasks)]
    ids = [id(p) for part in parts for p in part]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert combine != "learned" or any(p is model.scores for p in parts[0])


def test_check_of_a_decision():
    model, batch = late("mean"), late_batch()
    assert model.check(batch) is None
    nobody = batch.without("a", "b")
    with pytest.raises(ValueError, match=r"samples \[9, 10, .*\] of the data have no"):
        model.check(nobody, first=9)
    with pytest.raises(KeyError, match="reads modality 'b', but the batch has"):
        model.check(Batch({"a": batch.inputs["a"]}))


def test_what_the_models_of_a_decision_have_to_show_stands_under_their_names():
    def gated(name: str, width: int, sharing: type[Sharing]) -> Model:
        encoder = {name: MLPEncoder(width, 4)}
        parts = IdentityFusion({name: 4}, 4), sharing(["c", "r"], 4, 4)
        return Model(encoder, *parts, [Classification("c", 3), Regression("r")])

    models = {"b": gated("b", 2, SharedPrivate), "a": gated("a", 3, MMoE)}
    model, batch = DecisionFusion(models, "learned"), late_batch()
    output = model(batch)
    nn.init.normal_(model.scores)
    alone = {name: one(batch) for name, one in models.items()}
    assert output.weights.keys() == {"decision/weights", "decision/a/sharing/gates"}
    assert torch.equal(
        output.weights["decision/a/sharing/gates"], alone["a"].weights["sharing/gates"]
    )
    assert output.penalties.keys() == {"decision/b/sharing"}
    assert torch.equal(
        output.penalties["decision/b/sharing"], alone["b"].penalties["sharing"]
    )
    assert torch.equal(
        model(batch).weights["decision/weights"], model.scores.softmax(1)
    )


CELLS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)))


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_late_fusion_stops_at_ln_2_on_xor(combine):
    """However each model sees its own input: what the two say never depends on both."""
    xor = Batch(
        {"a": CELLS[:, :1].repeat(1, 3), "b": CELLS[:, 1:].repeat(1, 2)},
        {"c": (CELLS[:, 0] != CELLS[:, 1]).long(), "r": torch.full((4,), NAN)},
    )
    model = late(combine)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        output = model(xor)
        loss = model.losses(output, xor)["c"]
        assert loss >= math.log(2) - 1e-6
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-3)
    assert (output.predictions["c"].argmax(1) == xor.targets["c"]).sum() <= 3


def test_the_product_is_bayes_rule_for_independent_senses_and_equal_priors():
    """Kittler et al. (1998): with p(y) uniform, p(y | a, b) is proportional to p(y | a)
    p(y | b)."""
    # p(x_m | y), three classes
    likelihood = {m: torch.rand(3, 5).double().softmax(1) for m in "ab"}
    joint = torch.einsum("ya,yb->yab", likelihood["a"], likelihood["b"])
    exact = joint / joint.sum(0)
    # log p(y | x_m), [M, y, x]
    says = torch.stack([(p / p.sum(0)).log() for p in likelihood.values()])
    a, b = (
        x.flatten()
        for x in torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    )
    predictions = torch.stack([says[0][:, a].T, says[1][:, b].T])
    everyone = torch.ones(2, 25, dtype=torch.bool)
    product = Classification("c", 3).combine(predictions, everyone, None).softmax(1)
    torch.testing.assert_close(product, exact[:, a, b].T)


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_several_late_fusions_at_once(combine):
    models = [late(combine) for _ in range(3)]
    states, _ = torch.func.stack_module_state(models)
    inputs = {"a": torch.randn(3, 6, 3), "b": torch.randn(3, 6, 2)}
    present = {
        "a": torch.arange(18).reshape(3, 6) % 4 > 0,
        "b": torch.arange(18).reshape(3, 6) % 4 != 1,
    }

    def one(state, inputs, present):
        batch = Batch(inputs, present=present)
        return torch.func.functional_call(models[0], state, (batch,)).predictions

    together = torch.func.vmap(one)(states, inputs, present)
    for i, model in enumerate(models):
        groups = (
            {name: x[i] for name, x in group.items()} for group in (inputs, present)
        )
        alone = model(Batch(next(groups), present=next(groups))).predictions
        for name, prediction in alone.items():
            torch.testing.assert_close(together[name][i], prediction)


# What users bring


class Own(nn.Module):
    """An encoder as users write it, with one thing or another left out."""

    def __init__(self, returned, dim=4) -> None:
        super().__init__()
        self.layer, self.returned = nn.Linear(3, 4), returned
        if dim is not None:
            self.dim = dim

    def forward(self, x):
        return self.returned(self.layer(x))


def of(encoder, fusion=None, sharing=None, task=None, name="a") -> Model:
    """A model of one modality, with one part of the caller's."""
    return Model(
        {name: encoder},
        SumFusion({name: 4}, 5) if fusion is None else fusion,
        HardSharing(["y"], 5, 6) if sharing is None else sharing,
        [Regression("y") if task is None else task],
    )


def vector(z):
    return Features.vector(z)


X = torch.zeros(2, 3)


def given(model: Model, x=X, **lengths) -> Output:
    return model(Batch({"a": x}, lengths=lengths))


FAULTS = {
    "a bare tensor": (
        lambda: given(of(Own(lambda z: z))),
        TypeError,
        r"modality 'a': an encoder returns Features, but Own returned a Tensor; return "
        r"Features.vector\(z\) for z of shape \[B, D\]",
    ),
    "a vector in place of tokens": (
        lambda: given(of(Own(Features))),
        ValueError,
        r"modality 'a': Own says dim = 4, .* \[B, L, 4\], but it returned "
        r"\[2, 4\]",
    ),
    "a dim that the tokens do not have": (
        lambda: given(of(Own(vector, dim=5), SumFusion({"a": 5}, 5))),
        ValueError,
        r"modality 'a': Own says dim = 5, .* returned \[2, 1, 4\]",
    ),
    "no dim": (
        lambda: of(Own(vector, dim=None)),
        ValueError,
        r"modality 'a': .* attribute dim, an int, .* Own has dim = None; .*"
        r"ModuleEncoder\(Own\(…\), dim\)",
    ),
    "an encoder's class": (
        lambda: of(MLPEncoder),
        TypeError,
        "modality 'a': expected a Module such as .* got the class MLPEncoder",
    ),
    "lengths that the encoder does not take": (
        lambda: given(of(Own(vector)), a=torch.ones(2).long()),
        TypeError,
        r"modality 'a': its encoder was called as Own\(x, lengths\), since the batch "
        "has lengths, .* positional arguments",
    ),
    "float64": (
        lambda: given(of(MLPEncoder(3, 4)), X.double()),
        TypeError,
        "modality 'a': the input is torch.float64, but the weights of its encoder "
        "MLPEncoder are torch.float32; convert the input",
    ),
    "integers": (
        lambda: given(of(Own(vector)), X.long()),
        TypeError,
        "modality 'a': the input is torch.int64, .* Own are torch.float32; whole "
        r"numbers are taken for ids; make measurements real, by .float\(\)",
    ),
    "integers from numpy": (
        lambda: given(
            of(MLPEncoder(3, 4)),
            Batch.from_arrays({"a": np.zeros((2, 3), int)}).inputs["a"],
        ),
        TypeError,
        "modality 'a': the input is torch.int64, .* MLPEncoder are torch.float32; "
        r"whole numbers .*\.astype\('float32'\) of an array",
    ),
    "float64 images": (
        lambda: given(of(ConvEncoder(1, 4)), torch.zeros(2, 1, 4, 4).double()),
        TypeError,
        "modality 'a': the input is torch.float64, .* ConvEncoder are torch.float32",
    ),
    "another size": (
        lambda: given(of(MLPEncoder(2, 4))),
        ValueError,
        r"modality 'a': its encoder was called as MLPEncoder\(x\), with x "
        r"torch.float32 of shape \[2, 3\]: MLPEncoder expected",
    ),
    "another size, own encoder": (
        lambda: given(of(Own(vector)), torch.zeros(2, 7)),
        RuntimeError,
        r"modality 'a': .* Own\(x\), with x torch.float32 of shape \[2, 7\]: mat1",
    ),
    "ids beyond the vocabulary": (
        lambda: given(of(SequenceEncoder(3, 4, vocabulary=2)), X.long() + 2),
        IndexError,
        r"modality 'a': .* SequenceEncoder\(x\), with x torch.int64 of shape \[2, 3\]",
    ),
    "a dot in a modality's name": (
        lambda: of(Own(vector), fusion=SumFusion({"b": 4}, 5), name="a.b"),
        ValueError,
        r"modality 'a.b': a name is a string .* such as 'modality_a_b'",
    ),
    "torch's own names, modality": (
        lambda: of(Own(vector), name="type"),
        ValueError,
        "modality 'type': a name is a string",
    ),
    "torch's own names, fusion": (
        lambda: ConcatFusion({"keys": 3}, 4),
        ValueError,
        "modality 'keys': a name is a string",
    ),
    "torch's own names, sharing": (
        lambda: HardSharing(["values"], 4, 4),
        ValueError,
        "task 'values': a name is a string",
    ),
    "a modality named like a stage": (
        lambda: of(Own(vector), name="shared"),
        ValueError,
        r"modalities \['shared'\] are named like a stage that tasks may read; .*"
        "'shared_input'",
    ),
    "a fusion's class": (
        lambda: of(Own(vector), fusion=SumFusion),
        TypeError,
        r"fusion: expected a Fusion such as ConcatFusion\(\{'a': 4\}, 32\), got the "
        "class SumFusion",
    ),
    "a fusion's class, in dropout": (
        lambda: ModalityDropout(SumFusion),
        TypeError,
        "ModalityDropout wraps a fusion that is built",
    ),
    "encoders in place of widths": (
        lambda: SumFusion({"a": Own(vector)}, 5),
        TypeError,
        "dims says how wide each modality is",
    ),
    "a fusion for other modalities": (
        lambda: of(Own(vector), fusion=SumFusion({"b": 4}, 5)),
        ValueError,
        r"the encoders give widths \{'a': 4\}, but the fusion was built for \{'b': 4\}",
    ),
    "a sharing's class": (
        lambda: of(Own(vector), sharing=HardSharing),
        TypeError,
        r"sharing: expected a Sharing such as HardSharing\(\['y'\], 32, 32\), got the "
        "class HardSharing",
    ),
    "a sharing for other tasks": (
        lambda: of(Own(vector), sharing=HardSharing(["z"], 5, 6)),
        ValueError,
        r"the sharing was built for tasks \['z'\], but \['y'\] read it",
    ),
    "one name in place of a list": (
        lambda: HardSharing("y", 5, 6),
        TypeError,
        r"tasks is a list of names, got 'y': \['y'\]\?",
    ),
    "a task's name": (
        lambda: of(Own(vector), task="y"),
        TypeError,
        r"tasks: expected a Task such as Regression\('age'\), got 'y'",
    ),
    "a trunk that is built": (
        lambda: HardSharing(["y"], 5, 6, nn.Sequential(nn.Linear(5, 6))),
        TypeError,
        r"a trunk is a function \(in_dim, dim\) -> nn.Sequential .* got the module",
    ),
    "a trunk of its own width": (
        lambda: given(
            of(
                Own(vector),
                sharing=HardSharing(
                    ["y"], 5, 6, lambda i, d: nn.Sequential(nn.Linear(i, 9))
                ),
            )
        ),
        ValueError,
        r"task 'y': HardSharing says dim = 6, .* returned \[2, 1, 9\]",
    ),
    "a fusion that returns features": (
        lambda: given(of(Own(vector), fusion=Bare({"a": 4}, 4), sharing=FOUR)),
        TypeError,
        r"what the fusion returned: expected a Fused such as Fused\(Features\(z\)\)",
    ),
}
FOUR = HardSharing(["y"], 4, 6)


class Bare(Fusion):
    def forward(self, features, present=None):
        return features["a"]


def test_the_shortest_encoder_of_ones_own():
    model = of(Own(vector))
    torch.testing.assert_close(
        given(model).features["a"].pooled, model.encoders["a"].layer(X)
    )


def test_a_task_may_be_named_like_a_modality():
    """As where noisy speech is the input and clean speech the target."""
    model = of(Own(vector), SumFusion({"y": 4}, 5), HardSharing(["y"], 5, 6), name="y")
    batch = Batch({"y": torch.randn(2, 3)}, {"y": torch.randn(2)})
    model.check(batch)
    output = model(batch)
    model.losses(output, batch)["y"].backward()
    assert output.predictions["y"].shape == (2, 1)
    torch.testing.assert_close(
        output.features["y"].pooled, model.encoders["y"].layer(batch.inputs["y"])
    )


def test_two_modalities_may_have_the_same_encoder():
    left_right, three = MLPEncoder(3, 4), torch.randn(2, 3)
    model = Model(
        {"left": left_right, "right": left_right},
        ConcatFusion({"left": 4, "right": 4}, 5),
        HardSharing(["y"], 5, 6),
        [Regression("y")],
    )
    batch = Batch({"left": three, "right": -three}, {"y": torch.randn(2)})
    output = model(batch)
    for name, sign in (("left", 1), ("right", -1)):
        torch.testing.assert_close(
            output.features[name].pooled, left_right(sign * three).pooled
        )
    shared = model.shared_parameters()
    assert len({id(p) for p in shared}) == len(shared)
    loss = model.losses(output, batch)["y"]
    weight = left_right.layers[0].weight
    (both,) = torch.autograd.grad(loss, weight, retain_graph=True)
    # A sum over both places where the weight is used.
    step = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-3 * step
        up = model.losses(model(batch), batch)["y"]
        weight -= 2e-3 * step
        down = model.losses(model(batch), batch)["y"]
    slope = (up - down).item() / 2e-3
    assert (both * step).sum().item() == pytest.approx(slope, rel=1e-2, abs=1e-4)
    again = Model(
        dict.fromkeys(("left", "right"), MLPEncoder(3, 4)),
        ConcatFusion({"left": 4, "right": 4}, 5),
        HardSharing(["y"], 5, 6),
        [Regression("y")],
    )
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch).predictions["y"], model(batch).predictions["y"])


@pytest.mark.parametrize("name", FAULTS)
def test_what_users_bring_is_named_in_a_sentence(name):
    cause, error, message = FAULTS[name]
    with pytest.raises(error, match=message):
        cause()
