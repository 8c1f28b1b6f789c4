"""How well steps are copied from a sequence that is out of step: prints the table of
CARD.md.

    python data/lagged_copy/measure.py            # about a minute on one thread

Three seeds. Nothing is tuned.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Features, Fused
from mtmm_lib.data import lagged_copy
from mtmm_lib.encoders import SequenceEncoder
from mtmm_lib.fusion import BottleneckFusion, CrossModalFusion, Fusion

SEEDS = range(3)
SYMBOLS, DIM = 4, 32


class StepByStep(Fusion):
    """What stands at the same step, joined: the fusion of aligned sequences."""

    def __init__(self, dims: dict[str, int], dim: int) -> None:
        super().__init__(dims, dim)
        self.mix = nn.Linear(sum(self.dims.values()), dim)

    def forward(self, features: dict[str, Features]) -> Fused:
        steps = min(f.tokens.shape[1] for f in features.values())
        joined = torch.cat([features[name].tokens[:, :steps] for name in self.dims], 2)
        return Fused(Features(self.mix(joined)))


class Copier(nn.Module):
    """Steps with their positions, a fusion that keeps the steps, and a perceptron on
    those of the sight."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {name: SequenceEncoder(SYMBOLS, DIM, layers=0) for name in fusion.dims}
        )
        self.fusion = fusion
        self.head = nn.Sequential(
            nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, SYMBOLS)
        )

    def forward(self, batch: Batch) -> Tensor:
        features = {
            name: encoder(batch.inputs[name]) for name, encoder in self.encoders.items()
        }
        fused = self.fusion(features).features.tokens  # the sight's come first
        return self.head(fused[:, : batch.inputs["sight"].shape[1]])


FUSIONS = {
    "step by step": StepByStep,
    "cross-modal attention": lambda dims, dim: CrossModalFusion(
        dims, dim, heads=2, keeps_tokens=True
    ),
    "bottleneck of 4": lambda dims, dim: BottleneckFusion(
        dims, dim, heads=2, keeps_tokens=True
    ),
}


def accuracy(name: str, lag: int, seed: int) -> float:
    data = lagged_copy(lag, seed=seed)
    torch.manual_seed(seed)
    model = Copier(FUSIONS[name]({"sight": DIM, "sound": DIM}, DIM))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        for chosen in torch.randperm(len(data.train)).split(64):
            batch = data.train[chosen]
            optimizer.zero_grad()
            loss = F.cross_entropy(
                model(batch).flatten(0, 1), batch.targets["copy"].flatten()
            )
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float(
            (model(data.test).argmax(2) == data.test.targets["copy"]).float().mean()
        )


def main() -> None:
    print("| fusion | lag 0 | lag 3 |\n|---|---|---|")
    for name in FUSIONS:
        columns = []
        for lag in (0, 3):
            found = 100 * np.array([accuracy(name, lag, seed) for seed in SEEDS])
            columns.append(f"{found.mean():.1f} ± {found.std(ddof=1):.1f}")
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
