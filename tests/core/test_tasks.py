"""What tasks accept, what they compute, and what they say of the rest."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, roc_auc_score
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, R2Score
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score
from torchmetrics.functional import (
    mean_absolute_error as mean_absolute_error_of_torchmetrics,
)

from mtmm_lib.batch import Batch, Output
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import SumFusion
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import (
    Classification,
    MultiLabel,
    Ordinal,
    Regression,
    Task,
    UnimodalTask,
    unimodal_tasks,
)
from mtmm_lib.training import evaluate, fit, predict

NAN = torch.nan


def labels(name: str, values: Any, **dtype: Any) -> Batch:
    """A batch of targets, with an input beside them."""
    target = torch.as_tensor(values, **dtype)
    return Batch({"a": torch.zeros(len(target), 1)}, {name: target})


def said(task: Task, prediction: Tensor) -> Output:
    return Output({task.name: prediction})


# What is refused before training


@pytest.mark.parametrize("value", [-100, -2, 3, 255])
def test_a_class_out_of_range_is_named_with_its_index_in_the_data(value):
    task = Classification("kind", 3)
    batch = labels("kind", [0, 2, -1, value, value])
    said = f"task 'kind'.*sample 1003 is {value}, expected a class from 0 to 2, or −1"
    with pytest.raises(ValueError, match=said):
        task.check(batch, first=1000)
    with pytest.raises(ValueError, match=said.replace("1003", "3")):
        UnimodalTask(task, "a").check(batch)
    task.check(batch[:3])
    with pytest.raises(IndexError):  # nor is it taken for another class
        task.loss(Output({"kind": torch.zeros(5, 3)}), batch)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.bool]
)
def test_classes_may_be_integers_of_any_kind(dtype):
    task, values = Classification("kind", 2), torch.tensor([1, 0, 1])
    prediction = Output({"kind": torch.randn(3, 2)})
    exact = labels("kind", values)
    batch = labels("kind", values.to(dtype))
    task.check(batch)
    assert task.loss(prediction, batch) == task.loss(prediction, exact)
    assert task.metric(prediction, batch) == task.metric(prediction, exact)
    assert task.labelled(batch).all()


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, NAN], [0.5, 1.0]])
def test_classes_that_are_real_numbers_are_told_how_to_become_whole(values):
    with pytest.raises(ValueError, match=r"task 'kind' .*float32: convert by"):
        Classification("kind", 2).check(labels("kind", values))


def test_shapes_of_targets():
    with pytest.raises(ValueError, match=r"task 'kind' expects .* \[B\], got \[2, 1\]"):
        Classification("kind", 2).check(labels("kind", [[0], [1]]))
    with pytest.raises(ValueError, match=r"shape \[B, 3\], got \[2\]"):
        Regression("size", 3).check(labels("size", [1.0, 2.0]))


def test_targets_that_are_infinite():
    with pytest.raises(ValueError, match="task 'size'.*sample 11 is -inf, expected a"):
        Regression("size").check(labels("size", [1.0, -torch.inf]), first=10)
    with pytest.raises(ValueError, match=r"sample 1, entry \[2\], is inf"):
        Regression("size", 3).check(labels("size", [[1.0, 2, 3], [4, NAN, torch.inf]]))
    Regression("size").check(labels("size", [NAN, 1.0]))


def test_a_target_that_is_not_there():
    nothing = Batch({"a": torch.zeros(2, 1)})
    for task in (Regression("size"), Classification("kind", 2)):
        with pytest.raises(KeyError, match="finds no target"):
            task.check(nothing)

    class Signal(Task):
        supervised = False

    Signal("signal").check(nothing)


@pytest.mark.parametrize("name", ["", "a.b", "type", "keys", "training", 3])
def test_names_that_no_part_of_a_model_can_have(name):
    with pytest.raises(ValueError, match="task .*a name is"):
        Regression(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification("t", 1), "'t' needs at least two classes, got 1"),
        (lambda: Classification("t", 2, class_weights=[1.0]), "'t': class_weights are"),
        (lambda: Classification("t", 2, class_weights=[1, -1]), "none below 0"),
        (lambda: Classification("t", 2, class_weights=[0, 0]), "some above"),
        (lambda: Classification("t", 2, class_weights=[NAN, 1]), "none below 0"),
        (lambda: Classification("t", 2, label_smoothing=1.0), r"'t': label_smoothing"),
        (lambda: Regression("t", loss="l1"), "'t': loss is one of .*'huber'"),
        (lambda: Regression("t", 0), "'t': widths"),
        (lambda: Regression("t", hidden=(8, 0)), r"hidden \[8, 0\]"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_class_weights_by_name_are_refused():
    with pytest.raises(TypeError, match="class_weights is a list of 2 numbers, in the"):
        Classification("t", 2, class_weights={0: 1.0, 1: 2.0})


def test_a_head_may_have_hidden_layers():
    head, z = Regression("t", 2, hidden=(5, 4)).head({"shared": 3}), torch.randn(7, 3)
    first, second, last = [x for x in head.modules() if isinstance(x, nn.Linear)]
    torch.testing.assert_close(head(z), last(second(first(z).relu()).relu()))
    assert [x.out_features for x in (first, second, last)] == [5, 4, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification("t", ["a", "b"]), r"'t': .* got \['a', 'b'\] and"),
        (lambda: Regression("t", hidden=8), r"hidden widths, such as \[64\], .*den 8"),
        (lambda: Ordinal("t", 3, hidden=(8.0,)), r"'t': .* got 3 and hidden \(8.0,\)"),
        (lambda: Regression("t", metrics=[R2Score()]), "'t': metrics is a dict from"),
    ],
)
def test_settings_of_another_kind(make, message):
    with pytest.raises(TypeError, match=message):
        make()


# Losses


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.0, 5.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_that_of_torch(weights, smoothing):
    logits = torch.randn(9, 4, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 3, -1, 0, 1, -1, 3])
    task = Classification("kind", 4, class_weights=weights, label_smoothing=smoothing)
    kept = target >= 0
    expected = F.cross_entropy(
        logits[kept],
        target[kept],
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
    )
    batch = labels("kind", target)
    torch.testing.assert_close(task.loss(said(task, logits), batch), expected)
    # losses of parts give that of the whole
    parts = [batch[:4], batch[4:]]
    sizes = [task.weight(part) for part in parts]
    losses = [
        task.loss(said(task, rows), part)
        for rows, part in zip(logits.split([4, 5]), parts, strict=True)
    ]
    mean = sum(n * x for n, x in zip(sizes, losses, strict=True)) / sum(sizes)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_missing_entries_are_left_out_one_by_one(loss, scale):
    """The third column is never there, and drops nothing else."""
    prediction = (scale * torch.randn(6, 3, dtype=torch.float64)).requires_grad_()
    target = scale * torch.randn(6, 3, dtype=torch.float64)
    target[:, 2] = target[0] = target[1, 0] = NAN
    kept = ~target.isnan()
    task = Regression("size", 3, loss=loss)
    assert task.gaussian == (loss == "mse")
    batch = labels("size", target)
    assert task.labelled(batch).tolist() == [False] + 5 * [True]
    got = task.loss(said(task, prediction), batch)
    function = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}[loss]
    expected = function(prediction[kept], target[kept])
    torch.testing.assert_close(got, expected)
    (gradient,) = torch.autograd.grad(got, prediction, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, prediction)[0])
    error = (prediction[kept] - target[kept]).square().mean().sqrt()
    torch.testing.assert_close(
        task.metric(said(task, prediction), batch).double(), error, rtol=1e-5, atol=0
    )


# Tasks of one's own


class Contrast(Task):
    """Ten lines: the mean of two modalities' features is to be far from zero."""

    supervised = False

    def head(self, dims):
        return nn.Linear(sum(dims[source] for source in self.reads), 2)

    def labelled(self, batch):
        return torch.ones(len(batch), dtype=torch.bool)

    def loss(self, output, batch):
        return (-output.predictions[self.name].square()).exp().mean()

    def metric(self, output, batch):
        return output.predictions[self.name].abs().mean()


