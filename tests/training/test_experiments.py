from __future__ import annotations

import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from training_problem import (
    TetheredSharing,
    build,
    largest_difference,
    samples,
    weights,
)

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.experiments import paired_gain, repeat, scale
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import TrainingError, fit, fit_many


def draw(seed: int) -> dict[str, float]:
    one, other = np.random.default_rng(seed).normal(size=2)
    return {"one": one, "other": other, "worker": os.getpid()}


class TestRepeat:
    def test_one_row_per_seed(self):
        frame = repeat(lambda seed: {"seed": seed, "square": seed**2}, [5, 2, 9])
        assert list(frame.index) == [5, 2, 9] and frame.index.name == "seed"
        assert list(frame["square"]) == [25, 4, 81]

    def test_workers_give_the_same(self, monkeypatch):
        alone = repeat(draw, range(4))
        shared = repeat(draw, range(4), n_jobs=2)
        columns = ["one", "other"]
        assert alone[columns].equals(shared[columns])
        assert set(alone["worker"]) == {os.getpid()} and os.getpid() not in set(
            shared["worker"]
        )
        monkeypatch.setenv("MTMM_WORKERS", "2")
        assert os.getpid() not in set(repeat(draw, range(4))["worker"])

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match="none twice"):
            repeat(draw, [1, 2, 1])
        with pytest.raises(ValueError, match="at least one seed"):
            repeat(draw, [])
        with pytest.raises(
            TypeError, match="result 'a' of seed 3 is .* expected a number"
        ):
            repeat(lambda seed: {"a": {"b": 1.0}}, [3])


def nearest_mean(x, y, train):
    """Rightness 0 or 1, `[N, S]`, of a linear rule trained on S splits `[S, N]`."""
    directions = train @ (x * y[:, None])  # [S, k]
    return ((x @ directions.T) * y[:, None] > 0).astype(float)


def ridge(x, y, train):
    """Minus the squared error, `[N, S]`, of least squares with a penalty."""
    weights = [
        np.linalg.solve(a.T @ a + 10 * np.eye(a.shape[1]), a.T @ b)
        for a, b in ((x[part], y[part]) for part in train.astype(bool))
    ]
    return -((x @ np.array(weights).T - y[:, None]) ** 2)


def gains_of_nothing(learner, pools, seed=0, size=1797, n_train=1000, n_test=497):
    """Gains between two learners that are equal by symmetry, over ten splits of each of
    many pools: each sees five features of its own, all alike in distribution."""
    rng = np.random.default_rng(seed)
    for _ in range(pools):
        y = rng.choice([-1.0, 1.0], size)
        features = rng.standard_normal((2, size, 5)) + 0.3 * y[:, None]
        order = rng.permuted(np.tile(np.arange(size), (10, 1)), axis=1)
        train, test = np.zeros((2, 10, size))
        np.put_along_axis(train, order[:, :n_train], 1, axis=1)
        np.put_along_axis(test, order[:, -n_test:], 1, axis=1)
        one, other = (learner(x, y, train) for x in features)
        frame = pd.DataFrame(
            {
                "one": (one * test.T).sum(0) / n_test,
                "other": (other * test.T).sum(0) / n_test,
            }
        )
        yield [
            paired_gain(frame, "one", "other", pool=pool)
            for pool in (None, (n_train, n_test))
        ]


class TestPairedGain:
    @pytest.mark.parametrize("learner", [nearest_mean, ridge])
    def test_the_rule_seldom_errs_on_splits_of_one_pool(self, learner):
        """Shares of 800 pools: their standard error is 0.6 % at 3 % and 1.4 % at
        20 %."""
        gains = list(zip(*gains_of_nothing(learner, 800), strict=True))
        above = [np.mean([g.holds for g in arm]) for arm in gains]
        below = [np.mean([g.below().holds for g in arm]) for arm in gains]
        plain, corrected = zip(above, below, strict=True)
        assert max(corrected) <= 0.06 and sum(corrected) <= 0.08
        assert min(plain) > 0.12
        here = [g.of_this_pool().se for g in gains[1]]
        assert np.allclose(here, [g.se for g in gains[0]])

    def test_against_the_textbook(self):
        frame = repeat(draw, range(30))
        gain = paired_gain(frame, "one", "other", unit="points")
        difference = np.array(frame["one"] - frame["other"])
        assert gain.mean == pytest.approx(difference.mean())
        assert gain.se == pytest.approx(difference.std(ddof=1) / math.sqrt(30))
        assert (gain.n, gain.unit) == (30, "points")
        assert paired_gain(frame, "other", "one").mean == pytest.approx(-gain.mean)

    def test_what_both_share_cancels(self):
        frame = repeat(
            lambda seed: {"a": 1000.0 * seed + 2, "b": 1000.0 * seed}, range(5)
        )
        gain = paired_gain(frame, "a", "b")
        assert (gain.mean, gain.se) == (2, 0)

    def test_bad_input_is_refused(self):
        frame = repeat(
            lambda seed: {"a": 1.0, "b": math.nan if seed == 1 else 0.0}, range(3)
        )
        with pytest.raises(KeyError, match="no column 'c'"):
            paired_gain(frame, "a", "c")
        with pytest.raises(ValueError, match=r"NaN for seeds \[1\]"):
            paired_gain(frame, "a", "b")
        with pytest.raises(ValueError, match="at least 2"):
            paired_gain(frame[:1], "a", "b")


