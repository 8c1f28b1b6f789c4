from __future__ import annotations

import functools
import math

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from training_problem import (
    TetheredSharing,
    build,
    largest_difference,
    same,
    samples,
    weights,
)

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression, training_progress
from mtmm_lib.training import TrainingError, evaluate, fit, fit_many
from mtmm_lib.training.seeds import permutation

quiet = functools.partial(fit, progress=False, device="cpu")


def by_hand(
    model, data, epochs, batch_size, seed=0, lr=1e-3, weight_decay=0.0, make=None
):
    make = make or functools.partial(torch.optim.AdamW, fused=True)
    optimizer = make(model.parameters(), lr=lr, weight_decay=weight_decay)
    model.train()
    for epoch in range(epochs):
        for chosen in permutation(len(data), seed, epoch).split(batch_size):
            batch = data[chosen]
            optimizer.zero_grad()
            output = model(batch)
            sum(
                [*model.losses(output, batch).values(), *output.penalties.values()]
            ).backward()
            optimizer.step()


@pytest.mark.parametrize("sharing", [HardSharing, TetheredSharing])
def test_is_the_loop_one_would_write_by_hand(sharing):
    data = samples()
    one, other = build(sharing=sharing), build(sharing=sharing)
    quiet(one, data, epochs=3, batch_size=10, lr=0.01, weight_decay=0.1, seed=4)
    by_hand(other, data, 3, 10, seed=4, lr=0.01, weight_decay=0.1)
    assert same(weights(one), weights(other))


def test_learns_what_can_be_learned():
    model, data, fresh = build(), samples(512, 1), samples(512, 2, missing=False)
    before = evaluate(model, fresh)
    history = quiet(model, data, epochs=40, lr=0.01)
    after = evaluate(model, fresh)
    assert after["kind"] > before["kind"] + 0.2 and after["size"] < before["size"] / 2
    assert history.train_loss[-1]["size"] < history.train_loss[0]["size"] / 2


def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own():
    orders = [permutation(50, seed, epoch) for seed in (-1, 0, 1) for epoch in (0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)
    assert torch.equal(permutation(50, 7, 3), permutation(50, 7, 3))


def test_seed_decides_everything_and_the_callers_random_state_is_left_alone():
    data = samples()
    runs = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        model = build(dropout=0.5)
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        quiet(model, data, valid=data, epochs=2, batch_size=16, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(weights(model))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_the_model_comes_back_as_it_came():
    model = build()
    model.train()
    model.fusion.eval()
    quiet(model, samples(), valid=samples(seed=1), epochs=1)
    assert model.training and model.encoders.training and not model.fusion.training
    assert all(p.grad is None for p in model.parameters())
    evaluate(model, samples())
    assert model.training and not model.fusion.training


def test_frozen_parameters_stay():
    model = build()
    model.encoders["image"].requires_grad_(False)
    before = weights(model)
    quiet(model, samples(), epochs=1)
    after = weights(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("encoders.image") for name in moved)


def test_restores_the_best_epoch():
    # A learning rate far too high, so that the last epoch is not the best one.
    model, data, valid = build(), samples(24), samples(200, 1)
    history = quiet(model, data, valid=valid, epochs=30, batch_size=8, lr=0.1)
    logs = [
        math.log(losses["kind"]) + math.log(losses["size"])
        for losses in history.valid_loss
    ]
    assert history.best_epoch == logs.index(min(logs)) < 29
    assert evaluate(model, valid) == pytest.approx(history.valid[history.best_epoch])
    whole = model.eval()(valid)
    for name, loss in model.losses(whole, valid).items():
        assert loss.item() == pytest.approx(
            history.valid_loss[history.best_epoch][name], rel=1e-5
        )


def test_only_supervised_tasks_choose_the_epoch():
    def tasks():
        signal = Regression("size")
        signal.supervised = False
        return [Classification("kind", 3), signal]

    data, valid = samples(24), samples(100, 1)
    history = quiet(build(tasks=tasks()), data, valid=valid, epochs=20, lr=0.05)
    kind = [losses["kind"] for losses in history.valid_loss]
    assert history.best_epoch == kind.index(min(kind))
    signal = tasks()[1:]
    alone = quiet(build(tasks=signal), data, valid=valid, epochs=2)
    assert alone.best_epoch is None and len(alone.valid_loss) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named(value):
    data = samples(missing=False)
    late = permutation(48, 0, 1)[20]  # epoch 1, third batch of 8: the ninth step of all
    data.inputs["image"][late] = value
    first = permutation(48, 0, 0).tolist().index(int(late)) // 8 + 1
    with pytest.raises(
        TrainingError, match=rf"task 'kind' is (nan|inf) at step {first} \(epoch 0\)"
    ):
        quiet(build(), data, epochs=2, batch_size=8)
    data = samples(missing=False)
    data.targets["size"][late] = 1e30  # its square is no float
    with pytest.raises(TrainingError, match=rf"task 'size' is inf at step {first} "):
        quiet(build(), data, epochs=2, batch_size=8)
    with pytest.raises(
        TrainingError, match="validation loss of task 'size' is inf after epoch 0"
    ):
        quiet(build(), samples(), valid=data, epochs=2)


def test_a_task_without_labels_in_a_batch_leaves_its_head_alone():
    data = samples(16, missing=False)
    data.targets["size"][:] = math.nan
    model = build()
    before = weights(model)
    with pytest.warns(UserWarning, match="no label for task 'size'"):
        history = quiet(model, data, epochs=2, batch_size=4, lr=0.1, weight_decay=0.5)
    after = weights(model)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in still if name.startswith("heads.")} == {
        "heads.size.weight",
        "heads.size.bias",
    }
    assert all(
        losses.keys() == {"kind"} for losses in history.train_loss + history.weights
    )


def test_a_batch_without_any_label_takes_no_step():
    data, empty = samples(8, missing=False), samples(8, 1)
    empty.targets["kind"][:] = -1
    empty.targets["size"][:] = math.nan
    nothing = data[:0]
    one, other = build(), build()
    history = quiet(one, [empty, data, nothing, empty], epochs=2, weight_decay=0.1)
    quiet(other, [data], epochs=2, weight_decay=0.1)
    assert history.steps == [1, 1]
    assert same(weights(one), weights(other))
    with pytest.raises(TrainingError, match="no batch of epoch 0 has a label"):
        quiet(build(), [empty], epochs=1)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (1, 64), (5, 64), (7, 3)])
