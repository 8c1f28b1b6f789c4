"""Trains in as many processes as it was started in; the first one writes down what came
out."""

import os
import sys

import torch
from torch.utils.data import DataLoader
from training_problem import TetheredSharing, build, samples, weights

from mtmm_lib.balancing import (
    FAMO,
    GradientBalancer,
    GradNorm,
    StaticWeights,
    UncertaintyWeights,
    weightings,
)
from mtmm_lib.batch import Batch
from mtmm_lib.training import cosine, fit
from mtmm_lib.training.seeds import permutation


def uneven() -> Batch:
    """In steps of four samples, of which each process takes every second one: labels of
    a task for one process only, for the other only, for none; and a last batch of a
    single sample."""
    data = samples(21, missing=False)
    order = permutation(21, 5, 0)
    data.targets["kind"][order[[0, 2, 4, 6, 9, 11, 13, 15, 16, 18]]] = -1
    data.targets["size"][order[[1, 3, 5, 7, 8, 10, 12, 13, 14, 15]]] = torch.nan
    data.inputs["sound"][order[[3, 8, 20]]] = torch.nan
    data.present["sound"] = ~data.inputs["sound"].isnan().any(1)
    return data


class Largest(StaticWeights):
    """Trains the task with the larger loss: processes that saw different losses would
    disagree."""

    def backward(self, losses, output, model):
        largest = max(losses, key=lambda name: losses[name].item())
        sum([losses[largest], *output.penalties.values()]).backward()
        return {name: float(name == largest) for name in losses}


def stop_in_the_first(state):
    """Only the first process is asked, so that what it says counts everywhere."""
    if os.environ.get("RANK", "0") != "0":
        raise AssertionError("another process was asked")
    return state.epoch == 2


#: Those that look at gradients, or at losses, or at losses after the step.
BALANCERS = {
    "parameters": lambda: GradientBalancer(weightings.upgrad),
    "features": lambda: GradientBalancer(weightings.imtl_g, "features"),
    "momentum": lambda: GradientBalancer(weightings.equal_norms, momentum=0.5),
    "uncertainty": lambda: UncertaintyWeights(lr=0.1),
    "famo": lambda: FAMO(lr=0.1),
    "gradnorm": lambda: GradNorm(lr=0.1),
}


def runs(folder: str) -> dict[str, dict]:
    settings = {
        "epochs": 5,
        "batch_size": 4,
        "lr": 0.01,
        "weight_decay": 0.1,
        "seed": 5,
        "progress": False,
    }
    data, valid = uneven(), samples(30, 1)
    loader = DataLoader(
        range(21),
        batch_size=4,
        shuffle=True,
        collate_fn=lambda i: data[torch.tensor(i)],
    )
    course = {"schedule": cosine(0.2), "clip": 0.1, "after_epoch": stop_in_the_first}
    rank = int(os.environ.get("RANK", "0"))
    results = {}
    for name, train, changes in (
        ("plain", data, {"optimizer": torch.optim.SGD}),
        ("adam", data, {"valid": valid, "balancer": StaticWeights({"size": 0.5})}),
        ("odd batches", data, {"optimizer": torch.optim.SGD, "batch_size": 5}),
        ("choosing", data, {"balancer": Largest(), "optimizer": torch.optim.SGD}),
        ("loader", loader, {"optimizer": torch.optim.SGD}),
        ("course", data, {"valid": valid, "optimizer": torch.optim.SGD, **course}),
        (
            "checkpoint",
            data,
            {
                "checkpoint": os.path.join(folder, "run.pt"),
                "optimizer": torch.optim.SGD,
            },
        ),
        *(
            (name, data, {"balancer": make(), "optimizer": torch.optim.SGD})
            for name, make in BALANCERS.items()
        ),
    ):
        # Other initial weights in other processes: the first one's have to win.
        model = build(seed=rank, sharing=TetheredSharing)
        history = fit(model, train, device="cpu", **{**settings, **changes})
        results[name] = {
            "weights": weights(model),
            "train_loss": history.train_loss,
            "valid": history.valid,
            "best_epoch": history.best_epoch,
            "used": history.weights,
            "steps": history.steps,
        }
    return results


if __name__ == "__main__":
    folder = sys.argv[1]
    results = runs(folder)
    torch.save(results, os.path.join(folder, f"rank{os.environ['RANK']}.pt"))
