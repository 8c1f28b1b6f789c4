"""Speed as ratios measured in one run, so that they hold on any machine; `make bench`
runs them."""

from __future__ import annotations

import ctypes
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mtmm_lib
from mtmm_lib.balancing import StaticWeights
from mtmm_lib.batch import Batch, Features
from mtmm_lib.encoders import ConvEncoder, MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import fit, fit_many

EPOCHS = 4


def numbers(n: int = 1024) -> Batch:
    draw = torch.Generator().manual_seed(0)
    image, sound = (
        torch.randn(n, 64, generator=draw),
        torch.randn(n, 32, generator=draw),
    )
    return Batch(
        {"image": image, "sound": sound},
        {"kind": image[:, :5].argmax(1), "size": sound.sum(1)},
    )


def pictures(n: int = 512) -> Batch:
    image = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    targets = {"kind": image[:, 0, 0, :5].argmax(1), "size": image.mean((1, 2, 3))}
    return Batch({"image": image}, targets)


def model_of(encoders: dict[str, nn.Module], width: int) -> Model:
    fusion = ConcatFusion(dict.fromkeys(encoders, width), width)
    tasks = [Classification("kind", 5), Regression("size")]
    return Model(encoders, fusion, HardSharing(["kind", "size"], width, width), tasks)


def tiny_mlp() -> Model:
    encoders = {
        "image": MLPEncoder(64, 16, hidden=(16,)),
        "sound": MLPEncoder(32, 16, hidden=(16,)),
    }
    return model_of(encoders, 16)


def small_cnn() -> Model:
    return model_of({"image": ConvEncoder(1, 32)}, 32)


class PlainMLP(nn.Module):
    """The network of `tiny_mlp` as one writes it without a library."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16))
        self.sound = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 16))
        self.mix = nn.Linear(32, 16)
        self.trunk = nn.Sequential(
            nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()
        )
        self.kind, self.size = nn.Linear(16, 5), nn.Linear(16, 1)

    def forward(self, image: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        z = self.mix(torch.cat([self.image(image), self.sound(sound)], 1))
        h = self.trunk(z)
        return self.kind(h), self.size(h)


class PlainCNN(nn.Module):
    """The network of `small_cnn`."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.mix = nn.Linear(32, 32)
        self.trunk = nn.Sequential(
            nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
        )
        self.kind, self.size = nn.Linear(32, 5), nn.Linear(32, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(self.mix(self.image(image).flatten(2).mean(2)))
        return self.kind(h), self.size(h)


def hand_written(model: nn.Module, train: Batch, batch_size: int) -> list[float]:
    """The plain loop of PyTorch: the times at which its steps go backward."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=0.0, fused=True
    )
    inputs = list(train.inputs.values())
    kind, size = train.targets["kind"], train.targets["size"]
    model.train()
    times = []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(kind)).split(batch_size):
            optimizer.zero_grad()
            logits, value = model(*(x[chosen] for x in inputs))
            loss = F.cross_entropy(logits, kind[chosen])
            loss = loss + F.mse_loss(value.squeeze(1), size[chosen])
            times.append(time.perf_counter())
            loss.backward()
            optimizer.step()
    return times


class Clock(StaticWeights):
    """Writes down when the steps of `fit` go backward."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def backward(self, losses, output, model):
        self.times.append(time.perf_counter())
        return super().backward(losses, output, model)


def keep_memory() -> None:
    """Keeps what is freed from going back to the system, where the C library can be
    told so. Whether it goes there is luck, that of what lies last in memory, and a
    small CNN's step then takes half as long again, whoever wrote the loop."""
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # of malloc.h
        for option in (trim_threshold, mmap_threshold):
            ctypes.CDLL(None).mallopt(option, 1 << 30)


def seconds(function: Callable, *arguments, **settings) -> float:
    """CPU time, in which what other programs do meanwhile counts least; run with one
    thread."""
    start = time.process_time()
    function(*arguments, **settings)
    return time.process_time() - start


@pytest.mark.parametrize(
    ("plain", "ours", "data", "batch_size", "least"),
    [
        pytest.param(PlainMLP, tiny_mlp, numbers, 16, 0.85, id="tiny MLP"),
        pytest.param(PlainCNN, small_cnn, pictures, 64, 0.95, id="small CNN"),
    ],
)
def test_fit_keeps_the_pace_of_a_hand_written_loop(
    benchmark, plain, ours, data, batch_size, least
):
    count = sum(p.numel() for p in plain().parameters())
    missing = sum(p.numel() for n, p in ours().named_parameters() if "missing" in n)
    assert sum(p.numel() for p in ours().parameters()) == count + missing
    keep_memory()
    train, by_hand, by_fit = data(), [], []
    settings = {"epochs": EPOCHS, "batch_size": batch_size, "device": "cpu"}
    # Turn by turn, so that whatever else the machine does meets both; and of all steps
    # the quick ones, in which it did nothing else.
    for _ in range(30):
        by_hand += np.diff(hand_written(plain(), train, batch_size)).tolist()
        clock = Clock()
        fit(ours(), train, balancer=clock, progress=False, **settings)
        by_fit += np.diff(clock.times).tolist()
    ratio = float(np.quantile(by_hand, 0.05) / np.quantile(by_fit, 0.05))
    benchmark.extra_info["steps per second, against by hand"] = round(ratio, 3)
    benchmark.pedantic(fit, (ours(), train), {**settings, "progress": False})
    assert ratio >= least


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