def test_scale(monkeypatch):
    monkeypatch.delenv("MTMM_SCALE", raising=False)
    assert scale(3, 300) == 3
    for value, expected in (("lesson", 3), ("full", 300)):
        monkeypatch.setenv("MTMM_SCALE", value)
        assert scale(3, 300) == expected
    monkeypatch.setenv("MTMM_SCALE", "huge")
    with pytest.raises(ValueError, match="'lesson' or 'full', got 'huge'"):
        scale(3, 300)


class TestFitMany:
    settings = {"epochs": 4, "batch_size": 5, "lr": 0.01, "weight_decay": 0.2}

    @pytest.mark.parametrize("missing", [False, True])
    @pytest.mark.parametrize("sharing", [HardSharing, TetheredSharing])
    def test_each_model_is_what_fit_makes_of_it(self, missing, sharing):
        seeds = [3, 4, 5]
        train = [samples(23, seed, missing=missing) for seed in seeds]
        if missing:
            # most batches then have no label of the one or the other task, some of none
            for data in train:
                data.targets["kind"][4:] = -1
                data.targets["size"][:-5] = math.nan
        valid = [samples(40, seed + 10) for seed in seeds]

        def make():
            return build(int(torch.initial_seed()), sharing=sharing)

        models = fit_many(
            make,
            train,
            seeds=seeds,
            valid=valid,
            weights={"size": 0.3},
            **self.settings,
        )
        for seed, data, held_out, model in zip(
            seeds, train, valid, models, strict=True
        ):
            alone = build(seed, sharing=sharing)
            balancer = StaticWeights({"size": 0.3})
            fit(
                alone,
                data,
                valid=held_out,
                seed=seed,
                balancer=balancer,
                progress=False,
                **self.settings,
            )
            assert largest_difference(weights(alone), weights(model)) < 1e-4

    def test_without_validation_the_last_weights_stay(self):
        train = [samples(20, seed) for seed in (0, 1)]
        models = fit_many(lambda: build(7), train, seeds=[0, 1], **self.settings)
        for seed, model in enumerate(models):
            alone = build(7)
            fit(alone, train[seed], seed=seed, progress=False, **self.settings)
            assert largest_difference(weights(alone), weights(model)) < 1e-4

    def test_frozen_parameters_stay_and_the_random_state_is_left_alone(self):
        def make():
            model = build(2)
            model.encoders["sound"].requires_grad_(False)
            return model

        before = weights(make())
        state = torch.get_rng_state()
        (model,) = fit_many(make, [samples()], seeds=[0], **self.settings)
        assert torch.equal(state, torch.get_rng_state())
        after = weights(model)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved and not any(name.startswith("encoders.sound") for name in moved)

    def test_shared_parameters_and_buffers(self):
        def make():
            model = build(tasks=[Regression("size"), Regression("other")])
            model.heads["other"].weight = model.heads["size"].weight
            model.register_buffer("scale", torch.rand(3))
            return model

        data = samples()
        data.targets["other"] = data.inputs["image"][:, 0]
        (model,) = fit_many(make, [data], seeds=[0], **self.settings)
        alone = make()
        fit(alone, data, progress=False, **self.settings)
        assert model.heads["other"].weight is model.heads["size"].weight
        assert largest_difference(weights(alone), weights(model)) < 1e-4

    def test_models_come_back_in_training_mode_as_they_were_built(self):
        train = [samples(seed=seed) for seed in (0, 1)]
        models = fit_many(build, train, seeds=[0, 1], valid=train, **self.settings)
        assert all(module.training for model in models for module in model.modules())

    def test_dropout_differs_between_models(self):
        # Twenty times one sample, so that the models' orders cannot make a difference.
        train = [samples(1, missing=False)[torch.zeros(20, dtype=torch.long)]] * 2
        one, other = fit_many(
            lambda: build(1), train, seeds=[0, 1], epochs=1, batch_size=20
        )
        assert largest_difference(weights(one), weights(other)) < 1e-6
        one, other = fit_many(
            lambda: build(1, dropout=0.5), train, seeds=[0, 1], epochs=1, batch_size=20
        )
        assert largest_difference(weights(one), weights(other)) > 1e-4

    def test_bad_input_is_refused(self):
        data = samples(8)
        with pytest.raises(ValueError, match="at least one seed"):
            fit_many(build, [], seeds=[], epochs=1)
        with pytest.raises(ValueError, match="a sequence of 2 Batches"):
            fit_many(build, [data], seeds=[0, 1], epochs=1)
        with pytest.raises(ValueError, match="a sequence of 1 Batches"):
            fit_many(build, data, seeds=[0], epochs=1)
        with pytest.raises(ValueError, match="same shapes"):
            fit_many(build, [data, data[:5]], seeds=[0, 1], epochs=1)
        with pytest.raises(ValueError, match=r"weights for \['speed'\]"):
            fit_many(build, [data], seeds=[0], weights={"speed": 1.0}, epochs=1)
        widths = iter(
            [[Regression("size")], [Regression("size"), Classification("kind", 3)]]
        )
        with pytest.raises(ValueError, match="one architecture"):
            fit_many(
                lambda: build(tasks=next(widths)), [data, data], seeds=[0, 1], epochs=1
            )
        data.inputs["image"][2] = math.nan
        with pytest.raises(
            TrainingError, match="task 'kind' is not finite for seed 9 in epoch 0"
        ):
            fit_many(build, [data], seeds=[9], epochs=1)
