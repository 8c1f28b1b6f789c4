r"""Supervised tasks: what each sample is labelled with is predicted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import MISSING_CLASS, Batch, Output
from mtmm_lib.tasks.base import Task


def _mean_over(values: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)


def _columns(like: Tensor, over: Tensor) -> Tensor:
    return like.reshape(like.shape + (1,) * (over.dim() - like.dim()))


class Classification(Task):
    r"""One of several classes for each sample: softmax cross-entropy and accuracy.

    $\ell = -\frac{1}{|S|}\sum_{i \in S}\log \mathrm{softmax}(\hat y_i)_{y_i}$ in nats,
    with S the labelled samples. Shapes: target int `[B]`, −1 where missing; prediction
    (logits) `[B, classes]`.
    """

    def __init__(
        self, name: str, classes: int, *, reads: str | Sequence[str] = "shared"
    ) -> None:
        super().__init__(name, reads=reads)
        self.classes = classes

    def head(self, dims: dict[str, int]) -> nn.Module:
        return nn.Linear(sum(dims[source] for source in self.reads), self.classes)

    def labelled(self, batch: Batch) -> Tensor:
        return self.target(batch) != MISSING_CLASS

    def loss(self, output: Output, batch: Batch) -> Tensor:
        target, kept = self.target(batch), self.labelled(batch)
        each = F.cross_entropy(
            output.predictions[self.name], target.clamp(min=0), reduction="none"
        )
        return _mean_over(each, kept)

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """Accuracy: the share of labelled samples whose largest logit is the target's,
        in [0, 1]."""
        from torchmetrics.functional.classification import multiclass_accuracy

        kept = self.labelled(batch)
        if not kept.any():
            return torch.tensor(float("nan"))
        return multiclass_accuracy(
            output.predictions[self.name][kept].float(),
            self.target(batch)[kept],
            self.classes,
            average="micro",
        )

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""Mean: $\log\sum_m w_m p_m$. Product: $\sum_m \log p_m$ over the present, a
        logit."""
        log_p = predictions.log_softmax(-1)
        if log_weights is None:
            return torch.where(_columns(present, log_p), log_p, 0).sum(0)
        return torch.logsumexp(log_p + _columns(log_weights, log_p), 0)


class Regression(Task):
    r"""One or several real numbers for each sample: mean squared error, and its root as
    the metric.

    $\ell = \frac{1}{|S|\,d}\sum_{i \in S}\lVert\hat y_i - y_i\rVert^2$, S the labelled
    samples, d = `dim`. Shapes: target `[B]` (for `dim=1`) or `[B, dim]`, NaN where
    missing; prediction `[B, dim]`.
    """

    higher_is_better = False
    gaussian = True

    def __init__(
        self, name: str, dim: int = 1, *, reads: str | Sequence[str] = "shared"
    ) -> None:
        super().__init__(name, reads=reads)
        self.dim = dim

    def head(self, dims: dict[str, int]) -> nn.Module:
        return nn.Linear(sum(dims[source] for source in self.reads), self.dim)

    def _target(self, batch: Batch) -> Tensor:
        target = self.target(batch)
        # `[B] - [B, 1]` would silently broadcast to `[B, B]`.
        target = target.unsqueeze(1) if target.dim() == 1 else target
        if target.dim() != 2 or target.shape[1] != self.dim:
            expected = "[B] or [B, 1]" if self.dim == 1 else f"[B, {self.dim}]"
            raise ValueError(
                f"task {self.name!r} expects a target of shape {expected}, got "
                f"{list(target.shape)}"
            )
        return target

    def labelled(self, batch: Batch) -> Tensor:
        return ~self._target(batch).isnan().any(1)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        kept = self.labelled(batch)
        target = torch.where(kept.unsqueeze(1), self._target(batch), 0)
        return _mean_over(
            (output.predictions[self.name] - target).square().mean(1), kept
        )

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """Root mean squared error over the labelled samples, in the target's units."""
        from torchmetrics.functional import mean_squared_error

        kept = self.labelled(batch)
        if not kept.any():
            return torch.tensor(float("nan"))
        return mean_squared_error(
            output.predictions[self.name][kept].float(),
            self._target(batch)[kept],
            squared=False,
        )

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""Mean: $\sum_m w_m \hat y_m$. Product of Gaussians of equal variance: the
        plain mean."""
        if log_weights is None:
            log_weights = torch.where(present, 0.0, -torch.inf).log_softmax(0)
        return (_columns(log_weights.exp(), predictions) * predictions).sum(0)
