"""What tasks accept, what they compute, and what they say of the rest."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import SumFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression, Task, UnimodalTask
from mtmm_lib.training import evaluate, fit

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
    with pytest.raises(ValueError, match=r"shape \[B, 3\], got \[2, 1\]"):
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
    names = [task.name for task in tasks]
    parts = {"a": MLPEncoder(3, 4)}
    return Model(parts, SumFusion({"a": 4}, 4), HardSharing(names, 4, 4), tasks)


def test_tasks_of_ones_own_are_trained_and_measured():
    torch.manual_seed(0)
    x = torch.randn(400, 3)
    batch = Batch({"a": x}, {"high": x[:, 0] + torch.randn(400)})
    model = small(Contrast("contrast"), Quantile("high"))
    fit(model, batch, epochs=60, lr=0.01, device="cpu", progress=False)
    assert evaluate(model, batch)["contrast"] > 1
    below = batch.targets["high"] < model(batch).predictions["high"][:, 0]
    assert below.float().mean() == pytest.approx(0.9, abs=0.05)


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