class Quantile(Regression):
    def loss(self, output, batch):  # the pinball loss of the 90 % quantile
        error = batch.targets[self.name] - output.predictions[self.name][:, 0]
        return torch.maximum(0.9 * error, -0.1 * error).mean()


def small(*tasks: Task) -> Model:
    names = [task.name for task in tasks if task.reads == ("shared",)]
    parts = {"a": MLPEncoder(3, 4)}
    return Model(parts, SumFusion({"a": 4}, 4), HardSharing(names, 4, 4), tasks)


def test_tasks_of_ones_own_are_trained_and_measured():
    torch.manual_seed(0)
    x = torch.randn(400, 3)
    batch = Batch({"a": x}, {"high": x[:, 0] + torch.randn(400)})
    model = small(Contrast("contrast"), Quantile("high"))
    fit(model, batch, epochs=60, lr=0.01, device="cpu", progress=False)
    assert evaluate(model, batch)["contrast"] > 1
    said = predict(model, Batch(batch.inputs))
    assert said["contrast"].shape == (400, 2) and said["high"].shape == (400,)
    below = batch.targets["high"] < model(batch).predictions["high"][:, 0]
    assert below.float().mean() == pytest.approx(0.9, abs=0.05)


def test_a_task_that_marks_one_entry_as_missing_is_trained_without_it():
    """Every sample has a label and every target in the data is there."""

    class First(Regression):
        def target(self, batch):
            target = super().target(batch).clone()
            target[:, 1] = NAN
            return target

    batch = Batch({"a": torch.randn(30, 3)}, {"both": torch.randn(30, 2)})
    model = small(First("both", 2))
    before = model.heads["both"].weight.detach().clone()
    history = fit(model, batch, epochs=1, device="cpu", progress=False)
    assert history.train_loss[0]["both"] > 0
    moved = (model.heads["both"].weight != before).any(1)
    assert moved.tolist() == [True, False]


