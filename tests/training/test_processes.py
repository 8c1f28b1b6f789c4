"""Several processes give what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_processes import BALANCERS, runs, uneven
from training_problem import largest_difference, same

from mtmm_lib.training.place import Place
from mtmm_lib.training.seeds import permutation

SCRIPT = Path(__file__).with_name("run_processes.py")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return runs(str(tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module", params=[2, 1])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"processes{request.param}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(request.param), str(SCRIPT), str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [
        torch.load(folder / f"rank{rank}.pt", weights_only=True)
        for rank in range(request.param)
    ]


def test_the_problem_is_as_uneven_as_it_says():
    data = uneven()[permutation(21, 5, 0)]
    kinds = [data.targets["kind"][start : start + 4] >= 0 for start in range(0, 21, 4)]
    sizes = [
        ~data.targets["size"][start : start + 4].isnan() for start in range(0, 21, 4)
    ]
    for labelled in (kinds, sizes):
        assert any(part[0::2].any() and not part[1::2].any() for part in labelled[:-1])
        assert any(part[1::2].any() and not part[0::2].any() for part in labelled[:-1])
    assert any(not part.any() for part in sizes) and len(kinds[-1]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "adam",
        "odd batches",
        "choosing",
        "loader",
        "course",
        "checkpoint",
        *BALANCERS,
    ],
)
def test_processes_agree_with_each_other_and_with_one(alone, together, name):
    one = alone[name]
    for results in together:
        many = results[name]
        assert same(many["weights"], together[0][name]["weights"])
        assert largest_difference(many["weights"], one["weights"]) < (
            1e-4 if name == "adam" else 1e-5
        )
        for key in ("train_loss", "valid", "used"):
            for a, b in zip(many[key], one[key], strict=True):
                assert a == pytest.approx(b, rel=1e-4)
        assert len(many["steps"]) == (3 if name == "course" else 5)
        assert (many["best_epoch"], many["steps"]) == (one["best_epoch"], one["steps"])


def test_no_process_group_is_opened_where_the_environment_names_none(monkeypatch):
    for value in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", value)
        place = Place("cpu", "auto")
        assert (place.rank, place.world) == (0, 1)
    assert not torch.distributed.is_initialized()
