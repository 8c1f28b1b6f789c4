"""What happened in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


Losses = dict[str, float]


class TrainingError(RuntimeError):
    """Training cannot go on: a loss is not finite, or no batch has a label."""


@dataclass
class History:
    """What happened in training, one entry of every list per epoch.

    Args:
        train_loss: task → mean loss over the epoch's steps in which the task had a
            label.
        valid_loss: task → mean loss over the validation samples that have its label.
        valid: task → metric over the validation samples that have its label.
        weights: task → mean weight that the balancer gave its loss.
        steps: steps that moved the parameters.
        seconds: wall-clock time, validation included.
        best_epoch: the epoch whose weights were restored (the first is 0); `None`
            without validation.
    """

    train_loss: list[Losses] = field(default_factory=list)
    valid_loss: list[Losses] = field(default_factory=list)
    valid: list[Losses] = field(default_factory=list)
    weights: list[Losses] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def frame(self) -> pd.DataFrame:
        """One row per epoch; columns `steps`, `seconds`, and as `train_loss.digit` what
        a task has."""
        import pandas as pd

        rows = [
            {"steps": self.steps[i], "seconds": self.seconds[i]}
            | {
                f"{group}.{task}": value
                for group in ("train_loss", "valid_loss", "valid", "weights")
                for task, value in (
                    getattr(self, group)[i] if getattr(self, group) else {}
                ).items()
            }
            for i in range(len(self))
        ]
        frame: pd.DataFrame = pd.DataFrame(
            rows, index=pd.RangeIndex(len(rows), name="epoch")
        )
        return frame