def test_a_task_for_some_samples_alone_marks_the_others_targets():
    class Grown(Regression):
        def target(self, batch):
            return torch.where(batch.targets["age"] >= 18, super().target(batch), NAN)

    task, prediction = Grown("size"), torch.randn(4, 1)
    size, age = torch.randn(4), torch.tensor([3, 18, 40, 17])
    batch = Batch({"a": torch.zeros(4, 1)}, {"size": size, "age": age})
    assert task.labelled(batch).tolist() == [False, True, True, False]
    expected = (prediction[1:3, 0] - size[1:3]).square().mean()
    torch.testing.assert_close(task.loss(said(task, prediction), batch), expected)
    torch.testing.assert_close(
        task.metric(said(task, prediction), batch), expected.sqrt()
    )
    assert task.weight(batch) == 2


@pytest.mark.parametrize(
    ("loss", "got"), [(None, "None"), (torch.ones(3), r"\[3\]"), (1.0, "1.0")]
)
def test_a_loss_that_is_no_scalar(loss, got):
    class Odd(Regression):
        def loss(self, output, batch):
            return loss

    model, batch = (
        small(Odd("odd")),
        Batch({"a": torch.zeros(3, 3)}, {"odd": NAN + torch.zeros(3)}),
    )
    batch.targets["odd"][0] = 0
    with pytest.raises(TypeError, match=rf"loss of Odd\('odd'\) .* scalar.* got {got}"):
        model.losses(model(batch), batch)


