from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_problem import build, same, samples, weights

from mtmm_lib.balancing import StaticWeights
from mtmm_lib.training import fit

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
        ({"epochs": 7}, "epochs: 6 then, 7 now"),
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
    train(resumed, data, valid=valid, checkpoint=file, **settings)
    train(whole, data, valid=valid, **settings)
    assert same(weights(resumed), weights(whole))
