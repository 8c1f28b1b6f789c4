"""Mistakes that are found before the first step, in `fit` and `fit_many` alike."""

from __future__ import annotations

import functools
import math
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_problem import build, same, samples, weights

from mtmm_lib.balancing import UncertaintyWeights
from mtmm_lib.training import evaluate, fit, fit_many

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


def test_a_class_in_place_of_a_balancer():
    for wrong in (UncertaintyWeights, "uncertainty"):
        with pytest.raises(ValueError, match="balancer is an object"):
            quiet(build(), samples(), epochs=1, balancer=wrong)


def test_a_loader_of_tuples():
    data = samples()
    loader = DataLoader(
        TensorDataset(data.inputs["image"], data.targets["kind"]), batch_size=8
    )
    said = "gives objects of type list, but Batches are needed; .*collate_fn"
    with pytest.raises(ValueError, match=f"train {said}"):
        quiet(build(), loader, epochs=1)
    with pytest.raises(ValueError, match=f"valid {said}"):
        quiet(build(), data, valid=loader, epochs=1)
    with pytest.raises(ValueError, match=f"data {said}"):
        evaluate(build(), loader)


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
