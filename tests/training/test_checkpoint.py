from __future__ import annotations

import functools
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from training_problem import build, everything, same, samples, weights

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.batch import Batch
from mtmm_lib.tasks import Regression
from mtmm_lib.training import TrainingError, cosine, fit, mean_loss, patience
from mtmm_lib.training.checkpoint import settings as settings_of

KILLED = Path(__file__).with_name("run_until_killed.py")
settings = {"epochs": 6, "batch_size": 16, "lr": 0.01, "weight_decay": 0.01, "seed": 3}
train = functools.partial(fit, progress=False, device="cpu")


class Interrupted(Exception):
    pass


class Counting(StaticWeights):
    """A balancer with a state of its own; raises in a chosen step."""

    def __init__(self, stop: int | None = None):
        super().__init__()
        self.count, self.stop = 0, stop

    def backward(self, losses, output, model):
        if self.count == self.stop:
            raise Interrupted
        self.count += 1
        scale = 1 + self.count % 5
        for loss in losses.values():
            (scale * loss).backward(retain_graph=True)
        return dict.fromkeys(losses, float(scale))

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def timeless(history):
    return {name: value for name, value in vars(history).items() if name != "seconds"}


@pytest.mark.parametrize("stop", [3, 7, 12])
@pytest.mark.parametrize("validate", [False, True])
def test_an_interrupted_run_ends_as_if_nothing_had_happened(tmp_path, stop, validate):
    data, valid = samples(), None
    if validate:
        # of the opposite sign, so that the best epoch lies before the interruption
        valid = samples(seed=1)
        valid.targets["size"].neg_()
    whole, broken = build(dropout=0.3), build(dropout=0.3)
    expected = train(whole, data, valid=valid, balancer=Counting(), **settings)
    assert expected.best_epoch == (0 if validate else None)
    file = tmp_path / "new folder" / "run.pt"
    with pytest.raises(Interrupted):
        train(
            broken,
            data,
            valid=valid,
            balancer=Counting(stop),
            checkpoint=file,
            **settings,
        )
    resumed = build(seed=99, dropout=0.3)
    history = train(
        resumed, data, valid=valid, balancer=Counting(), checkpoint=file, **settings
    )
    assert same(weights(whole), weights(resumed))
    assert timeless(history) == timeless(expected)


def test_a_finished_run_returns_at_once(tmp_path):
    data, file = samples(), tmp_path / "run.pt"
    model = build()
    history = train(model, data, valid=data, checkpoint=file, **settings)
    other = build(seed=5)
    other.register_forward_hook(
        lambda *_: pytest.fail("a finished run computes nothing")
    )
    again = train(other, data, valid=data, checkpoint=str(file), **settings)
    assert again == history
    assert same(weights(model), weights(other))
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.02}, "lr: 0.01 then, 0.02 now"),
        ({"weight_decay": 0.5}, "weight_decay: 0.01 then, 0.5 now"),
        ({"schedule": cosine()}, "schedule: none then"),
        ({"clip": 1.0}, "clip: None then, 1.0 now"),
        ({"select": mean_loss}, "select: by default then, .*mean_loss now"),
        ({"batch_size": 8}, "batch_size: 16 then, 8 now"),
        ({"seed": 4}, "seed: 3 then, 4 now"),
        ({"precision": "bf16"}, "precision: float32 then, bf16 now"),
        ({"optimizer": torch.optim.SGD}, "optimizer: AdamW then, SGD now"),
        (
            {"balancer": StaticWeights({"size": 2.0})},
            r"balancer: StaticWeights\({}\) then",
        ),
        ({"train": samples(seed=9)}, "train: 48 samples, .* then, 48 samples, .* now"),
        ({"valid": samples(seed=9)}, "valid: none then, 48 samples"),
        ({"model": build(dropout=0.1)}, "model: "),
    ],
)
def test_another_configuration_is_refused_and_named(tmp_path, change, named):
    file = tmp_path / "run.pt"
    run = {"model": build(), "train": samples(), "checkpoint": file, **settings}
    train(**run)
    content = file.read_bytes()
    with pytest.raises(ValueError, match=f"another configuration .*{named}"):
        train(**{**run, **change})
    assert file.read_bytes() == content


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["MTMM_TEST_TOUCHED"]),)


