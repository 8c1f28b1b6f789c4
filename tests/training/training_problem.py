"""A small problem with two modalities and two tasks, and labels and modalities missing
here and there."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mtmm_lib.balancing import GradientBalancer, weightings
from mtmm_lib.batch import Batch, Shared
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression, Task
from mtmm_lib.training import EpochState, cosine, patience


class TetheredSharing(HardSharing):
    """Hard sharing with a penalty on its weights and on its mean activity."""

    def forward(self, z: Tensor) -> Shared:
        shared = super().forward(z)
        size = sum(p.square().sum() for p in self.parameters())
        return Shared(
            shared.features,
            penalty=0.01 * size + shared.features[self.tasks[0]].square().mean(),
        )


def build(
    seed: int = 0,
    *,
    dropout: float = 0.0,
    tasks: list[Task] | None = None,
    sharing=HardSharing,
) -> Model:
    torch.manual_seed(seed)
    tasks = tasks or [Classification("kind", 3), Regression("size")]
    encoders = {
        "image": MLPEncoder(6, 8, hidden=(12,), dropout=dropout),
        "sound": MLPEncoder(4, 5, hidden=(8,), dropout=dropout),
    }
    fusion = ConcatFusion({"image": 8, "sound": 5}, 8)
    return Model(encoders, fusion, sharing([task.name for task in tasks], 8, 8), tasks)


def samples(n: int = 48, seed: int = 0, *, missing: bool = True) -> Batch:
    """`kind` and `size` follow from both modalities; with `missing`, a third of the
    labels is absent."""
    draw = torch.Generator().manual_seed(seed)
    image, sound = torch.randn(n, 6, generator=draw), torch.randn(n, 4, generator=draw)
    kind = (image[:, :3] + sound[:, :3]).argmax(1)
    size = image.sum(1) - sound[:, 0]
    if missing:
        kind = torch.where(torch.rand(n, generator=draw) < 1 / 3, -1, kind)
        size = torch.where(torch.rand(n, generator=draw) < 1 / 3, torch.nan, size)
    present = {"sound": torch.rand(n, generator=draw) > 0.3} if missing else {}
    return Batch(
        {"image": image, "sound": sound}, {"kind": kind, "size": size}, present
    )


def everything() -> dict:
    """Settings of a run in which all that has a state, or depends on the progress, has
    its part: momentum in the optimizer and in the balancer, a schedule, clipping, a
    hook that changes the model's mode and draws random numbers, early stopping."""
    stop = patience(3)

    def after_epoch(state: EpochState) -> object:
        state.model.eval()
        torch.rand(3)
        return stop(state)

    return {
        "epochs": 8,
        "batch_size": 16,
        "lr": 0.05,
        "weight_decay": 0.01,
        "seed": 3,
        "optimizer": partial(torch.optim.SGD, momentum=0.9),
        "balancer": GradientBalancer(weightings.equal_norms, momentum=0.5),
        "schedule": cosine(warmup=0.2),
        "clip": 0.5,
        "after_epoch": after_epoch,
    }


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
