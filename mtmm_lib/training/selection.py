"""The choice of the epoch: whose weights are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mtmm_lib.tasks import Task
from mtmm_lib.training.history import Losses, TrainingError

#: Validation losses of the supervised tasks that have labels, and all metrics, as
#: `evaluate` returns them → a number by which epochs are compared; the lower, the
#: better.
Select = Callable[[Losses, Losses], float]

#: Added to a loss in units of the first one, so that a loss of zero does no harm.
SMALL = 1e-6


def mean_loss(losses: Losses, metrics: Losses) -> float:
    r"""The arithmetic mean of the losses, for `select`: $\frac1T \sum_t \ell_t$.

    It depends on the units of the losses. The task with the largest one decides, and a
    target in grams instead of kilograms may choose another epoch.
    """
    return math.fsum(losses.values()) / len(losses)


def score(
    tasks: Mapping[str, Task],
    losses: Sequence[Losses],
    metrics: Losses,
    select: Select | None,
) -> float | None:
    r"""How good the weights after the last epoch are; the lower, the better.

    By default it is the mean logarithm of the validation losses, $\frac1T \sum_t \log
    (\ell_t / \ell_t^1 + \epsilon)$, with $\ell_t^1$ the first epoch's and $\epsilon =
    10^{-6}$: as good as the logarithm of their geometric mean. A loss that is
    multiplied by 1,000 in all epochs changes nothing, and with a single task the lowest
    loss is best.

    Args:
        tasks: the model's; the supervised ones that have labels count.
        losses: task → validation loss, for each epoch so far.
        metrics: after the last epoch, as `evaluate` returns them; only `select` looks
            at them.
        select: another choice.

    Returns:
        the score; `None` where there is nothing to choose by.

    Raises:
        ValueError: when by default a logarithm of a negative loss would be taken.
        TrainingError: when `select` returns NaN.
    """
    now = losses[-1]
    counted = [name for name, task in tasks.items() if task.supervised and name in now]
    if not counted:
        return None
    if select is not None:
        value = float(select({name: now[name] for name in counted}, metrics))
        if math.isnan(value):
            raise TrainingError(
                f"select returned NaN after epoch {len(losses) - 1}, for the losses "
                f"{now} and the metrics {metrics}"
            )
        return value
    logs = []
    for name in counted:
        if now[name] < 0:
            raise ValueError(
                f"the validation loss of task {name!r} is {now[name]:.4g}, and epochs "
                "are compared by the logarithms of losses, which a negative one does "
                "not have; say by `select` how to compare them, as in "
                "select=mean_loss or select=lambda losses, metrics: "
                f"losses[{name!r}]"
            )
        # A task's unit is its first loss above zero, the same in all later epochs.
        course = (epoch.get(name, 0.0) for epoch in losses)
        unit = next((loss for loss in course if loss > 0), 1.0)
        logs.append(math.log(now[name] / unit + SMALL))
    return math.fsum(logs) / len(logs)
