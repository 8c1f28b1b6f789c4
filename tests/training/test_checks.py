"""Mistakes that are found before the first step, in `fit` and `fit_many` alike."""

from __future__ import annotations

import functools
import math
import warnings

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_problem import build, same, samples, weights

from mtmm_lib.balancing import UncertaintyWeights
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import SequenceEncoder
from mtmm_lib.fusion import SumFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Regression
from mtmm_lib.training import (
    TrainingError,
    cosine,
    evaluate,
    evaluate_losses,
    fit,
    fit_many,
    patience,
    predict,
)

quiet = functools.partial(fit, progress=False, device="cpu")


def many(model, data, **settings):
    """`fit_many` with one seed, called as `fit` is."""
    valid = settings.pop("valid", None)
    valid = valid if valid is None else [valid]
    return fit_many(lambda: model, [data], seeds=[0], valid=valid, **settings)


both = pytest.mark.parametrize("train", [quiet, many], ids=["fit", "fit_many"])


@both
@pytest.mark.parametrize(
    "settings",
    [{"epochs": -1}, {"epochs": 1.5}, {"epochs": 1, "batch_size": 0}],
)
def test_settings_out_of_range(train, settings):
    with pytest.raises(ValueError, match="epochs >= 0 and batch_size >= 1"):
        train(build(), samples(), **settings)


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": "0.1"}, "lr is a finite number >= 0, got '0.1'"),
        ({"lr": math.nan}, "lr is a finite number >= 0, got nan"),
        ({"weight_decay": [0.1]}, r"weight_decay is a finite number >= 0, got \[0.1\]"),
        ({"clip": "1"}, "clip is the largest norm of a gradient, > 0, got '1'"),
    ],
)
def test_settings_that_are_no_numbers(train, settings, message):
    model = build()
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        train(model, samples(), epochs=1, **settings)
    assert same(before, weights(model))


@pytest.mark.parametrize("seed", [1.5, "a", None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(TypeError, match=f"a seed is a whole number, got {seed!r}"):
        quiet(build(), samples(), epochs=1, seed=seed)
    with pytest.raises(TypeError, match=f"a seed is a whole number, got {seed!r}"):
        fit_many(build, [samples()], seeds=[seed], epochs=1)
    with pytest.raises(TypeError, match="seeds are whole numbers, one per model"):
        fit_many(build, [samples()], seeds=3, epochs=1)


def test_a_seed_of_numpy_is_the_seed_of_its_value():
    one, other = build(), build()
    quiet(one, samples(), epochs=1, batch_size=8, seed=3)
    quiet(other, samples(), epochs=1, batch_size=8, seed=numpy.int64(3))
    assert same(weights(one), weights(other))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 1.5])
def test_a_device_that_is_not_there(device):
    said = f"device is 'auto' or a device of PyTorch that is there.*got {device!r}"
    with pytest.raises(ValueError, match=said):
        fit(build(), samples(), epochs=1, device=device)


@both
def test_data_without_samples(train):
    with pytest.raises(ValueError, match="train has no samples"):
        train(build(), samples()[:0], epochs=1)
    with pytest.raises(ValueError, match="valid has no samples"):
        train(build(), samples(), valid=samples()[:0], epochs=1)


