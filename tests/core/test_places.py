"""Two things in one picture: a model has to tell where each of them is.

The set is made of scikit-learn's digits: one to the upper left, one to the lower right,
overlapping in a quarter of either; a task for each. No digit of a test picture is in
any training picture.
"""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mtmm_lib.batch import Batch
from mtmm_lib.encoders import ConvEncoder
from mtmm_lib.fusion import IdentityFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification

SIDE, PAIRS, EPOCHS = 12, 2000, 8
TASKS = ("left", "right")


def overlaid(pool: Tensor, count: int, generator: torch.Generator) -> Batch:
    """Pictures `[count, 1, 12, 12]` of two digits from the pool, drawn anew."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    left, right = pool[torch.randint(len(pool), (2, count), generator=generator)]
    canvas = torch.zeros(2, count, 1, SIDE, SIDE)
    canvas[0, :, 0, :8, :8], canvas[1, :, 0, -8:, -8:] = images[left], images[right]
    targets = {"left": labels[left], "right": labels[right]}
    return Batch({"image": canvas.amax(0)}, targets)


class LeNet(nn.Module):
    """The rival, in plain PyTorch (LeCun et al., 1998), with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 9, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.heads = nn.ModuleDict({task: nn.Linear(84, 10) for task in TASKS})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = self.body(batch.inputs["image"])
        return {task: head(z) for task, head in self.heads.items()}


class Ours(nn.Module):
    def __init__(self, positions: tuple[int, int] | None) -> None:
        super().__init__()
        self.model = Model(
            {"image": ConvEncoder(1, 32, channels=(8, 16), positions=positions)},
            IdentityFusion({"image": 32}, 32),
            HardSharing(TASKS, 32, 96),
            [Classification(task, 10) for task in TASKS],
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.model(batch).predictions


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def accuracy(build: Callable[[], nn.Module], seed: int) -> Tensor:
    """Percent right by task, `[2]`, after the same training for whatever is built."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    train, test = torch.randperm(1797, generator=generator).split([1200, 597])
    train = overlaid(train, PAIRS, generator)
    test = overlaid(test, 1000, generator)
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(EPOCHS):
        for rows in torch.randperm(PAIRS, generator=generator).split(64):
            batch = train[rows]
            optimizer.zero_grad()
            sum(
                nn.functional.cross_entropy(logits, batch.targets[task])
                for task, logits in model(batch).items()
            ).backward()
            optimizer.step()
    with torch.no_grad():
        right = [
            logits.argmax(1) == test.targets[task]
            for task, logits in model(test).items()
        ]
    return 100 * torch.stack(right).float().mean(1)


def test_a_convolution_with_places_reads_two_digits_as_well_as_a_small_lenet():
    placed, lenet = (
        torch.stack([accuracy(build, seed) for seed in range(3)]).mean(0)
        for build in (lambda: Ours((SIDE, SIDE)), LeNet)
    )
    assert size(Ours((SIDE, SIDE))) <= size(LeNet())
    assert (placed >= lenet - 2).all(), (placed, lenet)
    assert (lenet > 80).all(), lenet
