r"""Supervised tasks: what each sample is labelled with is predicted.

Shapes: B batch, D width, d numbers per prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.batch import MISSING_CLASS, Batch, Output, row_mask
from mtmm_lib.tasks.base import Task

#: Predictions, targets → a number; an object of torchmetrics, say.
Metric = Callable[[Tensor, Tensor], Any]


def _mean(total: Tensor, weight: Tensor) -> Tensor:
    return total / torch.where(weight > 0, weight, 1)


class Supervised(Task):
    r"""Base of the supervised tasks: a head of any depth, and any number of metrics.

    Args:
        name: the task's name, which is also the key of its target in a `Batch`.
        width: numbers that the head gives.
        reads: as in `Task`.
        hidden: widths of the head's hidden layers (ReLU); none: the head is linear.
        metrics: name → metric of torchmetrics, or any function, called as
            `metric(predictions, targets)` with readable predictions, over the samples
            that miss nothing of their target. `evaluate` returns it as `task/name`.

    Raises:
        ValueError: for a name that no part of a model can have, or a width below 1.
        TypeError: for widths that are no whole numbers, for a metric that cannot be
            called, or its class.
    """

    def __init__(
        self,
        name: str,
        width: int,
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(name, reads=reads)
        if not isinstance(hidden, Sequence) or not all(
            isinstance(size, Integral) for size in (width, *hidden)
        ):
            raise TypeError(
                f"task {name!r}: a head has a whole number of outputs (classes, labels "
                f"or dim) and a list of hidden widths, such as [64], got {width!r} and "
                f"hidden {hidden!r}"
            )
        self.width, self.hidden = width, tuple(hidden)
        if min(width, *self.hidden, 1) < 1:
            raise ValueError(
                f"task {name!r}: widths of a head are at least 1, got hidden "
                f"{list(self.hidden)} and {width} at the end"
            )
        if not isinstance(metrics or {}, Mapping):
            raise TypeError(
                f"task {name!r}: metrics is a dict from names to metrics, such as "
                f"{{'mae': MeanAbsoluteError()}}, got {metrics!r}"
            )
        self.metrics = dict(metrics or {})
        for key, metric in self.metrics.items():
            if isinstance(metric, type) or not callable(metric):
                raise TypeError(
                    f"task {name!r}: metric {key!r} is called with predictions and "
                    f"targets, such as MeanAbsoluteError(), got {metric!r}"
                )

    def head(self, dims: dict[str, int]) -> nn.Module:
        widths = [sum(dims[source] for source in self.reads), *self.hidden, self.width]
        *inner, last = [nn.Linear(a, b) for a, b in pairwise(widths)]
        if not inner:
            return last
        return nn.Sequential(*(part for x in inner for part in (x, nn.ReLU())), last)

    def compared(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        """What metrics compare: readable predictions and targets, of the S samples that
        miss nothing of their target."""
        raise NotImplementedError(self._lacks("compared(self, output, batch)"))

    def scores(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        found = super().scores(output, batch)
        if self.metrics:
            prediction, target = self.compared(output, batch)
        for name, metric in self.metrics.items():
            value = torch.tensor(torch.nan)
            if len(target):
                if isinstance(metric, nn.Module):  # one of torchmetrics has a state
                    metric.to(prediction.device)
                value = torch.as_tensor(metric(prediction, target))
                if hasattr(metric, "reset"):
                    metric.reset()
            if value.numel() != 1:
                raise ValueError(
                    f"metric {name!r} of task {self.name!r} gives "
                    f"{list(value.shape)} numbers, expected one"
                )
            found[f"{self.name}/{name}"] = value
        return found

    def _refuse(self, wrong: Tensor, batch: Batch, first: int, expected: str) -> None:
        """Raises `ValueError` for the first target where `wrong` `[B, ...]` is true."""
        if not wrong.any():
            return
        place = tuple(wrong.nonzero()[0].tolist())
        value = self.target(batch)[place].item()
        where = f", entry {list(place[1:])}," if place[1:] else ""
        raise ValueError(
            f"task {self.name!r}: the target of sample {first + place[0]}{where} is "
            f"{value}, expected {expected}"
        )

    def _expect_shape(self, fits: bool, expected: str, target: Tensor) -> None:
        if not fits:
            raise ValueError(
                f"task {self.name!r} expects a target of shape {expected}, got "
                f"{list(target.shape)}"
            )


class Classification(Supervised):
    r"""One of several classes for each sample: softmax cross-entropy and accuracy.

    $\ell = -\frac{1}{W}\sum_{i \in S} w_{y_i} \log \mathrm{softmax}(\hat y_i)_{y_i}$ in
    nats, with S the labelled samples and $W = \sum_{i \in S} w_{y_i}$; without weights,
    W is their number. With label smoothing ε, the target is $1 - \varepsilon +
    \varepsilon/C$ for the class and $\varepsilon/C$ for each of the C − 1 others
    (Szegedy et al., 2016), whose terms have their own weights. This is what
    `torch.nn.CrossEntropyLoss` computes.

    Args:
        name, reads, hidden, metrics: as in `Supervised`.
        classes: how many, C.
        class_weights: a weight for each class: rare ones may count more.
        label_smoothing: ε in [0, 1).

    Raises:
        ValueError: for fewer than two classes, or weights that are not one number ≥ 0
            for each class, some above 0.
        TypeError: for weights that are no list.

    Shapes: target, whole numbers `[B]`, −1 where missing; prediction (logits) and what
    is readable (probabilities) `[B, classes]`.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(name, classes, reads=reads, hidden=hidden, metrics=metrics)
        if classes < 2:
            raise ValueError(
                f"task {name!r} needs at least two classes, got {classes}; for yes and "
                "no take two"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"task {name!r}: label_smoothing lies in [0, 1), got {label_smoothing}"
            )
        self.classes, self.label_smoothing = classes, label_smoothing
        self.class_weights = None
        if class_weights is not None:
            if isinstance(class_weights, Mapping | str):
                raise TypeError(
                    f"task {name!r}: class_weights is a list of {classes} numbers, in "
                    f"the order of the classes, got {class_weights!r}"
                )
            weights = torch.as_tensor(class_weights, dtype=torch.get_default_dtype())
            if (
                weights.shape != (classes,)
                or not (weights.isfinite() & (weights >= 0)).all()
                or not weights.any()
            ):
                raise ValueError(
                    f"task {name!r}: class_weights are {classes} numbers, none below "
                    f"0 and some above, got {weights.tolist()}"
                )
            self.class_weights = weights

    def target(self, batch: Batch) -> Tensor:
        target = super().target(batch)
        if target.is_floating_point() or target.is_complex():
            raise ValueError(
                f"task {self.name!r} expects whole numbers 0 … {self.classes - 1} as "
                f"classes, and −1 where one is missing, got {target.dtype}: convert by "
                "target.nan_to_num(-1).long(), or a pandas column by "
                ".astype('category') before Batch.from_arrays; real numbers belong to "
                "Regression"
            )
        return target.long()

    def check(self, batch: Batch, first: int = 0) -> None:
        target = self.target(batch)
        if self.pooled:
            self._expect_shape(target.dim() == 1, "[B]", target)
        self._refuse(
            (target < MISSING_CLASS) | (target >= self.classes),
            batch,
            first,
            f"a class from 0 to {self.classes - 1}, or −1, the mark of a missing label",
        )

    def weight(self, batch: Batch) -> Tensor:
        target = self.target(batch)
        kept = target != MISSING_CLASS
        if self.class_weights is None:
            return kept.sum()
        weights = self.class_weights.to(target.device)
        return torch.where(kept, weights[target.clamp(min=0)], 0).sum()

    def logits(self, output: Output, target: Tensor) -> Tensor:
        """The prediction `[..., classes]`, a row for each entry of the target."""
        prediction = output.predictions[self.name]
        if prediction.shape[:-1] != target.shape:
            self._expect_shape(False, str(list(prediction.shape[:-1])), target)
        return prediction

    def loss(self, output: Output, batch: Batch) -> Tensor:
        target, weights = self.target(batch), self.class_weights
        logits = self.logits(output, target)
        if weights is None and self.name in batch.complete:
            return F.cross_entropy(
                logits.flatten(0, -2),
                target.flatten(),
                label_smoothing=self.label_smoothing,
            )
        total = F.cross_entropy(
            logits.flatten(0, -2),
            target.flatten(),
            None if weights is None else weights.to(logits),
            ignore_index=MISSING_CLASS,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return _mean(total, self.weight(batch))

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """Accuracy: the share of labels that are the class of the largest logit, in
        [0, 1]."""
        target = self.target(batch)
        right = self.logits(output, target).argmax(-1) == target
        return right[target != MISSING_CLASS].float().mean()  # NaN of none

    def compared(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        target = self.target(batch)
        kept = target != MISSING_CLASS
        return self.readable(self.logits(output, target)[kept].float()), target[kept]

    def readable(self, prediction: Tensor) -> Tensor:
        """Probabilities, which sum to one over the classes."""
        return prediction.softmax(-1)

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""Mean: $\log\sum_m w_m p_m$. Product: $\sum_m \log p_m$ over the present, a
        logit."""
        log_p = predictions.log_softmax(-1)
        if log_weights is None:
            return torch.where(row_mask(present, log_p), log_p, 0).sum(0)
        return torch.logsumexp(log_p + row_mask(log_weights, log_p), 0)


class Ordinal(Classification):
    r"""One of several classes in an order, such as grades: cumulative logits.

    One score s for each sample and one threshold between each two neighbours,
    $\theta_1 < \dots < \theta_{C-1}$: $P(y \ge k) = \sigma(s - \theta_k)$, the model of
    proportional odds (McCullagh, 1980). The loss is the mean of $-\log P(y = y_i)$ over
    the labelled samples, in nats. To be off by one class costs less than to be off by
    two, and C − 1 thresholds in place of C rows of weights need fewer samples.

    Args:
        name, reads, hidden, metrics: as in `Supervised`.
        classes: how many, C, numbered in their order.

    Raises:
        ValueError: for fewer than two classes.

    Shapes: target, whole numbers `[B]`, −1 where missing; prediction
    (log-probabilities) and what is readable (probabilities) `[B, classes]`.
    """

    higher_is_better = False

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(name, classes, reads=reads, hidden=hidden, metrics=metrics)
        self.width = 1

    def head(self, dims: dict[str, int]) -> nn.Module:
        return _Cumulative(super().head(dims), self.classes)

    def metric(self, output: Output, batch: Batch) -> Tensor:
        r"""Mean absolute error of the median class, in classes: 0 where all are right.
        The median is the first class with $P(y \le k) \ge 1/2$; no other class has a
        smaller expected error."""
        probabilities, target = self.compared(output, batch)
        median = (probabilities.cumsum(-1)[..., :-1] < 0.5).sum(-1)
        return (median - target).abs().float().mean()  # NaN of none


class _Cumulative(nn.Module):
    """Log-probabilities of ordered classes, from a score and thresholds.

    The first threshold stands still: the score has a bias. The others follow at
    distances above zero, which are learned; at first, where the score is zero, all
    classes are equally probable.
    """

    def __init__(self, score: nn.Module, classes: int) -> None:
        super().__init__()
        self.score = score
        at = (torch.arange(1, classes) / classes).logit()
        self.first = float(at[0])
        # softplus of it is the distance
        self.distance = nn.Parameter(at.diff().expm1().log())

    def forward(self, x: Tensor) -> Tensor:
        gaps = F.softplus(self.distance)
        over = self.score(x) - self.first - F.pad(gaps.cumsum(0), (1, 0))  # s − θ
        # With a = s − θ_k and b = s − θ_(k+1), both sides of a class between them:
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)), where nothing is lost by rounding.
        above, below = (
            F.pad(F.logsigmoid(over), (1, 0)),
            F.pad(F.logsigmoid(-over), (0, 1)),
        )
        return above + below + F.pad((-(-gaps).expm1()).log(), (1, 1))


class MultiLabel(Supervised):
    r"""Several questions of yes or no for each sample: binary cross-entropy, and the F1
    score, averaged over the labels.

    $\ell = -\frac{1}{|S|}\sum_{(i, j) \in S} \log \sigma(\pm \hat y_{ij})$ in nats,
    with + for yes and − for no; S are the entries of the targets that are there.

    Args:
        name, reads, hidden, metrics: as in `Supervised`.
        labels: how many questions.

    Raises:
        ValueError: for fewer than two labels.

    Shapes: target `[B, labels]`, 1 for yes, 0 for no, −1 (or NaN, in real numbers)
    where missing; prediction (logits) and what is readable (probabilities of yes)
    `[B, labels]`.
    """

    def __init__(
        self,
        name: str,
        labels: int,
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(name, labels, reads=reads, hidden=hidden, metrics=metrics)
        if labels < 2:
            raise ValueError(
                f"task {name!r} needs at least two labels, got {labels}; for one "
                f"question take Classification({name!r}, 2)"
            )
        self.labels = labels

    def target(self, batch: Batch) -> Tensor:
        target = super().target(batch)
        self._expect_shape(
            target.dim() == 2 and target.shape[1] == self.labels,
            f"[B, {self.labels}]",
            target,
        )
        return target

    def check(self, batch: Batch, first: int = 0) -> None:
        target = self.target(batch)
        fine = (target == 0) | (target == 1) | (target == MISSING_CLASS)
        self._refuse(
            ~(fine | target.isnan()),
            batch,
            first,
            "1 for yes, 0 for no, or −1, the mark of a missing label",
        )

    def labelled(self, batch: Batch) -> Tensor:
        return (self.target(batch) >= 0).any(1)  # NaN is not

    def weight(self, batch: Batch) -> Tensor:
        return (self.target(batch) >= 0).sum()

    def loss(self, output: Output, batch: Batch) -> Tensor:
        logits, target = output.predictions[self.name], self.target(batch)
        kept = target >= 0
        each = F.binary_cross_entropy_with_logits(
            logits, torch.where(kept, target, 0).to(logits.dtype), reduction="none"
        )
        return _mean(torch.where(kept, each, 0).sum(), kept.sum())

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """F1 = 2 TP / (2 TP + FP + FN) for each label, with yes where p > ½, and the
        plain mean over the labels (macro); 0 for a label that nobody has and nobody is
        said to have, and none for one that is missing everywhere."""
        from torchmetrics.functional.classification import multilabel_f1_score

        target = self.target(batch)
        kept = target >= 0
        scores = multilabel_f1_score(
            self.readable(output.predictions[self.name].float()),
            torch.where(kept, target, MISSING_CLASS).long(),
            self.labels,
            average="none",
            ignore_index=MISSING_CLASS,
        )
        return scores[kept.any(0)].mean()  # NaN of none

    def compared(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        target = self.target(batch)
        kept = (target >= 0).all(1)
        prediction = output.predictions[self.name][kept].float()
        return self.readable(prediction), target[kept].long()

    def readable(self, prediction: Tensor) -> Tensor:
        """The probability of yes, for each label by itself."""
        return prediction.sigmoid()

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""For each label by itself, as a logit. Mean: of
        $p = \sum_m w_m \sigma(\hat y_m)$. Product: $\sum_m \hat y_m$ over the present,
        which multiplies the odds."""
        if log_weights is None:
            return torch.where(row_mask(present, predictions), predictions, 0).sum(0)
        weights = row_mask(log_weights, predictions)
        yes, no = (
            torch.logsumexp(F.logsigmoid(z) + weights, 0)
            for z in (predictions, -predictions)
        )
        return yes - no


#: How `Regression` may measure an error e: e², |e|, or e²/2 near zero and |e| − ½ from
#: one on.
RegressionLoss = Literal["mse", "mae", "huber"]
_ERRORS: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


class Regression(Supervised):
    r"""One or several real numbers for each sample: mean squared error, and its root as
    the metric.

    $\ell = \frac{1}{|S|}\sum_{(i, j) \in S} \rho(\hat y_{ij} - y_{ij})$, S the entries
    of the targets that are there, so that a sample with half of its target counts half.
    $\rho(e)$ is $e^2$ (`"mse"`), $|e|$ (`"mae"`), or $e^2/2$ up to $|e| = 1$ and
    $|e| - 1/2$ beyond (`"huber"`; Huber, 1964), in the target's units: bring targets to
    about unit scale. The metric does not depend on the choice, so that losses can be
    compared by it.

    Args:
        name, reads, hidden, metrics: as in `Supervised`.
        dim: numbers for each sample, d.
        loss: how an error counts.

    Raises:
        ValueError: for an unknown loss, or `dim` below 1.

    Shapes: target `[B]` (for `dim=1`) or `[B, dim]`, NaN where missing; prediction
    `[B, dim]`; readable `[B]` for `dim=1`, otherwise `[B, dim]`.
    """

    higher_is_better = False

    def __init__(
        self,
        name: str,
        dim: int = 1,
        *,
        reads: str | Sequence[str] = "shared",
        hidden: Sequence[int] = (),
        metrics: Mapping[str, Metric] | None = None,
        loss: RegressionLoss = "mse",
    ) -> None:
        super().__init__(name, dim, reads=reads, hidden=hidden, metrics=metrics)
        if loss not in get_args(RegressionLoss):
            raise ValueError(
                f"task {name!r}: loss is one of {list(get_args(RegressionLoss))}, got "
                f"{loss!r}"
            )
        self.dim, self.error = dim, loss
        self.gaussian = loss == "mse"

    def target(self, batch: Batch) -> Tensor:
        target = super().target(batch)
        # counts are real numbers too, and NaN is to be the mark of a missing one
        return (
            target
            if target.is_floating_point()
            else target.to(torch.get_default_dtype())
        )

    def _target(self, batch: Batch) -> Tensor:
        target = self.target(batch)
        # `[B] - [B, 1]` would silently broadcast to `[B, B]`.
        column = target.unsqueeze(1) if target.dim() == 1 else target
        self._expect_shape(
            column.dim() == 2 and column.shape[1] == self.dim,
            "[B] or [B, 1]" if self.dim == 1 else f"[B, {self.dim}]",
            target,
        )
        return column

    def check(self, batch: Batch, first: int = 0) -> None:
        self._target(batch)  # its shape
        self._refuse(
            self.target(batch).isinf(),
            batch,
            first,
            "a finite number, or NaN, the mark of a missing one",
        )

    def labelled(self, batch: Batch) -> Tensor:
        return ~self._target(batch).isnan().all(1)

    def weight(self, batch: Batch) -> Tensor:
        return (~self._target(batch).isnan()).sum()

    def loss(self, output: Output, batch: Batch) -> Tensor:
        prediction, target = output.predictions[self.name], self._target(batch)
        # at least single precision, and double only where the model has it
        precision = torch.promote_types(prediction.dtype, torch.float32)
        prediction, target = prediction.to(precision), target.to(precision)
        measure = _ERRORS[self.error]
        if self.name in batch.complete:
            return measure(prediction, target)
        kept = ~target.isnan()
        # zero with zero gradient where nothing is known
        known = torch.where(kept, prediction, 0), torch.where(kept, target, 0)
        return _mean(measure(*known, reduction="sum"), kept.sum())

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """Root mean squared error over the entries that are there, in the target's
        units."""
        from torchmetrics.functional import mean_squared_error

        target = self._target(batch)
        kept = ~target.isnan()
        if not kept.any():
            return torch.tensor(torch.nan)
        return mean_squared_error(
            output.predictions[self.name][kept].float(), target[kept], squared=False
        )

    def compared(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        target = self._target(batch)
        kept = ~target.isnan().any(1)
        prediction = output.predictions[self.name][kept].float()
        return self.readable(prediction), self.readable(target[kept].float())

    def readable(self, prediction: Tensor) -> Tensor:
        """Values in the target's units."""
        return prediction.squeeze(-1) if self.dim == 1 else prediction

    def combine(
        self, predictions: Tensor, present: Tensor, log_weights: Tensor | None
    ) -> Tensor:
        r"""Mean: $\sum_m w_m \hat y_m$. Product of Gaussians of equal variance: the
        plain mean."""
        if log_weights is None:
            log_weights = torch.where(present, 0.0, -torch.inf).log_softmax(0)
        return (row_mask(log_weights.exp(), predictions) * predictions).sum(0)
