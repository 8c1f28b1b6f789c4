"""Where nothing is learned: evaluation, prediction, and the parts that are frozen."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from training_problem import build, samples, weights

from mtmm_lib.batch import Batch, Features
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import TrainingError, evaluate, fit, fit_many, predict

quiet = functools.partial(fit, progress=False, device="cpu")


def many(model, data, **settings):
    return fit_many(lambda: model, [data], seeds=[0], **settings)


class TestPredictionsThatAreNoNumbers:
    def test_the_task_and_the_first_sample_are_named(self):
        model, data = build(), samples(40, missing=False)
        data.targets["kind"][:] = 0
        data.inputs["image"][7, 2] = math.nan
        data.inputs["image"][30, 0] = math.inf
        with pytest.raises(
            FloatingPointError, match=r"task 'kind' for sample 7 .* \(2 of 40 are not\)"
        ):
            evaluate(model, data)
        loader = [data[i : i + 9] for i in range(0, 40, 9)]
        with pytest.raises(FloatingPointError, match="task 'kind' for sample 7 "):
            evaluate(model, loader)

    def test_a_prediction_that_is_none_is_warned_of(self):
        model, data = build(), samples(40, missing=False)
        data.inputs["image"][7, 2] = math.nan
        with pytest.warns(UserWarning, match=r"'kind' for sample 7 .* \(1 of 40 are"):
            found = predict(model, data)
        assert found["kind"].isfinite().all(1).sum() == 39  # the others are answered

    def test_weights_that_are_nan(self):
        model, data = build(), samples(10)
        with torch.no_grad():
            model.heads["size"].bias.fill_(math.nan)
        with pytest.raises(FloatingPointError, match="the prediction of task 'size'"):
            evaluate(model, data)

    def test_samples_without_a_label_do_not_count(self):
        model, data = build(), samples(40)
        unlabelled = (data.targets["kind"] < 0) & data.targets["size"].isnan()
        data.inputs["image"][unlabelled] = math.nan
        assert unlabelled.any()
        assert all(math.isfinite(value) for value in evaluate(model, data).values())

    def test_in_validation_training_ends(self):
        valid = samples(20, missing=False)
        valid.inputs["image"][11] = math.nan
        with pytest.raises(
            TrainingError,
            match="validation after epoch 0: the prediction of task 'kind' .* 11 ",
        ):
            quiet(build(), samples(), valid=valid, epochs=2)


class TestPredict:
    def test_probabilities_and_numbers(self, monkeypatch):
        model, data = build(dropout=0.5), samples(50)
        model.fusion.eval()
        bare = Batch(data.inputs, {}, data.present)
        found = predict(model, bare)
        assert model.training and not model.fusion.training
        model.eval()
        whole = model(data).predictions
        assert list(found) == ["kind", "size"]
        assert torch.allclose(found["kind"], whole["kind"].softmax(1), atol=1e-6)
        assert torch.allclose(found["size"], whole["size"][:, 0], atol=1e-6)
        assert not any(value.requires_grad for value in found.values())
        monkeypatch.setattr("mtmm_lib.training.evaluation.CHUNK", 7)
        loader = DataLoader(
            range(50), batch_size=9, collate_fn=lambda i: bare[torch.tensor(i)]
        )
        for given in (bare, loader, data):
            again = predict(model, given)
            assert all(torch.allclose(again[t], found[t], atol=1e-6) for t in found)

    def test_late_fusion(self):
        data = samples(20, missing=False)

        def alone(name, width):
            tasks = [Classification("kind", 3), Regression("size")]
            parts = ConcatFusion({name: 8}, 8), HardSharing(["kind", "size"], 8, 8)
            return Model({name: MLPEncoder(width, 8)}, *parts, tasks)

        models = {"image": alone("image", 6), "sound": alone("sound", 4)}
        for combine in ("mean", "product", "learned"):
            found = predict(DecisionFusion(models, combine), Batch(data.inputs))
            assert found["kind"].shape == (20, 3) and found["size"].shape == (20,)
            assert torch.allclose(found["kind"].sum(1), torch.ones(20))
            each = [predict(model, data) for model in models.values()]
            if combine != "product":
                mean = sum(one["kind"] for one in each) / 2
                assert torch.allclose(found["kind"], mean, atol=1e-6)

    def test_what_the_model_cannot_take(self):
        with pytest.raises(ValueError, match="no samples"):
            predict(build(), [])
        with pytest.raises(KeyError, match="'sound'"):
            predict(build(), Batch({"image": torch.zeros(2, 6)}))
        here = torch.tensor([True, False])
        data = Batch(samples(2).inputs, {}, {"image": here, "sound": here})
        with pytest.raises(ValueError, match=r"samples \[1\] "):
            predict(build(), data)


class Backbone(nn.Module):
    """As it comes from elsewhere: with batch normalisation and dropout."""

    dim = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 8)
        )

    def forward(self, x, lengths=None):
        return Features.vector(self.layers(x))


def with_backbone(*, frozen=True, evaluating=True):
    torch.manual_seed(0)
    encoders = {"image": Backbone(), "sound": MLPEncoder(4, 5, dropout=0.3)}
    tasks = [Classification("kind", 3), Regression("size")]
    fusion, sharing = ConcatFusion({"image": 8, "sound": 5}, 8), HardSharing
    model = Model(encoders, fusion, sharing(["kind", "size"], 8, 8), tasks)
    encoders["image"].requires_grad_(not frozen).train(not evaluating)
    return model


class TestFrozenParts:
    @pytest.mark.parametrize("train", [quiet, many], ids=["fit", "fit_many"])
    def test_in_evaluation_mode_they_stay_in_it(self, train):
        model, seen = with_backbone(), []

        def look(module, inputs, output):
            modes = [part.training for part in model.encoders["image"].modules()]
            seen.append((any(modes), model.encoders["sound"].training))

        model.encoders["image"].register_forward_hook(look)
        before, data = weights(model), samples(30)
        train(model, data, epochs=2, batch_size=10)
        after = weights(model)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved and not any(name.startswith("encoders.image") for name in moved)
        assert not any(frozen for frozen, _ in seen)
        assert any(other for _, other in seen)
        assert not model.encoders["image"].training and model.encoders["sound"].training

    def test_dropout_in_them_draws_nothing(self):
        model, data, passes = with_backbone(), samples(1, missing=False), []
        model.encoders["image"].register_forward_hook(
            lambda module, inputs, output: passes.append(output.tokens)
        )
        quiet(model, data, epochs=4)
        assert all(torch.equal(tokens, passes[0]) for tokens in passes)

    @pytest.mark.parametrize(
        ("frozen", "evaluating"), [(True, False), (False, True), (False, False)]
    )
    def test_what_is_trained_or_was_in_training_mode_is_trained_with(
        self, frozen, evaluating
    ):
        model = with_backbone(frozen=frozen, evaluating=evaluating)
        mean = model.encoders["image"].layers[1].running_mean
        before = mean.clone()
        quiet(model, samples(), epochs=1)
        assert not torch.equal(mean, before)
        assert model.encoders["image"].training != evaluating

    def test_parts_without_parameters_follow_the_whole(self):
        model = build(dropout=0.5).eval()
        losses = [
            quiet(build(dropout=0.5).eval(), samples(), epochs=1, seed=s).train_loss
            for s in (0, 0, 1)
        ]
        alone = quiet(model.train(), samples(), epochs=1).train_loss
        assert losses[0] == losses[1] == alone != losses[2]
