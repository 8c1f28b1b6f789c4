r"""Tasks: a task is any learning signal. It owns a head, a loss and a metric.

A target that is missing for a sample, NaN (real-valued) or −1 (class), gives neither
loss nor gradient. Shapes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import MISSING_CLASS, Batch

if TYPE_CHECKING:
    from mtmm_lib.model import Output


class Task:
    r"""Base of all tasks.

    Args:
        name: the task's name, which is also the key of its target in a `Batch`.
        reads: what the head reads: `"shared"`, the task's own feature from the sharing
            stage; `"fused"`, the fused representation; or the names of modalities,
            whose features are joined.
    """

    #: The head reads one pooled vector per sample; a dense task reads every token.
    pooled = True
    #: Counts for relative gains and for the choice of the best epoch.
    supervised = True
    higher_is_better = True
    #: Takes part in balancing. Where false, as adversaries want it, balancers other
    #: than fixed weights add the loss as it is.
    balanced = True
    #: The loss is a squared error, which uncertainty weighting reads as the likelihood
    #: of a Gaussian.
    gaussian = False

    def __init__(self, name: str, *, reads: str | Sequence[str] = "shared") -> None:
        self.name = name
        self.reads = (reads,) if isinstance(reads, str) else tuple(reads)
        #: Training progress in [0, 1], told by `fit` before every step, for schedules.
        self.progress = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def head(self, dims: dict[str, int]) -> nn.Module:
        """The module that maps what the task reads to its prediction; `dims`: source →
        width."""
        raise NotImplementedError

    def view(self, batch: Batch) -> Batch | None:
        """An altered batch that the task wants to see in place of the given one;
        `None`: no change."""
        return None

    def labelled(self, batch: Batch) -> Tensor:
        """Bool `[B]`: which samples have a target."""
        raise NotImplementedError

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The mean loss over the labelled samples, a scalar; zero when there is
        none."""
        raise NotImplementedError

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """The task's quality over the labelled samples, a scalar; NaN when there is
        none."""
        raise NotImplementedError

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""One prediction from several models' (decision fusion).

        Args:
            predictions: `[M, B, ...]`, one for each of M models.
            present: bool `[M, B]`, false where a model has no input; its prediction is
                then ignored.
            log_weights: `[M, B]`, logarithms of weights that sum to one over the
                present models, for a weighted mean; `None` for a product.
        """
        raise NotImplementedError

    def target(self, batch: Batch) -> Tensor:
        """The task's target from the batch.

        Raises:
            KeyError: when the batch has no such target.
        """
        if self.name not in batch.targets:
            raise KeyError(
                f"task {self.name!r} finds no target in the batch, which has "
                f"{sorted(batch.targets)}"
            )
        return batch.targets[self.name]


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
