"""What balancing may cost, as ratios of one run; `python -m tools.balancing_speed`
prints the tables."""

from __future__ import annotations

import pytest
import torch

from mtmm_lib.balancing import weightings
from tools.balancing_speed import (
    SMALL_BATCH,
    TASKS,
    TRUNKS,
    Problem,
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
    taken = benchmark.pedantic(steps, (Problem(trunk, tasks, torch.device("cpu")), 25))
    benchmark.extra_info.update({way: round(ratio(taken, way), 2) for way in taken})
    assert ratio(taken, "features") <= 1.15
    # A backward pass through the trunk for each task takes nearly all of the time of
    # both; the rest is noise.
    theirs = min(
        "TorchJD, one by one", "TorchJD, batched", key=lambda way: ratio(taken, way)
    )
    assert ratio(taken, "parameters", theirs) <= 1.1


def test_the_parameters_of_an_mlp(benchmark):
    """Forward and backward pass: one forward, eight passes of deltas and one of weights
    would make 3.3."""
    problem = Problem("MLP", 8, torch.device("cpu"), SMALL_BATCH, update=False)
    taken = benchmark.pedantic(steps, (problem, 40))
    benchmark.extra_info.update({way: round(ratio(taken, way), 2) for way in taken})
    assert ratio(taken, "parameters") <= 4.0


@pytest.mark.parametrize("tasks", TASKS)
def test_weightings_take_milliseconds_at_most(benchmark, tasks):
    taken = benchmark.pedantic(weighting_times, (tasks,))
    assert set(taken) == set(weightings.ALL)
    for name, value in taken.items():
        benchmark.extra_info[name] = f"{1e3 * value:.3f} ms"
        assert value < (0.3e-3 if name in CLOSED else 3e-3), name


@pytest.mark.parametrize("tasks", TASKS)
def test_the_parameter_level_holds_no_gradient_per_task(benchmark, tasks):
    """Where the batch is small; never more than one for each task otherwise."""
    held = benchmark.pedantic(gradients_held, (tasks, "parameters", SMALL_BATCH))
    benchmark.extra_info["gradients"] = round(held, 2)
    assert held <= 0.25 * tasks
    # what a backward pass holds for a moment comes and goes
    assert gradients_held(tasks, "parameters") <= tasks + 0.5