def test_few_samples(n, batch_size):
    one, other, data = build(), build(), samples(n, missing=False)
    history = quiet(one, data, valid=data[:1], epochs=2, batch_size=batch_size)
    quiet(other, data, epochs=2, batch_size=batch_size)
    assert history.steps == [-(-n // batch_size)] * 2
    assert all(
        math.isfinite(v) for losses in history.valid_loss for v in losses.values()
    )


def test_one_task_and_zero_epochs():
    model = build(tasks=[Regression("size")])
    assert quiet(model, samples(), epochs=1).train_loss[0].keys() == {"size"}
    before = weights(model)
    history = quiet(model, samples(), valid=samples(), epochs=0)
    assert same(before, weights(model)) and len(history) == 0 and history.frame().empty


def test_a_data_loader_gives_what_memory_gives_in_the_same_order():
    data = samples()
    order = permutation(48, 0, 0).tolist()
    loader = DataLoader(
        range(48),
        batch_size=10,
        sampler=order,
        collate_fn=lambda i: data[torch.tensor(i)],
    )
    models = [build(dropout=0.3) for _ in range(3)]
    quiet(models[0], data, epochs=1, batch_size=10)
    quiet(models[1], loader, valid=DataLoader([data], batch_size=None), epochs=1)
    quiet(models[2], list(loader), epochs=1)
    assert same(weights(models[0]), weights(models[1])) and same(
        weights(models[0]), weights(models[2])
    )


def test_a_shuffling_data_loader_follows_the_seed():
    data, results = samples(), []
    for seed in (1, 1, 2):
        model = build()
        loader = DataLoader(
            range(48),
            batch_size=8,
            shuffle=True,
            collate_fn=lambda i: data[torch.tensor(i)],
        )
        torch.manual_seed(len(results))  # what the caller drew before does not matter
        quiet(model, loader, epochs=2, seed=seed)
        results.append(weights(model))
    assert same(results[0], results[1]) and not same(results[0], results[2])


def test_a_stream_that_does_not_know_its_length():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from (data[:20], data[20:])

    data = samples()
    model = build()
    history = quiet(model, DataLoader(Stream(), batch_size=None), epochs=2)
    assert history.steps == [2, 2]


class Listening(Regression):
    """Writes down how far training has come whenever its loss is computed."""

    def __init__(self, name):
        super().__init__(name)
        self.heard = []

    def loss(self, output, batch):
        self.heard.append(training_progress())
        return super().loss(output, batch)


def test_within_a_step_it_is_known_how_far_training_has_come():
    data, task = samples(30, missing=False), Listening("size")
    quiet(build(tasks=[task]), data, epochs=2, batch_size=10)
    assert task.heard == pytest.approx([i / 6 for i in range(6)])
    assert training_progress() == 1
    task.heard.clear()
    quiet(build(tasks=[task]), [data[:10], data[10:]], epochs=2)
    assert task.heard == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4])
    task.heard.clear()
    evaluate(build(tasks=[task]), data)
    assert task.heard == [1]


