"""What changes in the course of training: rates, clipped gradients, when it stops."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from training_problem import build, largest_difference, same, samples, weights

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.training import EpochState, cosine, fit, patience
from mtmm_lib.training.seeds import permutation

quiet = functools.partial(fit, progress=False, device="cpu")


class Watching(StaticWeights):
    """Writes down the learning rates of each step."""

    def __init__(self, optimizer):
        super().__init__()
        self.optimizer, self.rates = optimizer, []

    def backward(self, losses, output, model):
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        return super().backward(losses, output, model)


class TestSchedule:
    def test_the_cosine_by_hand(self):
        plain, warm = cosine(), cosine(warmup=0.2)
        assert [plain(p) for p in (0, 0.25, 0.5)] == pytest.approx(
            [1, (1 + 0.5**0.5) / 2, 0.5]
        )
        assert plain(1) == pytest.approx(0)
        # linear up to 1 at 0.2; half of the rest is over at 0.6
        assert [warm(p) for p in (0, 0.05, 0.1, 0.2, 0.6, 1)] == pytest.approx(
            [0, 0.25, 0.5, 1, 0.5, 0]
        )
        for warmup in (-0.1, 1, math.nan):
            with pytest.raises(ValueError, match=r"warmup lies in \[0, 1\)"):
                cosine(warmup)

    def test_rates_follow_it_and_groups_keep_their_ratio(self):
        model, data = build(), samples(30, missing=False)
        groups = [
            {"params": model.encoders.parameters(), "lr": 0.1},
            {"params": model.heads.parameters(), "lr": 0.02},
        ]
        optimizer = torch.optim.SGD(groups)
        watching = Watching(optimizer)
        quiet(
            model,
            data,
            epochs=2,
            batch_size=10,
            optimizer=optimizer,
            balancer=watching,
            schedule=cosine(),
        )
        factors = [(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)]
        assert watching.rates == [pytest.approx([f / 10, f / 50]) for f in factors]
        # the next run begins with the optimizer's own rates again
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]

    def test_is_the_loop_one_would_write_by_hand(self):
        data, one, other = samples(30, missing=False), build(), build()
        quiet(one, data, epochs=2, batch_size=10, lr=0.01, schedule=cosine(0.5), seed=4)
        optimizer = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine(0.5)(step / 6)
        )
        for epoch in range(2):
            for chosen in permutation(30, 4, epoch).split(10):
                optimizer.zero_grad()
                batch = data[chosen]
                sum(other.losses(other(batch), batch).values()).backward()
                optimizer.step()
                schedule.step()
        assert largest_difference(weights(one), weights(other)) < 1e-6

    def test_the_constant_one_changes_nothing(self):
        one, other, data = build(), build(), samples()
        quiet(one, data, epochs=2, schedule=lambda progress: 1)
        quiet(other, data, epochs=2)
        assert same(weights(one), weights(other))

    def test_a_rate_that_is_a_tensor(self):
        one, other, data = build(), build(), samples()
        for model, lr in ((one, torch.tensor(0.01)), (other, 0.01)):
            optimizer = torch.optim.Adam(model.parameters(), lr=lr)
            quiet(model, data, epochs=2, optimizer=optimizer, schedule=cosine())
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.01)
        assert largest_difference(weights(one), weights(other)) < 1e-6

    @pytest.mark.parametrize("factor", [-0.5, math.nan, math.inf])
    def test_factors_that_are_none_are_refused_before_training(self, factor):
        model = build()
        before = weights(model)
        with pytest.raises(ValueError, match="finite factors >= 0 .* after 50 %"):
            quiet(
                model,
                samples(),
                epochs=1,
                schedule=lambda progress: 1 if progress < 0.5 else factor,
            )
        assert same(before, weights(model))

    def test_it_needs_to_know_the_length_of_an_epoch(self):
        class Stream:
            def __iter__(self):
                yield samples()

        with pytest.raises(ValueError, match="schedule needs .* Stream, has no length"):
            quiet(build(), Stream(), epochs=1, schedule=cosine())


class TestClip:
    @staticmethod
    def step(clip, scale=1.0, **settings):
        """How far one step of gradient descent with rate 1 moves the parameters."""
        model = build()
        before = weights(model)
        quiet(
            model,
            samples(missing=False),
            epochs=1,
            lr=1.0,
            optimizer=torch.optim.SGD,
            balancer=StaticWeights({"kind": scale, "size": scale}),
            clip=clip,
            **settings,
        )
        after = weights(model)
        return torch.cat([(before[name] - after[name]).flatten() for name in before])

    def test_longer_gradients_become_as_long_as_it_and_keep_their_direction(self):
        gradient = self.step(None)
        length = float(gradient.norm())
        for clip in (0.01, 0.5 * length):
            clipped = self.step(clip)
            assert float(clipped.norm()) == pytest.approx(clip, rel=1e-3)
            cosine = torch.cosine_similarity(gradient, clipped, dim=0)
            assert float(cosine) == pytest.approx(1)
        assert torch.allclose(self.step(0.1, scale=1e6), self.step(0.1), atol=1e-5)

    def test_shorter_ones_stay(self):
        assert torch.equal(self.step(1e6), self.step(None))
        assert torch.equal(self.step(0.1, scale=0.0), self.step(None, scale=0.0))

    @pytest.mark.parametrize("clip", [0, -1.0, math.nan])
    def test_no_length(self, clip):
        with pytest.raises(ValueError, match="largest norm of a gradient, > 0"):
            self.step(clip)


class TestAfterEpoch:
    def test_it_is_told_what_training_has_come_to(self):
        heard, model, data = [], build(), samples()

        def note(state):
            assert isinstance(state, EpochState) and state.model is model
            heard.append(
                (state.epoch, state.epochs, len(state.history), state.optimizer)
            )

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        history = quiet(model, data, epochs=3, optimizer=optimizer, after_epoch=note)
        assert heard == [(i, 3, i + 1, optimizer) for i in range(3)]
        assert len(history) == 3

    def test_what_it_does_with_modes_and_random_numbers_changes_nothing(self):
        def meddle(state):
            state.model.eval()
            torch.manual_seed(5)

        one, other, data = build(dropout=0.5), build(dropout=0.5), samples()
        quiet(one, data, epochs=3, after_epoch=meddle)
        quiet(other, data, epochs=3)
        assert same(weights(one), weights(other))

    def test_something_true_stops_and_the_best_epoch_is_restored(self):
        model, other, data = build(), build(), samples()
        valid = samples(seed=1)
        valid.targets["size"].neg_()  # the first epoch is the best one
        settings = {"valid": valid, "batch_size": 16, "lr": 0.01}
        settings["select"] = lambda losses, metrics: losses["size"]
        stop = lambda state: state.epoch == 1  # noqa: E731
        history = quiet(model, data, epochs=5, after_epoch=stop, **settings)
        assert (len(history), history.best_epoch) == (2, 0)
        quiet(other, data, epochs=1, **settings)
        assert same(weights(model), weights(other))


class TestPatience:
    @pytest.mark.parametrize("epochs", [1, 2, 4])
    def test_it_stops_after_so_many_epochs_without_a_better_one(self, epochs):
        data, valid = samples(24), samples(200, 1)
        settings = {"valid": valid, "batch_size": 8, "lr": 0.05, "seed": 1}
        whole = quiet(build(), data, epochs=30, **settings)
        stopped = quiet(
            build(), data, epochs=30, after_epoch=patience(epochs), **settings
        )
        assert len(stopped) < 30
        assert len(stopped) - 1 - stopped.best_epoch == epochs
        assert stopped.valid_loss == whole.valid_loss[: len(stopped)]

    def test_it_needs_a_choice(self):
        with pytest.raises(ValueError, match="at least 1 epoch, got 0"):
            patience(0)
        with pytest.raises(ValueError, match="it needs `valid`"):
            quiet(build(), samples(), epochs=2, after_epoch=patience(1))