@both
def test_a_task_that_is_never_labelled_is_named(train):
    data = samples()
    data.targets["size"][:] = math.nan
    with pytest.warns(UserWarning, match="train has no label for task 'size'"):
        train(build(), data, epochs=1)
    data.targets["kind"][:] = -1
    model = build()
    before = weights(model)
    with pytest.raises(ValueError, match=r"no label for any of .*\['kind', 'size'\]"):
        train(model, data, epochs=1)
    assert same(before, weights(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(build(), samples(), epochs=1)


def test_a_task_that_a_loader_never_labels_is_named_after_the_first_epoch():
    data = samples()
    data.targets["size"][:] = math.nan
    with pytest.warns(UserWarning, match="no label for task 'size'") as caught:
        quiet(build(), [data[:20], data[20:]], epochs=3)
    assert len(caught) == 1


@both
def test_validation_without_labels(train):
    valid = samples()
    valid.targets["size"][:] = math.nan
    valid.targets["kind"][:] = -1
    with pytest.raises(ValueError, match="valid has no label for any"):
        train(build(), samples(), valid=valid, epochs=1)


def test_an_optimizer_of_another_model():
    model, other = build(), build(1)
    before = weights(model)
    for held in (
        list(other.parameters()),
        [*model.encoders.parameters(), *other.heads.parameters()],
    ):
        with pytest.raises(ValueError, match="are none of the model's"):
            quiet(model, samples(), epochs=1, optimizer=torch.optim.SGD(held, lr=0.1))
    assert same(before, weights(model))
    # a part of the model is a choice, and the rest stays
    heads = torch.optim.SGD(model.heads.parameters(), lr=0.1)
    quiet(model, samples(), epochs=1, optimizer=heads)
    after = weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("heads.") for name in moved)


@both
def test_a_class_in_place_of_a_balancer(train):
    for wrong in (UncertaintyWeights, "uncertainty"):
        with pytest.raises(ValueError, match="balancer is an object"):
            train(build(), samples(), epochs=1, balancer=wrong)


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"schedule": 0.5},
            r"schedule is a function, such as cosine\(.*\), got a float",
        ),
        ({"schedule": cosine}, r"schedule=cosine\(\) in place of schedule=cosine\?"),
        ({"select": "size"}, "select is a function, such as mean_loss, got a str"),
        ({"select": lambda losses: 0.0}, "select is called with 2 arguments, as mean"),
        ({"schedule": lambda: 1.0}, "schedule is called with 1 argument, as cosine"),
        ({"optimizer": "sgd"}, "optimizer is a function, such as torch.optim.SGD"),
    ],
)
def test_something_else_in_place_of_a_function(train, settings, message):
    model = build()
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        train(model, samples(), valid=samples(), epochs=1, **settings)
    assert same(before, weights(model))


def test_something_else_in_place_of_what_is_called_after_an_epoch():
    with pytest.raises(ValueError, match=r"after_epoch is .* patience\(5\), got a int"):
        quiet(build(), samples(), epochs=1, after_epoch=5)
    model = build()
    model.register_forward_hook(lambda *_: pytest.fail("nothing is computed"))

    class Stop:
        def __call__(self, state):
            return False

    for wrong in (patience, Stop):
        with pytest.raises(ValueError, match="which makes one: after_epoch="):
            quiet(model, samples(), epochs=1, after_epoch=wrong)
    with pytest.raises(ValueError, match="after_epoch is called with 1 argument"):
        quiet(model, samples(), epochs=1, after_epoch=lambda: False)
    quiet(build(), samples(), epochs=1, after_epoch=Stop())


def test_something_else_in_place_of_a_model():
    said = "expected a model that is built, a Model or DecisionFusion, got "
    with pytest.raises(ValueError, match=f"{said}<function build"):
        quiet(build, samples(), epochs=1)
    with pytest.raises(ValueError, match=f"for seed 4: {said}None"):
        fit_many(lambda: None, [samples()], seeds=[4], epochs=1)
    with pytest.raises(
        ValueError, match="build is a function that makes a fresh model"
    ):
        fit_many(build(), [samples()], seeds=[4], epochs=1)
    for measure in (evaluate, evaluate_losses, predict):
        with pytest.raises(ValueError, match=f"{said}<function build"):
            measure(build, samples())


@both
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_input_that_is_no_number_is_named_where_a_loss_is_none(train, value):
    data = samples(40, missing=False)
    data.present["sound"] = torch.arange(40) > 5
    data.inputs["sound"][5] = value  # absent, so that nobody sees it
    train(build(), data, epochs=1, batch_size=8)
    data.inputs["sound"][33, 2] = data.inputs["sound"][35] = value
    said = rf"inputs\['sound'\] of sample 33 has the value {value} \(2 of 40 samples"
    with pytest.raises(TrainingError, match=rf"loss of task '\w+' is .*{said}"):
        train(build(), data, epochs=1, batch_size=8)


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_input_of_a_loader_that_is_no_number_is_named(shuffle):
    data = samples(40, missing=False)
    data.inputs["sound"][33, 2] = math.nan
    loader = DataLoader(
        range(40),
        batch_size=8,
        shuffle=shuffle,
        collate_fn=lambda rows: data[torch.tensor(rows)],
    )
    where = "33" if not shuffle else r"\d+"
    said = rf"in the order of the epoch, inputs\['sound'\] of sample {where} has the "
    with pytest.raises(TrainingError, match=rf"\(epoch 0\); {said}value nan \(1 of 8"):
        quiet(build(), loader, epochs=1)
    data.inputs["sound"][33, 2] = 0.0
    data.targets["size"][3] = 1e30  # its square is no float, and the inputs are fine
    with pytest.raises(TrainingError, match="or take a smaller learning rate"):
        quiet(build(), loader, epochs=1)