def test_validation_and_what_fails_come_after_all_progress():
    data, task = samples(30, missing=False), Listening("size")
    quiet(build(tasks=[task]), data, valid=data, epochs=2, batch_size=15)
    assert task.heard == [0, 1 / 4, 1, 2 / 4, 3 / 4, 1]
    data.targets["size"][:] = 1e30  # its square is no float
    with pytest.raises(TrainingError):
        quiet(build(tasks=[task]), data, epochs=2)
    assert training_progress() == 1


def test_fit_many_tells_the_same_progress():
    data, tasks = samples(30, missing=False), []

    def make():
        tasks.append(Listening("size"))
        return build(tasks=[tasks[-1]])

    fit_many(make, [data, data], seeds=[0, 1], valid=[data, data], epochs=2)
    while tasks:  # looks at the data before training are no part of it
        assert set(tasks.pop().heard) <= {0, 1 / 2, 1}
    fit_many(make, [data, data], seeds=[0, 1], epochs=2, batch_size=10)
    alone, heard = Listening("size"), tasks[0].heard
    quiet(build(tasks=[alone]), data, epochs=2, batch_size=10)
    assert heard[-6:] == alone.heard and set(heard[:-6]) <= {1}
    assert training_progress() == 1


def test_what_stands_in_absent_places_changes_nothing():
    results = []
    for value in (0.0, math.nan, 1e30):
        data = samples()
        data.inputs["sound"][~data.present["sound"]] = value
        model = build()
        quiet(model, data, valid=data, epochs=2, batch_size=16)
        results.append(weights(model))
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize("inputs", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("targets", [1e-6, 1e6])
def test_any_scale_of_the_data_stays_finite(inputs, targets):
    data = samples()
    for value in data.inputs.values():
        value *= inputs
    data.targets["size"] *= targets
    model = build()
    history = quiet(model, data, valid=data, epochs=3)
    assert all(value.isfinite().all() for value in weights(model).values())
    assert all(
        math.isfinite(v) for losses in history.train_loss for v in losses.values()
    )


def test_optimizer_by_class_and_by_instance():
    data = samples()
    models = [build() for _ in range(3)]
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    quiet(
        models[0],
        data,
        epochs=2,
        batch_size=16,
        lr=0.01,
        weight_decay=0.1,
        optimizer=sgd,
    )
    instance = sgd(models[1].parameters(), lr=0.01, weight_decay=0.1)
    quiet(models[1], data, epochs=2, batch_size=16, optimizer=instance)
    by_hand(models[2], data, 2, 16, lr=0.01, weight_decay=0.1, make=sgd)
    assert same(weights(models[0]), weights(models[2])) and same(
        weights(models[1]), weights(models[2])
    )


def test_bf16_computes_in_bfloat16_and_keeps_float32_weights():
    seen = []

    class Watching(Regression):
        def loss(self, output, batch):
            seen.append(output.predictions["size"].dtype)
            return super().loss(output, batch)

    def tasks():
        return [Classification("kind", 3), Watching("size")]

    data, half, single = samples(), build(tasks=tasks()), build(tasks=tasks())
    history = quiet(half, data, valid=data, epochs=2, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    reference = quiet(single, data, valid=data, epochs=2, precision="float32")
    assert {value.dtype for value in weights(half).values()} == {torch.float32}
    assert history.train_loss[1] == pytest.approx(reference.train_loss[1], rel=0.05)
    assert (
        quiet(build(), data, epochs=1).train_loss
        == quiet(build(), data, epochs=1, precision="float32").train_loss
    )
    with pytest.raises(ValueError, match="'auto', 'float32' or 'bf16', got 'half'"):
        quiet(build(), data, epochs=1, precision="half")


def test_the_forward_pass_compiles_to_the_same(monkeypatch):
    # The "eager" backend runs what was traced, without a compiler: what is tested is
    # that it can be traced.
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="eager")
    )
    data, one, other = samples(), build(), build()
    quiet(one, data, epochs=2, batch_size=16, compile=True)
    quiet(other, data, epochs=2, batch_size=16)
    assert largest_difference(weights(one), weights(other)) < 1e-6


def test_the_forward_pass_is_one_graph():
    """Nothing in it makes torch.compile fall back to Python in between."""
    model, data = build(), samples()
    whole = torch.compile(model, fullgraph=True, backend="eager")
    for name, prediction in whole(data).predictions.items():
        torch.testing.assert_close(prediction, model(data).predictions[name])