def test_a_head_that_is_none_and_labels_that_are_no_mask():
    class Headless(Regression):
        def head(self, dims):
            return None

    with pytest.raises(
        TypeError, match=r"the head of Headless\('x'\): expected .*None"
    ):
        small(Headless("x"))

    class Counted(Regression):
        def labelled(self, batch):
            return super().labelled(batch).sum()

    batch = Batch({"a": torch.zeros(3, 3)}, {"x": torch.zeros(3)})
    with pytest.raises(
        TypeError, match=r"labelled of Counted\('x'\) .* \[3\].*got \[\]"
    ):
        small(Counted("x")).check(batch)


def test_what_a_task_of_ones_own_lacks():
    class Empty(Task):
        pass

    with pytest.raises(
        NotImplementedError, match=r"Empty, task 'x', .* head\(self, di"
    ):
        small(Empty("x"))
    for method in ("loss", "metric"):
        with pytest.raises(NotImplementedError, match=rf"has to define {method}\(self"):
            getattr(Empty("x"), method)(Output({}), Batch({"a": torch.zeros(2, 1)}))
    # what it does not say: a label is missing where all of it is
    batch = labels("x", [[1, -1], [-1, -1]])
    assert Empty("x").labelled(batch).tolist() == [True, False]
    assert Empty("x").weight(batch) == 1
    assert Empty("x").labelled(labels("x", [NAN, 1.0])).tolist() == [False, True]


# Several labels, ordered classes


def test_several_labels_are_binary_cross_entropies_of_the_entries_that_are_there():
    logits = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (7, 3))
    target[:, 2] = target[0] = target[1, 0] = -1
    kept = target >= 0
    task = MultiLabel("signs", 3)
    expected = F.binary_cross_entropy_with_logits(logits[kept], target[kept].double())
    slopes = torch.autograd.grad(expected, logits)[0]
    with_nan = torch.where(kept, target, NAN)
    for batch in (labels("signs", target), labels("signs", with_nan)):
        task.check(batch)
        got = task.loss(said(task, logits), batch)
        torch.testing.assert_close(got, expected)
        gradient = torch.autograd.grad(got, logits)[0]
        torch.testing.assert_close(gradient, slopes)
        assert task.labelled(batch).tolist() == [False] + 6 * [True]
        assert task.weight(batch) == kept.sum()
        yes = logits > 0
        by_label = [
            f1_score(target[kept[:, j], j], yes[kept[:, j], j], zero_division=0)
            for j in (0, 1)  # nothing is known of the third
        ]
        assert task.metric(said(task, logits), batch).item() == pytest.approx(
            sum(by_label) / 2
        )
    torch.testing.assert_close(task.readable(logits), 1 / (1 + (-logits).exp()))
    bits = labels("signs", target[1:, :2].clamp(min=0).bool())
    task = MultiLabel("signs", 2)
    task.check(bits)
    assert task.loss(said(task, logits[1:, :2]), bits).isfinite()