def test_padding_is_no_input():
    tokens = torch.zeros(3, 4, 2)
    tokens[0, 2] = tokens[2, 3] = math.nan
    lengths = {"a": torch.tensor([2, 4, 4])}
    model = Model(
        {"a": SequenceEncoder(2, 4)},
        SumFusion({"a": 4}, 4),
        HardSharing(["y"], 4, 4),
        [Regression("y")],
    )
    data = Batch({"a": tokens}, {"y": torch.ones(3)}, lengths=lengths)
    with pytest.raises(TrainingError, match=r"inputs\['a'\] of sample 2 .*\(1 of 3 "):
        quiet(model, data, epochs=1)


def test_a_loader_of_tuples():
    data = samples()
    loader = DataLoader(
        TensorDataset(data.inputs["image"], data.targets["kind"]), batch_size=8
    )
    said = (
        "is a DataLoader that gives objects of type list, but Batches are needed; "
        ".*collate_fn=collate"
    )
    with pytest.raises(ValueError, match=f"train {said}"):
        quiet(build(), loader, epochs=1)
    with pytest.raises(ValueError, match=f"valid {said}"):
        quiet(build(), data, valid=loader, epochs=1)
    with pytest.raises(ValueError, match=f"data {said}"):
        evaluate(build(), loader)


@pytest.mark.parametrize("measure", [evaluate, predict])
def test_what_is_no_data_at_all(measure):
    for wrong in (samples().inputs, numpy.zeros((3, 6))):
        said = f"is a {type(wrong).__name__} that .* Batch.from_arrays makes one"
        with pytest.raises(ValueError, match=f"train {said}"):
            quiet(build(), wrong, epochs=1)
        with pytest.raises(ValueError, match=f"data {said}"):
            measure(build(), wrong)
    with pytest.raises(ValueError, match="data is a Batch or .*, got NoneType"):
        measure(build(), None)


@both
@pytest.mark.parametrize("value", [-100, 3])
def test_a_class_out_of_range_stops_everything_before_anything_is_trained(train, value):
    wrong, model = samples(40), build()
    wrong.targets["kind"][33] = value
    before = weights(model)
    said = f"task 'kind': the target of sample 33 is {value}, expected a class from 0"
    with pytest.raises(ValueError, match=said):
        train(model, wrong, epochs=1, batch_size=8)
    with pytest.raises(ValueError, match=said):
        train(model, samples(), valid=wrong, epochs=1)
    with pytest.raises(ValueError, match=said):
        evaluate(model, wrong)
    parts = [wrong[i : i + 8] for i in range(0, 40, 8)]
    with pytest.raises(ValueError, match=said):
        evaluate(model, parts)
    assert same(before, weights(model))
    with pytest.raises(ValueError, match=said):
        quiet(model, parts, epochs=1)


@both
def test_a_sample_without_any_modality_is_counted_in_the_data(train):
    data = samples(40)
    there = torch.ones(40, dtype=torch.bool)
    there[33] = False
    data.present.update(image=there, sound=there)
    with pytest.raises(ValueError, match=r"samples \[33\] .*no modality at all"):
        train(build(), data, epochs=1, batch_size=8)
    with pytest.raises(ValueError, match=r"samples \[33\] .*no modality at all"):
        train(build(), samples(), valid=data, epochs=1)
    model = build()
    if train is quiet:
        parts = [data[i : i + 8] for i in range(0, 40, 8)]
        with pytest.raises(ValueError, match=r"samples \[33\] "):
            quiet(model, parts, epochs=1)
        with pytest.raises(ValueError, match=r"samples \[33\] "):
            evaluate(model, parts)
        with pytest.raises(ValueError, match=r"samples \[33\] "):
            evaluate(model, data)