def test_late_fusion_trains_too():
    data = samples()

    def alone(name, width):
        tasks = [Classification("kind", 3), Regression("size")]
        parts = (
            {name: MLPEncoder(width, 8)},
            ConcatFusion({name: 8}, 8),
            HardSharing(["kind", "size"], 8, 8),
        )
        return Model(*parts, tasks)

    data = Batch(data.inputs, data.targets)
    model = DecisionFusion(
        {"image": alone("image", 6), "sound": alone("sound", 4)}, combine="learned"
    )
    history = quiet(model, data, valid=data, epochs=20, lr=0.01)
    assert sum(history.valid_loss[-1].values()) < sum(history.valid_loss[0].values())


def test_history_as_a_table():
    data = samples()
    history = quiet(
        build(),
        data,
        valid=data,
        epochs=3,
        batch_size=16,
        balancer=StaticWeights({"size": 0.5}),
    )
    frame = history.frame()
    assert len(frame) == len(history) == 3 and frame.index.name == "epoch"
    assert set(frame.columns) == {"steps", "seconds"} | {
        f"{group}.{task}"
        for group in ("train_loss", "valid_loss", "valid", "weights")
        for task in ("kind", "size")
    }
    assert list(frame["train_loss.size"]) == [
        losses["size"] for losses in history.train_loss
    ]
    assert set(frame["weights.size"]) == {0.5} and set(frame["steps"]) == {3}
    assert "valid.kind" not in quiet(build(), data, epochs=1).frame()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs >= 0"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"train": samples(4)[:0]}, "train has no samples"),
        ({"train": iter([samples(4)])}, "gone through once per epoch"),
        ({"train": 3}, "train is a Batch"),
        ({"valid": iter([samples(4)])}, "valid is a Batch"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        quiet(**{"model": build(), "train": samples(4), "epochs": 1, **change})


def test_a_validation_set_without_labels_is_refused_before_training():
    valid = samples(8)
    valid.targets["size"][:] = math.nan
    model = build()
    assert quiet(model, samples(), valid=valid, epochs=1).valid_loss[0].keys() == {
        "kind"
    }
    valid.targets["kind"][:] = -1
    before = weights(model)
    with pytest.raises(
        ValueError,
        match=r"valid has no label for any of the supervised tasks \['kind', 'size'\]",
    ):
        quiet(model, samples(), valid=valid, epochs=1)
    assert same(before, weights(model))


def test_a_model_without_parameters_is_refused():
    model = build().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        quiet(model, samples(), epochs=1)


def test_the_bar_shows_epochs_and_goes_to_the_error_stream_only(capsys):
    fit(build(), samples(), epochs=2, device="cpu", progress=True)
    assert capsys.readouterr().out == ""


class TestEvaluate:
    def test_metrics_come_from_all_samples_at_once(self, monkeypatch):
        class Median(Regression):
            def metric(self, output, batch):
                return (
                    output.predictions["size"][:, 0] - batch.targets["size"]
                ).nanmedian()

        model, data = build(tasks=[Median("size")]), samples(50)
        whole = evaluate(model, data)
        monkeypatch.setattr("mtmm_lib.training.evaluation.CHUNK", 7)
        assert evaluate(model, data) == pytest.approx(whole)
        loader = DataLoader(
            range(50), batch_size=9, collate_fn=lambda i: data[torch.tensor(i)]
        )
        assert evaluate(model, loader) == pytest.approx(whole)

    def test_counts_labelled_samples_alone(self):
        model, data = build(), samples(60)
        kept = ~data.targets["size"].isnan()
        predicted = model(data).predictions
        expected = (
            (predicted["size"][kept, 0] - data.targets["size"][kept])
            .square()
            .mean()
            .sqrt()
        )
        assert evaluate(model, data)["size"] == pytest.approx(expected.item(), rel=1e-5)
        known = data.targets["kind"] >= 0
        right = predicted["kind"][known].argmax(1) == data.targets["kind"][known]
        assert evaluate(model, data)["kind"] == pytest.approx(
            right.float().mean().item()
        )

    def test_a_task_without_labels_is_nan(self):
        data = samples(10)
        data.targets["kind"][:] = -1
        result = evaluate(build(), data)
        assert math.isnan(result["kind"]) and math.isfinite(result["size"])

    def test_dropout_is_off_and_no_gradient_is_kept(self):
        model, data = build(dropout=0.5), samples(20)
        assert evaluate(model, data) == evaluate(model, data)
        assert model.training and all(p.grad is None for p in model.parameters())

    def test_tasks_that_need_no_targets(self):
        class Reconstruction(Regression):
            def target(self, batch):
                return torch.zeros(len(batch))

        data = Batch(samples(20, missing=False).inputs)
        model = build(tasks=[Reconstruction("size")])
        assert evaluate(model, data)["size"] == pytest.approx(
            model(data).predictions["size"].square().mean().sqrt().item(), rel=1e-5
        )

    def test_no_samples(self):
        with pytest.raises(ValueError, match="no samples"):
            evaluate(build(), samples(4)[:0])