def test_a_file_that_is_no_checkpoint_is_refused_and_runs_no_code(
    tmp_path, monkeypatch
):
    file, touched = tmp_path / "run.pt", tmp_path / "touched"
    monkeypatch.setenv("MTMM_TEST_TOUCHED", str(touched))
    run = {"model": build(), "train": samples(), "checkpoint": file, **settings}
    train(**run)
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[: len(content) // 2] = bytes(len(content) // 2)
    for bad in (
        b"",
        b"no checkpoint",
        content[: len(content) // 2],
        bytes(damaged),
        pickle.dumps(Malicious(), protocol=2),
    ):
        file.write_bytes(bad)
        with pytest.raises(
            ValueError, match="run.pt is no checkpoint of fit, or a damaged one"
        ):
            train(**run)
        assert file.read_bytes() == bad
    torch.save({"fingerprint": Malicious(), "history": {}}, file)
    with pytest.raises(ValueError, match="damaged"):
        train(**run)
    torch.save({"weights": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="damaged"):
        train(**run)
    assert not touched.exists()


def test_a_failing_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    data, file = samples(), tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        train(build(), data, balancer=Counting(4), checkpoint=file, **settings)
    content = file.read_bytes()

    def half(state, stream):
        stream.write(content[:100])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="disk full"):
            train(build(), data, balancer=Counting(), checkpoint=file, **settings)
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    resumed, whole = build(), build()
    train(resumed, data, balancer=Counting(), checkpoint=file, **settings)
    train(whole, data, balancer=Counting(), **settings)
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize("moment", ["step", "write"])
def test_kill_9_in_mid_training_then_resume(tmp_path, moment):
    file = tmp_path / "run.pt"
    command = [sys.executable, str(KILLED), str(file), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            # The run says so in the middle of its third epoch, or of writing its third
            # file, and waits there.
            assert process.stdout.readline() == "in the middle\n"
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert len(torch.load(file, weights_only=True)["history"]["steps"]) == 2
    resumed, whole = build(seed=99, dropout=0.3), build(dropout=0.3)
    data, valid = samples(), samples(seed=1)
    resumed_history = train(resumed, data, valid=valid, checkpoint=file, **everything())
    history = train(whole, data, valid=valid, **everything())
    assert same(weights(resumed), weights(whole))
    assert timeless(resumed_history) == timeless(history)
    # nothing is left of the file that was being written
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("stop", [5, 13])
def test_everything_at_once_goes_on_bit_for_bit(tmp_path, stop):
    data, valid, file = samples(), samples(seed=1), tmp_path / "run.pt"
    whole, broken = build(dropout=0.3), build(dropout=0.3)
    resumed = build(seed=99, dropout=0.3)
    expected = train(whole, data, valid=valid, **everything())

    passes = 0

    def interrupt(module, inputs, output):
        nonlocal passes
        passes += module.training
        if passes == stop:
            raise Interrupted

    broken.register_forward_hook(interrupt)
    with pytest.raises(Interrupted):
        train(broken, data, valid=valid, checkpoint=file, **everything())
    history = train(resumed, data, valid=valid, checkpoint=file, **everything())
    assert same(weights(resumed), weights(whole))
    assert timeless(history) == timeless(expected)


def test_a_finished_run_is_extended_by_more_epochs(tmp_path):
    data, valid, file = samples(), samples(seed=1), tmp_path / "run.pt"
    run = {"train": data, "valid": valid, "batch_size": 16, "lr": 0.01}
    for epochs in (0, 2, 2, 5):
        extended = build(dropout=0.3)
        history = train(extended, epochs=epochs, checkpoint=file, **run)
        assert len(history) == epochs
    whole = build(dropout=0.3)
    expected = train(whole, epochs=5, **run)
    assert same(weights(extended), weights(whole))
    assert timeless(history) == timeless(expected)
    with pytest.raises(ValueError, match="5 epochs behind it, more than epochs=4"):
        train(build(dropout=0.3), epochs=4, checkpoint=file, **run)


def test_an_extension_counts_its_progress_against_the_new_end(tmp_path):
    data, file, rates = samples(32), tmp_path / "run.pt", []

    def note(state):
        rates.append(state.optimizer.param_groups[0]["lr"])

    run = {"train": data, "batch_size": 32, "lr": 1.0, "optimizer": torch.optim.SGD}
    run.update(schedule=lambda progress: 1 - progress, after_epoch=note)
    train(build(), epochs=2, checkpoint=file, **run)
    train(build(), epochs=4, checkpoint=file, **run)
    assert rates == [1, 1 / 2, 2 / 4, 1 / 4]


def test_early_stopping_is_remembered_and_a_stopped_run_goes_on_if_told_to(tmp_path):
    data, valid, file = samples(), samples(seed=1), tmp_path / "run.pt"
    valid.targets["size"].neg_()  # the first epoch is the best one
    model, again, further = build(), build(1), build(2)
    run = {
        "train": data,
        "valid": valid,
        "checkpoint": file,
        "after_epoch": patience(2),
    }
    run.update(batch_size=16, lr=0.01, select=lambda losses, metrics: losses["size"])
    history = train(model, epochs=9, **run)
    assert (len(history), history.best_epoch) == (3, 0)
    again.register_forward_hook(
        lambda *_: pytest.fail("a stopped run computes nothing")
    )
    assert train(again, epochs=9, **run) == history
    assert same(weights(again), weights(model))
    # one more, in which nothing is better either
    assert len(train(further, epochs=10, **run)) == 4
    assert same(weights(further), weights(model))


def test_a_run_that_fails_leaves_the_last_good_file(tmp_path):
    data, file = samples(), tmp_path / "run.pt"

    def spoil(state):
        if state.epoch == 2:
            data.inputs["image"][:] = torch.nan

    with pytest.raises(TrainingError, match=r"is nan at step \d+ \(epoch 3\)"):
        train(build(), data, checkpoint=file, after_epoch=spoil, **settings)
    state = torch.load(file, weights_only=True)
    assert len(state["history"]["steps"]) == 3
    assert all(value.isfinite().all() for value in state["model"].values())


class Scaled(Regression):
    """A task of one's own, whose `repr` does not show its settings."""

    def __init__(self, name, scale):
        super().__init__(name)
        self.scale = scale

    def loss(self, output, batch):
        return super().loss(output, batch) * torch.as_tensor(self.scale).sum()


def half(x):
    return x / 2


def third(x):
    return x / 3


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (1.0, 2.0),
        ([1.0, 2.0], [1.0, 3.0]),
        (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
    ],
)
def test_a_task_with_other_settings_is_found_out(tmp_path, was, now):
    run = {"train": samples(), "checkpoint": tmp_path / "run.pt", **settings}
    train(build(tasks=[Scaled("size", was)]), **run)
    train(build(tasks=[Scaled("size", was)]), **run)
    with pytest.raises(ValueError, match="settings of task 'size': .* then"):
        train(build(tasks=[Scaled("size", now)]), **run)


def test_functions_count_by_their_names_and_contents_never_by_addresses():
    def task(**attributes):
        found = Regression("size")
        vars(found).update(attributes)
        return repr(settings_of(found))

    for make in (
        lambda: half,
        lambda: functools.partial(half, torch.ones(2)),
        lambda: {"a": [half, None, {1.5, "b"}]},
        object,
        lambda: Scaled("inner", 3.0),
        lambda: torch.nn.Linear(2, 3),
    ):
        assert task(f=make()) == task(f=make()) and "0x" not in task(f=make())
    assert task(f=half) != task(f=third)
    assert task(f=functools.partial(half, 1)) != task(f=functools.partial(half, 2))
    assert task(f=Scaled("inner", 3.0)) != task(f=Scaled("inner", 4.0))


def test_a_loader_over_other_data_of_the_same_length_is_found_out(tmp_path):
    def loader(data, shuffle=True):
        return DataLoader(
            range(len(data)),
            batch_size=16,
            shuffle=shuffle,
            collate_fn=lambda i: data[torch.tensor(i)],
        )

    run = {"checkpoint": tmp_path / "run.pt", **settings}
    train(build(), loader(samples()), valid=loader(samples(seed=1)), **run)
    train(build(), loader(samples()), valid=loader(samples(seed=1)), **run)
    for data, valid, named in ((2, 1, "train"), (0, 2, "valid")):
        with pytest.raises(ValueError, match=f"{named}: .* first batch: .* then"):
            train(
                build(),
                loader(samples(seed=data)),
                valid=loader(samples(seed=valid)),
                **run,
            )


def test_a_loader_that_draws_by_other_random_numbers_can_still_go_on(tmp_path):
    class Noisy(list):
        def __iter__(self):
            for batch in super().__iter__():
                image = batch.inputs["image"] + random.random()
                yield Batch({**batch.inputs, "image": image}, batch.targets)

    data = samples(missing=False)
    run = {"checkpoint": tmp_path / "run.pt", **settings}
    history = train(build(), Noisy([data[:30], data[30:]]), **run)
    assert train(build(), Noisy([data[:30], data[30:]]), **run) == history


def test_a_checkpoint_that_cannot_be_written_is_found_out_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = build()
    model.register_forward_hook(lambda *_: pytest.fail("nothing is computed"))
    for file in (tmp_path / "file" / "run.pt", tmp_path):
        with pytest.raises(ValueError, match="checkpoint .* cannot be written"):
            train(model, samples(), checkpoint=file, **settings)


def test_a_folder_without_permission_is_found_out_before_training(
    tmp_path, monkeypatch
):
    def refused(self, *arguments, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(ValueError, match="cannot be written: .*Permission denied"):
        train(build(), samples(), checkpoint=tmp_path / "run.pt", **settings)


def test_two_processes_write_one_checkpoint_by_files_of_their_own(tmp_path):
    file = tmp_path / "run.pt"
    run = [sys.executable, "-c", TWICE, str(file)]
    both = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    assert len(torch.load(file, weights_only=True)["history"]["steps"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


#: Writes one state again and again; with one name for the part, one process renames the
#: other one's file away.
TWICE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_problem import build, samples
from mtmm_lib.training import fit
from mtmm_lib.training.checkpoint import Checkpoint

load, save = Checkpoint.load, Checkpoint.save
Checkpoint.load = lambda self: None
Checkpoint.save = lambda self: [save(self) for _ in range(100)]
fit(build(), samples(), epochs=1, checkpoint=sys.argv[1], device="cpu", progress=False)
"""
