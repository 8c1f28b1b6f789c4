r"""Tasks: a task is any learning signal. It owns a head, a loss and a metric.

A target that is missing for a sample, NaN (real-valued) or −1 (class), gives neither
loss nor gradient. Shapes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from torch import Tensor, nn

from mtmm_lib.batch import MISSING_CLASS, Batch, Output, usable

_progress: ContextVar[float] = ContextVar("training_progress", default=1.0)


def training_progress() -> float:
    """How far training has come, in [0, 1], for whatever follows a schedule: a loss, a
    view, a head.

    Within a step of `fit` or `fit_many` it is the part of all steps that lie behind;
    everywhere else, in evaluation and after training, it is 1.
    """
    return _progress.get()


class at_progress:  # noqa: N801
    """A context in which `training_progress()` is `value`: for a training loop of one's
    own."""

    # By hand: it runs at every step, and `contextmanager` takes three times as long.
    def __init__(self, value: float) -> None:
        self._value = value

    def __enter__(self) -> None:
        self._token = _progress.set(self._value)

    def __exit__(self, *error: object) -> None:
        _progress.reset(self._token)


class Task:
    r"""Base of all tasks.

    A task of your own defines its head (`head`), what it minimises (`loss`) and how
    good it is (`metric`), and overrides the rest where its answer is another than here.
    Where only the loss is new, derive from a supervised task. For a learning signal
    without a target, set `supervised` to false and say in `labelled` which samples
    count.

    Args:
        name: the task's name, which is also the key of its target in a `Batch`.
        reads: what the head reads: `"shared"`, the task's own feature from the sharing
            stage; `"fused"`, the fused representation; or the names of modalities,
            whose features are joined.

    Raises:
        ValueError: for a name that no part of a model can have.
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
        self.name = usable(name, "task")
        self.reads = (reads,) if isinstance(reads, str) else tuple(reads)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def head(self, dims: dict[str, int]) -> nn.Module:
        """The module that maps what the task reads to its prediction; `dims`: source →
        width."""
        raise NotImplementedError(self._lacks("head(self, dims)"))

    def view(self, batch: Batch) -> Batch | None:
        """An altered batch that the task wants to see in place of the given one;
        `None`: no change."""
        return None

    def check(self, batch: Batch, first: int = 0) -> None:
        """Refuses targets that the task cannot learn from; asked before training.

        Args:
            batch: the data, or a part of it.
            first: the index in the data of the batch's first sample, for messages.

        Raises:
            KeyError: when the task needs a target and the batch has none.
            ValueError: for a wrong dtype or shape, or a value out of range (named: the
                task, the value, the sample's index in the data).
        """
        if self.supervised:
            self.target(batch)

    def labelled(self, batch: Batch) -> Tensor:
        """Bool `[B]`: which samples have a target, or any entry of one."""
        target = self.target(batch)
        there = (
            ~target.isnan() if target.is_floating_point() else target != MISSING_CLASS
        )
        return there.flatten(1).any(1) if there.dim() > 1 else there

    def weight(self, batch: Batch) -> Tensor:
        """What the mean of `loss` divides by, a scalar: the number of labels, or the
        sum of their weights. Losses of parts of the data, averaged with these weights,
        give the loss of the whole."""
        return self.labelled(batch).sum()

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The mean loss over the labelled samples, a scalar; zero when there is
        none."""
        raise NotImplementedError(self._lacks("loss(self, output, batch)"))

    def metric(self, output: Output, batch: Batch) -> Tensor:
        """The task's quality over the labelled samples, a scalar; NaN when there is
        none."""
        raise NotImplementedError(self._lacks("metric(self, output, batch)"))

    def scores(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Everything that is measured: the metric under the task's name, further ones
        under `task/metric`."""
        return {self.name: self.metric(output, batch)}

    def readable(self, prediction: Tensor) -> Tensor:
        """A prediction of the head on the scale that a person reads, such as
        probabilities in place of logits; here: as it is."""
        return prediction

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
        raise NotImplementedError(
            self._lacks("combine(self, predictions, present, log_weights)")
        )

    def target(self, batch: Batch) -> Tensor:
        """The task's target from the batch.

        Labels, weight, loss and metrics of the supervised tasks all rest on it: a task
        that learns from some samples alone overrides this, and marks the others'
        targets as missing.

        Raises:
            KeyError: when the batch has no such target.
        """
        if self.name not in batch.targets:
            raise KeyError(
                f"task {self.name!r} finds no target in the batch, which has "
                f"{sorted(batch.targets)}"
            )
        return batch.targets[self.name]

    def _lacks(self, method: str) -> str:
        return f"{type(self).__name__}, task {self.name!r}, has to define {method}"
