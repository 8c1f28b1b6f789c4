"""What balancing may cost, as ratios of one run; `python -m tools.balancing_speed`
prints the tables."""

from __future__ import annotations

import pytest
import torch

from mtmm_lib.balancing import weightings
from tools.balancing_speed import (
    TASKS,
    TRUNKS,
    gradients_held,
    ratio,
    steps,
    weighting_times,
)

#: Solved in closed form, or by a fixed number of products; the others iterate.
CLOSED = ("mean", "pcgrad", "imtl_g", "aligned_mtl", "equal_norms")


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("tasks", TASKS)
def test_a_balanced_step(benchmark, trunk, tasks):
    taken = benchmark.pedantic(steps, (trunk, tasks, 25, torch.device("cpu")))
    benchmark.extra_info.update({way: round(ratio(taken, way), 2) for way in taken})
    assert ratio(taken, "features") <= 1.2
    # A backward pass through the trunk for each task takes nearly all of the time of
    # both; the rest is noise.
    theirs = min(
        "TorchJD, one by one", "TorchJD, batched", key=lambda way: ratio(taken, way)
    )
    assert ratio(taken, "parameters", theirs) <= 1.1


@pytest.mark.parametrize("tasks", TASKS)
def test_weightings_take_milliseconds_at_most(benchmark, tasks):
    taken = benchmark.pedantic(weighting_times, (tasks,))
    assert set(taken) == set(weightings.ALL)
    for name, value in taken.items():
        benchmark.extra_info[name] = f"{1e3 * value:.3f} ms"
        assert value < (0.3e-3 if name in CLOSED else 3e-3), name


@pytest.mark.parametrize("tasks", TASKS)
def test_the_parameter_level_holds_one_gradient_per_task(benchmark, tasks):
    held = benchmark.pedantic(gradients_held, (tasks, "parameters"))
    benchmark.extra_info["gradients"] = round(held, 2)
    assert held <= tasks + 0.5  # what a backward pass holds for a moment comes and goes