@pytest.mark.parametrize("value", [2, -2, 0.5, -100.0])
def test_a_label_that_is_neither_yes_nor_no(value):
    target = torch.tensor([[1, 0], [0, value]])
    with pytest.raises(
        ValueError, match=rf"'signs'.*sample 8, entry \[1\], is {value}"
    ):
        MultiLabel("signs", 2).check(labels("signs", target), first=7)
    with pytest.raises(ValueError, match=r"\[B, 3\], got \[2, 2\]"):
        MultiLabel("signs", 3).check(labels("signs", target))
    with pytest.raises(ValueError, match="two labels, got 1"):
        MultiLabel("signs", 1)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_ordered_classes_are_cut_from_one_score(classes, scale):
    head = Ordinal("grade", classes).head({"shared": 4}).double()
    nn.init.normal_(head.distance)
    x = scale * torch.randn(50, 4, dtype=torch.float64)
    log_p = head(x)
    assert log_p.shape == (50, classes) and log_p.isfinite().all()
    at = head.first + torch.cat([torch.zeros(1), F.softplus(head.distance).cumsum(0)])
    upto = (at - head.score(x)).sigmoid()
    torch.testing.assert_close(log_p.exp().cumsum(1)[:, :-1], upto)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(50).double())
    log_p[range(50), torch.arange(50) % classes].sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_ordered_classes_start_equally_probable_and_are_measured_by_the_median():
    task = Ordinal("grade", 5)
    head = task.head({"shared": 1})
    nn.init.zeros_(head.score.weight), nn.init.zeros_(head.score.bias)
    torch.testing.assert_close(head(torch.zeros(2, 1)).exp(), torch.full((2, 5), 0.2))
    p = torch.rand(40, 5, dtype=torch.float64).softmax(1)
    target = torch.randint(-1, 5, (40,))
    batch, output = labels("grade", target), said(task, p.log())
    kept = target >= 0
    # the class of least expected error, among all
    steps = (torch.arange(5).unsqueeze(1) - torch.arange(5)).abs().double()
    best = (p @ steps).argmin(1)
    expected = mean_absolute_error(target[kept], best[kept])
    assert task.metric(output, batch).item() == pytest.approx(expected)
    torch.testing.assert_close(task.readable(p.log()), p)
    torch.testing.assert_close(
        task.loss(output, batch), F.nll_loss(p.log()[kept], target[kept])
    )
    with pytest.raises(ValueError, match="sample 0 is 5"):
        task.check(labels("grade", [5]))


