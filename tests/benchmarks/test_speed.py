"""Speed as ratios measured in one run, so that they hold on any machine; `make bench`
runs them."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import nn

import mtmm_lib
from mtmm_lib.batch import Batch, Features
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import fit, fit_many

EPOCHS = 4


def data(n: int = 1024) -> Batch:
    draw = torch.Generator().manual_seed(0)
    image, sound = (
        torch.randn(n, 64, generator=draw),
        torch.randn(n, 32, generator=draw),
    )
    return Batch(
        {"image": image, "sound": sound},
        {"kind": image[:, :5].argmax(1), "size": sound.sum(1)},
        {"sound": torch.rand(n, generator=draw) > 0.3},
    )


def small_model(width: int) -> Model:
    encoders = {
        "image": MLPEncoder(64, width, hidden=(width,)),
        "sound": MLPEncoder(32, width, hidden=(width,)),
    }
    fusion = ConcatFusion({"image": width, "sound": width}, width)
    tasks = [Classification("kind", 5), Regression("size")]
    return Model(encoders, fusion, HardSharing(["kind", "size"], width, width), tasks)


def hand_written(model: nn.Module, train: Batch, batch_size: int) -> None:
    """The leanest loop that does the same to the same model, with the same
    optimizer."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=0.0, fused=True
    )
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train)).split(batch_size):
            batch = train[chosen]
            optimizer.zero_grad()
            output = model(batch)
            sum(model.losses(output, batch).values()).backward()
            optimizer.step()


def seconds(function: Callable, *arguments, **settings) -> float:
    """CPU time, in which what other programs do meanwhile counts least; run with one
    thread."""
    start = time.process_time()
    function(*arguments, **settings)
    return time.process_time() - start


@pytest.mark.parametrize(("width", "batch_size"), [(16, 16), (64, 64)])
def test_fit_keeps_the_pace_of_a_hand_written_loop(benchmark, width, batch_size):
    train = data()
    settings = {
        "epochs": EPOCHS,
        "batch_size": batch_size,
        "device": "cpu",
        "progress": False,
    }
    by_hand, by_fit = [], []
    # turn by turn, so that whatever else the machine does meets both
    for _ in range(25):
        by_hand.append(seconds(hand_written, small_model(width), train, batch_size))
        by_fit.append(seconds(fit, small_model(width), train, **settings))
    ratio = median(by_hand) / median(by_fit)
    benchmark.extra_info["steps per second, against by hand"] = round(ratio, 3)
    benchmark.pedantic(fit, (small_model(width), train), settings)
    assert ratio >= 0.95


def test_importing_costs_hardly_more_than_torch(benchmark):
    def load(module: str) -> float:
        # Measured inside, where the interpreter's own start does not count.
        code = (
            f"import time; t = time.process_time(); import {module}; "
            "print(time.process_time() - t)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    everything = ", ".join(
        f"mtmm_lib.{module.name}" for module in pkgutil.iter_modules(mtmm_lib.__path__)
    )
    load("torch"), load(everything)  # fill the file cache
    torch_alone, library = [], []
    for _ in range(9):
        torch_alone.append(load("torch"))
        library.append(load(everything))
    ratio = median(library) / median(torch_alone)
    benchmark.extra_info["against import torch"] = round(ratio, 3)
    benchmark.pedantic(load, (everything,))
    assert ratio <= 1.15


class Identity(nn.Module):
    dim = 64

    def forward(self, x, lengths=None):
        return Features.vector(x)


def test_ten_seeds_at_once_beat_ten_in_a_row(benchmark):
    """Ten seeds of an MLP 64-128-64 with four tasks, 600 steps of 128 samples each."""

    def trunk(in_dim: int, dim: int) -> nn.Sequential:
        first = nn.Sequential(nn.Linear(in_dim, 128), nn.ReLU())
        return nn.Sequential(first, nn.Sequential(nn.Linear(128, dim), nn.ReLU()))

    def build() -> Model:
        names = ["digit", "parity", "large", "ink"]
        tasks = [
            Classification("digit", 10),
            Classification("parity", 2),
            Classification("large", 2),
        ]
        sharing = HardSharing(names, 64, 64, trunk)
        return Model(
            {"image": Identity()},
            ConcatFusion({"image": 64}, 64),
            sharing,
            [*tasks, Regression("ink")],
        )

    train = []
    for seed in range(10):
        image = torch.randn(1000, 64, generator=torch.Generator().manual_seed(seed))
        digit = image[:, :10].argmax(1)
        few = torch.where(torch.arange(1000) < 50, digit, -1)
        targets = {
            "digit": few,
            "parity": digit % 2,
            "large": (digit > 4).long(),
            "ink": image.mean(1),
        }
        train.append(Batch({"image": image}, targets))
    settings = {"epochs": 75, "batch_size": 128, "lr": 3e-3, "weight_decay": 0.01}

    def in_a_row() -> None:
        for seed, batch in enumerate(train):
            torch.manual_seed(seed)
            fit(build(), batch, seed=seed, device="cpu", progress=False, **settings)

    def at_once() -> None:
        fit_many(build, train, seeds=range(10), **settings)

    together = benchmark.pedantic(lambda: seconds(at_once), rounds=3)
    ratio = seconds(in_a_row) / together
    benchmark.extra_info["times as fast as in a row"] = round(ratio, 2)
    assert ratio > 1.2
