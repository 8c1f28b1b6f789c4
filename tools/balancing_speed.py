"""What balancing costs: time of a training step against the plain sum of the losses, of
the weightings alone, memory.

``python -m tools.balancing_speed`` prints the tables for the book and the README, on a
GPU too where there is one. All ratios come from turns taken in one run, so that
whatever else the machine does meets everybody.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

from mtmm_lib.balancing import backward, weightings
from mtmm_lib.environment import whole_number

TASKS = (2, 3, 8)
TRUNKS = ("MLP", "CNN")
#: Samples in a batch. Of the MLP's 512 units a batch of 64 is small, as it should be
#: for level="parameters" to gain most.
BATCH, SMALL_BATCH = {"MLP": 256, "CNN": 64}, 64
#: The method whose cost is that of everything but its own arithmetic, and its twin in
#: TorchJD.
OURS, THEIRS = weightings.imtl_g, aggregation.IMTLG()


class Problem:
    """A shared trunk, a small head and a squared error for each of some tasks, and
    random data."""

    def __init__(
        self,
        trunk: str,
        tasks: int,
        device: torch.device,
        samples: int | None = None,
        update: bool = True,
    ) -> None:
        torch.manual_seed(0)
        samples, self.update = samples or BATCH[trunk], update
        if trunk == "MLP":
            layers = [
                nn.Linear(256, 512),
                nn.ReLU(),
                nn.Linear(512, 512),
                nn.ReLU(),
                nn.Linear(512, 512),
                nn.ReLU(),
            ]
            width, shape = 512, (samples, 256)
        else:
            layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            layers += [
                nn.Conv2d(32, 64, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
            ]
            width, shape = 256, (samples, 3, 32, 32)
        self.trunk = nn.Sequential(*layers).to(device)
        self.heads = nn.ModuleDict(
            {f"task{t}": nn.Linear(width, 10) for t in range(tasks)}
        ).to(device)
        self.x = torch.randn(shape, device=device)
        self.y = torch.randn(tasks, shape[0], 10, device=device)
        self.parameters = [*self.trunk.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, back: Callable[[Problem, dict[str, Tensor], Tensor], None]) -> None:
        for p in self.parameters:
            p.grad = None
        z = self.trunk(self.x)
        each = zip(self.heads.items(), self.y, strict=True)
        back(self, {name: (head(z) - y).square().mean() for (name, head), y in each}, z)
        if self.update:
            self.optimizer.step()


def torchjd(
    problem: Problem, losses: dict[str, Tensor], z: Tensor, chunk: int | None
) -> None:
    mtl_backward(list(losses.values()), features=z, parallel_chunk_size=chunk)
    jac_to_grad(problem.trunk.parameters(), THEIRS)


PLAIN = "sum of the losses"
WAYS: dict[str, Callable[[Problem, dict[str, Tensor], Tensor], object]] = {
    PLAIN: lambda problem, losses, z: sum(losses.values()).backward(),
    "features": lambda problem, losses, z: backward(losses, z, OURS, "features"),
    "parameters": lambda problem, losses, z: backward(losses, z, OURS, "parameters"),
    "TorchJD, one by one": lambda problem, losses, z: torchjd(problem, losses, z, 1),
    "TorchJD, batched": lambda problem, losses, z: torchjd(problem, losses, z, None),
}


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """CPU time, in which what other programs do counts least; on a GPU the time until
    it is done."""
    if device.type == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def steps(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Way → seconds of a step in each round."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for i in range(rounds + 3):
        for name, back in WAYS.items():
            spent = seconds(lambda: problem.step(back), problem.x.device)  # noqa: B023
            if i >= 3:
                taken[name].append(spent)
    return taken


def ratio(taken: dict[str, list[float]], way: str, to: str = PLAIN) -> float:
    """How many times as long one way takes as another, the median over the rounds."""
    return median(a / b for a, b in zip(taken[way], taken[to], strict=True))


def weighting_times(tasks: int, rounds: int = 200) -> dict[str, float]:
    """Weighting → median seconds, for Gramians of gradients whose lengths span two
    orders of magnitude."""
    rng = np.random.default_rng(0)
    gramians = []
    for _ in range(rounds):
        jacobian = rng.standard_normal((tasks, 64)) * 10 ** rng.uniform(
            -1, 1, (tasks, 1)
        )
        gramians.append(jacobian @ jacobian.T)
    cpu = torch.device("cpu")
    return {
        name: median(seconds(lambda: weigh(gramian), cpu) for gramian in gramians)  # noqa: B023
        for name, weigh in weightings.ALL.items()
    }


def gradients_held(tasks: int, way: str, samples: int | None = None) -> float:
    """By how much a backward pass needs more memory at its peak than that of the sum,
    in gradients of the trunk."""
    problem = Problem("MLP", tasks, torch.device("cpu"), samples)

    def peak(name: str) -> int:
        most = 0

        def back(problem: Problem, losses: dict[str, Tensor], z: Tensor) -> None:
            nonlocal most
            with profile(
                activities=[ProfilerActivity.CPU], profile_memory=True
            ) as profiler:
                WAYS[name](problem, losses, z)
            events = (
                e
                for e in profiler.profiler.kineto_results.events()
                if e.name() == "[memory]"
            )
            changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
            most = max(itertools.accumulate(changes, initial=0))

        problem.step(back)
        return most

    gradient = sum(p.numel() * p.element_size() for p in problem.trunk.parameters())
    return (peak(way) - peak(PLAIN)) / gradient


def report(rounds: int, device: torch.device) -> str:
    """The tables, in Markdown."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} thread(s)"
    )
    text = (
        "Time of a training step, as a multiple of that with the plain sum of "
        f"the losses ({name}).\n\n"
    )
    text += (
        "| | "
        + " | ".join(f"{trunk}, {tasks} tasks" for trunk in TRUNKS for tasks in TASKS)
        + " |\n"
    )
    text += "|---" * (1 + len(TRUNKS) * len(TASKS)) + "|\n"
    taken = [
        steps(Problem(trunk, tasks, device), rounds)
        for trunk in TRUNKS
        for tasks in TASKS
    ]
    for way in list(WAYS)[1:]:
        text += (
            f"| {way} | "
            + " | ".join(f"{ratio(found, way):.2f}" for found in taken)
            + " |\n"
        )
    plain = (f"{1e3 * median(found[PLAIN]):.2g} ms" for found in taken)
    text += f"| ({PLAIN}) | " + " | ".join(plain) + " |\n"
    small = steps(Problem("MLP", 8, device, SMALL_BATCH, update=False), rounds)
    text += (
        f"\nForward and backward pass alone (MLP, {SMALL_BATCH} samples, 8 tasks): "
        + ", ".join(f"{way} {ratio(small, way):.2f}" for way in list(WAYS)[1:])
        + ".\n"
    )
    for samples in (BATCH["MLP"], SMALL_BATCH):
        text += (
            "\nMemory of a backward pass beyond that of the sum, in gradients of the "
            f"trunk (MLP, {samples} samples, 8 tasks): "
        )
        held = (f"{w} {gradients_held(8, w, samples):.1f}" for w in list(WAYS)[1:])
        text += ", ".join(held) + ".\n"
    text += "\nTime of the weightings alone, in milliseconds (median).\n\n"
    text += (
        "| | "
        + " | ".join(f"{tasks} tasks" for tasks in TASKS)
        + " |\n"
        + "|---" * (1 + len(TASKS))
        + "|\n"
    )
    times = [weighting_times(tasks) for tasks in TASKS]
    for weighting in weightings.ALL:
        text += (
            f"| `{weighting}` | "
            + " | ".join(f"{1e3 * found[weighting]:.3f}" for found in times)
            + " |\n"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=15, help="turns that everybody takes"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(whole_number("OMP_NUM_THREADS", 1, least=1))
    print(report(arguments.rounds, torch.device(arguments.device)))


if __name__ == "__main__":
    main()