def test_ordered_classes_find_the_thresholds_that_made_them():
    """A logistic variable, cut in four: the model of proportional odds is true."""
    torch.manual_seed(0)
    x = torch.randn(4000, 1)
    noise = torch.rand(4000).clamp(1e-6, 1 - 1e-6).logit()
    cuts = torch.tensor([-1.0, 0.5, 3.0])
    grade = torch.bucketize(2 * x[:, 0] + noise, cuts)
    task = Ordinal("grade", 4)
    head, batch = task.head({"shared": 1}), labels("grade", grade)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = task.loss(said(task, head(x)), batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = head.first + torch.cat(
        [torch.zeros(1), F.softplus(head.distance).cumsum(0)]
    )
    assert head.score.weight.item() == pytest.approx(2, abs=0.15)
    torch.testing.assert_close(found - head.score.bias, cuts, atol=0.15, rtol=0)


# Decisions together


def test_decisions_on_several_labels_are_mixed_label_by_label():
    task, z = MultiLabel("signs", 3), torch.randn(2, 5, 3, dtype=torch.float64)
    weights = torch.rand(2, 5, dtype=torch.float64).softmax(0)
    everyone = torch.ones(2, 5, dtype=torch.bool)
    p = z.sigmoid()
    mean = task.readable(task.combine(z, everyone, weights.log()))
    torch.testing.assert_close(mean, (weights.unsqueeze(2) * p).sum(0))
    product = task.readable(task.combine(z, everyone, None))
    torch.testing.assert_close(product, p.prod(0) / (p.prod(0) + (1 - p).prod(0)))


EACH = [
    Classification("c", 3, hidden=(5,), class_weights=[1, 2, 3], label_smoothing=0.1),
    MultiLabel("m", 2, hidden=(4, 3)),
    Ordinal("o", 4, hidden=(4,)),
    Regression("r", loss="huber"),
    Regression("v", 2, hidden=(3,), loss="mae"),
]


def targets(size: int) -> dict[str, Tensor]:
    found = {
        "c": torch.randint(0, 3, (size,)),
        "m": torch.randint(0, 2, (size, 2)),
        "o": torch.randint(0, 4, (size,)),
        "r": torch.randn(size),
        "v": torch.randn(size, 2),
    }
    for target in found.values():
        # of four samples, one or two have a label
        target[::2] = target[:1] = NAN if target.is_floating_point() else -1
    return found


def all_tasks() -> list[Task]:
    return [*EACH, *(u for task in EACH for u in unimodal_tasks(task, "ab"))]


def everything() -> Model:
    parts = {"a": MLPEncoder(3, 4), "b": MLPEncoder(2, 4)}
    names = [task.name for task in EACH]
    return Model(
        parts, SumFusion({"a": 4, "b": 4}, 4), HardSharing(names, 4, 4), all_tasks()
    )


def samples(size: int) -> Batch:
    present = torch.arange(size) % 3 > 0
    b = torch.randn(size, 2)
    b[~present] = NAN
    return Batch({"a": torch.randn(size, 3), "b": b}, targets(size), {"b": present})


def test_every_task_is_trained_and_measured_at_once():
    model, batch = everything(), samples(40)
    model.check(batch)
    output = model(batch)
    losses = model.losses(output, batch)
    assert set(losses) == set(model.tasks)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    fit(model, batch, valid=samples(20), epochs=2, device="cpu", progress=False)
    scores = evaluate(model, batch)
    assert all(score == score for score in scores.values())
    shapes = {
        n: t.readable(output.predictions[n]).shape[1:] for n, t in model.tasks.items()
    }
    for suffix in ("", "/a", "/b"):
        found = [shapes[task.name + suffix] for task in EACH]
        assert found == [(3,), (2,), (4,), (), (2,)]


@pytest.mark.parametrize("combine", ["mean", "product", "learned"])
def test_every_task_may_be_decided_late(combine):
    parts = {
        name: Model(
            {name: MLPEncoder(width, 4)},
            SumFusion({name: 4}, 4),
            HardSharing([task.name for task in EACH], 4, 4),
            EACH,
        )
        for name, width in (("a", 3), ("b", 2))
    }
    model, batch = DecisionFusion(parts, combine), samples(12)
    output = model(batch)
    sum(model.losses(output, batch).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    there = batch.present["b"]
    alone = parts["a"](batch).predictions
    for task in EACH:
        readable = task.readable(output.predictions[task.name])
        torch.testing.assert_close(
            readable[~there], task.readable(alone[task.name])[~there]
        )
    assert output.predictions["o"].softmax(1).sum(1).allclose(torch.ones(12))


@pytest.mark.parametrize("task", EACH, ids=repr)
def test_no_label_at_all_is_no_loss_and_no_gradient(task):
    batch = samples(4)
    none = targets(1)[task.name].expand_as(batch.targets[task.name])
    batch = Batch(batch.inputs, {task.name: none})
    dims = {"shared": 4}
    head = task.head(dims)
    loss = task.loss(said(task, head(torch.randn(4, 4))), batch)
    loss.backward()
    assert loss == 0 and task.weight(batch) == 0
    assert all(p.grad.eq(0).all() for p in head.parameters())
    assert task.metric(said(task, head(torch.randn(4, 4))), batch).isnan()
    alone = Batch({"a": torch.zeros(1, 1)}, {task.name: targets(4)[task.name][1:2]})
    assert task.loss(said(task, head(torch.randn(1, 4))), alone).isfinite()


@pytest.mark.parametrize("task", EACH, ids=repr)
def test_losses_of_parts_give_that_of_the_whole(task):
    """As chunks of an evaluation and processes add them up, by what each divides by."""
    batch = samples(30)
    if task.name in "mv":  # half a target is half a label
        batch.targets[task.name][1::4, 0] = -1 if task.name == "m" else NAN
    prediction = task.head({"shared": 4})(torch.randn(30, 4))
    rows = [slice(0, 7), slice(7, 8), slice(8, 30)]
    losses = [task.loss(said(task, prediction[r]), batch[r]) for r in rows]
    weights = [task.weight(batch[r]) for r in rows]
    torch.testing.assert_close(
        sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights),
        task.loss(said(task, prediction), batch),
    )


@pytest.mark.parametrize("task", EACH, ids=repr)
def test_seeds_side_by_side_are_each_what_one_alone_is(task):
    batches = [samples(8), samples(8)]
    stacked = torch.stack([batch.targets[task.name] for batch in batches])
    heads = [task.head({"shared": 4}) for _ in batches]
    states, _ = torch.func.stack_module_state(heads)
    x = torch.randn(2, 8, 4)

    def one(state, x, target):
        prediction = torch.func.functional_call(heads[0], state, (x,))
        batch = Batch({"a": x}, {task.name: target})
        return task.loss(said(task, prediction), batch), task.weight(batch)

    together, weights = torch.func.vmap(one)(states, x, stacked)
    for i, batch in enumerate(batches):
        alone = task.loss(said(task, heads[i](x[i])), batch)
        torch.testing.assert_close(together[i], alone)
        assert weights[i] == task.weight(batch)


# Further metrics


def test_metrics_of_torchmetrics_stand_beside_the_main_one():
    torch.manual_seed(0)
    kind = Classification(
        "kind",
        3,
        metrics={
            "f1": MulticlassF1Score(3, average="macro"),
            "auroc": MulticlassAUROC(3),
            "top": lambda p, y: p.max(),
        },
    )
    size = Regression("size", metrics={"r2": R2Score(), "mae": MeanAbsoluteError()})
    both = Regression("both", 2, metrics={"mae": mean_absolute_error_of_torchmetrics})
    model = small(kind, size, both, *unimodal_tasks(kind, "a"))
    batch = Batch(
        {"a": torch.randn(60, 3)},
        {
            "kind": torch.randint(-1, 3, (60,)),
            "size": torch.where(torch.rand(60) < 0.2, NAN, torch.randn(60)),
            "both": torch.where(torch.rand(60, 2) < 0.2, NAN, torch.randn(60, 2)),
        },
    )
    predictions = model(batch).predictions
    for _ in range(2):  # nothing is carried over
        scores = evaluate(model, batch)
        y, p = batch.targets["kind"], predictions["kind"].softmax(1).detach()
        known = y >= 0
        assert scores["kind/f1"] == pytest.approx(
            f1_score(y[known], p[known].argmax(1), average="macro")
        )
        assert scores["kind/auroc"] == pytest.approx(
            roc_auc_score(y[known], p[known], multi_class="ovr")
        )
        assert scores["kind/top"] == pytest.approx(p[known].max().item())
        assert {"kind/a", "kind/a/f1", "kind/a/auroc"} <= set(scores)
        y, p = batch.targets["size"], predictions["size"][:, 0].detach()
        known = ~y.isnan()
        assert scores["size/r2"] == pytest.approx(
            r2_score(y[known], p[known]), abs=1e-5
        )
        assert scores["size/mae"] == pytest.approx(
            mean_absolute_error(y[known], p[known])
        )
        y, p = batch.targets["both"], predictions["both"].detach()
        known = ~y.isnan().any(1)
        assert scores["both/mae"] == pytest.approx(
            mean_absolute_error(y[known], p[known])
        )
    history = fit(model, batch, valid=batch, epochs=1, device="cpu", progress=False)
    assert history.valid[0].keys() == scores.keys()
    nothing = Batch(batch.inputs, {**batch.targets, "size": torch.full((60,), NAN)})
    assert evaluate(model, nothing)["size/r2"] != evaluate(model, nothing)["size/r2"]


def test_a_metric_that_is_not_one_number():
    for metric in (R2Score, "r2"):
        with pytest.raises(TypeError, match="task 'size': metric 'r2' is called with"):
            Regression("size", metrics={"r2": metric})
    task = Regression("size", metrics={"error": lambda p, y: p - y})
    with pytest.raises(ValueError, match=r"metric 'error' of task 'size' .*\[3\]"):
        task.scores(said(task, torch.zeros(3, 1)), labels("size", [1.0, 2.0, 3.0]))
