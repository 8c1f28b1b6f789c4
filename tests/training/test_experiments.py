from __future__ import annotations

import math
import os
from functools import partial

import numpy as np
import pandas as pd
import pytest
from training_problem import build, largest_difference, samples, weights

from mtmm_lib.data import Splits
from mtmm_lib.experiments import Study, paired_gain, repeat, scale, search
from mtmm_lib.training import evaluate, fit_many


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


def gains_of_nothing(learner, pools, used, size=1797, n_train=1000, n_test=497):
    """Gains between two learners that are equal by symmetry, over ten splits of each of
    many pools: each sees five features of its own, all alike in distribution."""
    rng = np.random.default_rng(0)
    for _ in range(pools):
        y = rng.choice([-1.0, 1.0], size)
        features = rng.standard_normal((2, size, 5)) + 0.3 * y[:, None]
        order = rng.permuted(np.tile(np.arange(size), (10, 1)), axis=1)
        train, test = np.zeros((2, 10, size))
        np.put_along_axis(train, order[:, :used], 1, axis=1)
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
    @pytest.mark.parametrize(
        ("learner", "used"), [(nearest_mean, 1000), (ridge, 1000), (nearest_mean, 300)]
    )
    def test_the_rule_seldom_errs_on_splits_of_one_pool(self, learner, used):
        """Shares of 800 pools: their standard error is 0.6 % at 3 % and 1.4 % at
        20 %."""
        gains = list(zip(*gains_of_nothing(learner, 800, used), strict=True))
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


def halves(seed: int) -> Splits:
    return Splits(*(samples(30, 3 * seed + i, missing=False) for i in range(3)))


class TestStudy:
    budget = {"epochs": 3, "batch_size": 10, "lr": 0.01}

    def test_each_model_is_trained_and_scored_on_its_own_draw(self):
        study = Study(halves, [4, 2], **self.budget)
        models = study.train(build, weight_decay=0.1)
        again = fit_many(
            build,
            [halves(4).train, halves(2).train],
            valid=[halves(4).valid, halves(2).valid],
            seeds=[4, 2],
            weight_decay=0.1,
            **self.budget,
        )
        for one, other in zip(models, again, strict=True):
            assert largest_difference(weights(one), weights(other)) == 0
        score = study.score(models)
        assert list(score.columns) == ["kind", "size"]
        assert list(score.index) == [4, 2] and score.index.name == "seed"
        for seed, model in zip([4, 2], models, strict=True):
            assert score.loc[seed].to_dict() == evaluate(model, halves(seed).test)
            held_out = study.score(models, "size", part="valid")
            expected = evaluate(model, halves(seed).valid)["size"]
            assert held_out.loc[seed].to_dict() == {"size": expected}

    def test_a_view_is_what_the_models_get_to_see(self):
        study = Study(halves, [0, 1], **self.budget)
        models = study.train(build)
        deaf = study.score(models, "kind", view=lambda batch: batch.without("sound"))
        expected = [
            evaluate(model, halves(seed).test.without("sound"))["kind"]
            for seed, model in enumerate(models)
        ]
        assert list(deaf["kind"]) == expected

    def test_without_validation_the_last_epoch_stays(self):
        study = Study(halves, [5], valid=False, **self.budget)
        (last,) = study.train(build)
        (again,) = fit_many(build, [halves(5).train], seeds=[5], **self.budget)
        assert largest_difference(weights(last), weights(again)) == 0

    def test_settings_are_levels_of_the_rows(self):
        def draw(shift, seed):
            return Splits(*(part[shift : 20 + shift] for part in halves(seed)))

        keys = [(shift, seed) for shift in (0, 5) for seed in (1, 2, 3)]
        study = Study(draw, keys, **self.budget)
        score = study.score(study.train(build), "size")["size"]
        table = score.unstack(0)
        assert list(table.columns) == [0, 5] and list(table.index) == [1, 2, 3]
        alone = Study(partial(draw, 5), [1, 2, 3], **self.budget)
        expected = alone.score(alone.train(build), "size")["size"]
        assert np.allclose(table[5], expected, rtol=1e-4)
        # rows of one seed are one draw
        gain = study.gain(score + 1.0 + score.index.get_level_values(0), score)
        assert gain.n == 3 and gain.mean == pytest.approx(1 + 2.5)
        assert study.gain(score[0], score[5]).n == 3

    def test_a_gain_is_paired_and_knows_the_pool(self):
        study = Study(halves, [1, 2, 3], pool=(30, 15), **self.budget)
        score = pd.DataFrame({"a": [3.0, 4.0, 7.0], "b": [1.0, 2.0, 3.0]}, [1, 2, 3])
        gain = study.gain(score["a"], score[["b"]], "points")
        assert gain == paired_gain(score, "a", "b", "points", pool=(30, 15))
        assert gain.speaks_of == "population"
        plain = Study(halves, [1, 2, 3], **self.budget).gain(score["a"], score["b"])
        assert plain == paired_gain(score, "a", "b")

    def test_it_tunes_on_other_draws_alone(self):
        asked = []

        def draw(seed):
            asked.append(seed)
            return halves(seed)

        study = Study(draw, [0, 1], **self.budget)
        asked.clear()
        with pytest.warns(UserWarning, match="widened 1 times"):
            tuned = study.tune(build, [1e-4, 1e-3], "size", widenings=1, seeds=[7, 9])
        assert asked == [7, 9]
        elsewhere = Study(halves, [7, 9], **self.budget)
        for rate in tuned.scores:
            models = elsewhere.train(build, lr=rate)
            expected = -elsewhere.score(models, "size", part="valid")["size"]
            assert list(tuned.scores[rate]) == list(expected)
        assert tuned.best == tuned.scores.mean().idxmax()
        asked.clear()
        with pytest.warns(UserWarning, match="the best is 0.01"):
            study.tune(build, [1e-3, 1e-2], by_size, widenings=0)
        assert asked == [500, 501]

    def test_a_rate_at_which_training_breaks_down_is_the_worst(self):
        study = Study(halves, [0, 1], **self.budget)
        tuned = study.tune(build, [1e-2, 1e30], "size", widenings=6)
        assert tuned.inside and tuned.best < 1e30
        assert 1e30 not in tuned.scores

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match="none twice"):
            Study(halves, [1, 1], epochs=1)
        with pytest.raises(ValueError, match="at least one seed"):
            Study(halves, [], epochs=1)
        with pytest.raises(TypeError, match="three Batches .* got Batch for 3"):
            Study(lambda seed: samples(), [3], epochs=1)
        study = Study(halves, [0, 1], epochs=0)
        models = study.train(build)
        with pytest.raises(ValueError, match="one model for each of 2 draws"):
            study.score(models[:1])
        with pytest.raises(KeyError, match="no task .'speed'."):
            study.score(models, "speed")
        with pytest.raises(ValueError, match=r"seeds \[1\] are the study's own"):
            study.tune(build, [0.1, 0.2], "size", seeds=[1, 2])
        with pytest.raises(ValueError, match="name the task .*'kind', 'size'"):
            study.tune(build, [0.1, 0.2])
        with pytest.raises(KeyError, match="no task 'speed'"):
            study.tune(build, [0.1, 0.2], "speed")
        score = study.score(models)
        with pytest.raises(ValueError, match="one column with another"):
            study.gain(score, score["size"])
        with pytest.raises(ValueError, match="the rows of the two columns differ"):
            study.gain(score["size"], score["size"][::-1])


def by_size(table):
    return -table["size"]


class TestSearch:
    @pytest.mark.parametrize("top", [0.003, 0.1, 1.0, 7.0])
    def test_the_best_value_ends_inside(self, top):
        tuned = search(lambda x: -abs(math.log(x / top)), [0.1, 0.2], widenings=9)
        assert tuned.inside and 0.5 < tuned.best / top < 2
        tried = list(tuned.scores.index)
        assert tried == sorted(tried) and tried[0] < tuned.best < tried[-1]
        assert np.allclose(np.diff(np.log(tried)), math.log(2))

    def test_no_value_is_measured_twice_and_a_good_grid_stays(self):
        asked = []

        def measure(x):
            asked.append(x)
            return -((x - 3) ** 2)

        tuned = search(measure, [4, 2, 3])
        assert tuned.best == 3 and sorted(asked) == [2, 3, 4]

    def test_it_says_when_the_end_of_the_grid_is_best(self):
        with pytest.warns(UserWarning, match="of 1, 2, 4, 8 the best is 8, .* 2 times"):
            tuned = search(lambda x: x, [1, 2], widenings=2)
        assert (tuned.best, tuned.inside) == (8, False)

    def test_nan_is_the_worst(self):
        tuned = search(lambda x: math.nan if x > 2 else x, [1, 2, 4])
        assert (tuned.best, tuned.inside) == (2, True)
        with pytest.raises(ValueError, match="score NaN"):
            search(lambda x: math.nan, [1, 2])

    @pytest.mark.parametrize("grid", [[1], [0, 1], [-1, 1], [1, 1]])
    def test_a_grid_that_cannot_be_widened_is_refused(self, grid):
        with pytest.raises(ValueError, match="at least two values, all positive"):
            search(lambda x: x, grid)


def test_scale(monkeypatch):
    monkeypatch.delenv("MTMM_SCALE", raising=False)
    assert scale(3, 300) == 3
    for value, expected in (("lesson", 3), ("full", 300)):
        monkeypatch.setenv("MTMM_SCALE", value)
        assert scale(3, 300) == expected
    monkeypatch.setenv("MTMM_SCALE", "huge")
    with pytest.raises(ValueError, match="'lesson' or 'full', got 'huge'"):
        scale(3, 300)
